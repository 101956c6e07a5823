"""Surface Dice loss: clDice for sheets, with medial surfaces that take no part in the gradient."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int
from torch import Tensor

from vesuvius.errors import ConfigError
from vesuvius.losses.cldice import surface_probability
from vesuvius.losses.composite import LossTerm
from vesuvius.losses.soft_skeleton import dilate, soft_skeleton


def greatest_near(
    volume: Float[Tensor, "b 1 z y x"], where: Int[Tensor, "n 5"], reach: int
) -> Float[Tensor, " n"]:
    """Return the greatest value within `reach` voxels along each axis of some voxels."""
    padded = F.pad(volume, (reach,) * 6)
    width = torch.tensor([1, 1, *padded.shape[2:]], device=volume.device)
    strides = width.flip(0).cumprod(0).flip(0) // width
    strides[0] = padded[0].numel()
    centres = ((where + where.new_tensor([0, 0, reach, reach, reach])) * strides).sum(1)
    steps = torch.arange(-reach, reach + 1, device=volume.device)
    z, y, x = torch.meshgrid(steps, steps, steps, indexing="ij")
    offsets = (z * strides[2] + y * strides[3] + x).flatten()
    return padded.flatten()[centres[:, None] + offsets].amax(1)


class SurfaceDiceLoss(LossTerm):
    """1 - 2 P S / (P + S) per sample, mean over samples.

    P = (sum m p t' + s) / (sum m p + s): how much of the predicted medial surface lies in the
    label; S = (sum k p' + s) / (sum k + s): how much of the label's medial surface k is found.
    m is the soft medial surface of the prediction, held fixed: gradients flow through p alone, so
    the step costs two skeletons of a few erosions without their backward pass. t' and p' are the
    label and the prediction enlarged by `tolerance` voxels; ignored voxels take no part.

    Args:
        max_half_thickness: half the thickest sheet in voxels, rounded up.
        tolerance: voxels by which the two surfaces may miss each other. The official surface Dice
            allows 2; at 0 the label's own thickness is the tolerance, as in clDice.
        smooth: s; a crop without surface and without prediction costs nothing.

    Source: Shit et al., clDice, CVPR 2021, equations 1 and 2, with medial surfaces; the fixed
    skeleton and the tolerance are own.
    """

    def __init__(
        self, *, max_half_thickness: int = 4, tolerance: int = 1, smooth: float = 1.0
    ) -> None:
        super().__init__()
        if max_half_thickness < 1 or tolerance < 0:
            raise ConfigError(
                f"SurfaceDiceLoss max_half_thickness={max_half_thickness} must be >= 1, "
                f"tolerance={tolerance} >= 0."
            )
        if smooth <= 0:
            raise ConfigError(f"SurfaceDiceLoss smooth={smooth}; expected > 0.")
        self.max_half_thickness = max_half_thickness
        self.tolerance = tolerance
        self.smooth = smooth

    def _medial(
        self, volume: Float[Tensor, "b 1 z y x"], ignored: Tensor | None
    ) -> Float[Tensor, "b 1 z y x"]:
        with torch.no_grad():
            return soft_skeleton(volume, iterations=self.max_half_thickness, ignored=ignored)

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """Return the mean loss in [0, 1] of `surface_logit` (1 or 2 channels)."""
        surface, valid = targets["surface"], targets["valid"]
        ignored = None if bool(valid.all()) else valid == 0
        probability = surface_probability(outputs["surface_logit"]) * valid
        weight = self._medial(probability.detach(), ignored) * probability
        target = self._medial(surface, ignored)
        near_label = surface
        for _ in range(self.tolerance):
            near_label = dilate(near_label)
        inside = (weight * near_label).flatten(1).sum(1) + self.smooth
        where = target.nonzero()
        near = greatest_near(probability, where, self.tolerance) * target[where.unbind(1)]
        found = near.new_zeros(len(target)).index_add(0, where[:, 0], near) + self.smooth
        precision = inside / (weight.flatten(1).sum(1) + self.smooth)
        recall = found / (target.flatten(1).sum(1) + self.smooth)
        return (1 - 2 * precision * recall / (precision + recall)).mean()
