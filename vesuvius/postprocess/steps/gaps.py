"""Short gaps along the axes and diagonal contacts in the planes."""

from itertools import combinations

import numpy as np

from vesuvius.postprocess.steps.state import (
    ChainState,
    Mask,
    axis_numbers,
    check_at_least,
    check_between,
    mask_of,
)
from vesuvius.types import FloatVolume


def fill_gaps(mask: Mask, *, max_gap: int, axes: str = "zyx") -> Mask:
    """Return the mask with background runs of at most `max_gap` voxels along each axis filled.

    A run counts if foreground bounds it on both sides. All axes look at the mask as it came.
    """
    out = mask.copy()
    for axis in axis_numbers(axes):
        lines, filled = np.moveaxis(mask, axis, 0), np.moveaxis(out, axis, 0)
        size = lines.shape[0]
        for gap in range(1, min(max_gap, size - 2) + 1):
            both = lines[: size - gap - 1] & lines[gap + 1 :]
            for step in range(1, gap + 1):
                filled[step : size - gap - 1 + step] |= both
    return out


def fill_diagonals(mask: Mask, probability: FloatVolume, *, axes: str = "zyx") -> Mask:
    """Return the mask in which 2x2 squares that hold just one diagonal get a third voxel.

    Of the two candidates the likelier is filled (the first if equal). Planes are those of each
    pair of `axes`; every plane looks at the mask as it came.
    """
    out = mask.copy()
    for first, second in combinations(axis_numbers(axes), 2):
        m, o = (np.moveaxis(array, (first, second), (0, 1)) for array in (mask, out))
        p = np.moveaxis(probability, (first, second), (0, 1))
        a, b, c, d = m[:-1, :-1], m[:-1, 1:], m[1:, :-1], m[1:, 1:]
        likelier = p[:-1, 1:] >= p[1:, :-1]
        open_square = a & d & ~b & ~c
        o[:-1, 1:] |= open_square & likelier
        o[1:, :-1] |= open_square & ~likelier
        likelier = p[:-1, :-1] >= p[1:, 1:]
        open_square = b & c & ~a & ~d
        o[:-1, :-1] |= open_square & likelier
        o[1:, 1:] |= open_square & ~likelier
    return out


class FillGaps:
    """Fills short gaps along axes, and diagonal contacts, several times.

    Args:
        max_gap: longest gap along an axis that is filled, voxels; 0 for none.
        diagonals: add a third voxel to 2x2 squares with just one diagonal.
        axes: letters of the axes (and of the planes between them).
        rounds: how often; each sees what the one before filled.
        min_probability: voxels below it stay empty.

    Raises:
        ConfigError: an argument out of range.
    """

    reads_mask = True
    makes_mask = True

    def __init__(
        self,
        *,
        max_gap: int = 1,
        diagonals: bool = True,
        axes: str = "zyx",
        rounds: int = 5,
        min_probability: float = 0.0,
    ) -> None:
        check_at_least("max_gap", max_gap, 0)
        check_at_least("rounds", rounds, 1)
        check_between("min_probability", min_probability, 0, 1)
        axis_numbers(axes)
        self.max_gap, self.diagonals, self.axes = max_gap, diagonals, axes
        self.rounds, self.min_probability = rounds, min_probability

    def __call__(self, state: ChainState) -> ChainState:
        """Return the state with gaps filled."""
        mask = start = mask_of(state)
        allowed = state.probability >= self.min_probability if self.min_probability > 0 else None
        for _ in range(self.rounds):
            before = mask
            if self.max_gap:
                mask = fill_gaps(mask, max_gap=self.max_gap, axes=self.axes)
            if self.diagonals:
                mask = fill_diagonals(mask, state.probability, axes=self.axes)
            if allowed is not None:
                mask = before | (mask & allowed)
            if np.array_equal(mask, before):
                break
        return state.with_mask(mask, voxels_added=int(mask.sum() - start.sum()))
