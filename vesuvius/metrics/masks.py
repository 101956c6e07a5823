"""From what a user passes to two boolean volumes of one shape."""

import numpy as np
import numpy.typing as npt

from vesuvius.errors import ShapeMismatchError, VolumeFormatError

Mask = npt.NDArray[np.bool_]
"""(z, y, x) bool."""


def _foreground(name: str, values: npt.ArrayLike) -> tuple[npt.NDArray[np.generic], Mask]:
    array = np.asarray(values)
    if array.ndim != 3 or array.size == 0:
        raise VolumeFormatError(
            f"{name} has shape {array.shape}; expected a 3-D volume (z, y, x) with no empty axis"
        )
    if array.dtype == np.bool_:
        return array, array
    if array.dtype.kind not in "uif":
        raise VolumeFormatError(f"{name} has dtype {array.dtype}; expected a number or bool")
    mask = array != 0
    if array.dtype.kind == "f":
        mask &= ~np.isnan(array)
    return array, mask


def foreground_pair(
    prediction: npt.ArrayLike,
    label: npt.ArrayLike,
    *,
    ignore_label: int | None = 2,
    ignore_mask: npt.ArrayLike | None = None,
) -> tuple[Mask, Mask]:
    """Return both foregrounds as C-ordered (z, y, x) bool with ignored voxels background in both.

    Args:
        prediction: (z, y, x); non-zero is surface (a predicted 2 too), NaN is background.
        label: (z, y, x); non-zero is surface.
        ignore_label: label value to ignore; None for none.
        ignore_mask: (z, y, x), non-zero is ignored as well; None for none.

    Raises:
        ShapeMismatchError: if shapes differ.
        VolumeFormatError: if an array is not 3-D, is empty or holds no numbers.
    """
    _, mask = _foreground("prediction", prediction)
    label_array, truth = _foreground("label", label)
    if mask.shape != truth.shape:
        raise ShapeMismatchError(
            f"prediction has shape {mask.shape}, label {truth.shape}; expected the same (z, y, x)"
        )
    drop = None
    if ignore_label is not None and label_array.dtype != np.bool_:
        drop = label_array == ignore_label
    elif ignore_label == 1:
        drop = truth
    if ignore_mask is not None:
        _, more = _foreground("ignore_mask", ignore_mask)
        if more.shape != mask.shape:
            raise ShapeMismatchError(
                f"ignore_mask has shape {more.shape}, prediction {mask.shape}; expected the same"
            )
        drop = more if drop is None else drop | more
    if drop is not None:
        mask, truth = mask & ~drop, truth & ~drop
    return np.ascontiguousarray(mask), np.ascontiguousarray(truth)
