"""Centre-line Dice (clDice) of two masks, as a score; the differentiable loss lives elsewhere."""

import numpy as np
import numpy.typing as npt

from vesuvius.metrics.masks import Mask, foreground_pair


def _erode(mask: Mask) -> Mask:
    """Return voxels whose six neighbours are set too; beyond the volume counts as set."""
    out = mask.copy()
    for axis in range(3):
        ahead, behind = np.moveaxis(mask, axis, 0), np.moveaxis(out, axis, 0)
        behind[1:] &= ahead[:-1]
        behind[:-1] &= ahead[1:]
    return out


def _dilate(mask: Mask) -> Mask:
    """Return voxels with a set voxel in their 3x3x3 neighbourhood."""
    out = mask
    for axis in range(3):
        before = np.moveaxis(out, axis, 0)
        out = out.copy()
        after = np.moveaxis(out, axis, 0)
        after[1:] |= before[:-1]
        after[:-1] |= before[1:]
    return out


def skeleton(mask: Mask) -> Mask:
    """Return the morphological skeleton of a (z, y, x) mask: what each opening would remove.

    For sheets this is the medial sheet, 1 to 2 voxels thick; it need not keep the topology.

    Source: Lantuejoul 1978, with the structuring elements of Shit et al., "clDice", CVPR 2021
    (erosion by the six neighbours, dilation by 3x3x3), iterated until nothing is left.
    """
    kept = np.zeros_like(mask)
    left = mask
    while left.any():
        eroded = _erode(left)
        kept |= left & ~_dilate(eroded)
        if eroded.all():  # the border counts as set: a full volume never erodes
            return kept | eroded
        left = eroded
    return kept


def cldice_score(
    prediction: npt.ArrayLike,
    label: npt.ArrayLike,
    *,
    ignore_label: int | None = 2,
    ignore_mask: npt.ArrayLike | None = None,
) -> float:
    """Return clDice in [0, 1]: the harmonic mean of two shares of skeleton inside the other mask.

    Both empty: 1. One empty: 0.

    Args:
        prediction: (z, y, x); non-zero is surface, NaN is background.
        label: (z, y, x); non-zero is surface.
        ignore_label: label value that becomes background in both; None for none.
        ignore_mask: (z, y, x) further voxels to ignore, or None.

    Raises:
        ShapeMismatchError: if shapes differ.
        VolumeFormatError: if an array is not 3-D or is empty.

    Source: Shit et al., CVPR 2021, equations 1 and 2.
    """
    mask, truth = foreground_pair(
        prediction, label, ignore_label=ignore_label, ignore_mask=ignore_mask
    )
    if not (mask.any() and truth.any()):
        return float(mask.any() == truth.any())
    own, true = skeleton(mask), skeleton(truth)
    precision = np.count_nonzero(own & truth) / np.count_nonzero(own)
    sensitivity = np.count_nonzero(true & mask) / np.count_nonzero(true)
    both = precision + sensitivity
    return float(2 * precision * sensitivity / both) if both else 0.0
