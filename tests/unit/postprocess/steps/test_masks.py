"""Steps that make and mend masks, on cases small enough to count by hand."""

import numpy as np
import pytest
from scipy import ndimage

from vesuvius.errors import ConfigError
from vesuvius.metrics import betti_numbers
from vesuvius.postprocess.steps.dust import FillCavities, RemoveDust, fill_cavities
from vesuvius.postprocess.steps.gaps import FillGaps, fill_diagonals, fill_gaps
from vesuvius.postprocess.steps.morphology import Morphology, closed, grown, opened
from vesuvius.postprocess.steps.smoothing import GaussianProbability, Median, median_mask
from vesuvius.postprocess.steps.state import ChainState
from vesuvius.postprocess.steps.thickness import NormaliseThickness, middle
from vesuvius.postprocess.steps.thresholds import Hysteresis, Threshold, axis_hysteresis


def state_of(mask, probability=None):
    p = np.asarray(mask, np.float32) if probability is None else probability
    return ChainState(p, mask=np.asarray(mask, bool))


def test_threshold_is_strict():
    p = np.array([[[0.4, 0.5, 0.6]]], np.float32)
    assert Threshold(threshold=0.5)(ChainState(p)).mask.tolist() == [[[False, False, True]]]


def test_hysteresis_along_z_keeps_columns_and_nothing_beside_them():
    p = np.zeros((4, 1, 3), np.float32)
    p[:, 0, 0] = [0.9, 0.4, 0.4, 0.1]
    p[:, 0, 1] = 0.4  # beside a strong voxel, never above one
    p[:, 0, 2] = [0.4, 0.1, 0.4, 0.9]
    along_z = axis_hysteresis(p, low=0.3, high=0.8, axes="z")
    assert along_z[:, 0].T.astype(int).tolist() == [[1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 1, 1]]
    step = Hysteresis(low=0.3, high=0.8, connectivity=6)
    every_way = step(ChainState(p)).mask
    assert int(every_way.sum()) == 3 + 4 + 3
    assert Hysteresis(low=0.3, high=0.8, axes="z")(ChainState(p)).mask.sum() == 5


def test_dust_by_faces_drops_what_hangs_on_a_corner():
    mask = np.zeros((4, 4, 4), bool)
    mask[0, 0] = True
    mask[1, 1, 0] = True  # touches the line by an edge
    drop = RemoveDust(min_size_voxels=2, connectivity=6)(state_of(mask))
    keep = RemoveDust(min_size_voxels=2, connectivity=26)(state_of(mask))
    assert (int(drop.mask.sum()), int(keep.mask.sum())) == (4, 5)
    assert drop.notes == {"components_removed": 1}


def test_cavities_are_filled_by_size_and_open_pits_are_not():
    mask = np.ones((7, 7, 7), bool)
    mask[1, 1, 1] = False  # cavity of 1
    mask[3:5, 3, 3] = False  # cavity of 2
    mask[6, 6, 6] = False  # open
    filled, count = fill_cavities(mask, max_size_voxels=1)
    assert (count, int((~filled).sum())) == (1, 3)
    assert int((~FillCavities(max_size_voxels=2)(state_of(mask)).mask).sum()) == 1


def test_gaps_need_foreground_on_both_sides_and_no_more_than_the_length():
    line = np.array([1, 0, 1, 0, 0, 1, 0, 0, 0, 1, 0], bool).reshape(1, 1, -1)
    one = fill_gaps(line, max_gap=1).ravel().astype(int).tolist()
    two = fill_gaps(line, max_gap=2, axes="x").ravel().astype(int).tolist()
    assert one == [1, 1, 1, 0, 0, 1, 0, 0, 0, 1, 0]
    assert two == [1, 1, 1, 1, 1, 1, 0, 0, 0, 1, 0]
    assert fill_gaps(line, max_gap=5, axes="zy").ravel().tolist() == line.ravel().tolist()


def test_diagonal_gets_the_likelier_third_voxel_and_full_squares_none():
    mask = np.zeros((1, 2, 5), bool)
    mask[0, 0, 0] = mask[0, 1, 1] = True
    mask[0, 1, 3] = mask[0, 0, 4] = True
    p = np.zeros(mask.shape, np.float32)
    p[0, 1, 0], p[0, 0, 3] = 0.3, 0.2
    out = fill_diagonals(mask, p)
    added = np.argwhere(out & ~mask).tolist()
    assert added == [[0, 0, 3], [0, 1, 0]]
    assert np.array_equal(fill_diagonals(out, p), out)
    assert np.array_equal(fill_diagonals(mask, p, axes="zy"), mask)


def test_gap_step_spares_what_is_improbable():
    line = np.array([1, 0, 1, 0, 1], bool).reshape(1, 1, -1)
    p = np.array([1, 0.4, 1, 0.1, 1], np.float32).reshape(1, 1, -1)
    after = FillGaps(min_probability=0.3)(state_of(line, p))
    assert after.mask.ravel().astype(int).tolist() == [1, 1, 1, 0, 1]
    assert after.notes == {"voxels_added": 1}


@pytest.mark.parametrize("radius", [(1, 1, 1), (2, 1, 0), (3, 2.5, 1)])
def test_growth_closing_and_opening_equal_scipy(radius, rng):
    mask = ndimage.gaussian_filter(rng.random((14, 13, 12)), 1) > 0.52
    reach = [int(np.ceil(r)) for r in radius]
    grid = np.ogrid[tuple(slice(-n, n + 1) for n in reach)]
    inside = sum((g / r) ** 2 if r else 0 * g for g, r in zip(grid, radius, strict=True))
    ball = inside <= 1 + 1e-9
    pad = [(n + 1, n + 1) for n in reach]
    inner = tuple(slice(n + 1, -n - 1) for n in reach)
    assert np.array_equal(grown(mask, radius), ndimage.binary_dilation(mask, ball))
    wide = ndimage.binary_closing(np.pad(mask, pad), ball)[inner]
    assert np.array_equal(closed(mask, radius), wide)
    kept = ndimage.binary_erosion(mask, ball, border_value=1)
    assert not opened(mask, radius)[~mask].any()
    assert opened(mask, radius)[kept].all()


def test_opening_keeps_sheets_that_leave_the_volume_and_drops_threads():
    mask = np.zeros((9, 9, 9), bool)
    mask[3:6] = True
    mask[6:9, 4, 4] = True
    after = Morphology(operation="opening", radius=1)(state_of(mask)).mask
    assert after[3:6].all()
    assert np.argwhere(after[6:]).tolist() == [[0, 4, 4]]  # the cross at (5, 4, 4) holds it


def test_closing_is_per_axis():
    mask = np.zeros((7, 5, 5), bool)
    mask[[1, 4]] = True
    assert Morphology(radius=[1, 3, 3])(state_of(mask)).mask.sum() == 2 * 25
    assert Morphology(radius=[2, 0, 0])(state_of(mask)).mask.sum() == 4 * 25


def test_median_equals_scipy_and_stops_when_nothing_changes(rng):
    mask = rng.random((9, 8, 7)) > 0.5
    for size in (3, 5):
        expected = ndimage.median_filter(mask.astype(np.uint8), size=size, mode="nearest")
        assert np.array_equal(median_mask(mask, size=size), expected > 0)
    slab = np.zeros((8, 8, 8), bool)
    slab[3:5] = True
    slab[3:5, 4, 4] = False
    after = Median(rounds=3)(state_of(slab)).mask
    assert after[3:5].all()
    assert not after[2].any()


def test_gaussian_keeps_the_mask_and_the_sum():
    p = np.zeros((9, 9, 9), np.float32)
    p[4, 4, 4] = 1
    after = GaussianProbability(sigma=[0, 0, 1.0])(ChainState(p, mask=p > 0))
    assert after.mask is not None
    assert after.mask.sum() == 1
    assert after.probability.sum() == pytest.approx(1, abs=1e-5)
    assert np.count_nonzero(after.probability.any((1, 2))) == 1


@pytest.mark.parametrize("thickness", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slabs_come_out_three_or_four_thick(thickness, axis):
    mask = np.zeros((20, 20, 20), bool)
    np.moveaxis(mask, axis, 0)[6 : 6 + thickness] = True
    ridge = np.moveaxis(middle(mask), axis, 0)
    first = 6 + (thickness - 1) // 2
    assert np.flatnonzero(ridge.any((1, 2))).tolist() == list(range(first, 6 + thickness // 2 + 1))
    after = np.moveaxis(NormaliseThickness(radius=1.5)(state_of(mask)).mask, axis, 0)
    profile = after[:, 10, 10]
    assert int(profile.sum()) == (3 if thickness % 2 else 4)
    assert after.all((1, 2))[profile].all()


def test_slanted_thick_plate_gets_one_thickness():
    z, y, x = np.ogrid[:32, :32, :32]
    for normal in ((1, 1, 0), (2, 1, 1), (1, 0.3, 0.2)):
        n = np.array(normal) / np.linalg.norm(normal)
        h = (z - 16) * n[0] + (y - 16) * n[1] + (x - 16) * n[2]
        after = NormaliseThickness(radius=1.5)(state_of(np.abs(h) <= 4)).mask
        inner = (slice(8, -8),) * 3
        assert after[inner][np.abs(h[inner]) <= 0.5].all()
        assert np.abs(h[inner])[after[inner]].max() <= 2.5


def test_the_middle_has_the_masks_topology(rng):
    mask = ndimage.gaussian_filter(rng.random((24, 24, 24)), 2) > 0.5
    assert betti_numbers(middle(mask)) == betti_numbers(mask)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Threshold(threshold=2), "threshold must lie in"),
        (lambda: Hysteresis(low=0.9, high=0.5), "must not exceed"),
        (lambda: Hysteresis(axes="q"), "axes must be"),
        (lambda: RemoveDust(min_size_voxels=-1), "min_size_voxels must be at least 0"),
        (lambda: FillGaps(rounds=0), "rounds must be at least 1"),
        (lambda: Morphology(operation="erode"), "operation must be"),
        (lambda: Morphology(radius=[1, 2]), "radius must be one number or three"),
        (lambda: Median(size=4), "size must be 3, 5"),
        (lambda: GaussianProbability(sigma=-1), "radius must be"),
        (lambda: NormaliseThickness(radius=-1), "radius must be at least 0"),
        (lambda: RemoveDust()(ChainState(np.zeros((2, 2, 2), np.float32))), "needs a mask"),
    ],
)
def test_bad_arguments_are_named(build, message):
    with pytest.raises(ConfigError, match=message):
        build()
