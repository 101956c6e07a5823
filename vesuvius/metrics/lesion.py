"""Scores of lesion masks on slices: four aggregations, false alarms, surface distance."""

import hashlib
from collections.abc import Sequence
from typing import Any

import edt
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchmetrics import Metric

from vesuvius.errors import ShapeMismatchError

Floats = npt.NDArray[np.float64]
TP, FP, FN, TN, HD95, PATIENT, NAME = range(7)
"""Columns of a slice's row: pixel counts, surface distance (NaN if undefined), two hashes."""


def hausdorff95(mask: npt.ArrayLike, label: npt.ArrayLike) -> float:
    """Return the 95th percentile Hausdorff distance in pixels; NaN unless both hold lesion.

    The greater of the two directed 95th percentiles between border pixels (4-neighbourhood).
    """
    pair = [np.asarray(m, dtype=bool) for m in (mask, label)]
    if not all(m.any() for m in pair):
        return float("nan")
    both = pair[0] | pair[1]
    window = tuple(
        slice(int(hits[0]), int(hits[-1]) + 1)
        for hits in (np.flatnonzero(both.any(axis=1 - axis)) for axis in (0, 1))
    )
    borders = [_border(m[window]) for m in pair]
    distances = [
        edt.edt(~other, black_border=False)[own] for own, other in (borders, borders[::-1])
    ]
    return float(max(np.percentile(d, 95) for d in distances))


def _border(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the pixels of a mask with a neighbour outside it; beyond the array is outside."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    border: npt.NDArray[np.bool_] = mask & ~inner
    return border


def slice_rows(
    mask: Tensor, label: Tensor, names: Sequence[str], patients: Sequence[str], *, hd95: bool = True
) -> Floats:
    """Return one row a slice: TP, FP, FN, TN, HD95, hash of the patient, hash of the name.

    Args:
        mask: (b, 1, y, x), non-zero is lesion.
        label: of the same shape.
        names: of the b slices.
        patients: of the b slices.
        hd95: compute the distance; else NaN.

    Raises:
        ShapeMismatchError: shapes or numbers differ.
    """
    if mask.shape != label.shape or mask.dim() != 4 or not len(mask) == len(names) == len(patients):
        raise ShapeMismatchError(
            f"metric.update: mask {tuple(mask.shape)}, label {tuple(label.shape)}, {len(names)} "
            f"names, {len(patients)} patients; expected equal shapes (b, 1, y, x) and b of each."
        )
    m, t = (x.detach().cpu().numpy()[:, 0] != 0 for x in (mask, label))
    rows = np.empty((len(m), 7))
    for row, one, truth, name, patient in zip(rows, m, t, names, patients, strict=True):
        hit, predicted, wanted = (np.count_nonzero(x) for x in (one & truth, one, truth))
        row[:HD95] = hit, predicted - hit, wanted - hit, one.size - predicted - wanted + hit
        row[HD95] = hausdorff95(one, truth) if hd95 else np.nan
        row[PATIENT], row[NAME] = _hash(patient), _hash(name)
    return rows


def _hash(text: str) -> int:
    """Return 52 bits, which float64 holds exactly; 32 would collide among 20 000 slices."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 12


def dice_of(counts: Floats) -> Floats:
    """Return Dice of (..., >= 3) TP, FP, FN; 1 where all three are 0 (both empty)."""
    tp, fp, fn = counts[..., TP], counts[..., FP], counts[..., FN]
    size = 2 * tp + fp + fn
    return np.where(size > 0, 2 * tp / np.maximum(size, 1), 1.0)


def iou_of(counts: Floats) -> Floats:
    """Return IoU of (..., >= 3) TP, FP, FN; 1 where all three are 0."""
    dice = dice_of(counts)
    return np.asarray(dice / (2 - dice))


def summarize(rows: Floats) -> dict[str, float]:
    """Return the scores of a data set from its slices' rows; NaN where there is nothing to average.

    dice_slice, iou_slice: mean over all slices, both-empty slices count 1. dice_positive,
    iou_positive: mean over slices with lesion. dice_patient: mean over patients of counts pooled
    per patient. dice_global, iou_global: all counts pooled. fp_rate: share of the slices without
    lesion on which any is predicted. hd95: mean over slices where both hold lesion; hd95_share:
    their share of the slices with lesion. accuracy: share of right pixels, for completeness only.
    """
    if not len(rows):
        return dict.fromkeys(PARTS, float("nan"))
    counts = rows[:, :HD95]
    positive = counts[:, TP] + counts[:, FN] > 0
    pooled = counts.sum(0)
    patients = [counts[rows[:, PATIENT] == p].sum(0) for p in np.unique(rows[:, PATIENT])]
    distances = rows[positive, HD95]
    measured = distances[~np.isnan(distances)]
    return {
        "dice_slice": _mean(dice_of(counts)),
        "dice_positive": _mean(dice_of(counts[positive])),
        "dice_patient": _mean(dice_of(np.stack(patients))),
        "dice_global": float(dice_of(pooled)),
        "iou_slice": _mean(iou_of(counts)),
        "iou_positive": _mean(iou_of(counts[positive])),
        "iou_global": float(iou_of(pooled)),
        "fp_rate": _mean(counts[~positive, FP] > 0),
        "hd95": _mean(measured),
        "hd95_share": _mean(~np.isnan(distances)),
        "accuracy": float((pooled[TP] + pooled[TN]) / pooled.sum()),
    }


PARTS = (
    *("dice_slice", "dice_positive", "dice_patient", "dice_global"),
    *("iou_slice", "iou_positive", "iou_global"),
    *("fp_rate", "hd95", "hd95_share", "accuracy"),
)
"""Names of what `summarize` returns."""


def _mean(values: npt.NDArray[Any]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


class LesionMetric(Metric):
    """`summarize` over all slices of an epoch and all processes; each slice counts once.

    Args:
        hd95: compute the surface distance, which costs a few ms a slice with lesion.
    """

    full_state_update = False

    def __init__(self, *, hd95: bool = True) -> None:
        super().__init__()
        self.hd95 = hd95
        self.add_state("rows", default=[], dist_reduce_fx="cat")
        self.rows: list[Tensor] | Tensor

    def update(
        self, mask: Tensor, label: Tensor, names: Sequence[str], patients: Sequence[str]
    ) -> None:
        """Add a batch of slices, see `slice_rows`."""
        rows = slice_rows(mask, label, names, patients, hd95=self.hd95)
        assert isinstance(self.rows, list)
        self.rows.append(torch.from_numpy(rows).to(self.device))

    def compute(self) -> dict[str, Tensor]:
        """Return the scores; slices that a sampler repeated to fill up ranks count once."""
        rows = self.rows if isinstance(self.rows, Tensor) else torch.cat([*self.rows])
        table = rows.cpu().numpy()
        _, first = np.unique(table[:, NAME], return_index=True)
        return {k: torch.tensor(v) for k, v in summarize(table[np.sort(first)]).items()}
