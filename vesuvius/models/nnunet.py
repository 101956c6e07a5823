"""Networks imported from nnU-Net, as a surface network of this package."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

from vesuvius.errors import ConfigError, ShapeMismatchError
from vesuvius.models.residual_encoder_unet import PlanUNet3D


class NnunetSurface(nn.Module):
    """One network of each fold behind the interface of our surface networks.

    `forward` serves what predicts window by window (blocks of a scroll, export, benchmark). It
    needs a normalisation with constants ("CT", RGB, none). One that measures each whole volume
    cannot be done in a window; `infer.py` does it, and blends as nnU-Net does.

    Args:
        networks: U-Nets of equal heads, one a fold; their logits are averaged.
        head: channel of the surface in the logits.
        softmax: heads are classes of one softmax; False: regions, each with its own sigmoid.
        grey_max: stored grey value that 1.0 stands for (255 for uint8).
        constants: (low, high, mean, std): grey values are clipped to [low, high], then shifted
            and scaled; None = measured in each volume.
        transpose: axis of the image that each axis of the network shows.

    Raises:
        ConfigError: no network, a head that is not there.
    """

    def __init__(
        self,
        *,
        networks: Sequence[PlanUNet3D],
        head: int = 1,
        softmax: bool = True,
        grey_max: float = 255.0,
        constants: Sequence[float] | None = None,
        transpose: Sequence[int] = (0, 1, 2),
    ) -> None:
        super().__init__()
        if not networks:
            raise ConfigError("networks is empty; expected one for each fold")
        if any(not 0 <= head < network.num_classes for network in networks):
            raise ConfigError(f"head is {head}; the network has {networks[0].num_classes} heads")
        self.networks = nn.ModuleList(networks)
        self.in_channels = networks[0].in_channels
        self.head, self.softmax, self.grey_max = head, softmax, float(grey_max)
        self.constants = None if constants is None else tuple(float(v) for v in constants)
        self.divisor = networks[0].divisor_zyx
        self.transpose = tuple(int(axis) for axis in transpose)

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the outputs, the keys of what `forward` returns."""
        return ("surface_logit",)

    def forward(self, image: Float[Tensor, "b 1 z y x"]) -> dict[str, Tensor]:
        """Return {"surface_logit": (b, 1, z, y, x)} of an image in [0, 1] of any (z, y, x).

        Raises:
            ConfigError: this model normalises by each whole volume.
            ShapeMismatchError: not (b, 1, z, y, x).
        """
        if self.constants is None:
            raise ConfigError(
                "This nnU-Net model normalises by figures of each whole volume (z-score, rescale), "
                "which windows do not show. Predict with infer.py, which measures them, or train "
                "nnU-Net with the channel name 'CT', whose figures are constants."
            )
        if image.dim() != 5 or image.shape[1] != self.in_channels:
            raise ShapeMismatchError(
                f"image has shape {tuple(image.shape)}; expected (b, {self.in_channels}, z, y, x)."
            )
        low, high, mean, std = self.constants
        normal = ((image * self.grey_max).clamp(low, high) - mean) / std
        axes = [0, 1, *(axis + 2 for axis in self.transpose)]
        normal = normal.permute(axes)
        size = normal.shape[2:]
        pad = [(-n) % d for n, d in zip(size, self.divisor, strict=True)]
        if any(pad):
            normal = F.pad(normal, (0, pad[2], 0, pad[1], 0, pad[0]), mode="replicate")
        logit = self.surface_logit(self.logits(normal))
        back = [0, 1, *(self.transpose.index(axis) + 2 for axis in range(3))]
        return {"surface_logit": logit[:, :, : size[0], : size[1], : size[2]].permute(back)}

    def logits(self, normal: Float[Tensor, "b 1 z y x"]) -> Float[Tensor, "b n z y x"]:
        """Return the folds' mean logits of a normalised image in the network's axis order."""
        total = torch.stack([network(normal) for network in self.networks])
        return total.mean(0)

    def surface_logit(self, logits: Float[Tensor, "b n z y x"]) -> Float[Tensor, "b 1 z y x"]:
        """Return what a sigmoid turns into the surface's probability."""
        surface = logits[:, self.head : self.head + 1]
        if not self.softmax:
            return surface
        others = [k for k in range(logits.shape[1]) if k != self.head]
        return surface - logits[:, others].logsumexp(1, keepdim=True)


def constants_of(
    scheme: str, *, mean: float, std: float, low: float, high: float
) -> tuple[float, float, float, float] | None:
    """Return (low, high, mean, std) of a scheme with constants; None if it measures the volume.

    Args:
        scheme: nnU-Net's class name.
        mean: of the foreground's grey values.
        std: their deviation.
        low: their 0.5th percentile.
        high: their 99.5th percentile.
    """
    if scheme == "CTNormalization":
        return low, high, mean, max(std, 1e-8)
    if scheme == "RGBTo01Normalization":
        return -math.inf, math.inf, 0.0, 255.0
    if scheme == "NoNormalization":
        return -math.inf, math.inf, 0.0, 1.0
    return None
