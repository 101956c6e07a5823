"""Numbers of runs, overlaps and quads (see `run_complex`) of up to three masks in one pass.

Their alternating sum is the Euler characteristic of the 6-connected foreground.
"""

import numpy as np

from vesuvius.metrics.compiled import compiled
from vesuvius.metrics.runs import Bytes, Ints


@compiled
def _count_slice(here: Bytes, under: Bytes, seen: Ints) -> None:
    """Add the cells that begin in a slice to `seen`: (runs, overlaps, quads) by code."""
    height, width = here.shape
    for y in range(height):
        for x in range(width):
            code, below = here[y, x], under[y, x]
            if code == 0:
                continue
            seen[0, code & ~below] += 1
            right = down = right_below = down_below = np.uint8(0)
            if x + 1 < width:
                right, right_below = code & here[y, x + 1], below & under[y, x + 1]
                seen[1, right & ~right_below] += 1
            if y + 1 < height:
                down, down_below = code & here[y + 1, x], below & under[y + 1, x]
                seen[1, down & ~down_below] += 1
            if right & down:
                quad_below = right_below & down_below & under[y + 1, x + 1]
                seen[2, right & down & here[y + 1, x + 1] & ~quad_below] += 1


@compiled
def count_cells(code: Bytes) -> Ints:
    """Return (3, 3) numbers of runs, overlaps, quads (rows) of prediction, label, union (columns).

    Args:
        code: (z, y, x) uint8; bit 1 prediction, 2 label, 4 union.
    """
    seen = np.zeros((3, 8), np.int64)
    nothing = np.zeros(code.shape[1:], np.uint8)
    for z in range(len(code)):
        _count_slice(code[z], code[z - 1] if z > 0 else nothing, seen)
    counts = np.zeros((3, 3), np.int64)
    for bits in range(8):
        for mask in range(3):
            if bits >> mask & 1:
                counts[:, mask] += seen[:, bits]
    return counts
