"""Betti numbers of a mask, and how far a prediction's are from the label's."""

import numpy as np
import numpy.typing as npt

from vesuvius.metrics.cell_counts import count_cells
from vesuvius.metrics.masks import Mask, foreground_pair
from vesuvius.metrics.runs import FACES, component_roots, find_runs
from vesuvius.metrics.topology_components import count_cavities


def masks_betti(mask: Mask) -> tuple[int, int, int]:
    """Return (components, tunnels, cavities) of a (z, y, x) bool volume, 6-connected."""
    code = mask.astype(np.uint8)
    root = component_roots(find_runs(code), height=code.shape[1], reach=FACES)
    pieces = int(np.count_nonzero(root == np.arange(len(root))))
    cavities = count_cavities(code)
    runs, overlaps, quads = (int(n) for n in count_cells(code)[:, 0])
    return pieces, pieces + cavities - (runs - overlaps + quads), cavities


def betti_numbers(volume: npt.ArrayLike) -> tuple[int, int, int]:
    """Return the numbers of components, tunnels and cavities of a (z, y, x) volume's foreground.

    Foreground is 6-connected, background 26-connected; the volume's surroundings are background.

    Raises:
        VolumeFormatError: if the array is not 3-D or is empty.
    """
    mask, _ = foreground_pair(volume, volume, ignore_label=None)
    return masks_betti(np.pad(mask, 1))


def betti_errors(
    prediction: npt.ArrayLike, label: npt.ArrayLike, *, ignore_label: int | None = 2
) -> tuple[int, int, int]:
    """Return |prediction - label| of the numbers of components, tunnels and cavities.

    Blind to place: equal numbers of features anywhere give 0. TopoScore matches them by place.

    Args:
        prediction: (z, y, x); non-zero is surface, NaN is background.
        label: (z, y, x); non-zero is surface.
        ignore_label: label value that becomes background in both; None for none.

    Raises:
        ShapeMismatchError: if shapes differ.
        VolumeFormatError: if an array is not 3-D or is empty.
    """
    pair = foreground_pair(prediction, label, ignore_label=ignore_label)
    own, true = (masks_betti(np.pad(mask, 1)) for mask in pair)
    return abs(own[0] - true[0]), abs(own[1] - true[1]), abs(own[2] - true[2])
