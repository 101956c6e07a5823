"""Boundary loss: predicted probability weighed by its distance from the label's faces."""

from collections.abc import Mapping

from torch import Tensor

from vesuvius.errors import ConfigError
from vesuvius.losses.cldice import surface_probability
from vesuvius.losses.composite import LossTerm
from vesuvius.losses.distance import mean_where, signed_distance


class BoundaryLoss(LossTerm):
    """Mean of p * phi per sample, then over samples; phi = signed distance to the label's faces.

    A false voxel costs the more the farther it lies from the sheet; a perfect mask has the least
    value, which is below 0. Voxels whose distance an ignored neighbour leaves open take no part.
    Use it beside Dice or cross-entropy: its own minimum is reached by any mask's logits alike.

    Args:
        max_distance: phi is bounded by it, in voxels; farther voxels cost the same.

    Source: Kervadec et al., Boundary loss for highly unbalanced segmentation, MIDL 2019,
    equation 5, with a bounded distance: sheets lie 10 to 25 voxels apart.
    """

    def __init__(self, *, max_distance: int = 8) -> None:
        super().__init__()
        if not 1 <= max_distance <= 100:
            raise ConfigError(
                f"BoundaryLoss max_distance={max_distance}; expected 1 to 100 voxels."
            )
        self.max_distance = max_distance

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """Return the scalar loss of `surface_logit` (1 or 2 channels), in voxels."""
        phi, known = signed_distance(targets["surface"], targets["valid"], self.max_distance)
        return mean_where(surface_probability(outputs["surface_logit"]) * phi, known)
