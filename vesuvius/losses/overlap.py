"""Voxel-wise terms: soft Dice and binary cross-entropy, both blind to ignored voxels."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from vesuvius.errors import ConfigError
from vesuvius.losses.composite import LossTerm


class DiceLoss(LossTerm):
    """1 - (2 sum(p t) + s) / (sum p + sum t + s) per sample over valid voxels, mean over the batch.

    Args:
        smooth: s; keeps the quotient defined for an empty crop (loss 0 when both are empty).

    Source: Milletari et al. 2016 without the squares, as in the original project.
    """

    def __init__(self, *, smooth: float = 1e-6) -> None:
        super().__init__()
        if smooth <= 0:
            raise ConfigError(f"DiceLoss smooth={smooth}; expected > 0.")
        self.smooth = smooth

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """Return the mean loss in [0, 1] of `surface_logit` against `surface`."""
        probability = (torch.sigmoid(outputs["surface_logit"]) * targets["valid"]).flatten(1)
        surface = targets["surface"].flatten(1)  # label 1 is never ignored: no mask needed
        overlap = (probability * surface).sum(1)
        size = probability.sum(1) + surface.sum(1)
        return (1 - (2 * overlap + self.smooth) / (size + self.smooth)).mean()


class BCELoss(LossTerm):
    """Binary cross-entropy with logits, mean over a sample's valid voxels, then over samples.

    A mean per sample makes R processes with one sample each equal to one process with R samples.

    Args:
        pos_weight: weight of surface voxels. 10 suits labels of about 5 %; 100 inflates the
            prediction, 1 collapses it to all background at first unless Dice is there too.
        min_valid_share: a sample with a smaller share of valid voxels counts accordingly less:
            a handful of labelled voxels must not weigh as much as a whole crop.
    """

    def __init__(self, *, pos_weight: float = 10.0, min_valid_share: float = 0.1) -> None:
        super().__init__()
        if pos_weight <= 0:
            raise ConfigError(f"BCELoss pos_weight={pos_weight}; expected > 0.")
        if not 0 < min_valid_share <= 1:
            raise ConfigError(f"BCELoss min_valid_share={min_valid_share}; expected in (0, 1].")
        self.pos_weight = pos_weight
        self.min_valid_share = min_valid_share

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """Return the scalar loss; 0 with a gradient path when every voxel is ignored."""
        logit, surface, valid = outputs["surface_logit"], targets["surface"], targets["valid"]
        num_voxels = valid[0].numel()
        count = valid.flatten(1).sum(1).clamp(min=self.min_valid_share * num_voxels)
        # valid + (w - 1) * surface: 0 ignored, 1 background, w surface; over the sample's count
        weight = torch.add(valid, surface, alpha=self.pos_weight - 1)
        weight = weight / (count * len(count)).view(-1, 1, 1, 1, 1)
        return F.binary_cross_entropy_with_logits(logit, surface, weight, reduction="sum")
