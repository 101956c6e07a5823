"""Voxel overlap: Dice, IoU, precision, recall."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vesuvius.metrics.masks import foreground_pair


@dataclass(frozen=True, slots=True)
class Overlap:
    """Voxel counts of one pair and the ratios made of them.

    Ratios with an empty denominator are 1 when there is nothing to find and nothing was found.

    Attributes:
        both: voxels set in prediction and label.
        prediction: voxels set in the prediction.
        label: voxels set in the label.
    """

    both: int
    prediction: int
    label: int

    @property
    def dice(self) -> float:
        """2 both / (prediction + label), in [0, 1]; 1 if both are empty."""
        return _ratio(2 * self.both, self.prediction + self.label, empty=1.0)

    @property
    def iou(self) -> float:
        """Both / union, in [0, 1]; 1 if both are empty."""
        return _ratio(self.both, self.prediction + self.label - self.both, empty=1.0)

    @property
    def precision(self) -> float:
        """Both / prediction, in [0, 1]; for an empty prediction 1 if the label is empty, else 0."""
        return _ratio(self.both, self.prediction, empty=float(self.label == 0))

    @property
    def recall(self) -> float:
        """Both / label, in [0, 1]; for an empty label 1 if the prediction is empty, else 0."""
        return _ratio(self.both, self.label, empty=float(self.prediction == 0))


def _ratio(part: int, whole: int, *, empty: float) -> float:
    return part / whole if whole else empty


def voxel_overlap(
    prediction: npt.ArrayLike,
    label: npt.ArrayLike,
    *,
    ignore_label: int | None = 2,
    ignore_mask: npt.ArrayLike | None = None,
) -> Overlap:
    """Return the voxel counts of two (z, y, x) masks; ignored voxels count nowhere.

    Args:
        prediction: (z, y, x); non-zero is surface, NaN is background.
        label: (z, y, x); non-zero is surface.
        ignore_label: label value left out in both; None for none.
        ignore_mask: (z, y, x) further voxels to leave out, or None.

    Raises:
        ShapeMismatchError: if shapes differ.
        VolumeFormatError: if an array is not 3-D or is empty.
    """
    mask, truth = foreground_pair(
        prediction, label, ignore_label=ignore_label, ignore_mask=ignore_mask
    )
    both = int(np.count_nonzero(mask & truth))
    return Overlap(both, int(np.count_nonzero(mask)), int(np.count_nonzero(truth)))


def dice(prediction: npt.ArrayLike, label: npt.ArrayLike, *, ignore_label: int | None = 2) -> float:
    """Return the voxel Dice in [0, 1] of two (z, y, x) masks, label value 2 left out."""
    return voxel_overlap(prediction, label, ignore_label=ignore_label).dice


def iou(prediction: npt.ArrayLike, label: npt.ArrayLike, *, ignore_label: int | None = 2) -> float:
    """Return the intersection over union in [0, 1] of two (z, y, x) masks."""
    return voxel_overlap(prediction, label, ignore_label=ignore_label).iou


def precision(
    prediction: npt.ArrayLike, label: npt.ArrayLike, *, ignore_label: int | None = 2
) -> float:
    """Return the share of predicted voxels that are true, in [0, 1]."""
    return voxel_overlap(prediction, label, ignore_label=ignore_label).precision


def recall(
    prediction: npt.ArrayLike, label: npt.ArrayLike, *, ignore_label: int | None = 2
) -> float:
    """Return the share of true voxels that are predicted, in [0, 1]."""
    return voxel_overlap(prediction, label, ignore_label=ignore_label).recall
