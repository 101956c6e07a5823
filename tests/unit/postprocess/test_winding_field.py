"""The winding solver end to end: numbers, properties, bad input."""

import dataclasses

import numpy as np
import pytest

from benchmarks.winding_cases import DEFAULT, Case, make_case
from vesuvius.errors import ShapeMismatchError, SolverError, VolumeFormatError
from vesuvius.postprocess import WindingResult, winding_field
from vesuvius.postprocess.winding import MaskSettings
from vesuvius.postprocess.winding.field import solve_field
from vesuvius.postprocess.winding.result import sheet_labels


def right_share(truth: np.ndarray, found: np.ndarray) -> float:
    """Share of voxels with the true number, up to one offset and sign."""
    return max(
        np.unique(truth - sign * found, return_counts=True)[1].max() / truth.size
        for sign in (1, -1)
    )


@pytest.fixture(scope="module")
def case() -> Case:
    return make_case(DEFAULT, (64, 72, 64), seed=3)


@pytest.fixture(scope="module")
def solved(case: Case) -> WindingResult:
    return winding_field(case.probability, threads=1)


def test_every_wrap_gets_its_own_number(case, solved):
    both = (case.wrap > 0) & (solved.labels > 0)
    assert both.sum() > 0.75 * (case.wrap > 0).sum()
    assert right_share(case.wrap[both], solved.labels[both]) > 0.995
    assert solved.coherence > 0.8
    assert solved.residual <= 1e-3
    assert not solved.fallback


def test_result_types_and_ranges(case, solved):
    assert solved.field.dtype == np.float32
    assert solved.labels.dtype == np.int32
    assert solved.mask.dtype == np.uint8
    np.testing.assert_array_equal(solved.mask, solved.labels > 0)
    assert solved.labels[solved.labels > 0].min() == 1


def test_labels_never_touch(solved):
    labels = solved.labels
    for dz, dy, dx in np.ndindex(2, 3, 3):
        a = labels[: labels.shape[0] - dz or None]
        b = labels[dz:]
        for step, axis in ((dy - 1, 1), (dx - 1, 2)):
            n = labels.shape[axis]
            first = np.arange(max(0, -step), n - max(0, step))
            a, b = np.take(a, first, axis), np.take(b, first + step, axis)
        assert not np.any((a > 0) & (b > 0) & (a != b)), (dz, dy - 1, dx - 1)


@pytest.mark.parametrize(
    "turn",
    [lambda v: v[::-1], lambda v: v[:, ::-1], lambda v: v[:, :, ::-1],
     lambda v: np.rot90(v, 1, (1, 2)), lambda v: v.transpose(2, 0, 1)],
    ids=["flip z", "flip y", "flip x", "rotate", "permute"],
)  # fmt: skip
def test_turning_the_volume_permutes_the_labels_and_nothing_else(case, solved, turn):
    turned = winding_field(np.ascontiguousarray(turn(case.probability)), threads=1)
    before = np.ascontiguousarray(turn(solved.labels))
    both = (before > 0) & (turned.labels > 0)
    either = (before > 0) | (turned.labels > 0)
    assert both.sum() > 0.98 * either.sum()
    assert right_share(before[both], turned.labels[both]) > 0.998


@pytest.mark.parametrize("constant", [-5.0, 8.0])
def test_adding_a_whole_number_to_the_field_changes_no_label(case, constant):
    solution = solve_field(case.probability)
    moved = dataclasses.replace(solution, field=solution.field + np.float32(constant))
    labels, others = (
        sheet_labels(case.probability, s, MaskSettings(), threads=1) for s in (solution, moved)
    )
    # float32 rounds the moved field: single voxels on the rim of the band may differ
    assert np.count_nonzero(labels != others) < 1e-4 * np.count_nonzero(labels)


def test_threads_change_nothing(case, solved):
    other = winding_field(case.probability, threads=3)
    np.testing.assert_array_equal(other.labels, solved.labels)


@pytest.mark.parametrize(
    ("probability", "error", "text"),
    [
        (np.full((16, 16, 16), np.nan, np.float32), VolumeFormatError, "4096 NaN"),
        (np.full((16, 16, 16), 1.5, np.float32), VolumeFormatError, "spans 1.5 to 1.5"),
        (np.zeros((16, 16, 16), np.uint8), VolumeFormatError, "uint8"),
        (np.zeros((16, 16), np.float32), SolverError, r"\(16, 16\)"),
        (np.zeros((16, 16, 4), np.float32), SolverError, "at least 8"),
    ],
    ids=["nan", "range", "dtype", "2-d", "thin"],
)
def test_bad_probability_is_refused(probability, error, text):
    with pytest.raises(error, match=text):
        winding_field(probability)


def test_shapes_that_disagree_are_refused():
    p = np.zeros((16, 16, 16), np.float32)
    with pytest.raises(ShapeMismatchError, match=r"expected \(3, 16, 16, 16\)"):
        winding_field(p, np.zeros((3, 16, 16, 15), np.float32))
    with pytest.raises(ShapeMismatchError, match="windings per voxel"):
        winding_field(p, density=np.ones((16, 16, 15), np.float32))


def test_empty_volume_gives_an_empty_result():
    result = winding_field(np.zeros((16, 20, 24), np.float32))
    assert result.mask.sum() == 0
    assert result.fallback
    assert "coherence 0.00" in str(result.report["warning"])


def test_solid_block_ends_with_a_defined_result():
    result = winding_field(np.ones((24, 24, 24), np.float32))
    assert np.isfinite(result.field).all()
    assert set(np.unique(result.mask)) <= {0, 1}


def test_one_sheet_gets_one_number():
    z = np.arange(40, dtype=np.float32)[:, None, None]
    p = np.broadcast_to(np.exp(-(((z - 19.3) / 1.5) ** 2)), (40, 32, 32)).astype(np.float32)
    result = winding_field(p)
    assert np.unique(result.labels).tolist() == [0, 1]
    # the data is 2.5 voxels thick, from 18.05 to 20.55
    assert result.mask[19:21].all()
    assert not result.mask[:18].any()
    assert not result.mask[22:].any()


def sheet_with_hole(peak: float) -> np.ndarray:
    """Return one flat sheet (layer 20, 40 x 32) whose probability drops to `peak` in a disc."""
    z, y, x = np.ogrid[:40, :40, :32]
    height = np.where((y - 20) ** 2 + (x - 16) ** 2 <= 2.5**2, peak, 0.95)
    return (height * np.exp(-(((z - 20) / 1.8) ** 2))).astype(np.float32)


def test_doubtful_holes_are_closed_and_torn_ones_stay_open():
    doubtful = winding_field(sheet_with_hole(0.23), threads=1).mask
    torn = winding_field(sheet_with_hole(0.02), threads=1).mask
    always = MaskSettings(hole_probability=0.0)
    closed = winding_field(sheet_with_hole(0.02), threads=1, mask_settings=always).mask
    assert doubtful[20, 20, 16] == 1
    assert torn[20, 20, 16] == 0
    assert closed[20, 20, 16] == 1
    assert torn[20, 12, 8] == 1  # the rest of the sheet stays


def test_zero_normals_count_as_none(case, solved):
    zero = np.zeros((3, *case.probability.shape), np.float32)
    np.testing.assert_array_equal(winding_field(case.probability, zero).labels, solved.labels)


def test_umbilicus_turns_the_numbers_outward(case, solved):
    outward = np.stack(np.gradient(case.winding))[:, 32, 36, 32]
    centre = np.array([36.0, 32.0])
    near, far = centre - 3000 * outward[1:], centre + 3000 * outward[1:]
    along = winding_field(case.probability, umbilicus_yx=tuple(near)).field
    against = winding_field(case.probability, umbilicus_yx=tuple(far)).field
    assert np.corrcoef(along.ravel(), case.winding.ravel())[0, 1] > 0.99
    assert np.corrcoef(against.ravel(), case.winding.ravel())[0, 1] < -0.99


def test_low_coherence_falls_back_to_the_threshold_mask_and_says_so(case):
    result = winding_field(
        case.probability, mask_settings=MaskSettings(fallback_coherence=1.0, dust=0)
    )
    assert result.fallback
    np.testing.assert_array_equal(result.mask, case.probability > 0.5)
    assert "cleaned threshold mask" in str(result.report["warning"])
