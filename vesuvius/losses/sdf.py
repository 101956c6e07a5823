"""Regression of the signed distance to the sheets' faces."""

from collections.abc import Mapping

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from vesuvius.errors import ConfigError
from vesuvius.losses.composite import LossTerm
from vesuvius.losses.distance import mean_where, signed_distance


class SDFLoss(LossTerm):
    """Smooth L1 between the `sdf` head and the label's signed distance, in voxels.

    Mean over the voxels of a sample whose distance is known (an ignored voxel nearer than the
    sheet leaves it open), then over samples. Far voxels are bounded on both sides, so that most
    of the volume is learned soon and the faces stay.

    Args:
        distance: bound of the distance in voxels, the network's sdf_distance.
        beta: errors below it count quadratically, in voxels.

    The surface logit of such a network follows from `sdf`, so this term trains it as well.
    Source: Xue et al., Shape-aware organ segmentation by predicting signed distance maps, AAAI
    2020 (L1 on the distance); the bound and the treatment of unknown voxels are own.
    """

    heads = ("surface_logit", "sdf")

    def __init__(self, *, distance: float | None, beta: float = 0.5) -> None:
        super().__init__()
        if distance is None or not 1 <= distance <= 100 or beta <= 0:
            raise ConfigError(
                f"SDFLoss distance={distance} must lie in 1 to 100 (set model.sdf_distance, 4 "
                f"to 8 are usual), beta={beta} be > 0."
            )
        self.distance = round(distance)
        self.beta = beta

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """Return the scalar loss >= 0 in voxels."""
        target, known = signed_distance(targets["surface"], targets["valid"], self.distance)
        error = F.smooth_l1_loss(outputs["sdf"], target, reduction="none", beta=self.beta)
        return mean_where(error, known)
