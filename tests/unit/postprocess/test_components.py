"""Components against hand counts and scipy."""

import numpy as np
import pytest
from scipy import ndimage

from vesuvius.errors import ConfigError
from vesuvius.postprocess.components import close_gaps, hysteresis_mask, remove_dust


def corner_pair():
    """Two voxels that touch at a corner only, and a bar of three."""
    mask = np.zeros((6, 6, 6), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = True
    mask[4, 4, 1:4] = True
    return mask


@pytest.mark.parametrize(
    ("size", "connectivity", "left", "removed"),
    [(0, 26, 5, 0), (2, 26, 5, 0), (2, 6, 3, 2), (3, 26, 3, 1), (4, 26, 0, 2), (2, 18, 3, 2)],
)
def test_dust(size, connectivity, left, removed):
    kept, count = remove_dust(corner_pair(), min_size_voxels=size, connectivity=connectivity)
    assert (kept.sum(), count) == (left, removed)


def test_dust_against_scipy(rng):
    mask = rng.random((20, 20, 20)) > 0.8
    labels, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel())
    expected = mask & (sizes[labels] >= 5)
    kept, removed = remove_dust(mask.astype(np.uint8), min_size_voxels=5)
    np.testing.assert_array_equal(kept, expected)
    assert removed == (sizes[1:] < 5).sum()


def test_empty_mask():
    kept, removed = remove_dust(np.zeros((3, 3, 3), bool), min_size_voxels=10)
    assert not kept.any()
    assert removed == 0


def test_hysteresis():
    probability = np.zeros((3, 3, 9), np.float32)
    probability[1, 1, :3] = [0.3, 0.8, 0.3]  # reaches above 0.5: kept whole
    probability[1, 1, 5:7] = 0.4  # does not
    mask = hysteresis_mask(probability, low=0.2, high=0.5)
    assert np.argwhere(mask)[:, 2].tolist() == [0, 1, 2]
    assert not hysteresis_mask(probability, low=0.2, high=0.9).any()


def test_closing_fills_a_hole_in_a_thin_sheet():
    sheet = np.zeros((5, 7, 7), bool)
    sheet[2] = True
    sheet[2, 3, 3] = False
    sheet[2, 0, 0] = False  # at the edge of the sheet, not a hole: the corner of the volume
    closed = close_gaps(sheet, iterations=1)
    assert np.argwhere(closed ^ sheet).tolist() == [[2, 3, 3]]
    np.testing.assert_array_equal(close_gaps(sheet, iterations=0), sheet)


def test_closing_against_scipy_and_extensive(rng):
    mask = rng.random((12, 12, 12)) > 0.9
    closed = close_gaps(mask, iterations=2)
    assert (closed | mask).sum() == closed.sum() > mask.sum()
    cube = np.ones((5, 5, 5), bool)
    wide = ndimage.binary_closing(np.pad(mask, 4), cube)[4:-4, 4:-4, 4:-4]
    np.testing.assert_array_equal(closed, wide)


def test_errors():
    mask = corner_pair()
    with pytest.raises(ConfigError, match="connectivity must be 6, 18 or 26 neighbours, got 8"):
        remove_dust(mask, min_size_voxels=2, connectivity=8)
    with pytest.raises(ConfigError, match="min_size_voxels must be 0 or more, got -1"):
        remove_dust(mask, min_size_voxels=-1)
    with pytest.raises(ConfigError, match="must not exceed the high one"):
        hysteresis_mask(mask.astype(np.float32), low=0.6, high=0.5)
    with pytest.raises(ConfigError, match="closing must be 0 or more steps, got -2"):
        close_gaps(mask, iterations=-2)
