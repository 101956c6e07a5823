"""DeformNetwork: a second stage that moves and thickens a prediction by a smooth warp.

A correction voxel by voxel can tear a sheet or join two; a warp that can be undone (the flow of a
velocity field) keeps every piece one piece and every hole a hole, and still puts a shifted or
thinned sheet where the image shows it.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

from vesuvius.errors import ConfigError
from vesuvius.models.refine import check_second_stage, check_two_channels
from vesuvius.models.surface_network import Head3D

LOGIT_LIMIT = 5.5
"""Greatest logit of a prior: 255 stored levels end at +-5.5."""


class DeformNetwork(nn.Module):
    """Warps a former prediction along a stationary velocity field that a U-Net reads off the image.

    The backbone's normals head (three channels in [-1, 1]) is the velocity in units of
    `max_speed` voxels; it starts at 0, so that the first output is the former prediction. The
    warped logit gets a learned gain and bias, and with `evidence` the backbone's own surface logit
    besides, which alone can open or close what no warp can.

    Args:
        backbone: surface network with two input channels and a normals head.
        max_speed: greatest length of a component of the velocity, voxels.
        steps: squarings; 2^steps small steps are composed.
        stride: the velocity is averaged over blocks of so many voxels before integration.
        evidence: add the backbone's surface logit, which starts at 0.

    Raises:
        ConfigError: a number out of range, or a backbone that lacks a head or a channel.

    Source: Arsigny et al. 2006 (scaling and squaring); Dalca et al. 2019 (networks); for masks of
    sheets: 10th place of the Vesuvius Surface Detection challenge, 2026.
    """

    in_channels = 2
    heads = ("surface_logit", "velocity")

    def __init__(
        self,
        *,
        backbone: nn.Module,
        max_speed: float = 4.0,
        steps: int = 4,
        stride: int = 2,
        evidence: bool = False,
    ) -> None:
        super().__init__()
        check_second_stage("DeformNetwork", backbone)
        head = _convolution(getattr(backbone, "normals_head", None))
        surface = _convolution(getattr(backbone, "surface_head", None))
        if head is None or surface is None:
            raise ConfigError(
                "DeformNetwork reads the velocity from the normals head: choose a backbone with "
                "model.backbone.normals_head=true and heads of 1^3 convolutions, such as "
                "DualHeadResUNet3D."
            )
        if max_speed <= 0 or steps < 1 or stride < 1:
            raise ConfigError(
                f"model.max_speed={max_speed} must be > 0, model.steps={steps} and model.stride="
                f"{stride} >= 1."
            )
        for conv in (head, surface) if evidence else (head,):
            assert conv.bias is not None
            nn.init.zeros_(conv.weight)
            nn.init.zeros_(conv.bias)
        if not evidence:
            surface.requires_grad_(requires_grad=False)
        self.backbone = backbone
        self.max_speed, self.steps, self.stride = max_speed, steps, stride
        self.evidence = evidence
        self.gain = nn.Parameter(torch.ones(()))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, image: Float[Tensor, "b 2 z y x"]) -> dict[str, Tensor]:
        """Return the warped prediction and what warped it.

        Returns:
            surface_logit: (b, 1, z, y, x).
            velocity: (b, 3, z, y, x) voxels, components z, y, x, float32.

        Raises:
            ShapeMismatchError: not two channels.
        """
        check_two_channels(image)
        outputs: dict[str, Tensor] = self.backbone(image)
        velocity = outputs["normals"].float() * self.max_speed
        prior = torch.logit(image[:, 1:].float(), eps=1e-6).clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
        with torch.autocast(image.device.type, enabled=False):  # bf16 holds places to 1/4 voxel
            moved = warp(prior, self.displacement(velocity))
            logit = self.gain * moved + self.bias
        if self.evidence:
            logit = logit + outputs["surface_logit"].float()
        return {"surface_logit": logit, "velocity": velocity}

    def displacement(self, velocity: Float[Tensor, "b 3 z y x"]) -> Float[Tensor, "b 3 z y x"]:
        """Return the flow of the velocity at time 1, integrated on the coarser grid."""
        shape = velocity.shape[2:]
        if self.stride == 1:
            return integrate(velocity, self.steps)
        coarse = F.avg_pool3d(velocity, self.stride, ceil_mode=True, count_include_pad=False)
        sizes = torch.tensor(
            [c / n for c, n in zip(coarse.shape[2:], shape, strict=True)], device=velocity.device
        ).view(1, 3, 1, 1, 1)
        flow = integrate(coarse * sizes, self.steps) / sizes
        return F.interpolate(flow, size=shape, mode="trilinear", align_corners=False)


def _convolution(head: nn.Module | None) -> nn.Conv3d | None:
    """Return what a head multiplies its features with, None for other heads."""
    conv = head.conv if isinstance(head, Head3D) else head
    return conv if isinstance(conv, nn.Conv3d) else None


def integrate(velocity: Float[Tensor, "b 3 z y x"], steps: int) -> Float[Tensor, "b 3 z y x"]:
    """Return the displacement of flowing along a stationary velocity (voxels) for time 1.

    Scaling and squaring: u = v / 2^steps, then `steps` times u(x) <- u(x) + u(x + u(x)).
    """
    displacement: Tensor = velocity / float(2**steps)
    for _ in range(steps):
        displacement = displacement + warp(displacement, displacement)
    return displacement


def warp(
    volume: Float[Tensor, "b c z y x"], displacement: Float[Tensor, "b 3 z y x"]
) -> Float[Tensor, "b c z y x"]:
    """Return volume(x + displacement(x)), trilinear; beyond the faces the nearest voxel.

    Args:
        volume: what is moved.
        displacement: in voxels, components z, y, x.
    """
    shape = volume.shape[2:]
    axes = [
        (2 * torch.arange(n, device=volume.device, dtype=displacement.dtype) + 1) / n - 1
        for n in shape
    ]
    identity = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    half = torch.tensor([n / 2 for n in shape], device=volume.device, dtype=displacement.dtype)
    grid = (identity + displacement.movedim(1, -1) / half).flip(-1)
    return F.grid_sample(volume, grid, mode="bilinear", padding_mode="border", align_corners=False)
