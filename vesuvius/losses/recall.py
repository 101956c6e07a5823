"""Recall of the label's medial surface: what clDice asks of the label, at 1 % of its cost."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vesuvius.errors import ConfigError
from vesuvius.losses.cldice import surface_probability
from vesuvius.losses.composite import LossTerm
from vesuvius.losses.soft_skeleton import dilate, soft_skeleton


@torch.no_grad()
def medial_surface(
    surface: Float[Tensor, "b 1 z y x"],
    *,
    ignored: Bool[Tensor, "b 1 z y x"] | None = None,
    max_half_thickness: int = 8,
    widen: int = 0,
) -> Float[Tensor, "b 1 z y x"]:
    """Return the middle layers of a mask of sheets, in {0, 1}; 0 where ignored.

    Args:
        surface: mask in {0, 1}.
        ignored: voxels that count as outside the volume.
        max_half_thickness: erosions at most; they end when nothing is left.
        widen: layers added again on all sides, within the mask.
    """
    medial = soft_skeleton(surface, iterations=max_half_thickness, ignored=ignored)
    medial = (medial > 0.5).to(surface.dtype)
    for _ in range(widen):
        medial = dilate(medial) * surface
    return medial


class MedialRecallLoss(LossTerm):
    """1 - (sum p m + s) / (sum m + s) per sample, mean over the batch; m the medial surface.

    It punishes gaps in sheets wherever they are thinly predicted and never looks at what is
    predicted elsewhere: use it beside Dice or cross-entropy.

    Args:
        max_half_thickness: half the thickest sheet of the labels in voxels, rounded up.
        widen: layers about the middle that count as well.
        smooth: s; a crop without surface costs nothing.

    Source: Kirchhoff et al., Skeleton Recall Loss, ECCV 2024, with the middle layer of a sheet
    instead of the centre line of a tube, found on the device by erosions of the label.
    """

    def __init__(self, *, max_half_thickness: int = 8, widen: int = 0, smooth: float = 1.0) -> None:
        super().__init__()
        if max_half_thickness < 1 or widen < 0:
            raise ConfigError(
                f"MedialRecallLoss max_half_thickness={max_half_thickness} must be >= 1, "
                f"widen={widen} >= 0."
            )
        if smooth <= 0:
            raise ConfigError(f"MedialRecallLoss smooth={smooth}; expected > 0.")
        self.max_half_thickness = max_half_thickness
        self.widen = widen
        self.smooth = smooth

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """Return the mean loss in [0, 1] of `surface_logit` (1 or 2 channels)."""
        ignored = targets["valid"] == 0
        medial = medial_surface(
            targets["surface"],
            ignored=ignored if bool(ignored.any()) else None,
            max_half_thickness=self.max_half_thickness,
            widen=self.widen,
        ).flatten(1)
        probability = surface_probability(outputs["surface_logit"]).flatten(1)
        found = (probability * medial).sum(1) + self.smooth
        return (1 - found / (medial.sum(1) + self.smooth)).mean()
