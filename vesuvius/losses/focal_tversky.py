"""Focal Tversky loss: an overlap that weighs misses and false alarms differently."""

from collections.abc import Mapping

from torch import Tensor

from vesuvius.errors import ConfigError
from vesuvius.losses.cldice import surface_probability
from vesuvius.losses.composite import LossTerm

_LEAST = 1e-6
"""The slope of x^exponent is infinite at 0 for exponents below 1."""


class FocalTverskyLoss(LossTerm):
    """(1 - T)^exponent per sample over valid voxels, mean over samples.

    T = (TP + s) / (TP + miss_weight FN + false_weight FP + s) with soft counts.

    Args:
        miss_weight: of surface that is not found; above 0.5 favours recall. The weight of false
            alarms is 1 - miss_weight; 0.5 is Dice.
        exponent: below 1 keeps the slope of samples that are nearly right (the paper: 3/4).
        smooth: s; a crop without surface and without prediction costs nothing.

    Source: Abraham and Khan, A novel focal Tversky loss function, ISBI 2019, equations 3 and 4.
    """

    def __init__(
        self, *, miss_weight: float = 0.7, exponent: float = 0.75, smooth: float = 1.0
    ) -> None:
        super().__init__()
        if not 0 < miss_weight < 1:
            raise ConfigError(f"FocalTverskyLoss miss_weight={miss_weight}; expected in (0, 1).")
        if exponent <= 0 or smooth <= 0:
            raise ConfigError(
                f"FocalTverskyLoss exponent={exponent}, smooth={smooth}: both must be > 0."
            )
        self.miss_weight = miss_weight
        self.exponent = exponent
        self.smooth = smooth

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """Return the mean loss in [0, 1] of `surface_logit` (1 or 2 channels)."""
        probability = surface_probability(outputs["surface_logit"]) * targets["valid"]
        surface = targets["surface"].flatten(1)
        found = (probability.flatten(1) * surface).sum(1)
        missed = surface.sum(1) - found
        false = probability.flatten(1).sum(1) - found
        wrong = self.miss_weight * missed + (1 - self.miss_weight) * false
        return (wrong / (found + wrong + self.smooth)).clamp(min=_LEAST).pow(self.exponent).mean()
