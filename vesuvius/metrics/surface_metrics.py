"""torchmetrics classes of the surface scores; the functional core is NumPy.

Whole volumes: `CompetitionMetric`. Crops, every epoch: `SurfaceProxyMetric`. States are sums, so
that processes add up to what one process would have seen.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchmetrics import Metric

from vesuvius.errors import ConfigError, ShapeMismatchError
from vesuvius.metrics.competition import competition_score
from vesuvius.metrics.surface_distance import surface_dice
from vesuvius.metrics.voi import voi_score


def _volumes(mask: Tensor, label: Tensor) -> list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """Return (mask, label) pairs of (z, y, x) from (z, y, x), (1, z, y, x) or (b, 1, z, y, x).

    Raises:
        ShapeMismatchError: the shapes differ, or are none of these.
    """
    if mask.shape != label.shape or mask.dim() < 3:
        raise ShapeMismatchError(
            f"metric.update: mask {tuple(mask.shape)} and label {tuple(label.shape)}; expected "
            "equal shapes ending in (z, y, x)."
        )
    zyx = mask.shape[-3:]
    masks = mask.detach().cpu().reshape(-1, *zyx).numpy()
    labels = label.detach().cpu().reshape(-1, *zyx).numpy()
    return list(zip(masks, labels, strict=True))


class CompetitionMetric(Metric):
    """Mean official score of whole volumes: score, topo, surface_dice, voi_score.

    `update(mask, label)` takes one volume, mask in {0, 1}, label in {0, 1, 2}.

    Args:
        tolerance: of the surface Dice, in voxels.
        ignore_label: label value left out, None for none.
        sync: add up over processes in `compute`; False where one process alone updates.
    """

    full_state_update = False
    PARTS = ("score", "topo", "surface_dice", "voi_score")

    def __init__(
        self, *, tolerance: float = 2.0, ignore_label: int | None = 2, sync: bool = True
    ) -> None:
        super().__init__(sync_on_compute=sync)
        self.tolerance = tolerance
        self.ignore_label = ignore_label
        zeros = torch.zeros(len(self.PARTS), dtype=torch.float64)
        self.add_state("total", default=zeros, dist_reduce_fx="sum")
        self.add_state("count", default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.total: Tensor
        self.count: Tensor

    def update(self, mask: Tensor, label: Tensor) -> None:
        """Add one volume, or several of one shape."""
        for one_mask, one_label in _volumes(mask, label):
            score = competition_score(
                one_mask, one_label, ignore_label=self.ignore_label, tolerance=self.tolerance
            )
            values = [getattr(score, part) for part in self.PARTS]
            self.total += torch.tensor(values, dtype=torch.float64, device=self.total.device)
            self.count += 1

    def compute(self) -> dict[str, Tensor]:
        """Return the means; NaN before any update."""
        return dict(zip(self.PARTS, (self.total / self.count).float(), strict=True))


class SurfaceProxyMetric(Metric):
    """Fast score on crops: the official one without its topology, and Dice.

    `score` = mean of surface Dice and VOI score, both means over crops that hold surface in the
    mask or the label; `dice` counts the labelled voxels of all crops together.

    Args:
        tolerance: of the surface Dice, in voxels.
    """

    full_state_update = False

    def __init__(self, *, tolerance: float = 2.0) -> None:
        if tolerance <= 0:
            raise ConfigError(f"SurfaceProxyMetric tolerance={tolerance}; expected > 0.")
        super().__init__()
        self.tolerance = tolerance
        # true positives, predicted, labelled voxels; surface Dice, VOI score, crops
        self.add_state("voxels", default=torch.zeros(3, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("parts", default=torch.zeros(3, dtype=torch.float64), dist_reduce_fx="sum")
        self.voxels: Tensor
        self.parts: Tensor

    def update(self, mask: Tensor, label: Tensor) -> None:
        """Add a batch of crops (b, 1, z, y, x)."""
        for one_mask, one_label in _volumes(mask, label):
            valid = one_label != 2
            predicted = (one_mask != 0) & valid
            surface = one_label == 1
            counts = [(predicted & surface).sum(), predicted.sum(), surface.sum()]
            self.voxels += torch.tensor(np.array(counts, np.float64), device=self.voxels.device)
            if not (predicted.any() or surface.any()):
                continue
            dice = float(surface_dice(predicted, surface, tolerance=self.tolerance))
            voi = voi_score(predicted, surface).score
            self.parts += torch.tensor(
                [dice, voi, 1.0], dtype=torch.float64, device=self.parts.device
            )

    def compute(self) -> dict[str, Tensor]:
        """Return score, dice, surface_dice, voi_score in [0, 1]; 1 where nothing was there."""
        both, predicted, labelled = self.voxels
        size = predicted + labelled
        dice = torch.where(size > 0, 2 * both / size.clamp(min=1), torch.ones_like(size))
        surface, voi, count = self.parts
        if count == 0:
            surface = voi = count = torch.ones_like(count)
        surface, voi = surface / count, voi / count
        values = {"score": (surface + voi) / 2, "dice": dice, "surface_dice": surface}
        return {name: v.float() for name, v in {**values, "voi_score": voi}.items()}
