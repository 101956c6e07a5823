"""The competition's score against its frozen values, hand cases and a slow reference."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from unit.metrics import metric_reference as reference

from vesuvius.errors import ConfigError, ShapeMismatchError, VolumeFormatError
from vesuvius.metrics import competition_score, surface_dice, topo_score, voi_score
from vesuvius.metrics.surface_distance import surface_areas

CASES = Path(__file__).parent / "cases"
REALS = ("score", "topo", "surface_dice", "voi_split", "voi_merge", "voi_score")


def frozen_cases():
    return json.loads((CASES / "competition_metric.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def volumes():
    with np.load(CASES / "competition_metric.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize("case", frozen_cases(), ids=lambda case: f"case{case['case']}")
def test_frozen_official_values(case, volumes):
    result = competition_score(volumes[f"p{case['case']}"], volumes[f"g{case['case']}"])
    assert result.counts == {int(k): tuple(v) for k, v in case["counts"].items()}
    for name in REALS:
        assert getattr(result, name) == pytest.approx(case[name], rel=0, abs=1e-9), name


def empty():
    return np.zeros((16, 16, 16), np.uint8)


def slabs(*tops):
    volume = empty()
    for top in tops:
        volume[top : top + 2] = 1
    return volume


def with_voxels(volume, *at):
    volume = volume.copy()
    for place in at:
        volume[place] = 1
    return volume


def drilled(y, x):
    volume = slabs(4)
    volume[:, y, x] = 0
    return volume


TWO = with_voxels(empty(), (1, 1, 1), (6, 6, 6))
HAND = {
    "both empty": (empty(), empty(), 1, 1, 1, 1),
    "missed voxel": (empty(), with_voxels(empty(), (3, 3, 3)), 0.65, 1, 0, 1),
    "one of two": (with_voxels(empty(), (1, 1, 1)), TWO, 0.70, 0, None, 1),
    "one slab of two": (slabs(4), slabs(4, 10), 0.883333, 1, 0.666667, 1),
    "slabs joined": (
        with_voxels(slabs(4, 10), (slice(4, 12), 3, 3)), slabs(4, 10), 0.917204, 1, 1, 0.763441,
    ),
    "hole": (drilled(3, 3), slabs(4), 0.796171, 0.333333, 1, 0.989059),
    "two holes": (drilled(3, 3), drilled(5, 5), 0.692428, 0, 1, 0.978367),
}  # fmt: skip


@pytest.mark.parametrize("name", HAND)
def test_hand_cases(name):
    prediction, label, score, topo, surface, voi = HAND[name]
    result = competition_score(prediction, label)
    assert result.topo == pytest.approx(topo, abs=1e-6)
    assert result.voi_score == pytest.approx(voi, abs=1e-6)
    if surface is not None:
        assert result.surface_dice == pytest.approx(surface, abs=1e-6)
        assert result.score == pytest.approx(score, abs=1e-6)


def test_quirks_of_the_definition():
    broken = slabs(4)
    broken[:, :, 8] = 0  # a cut along a face between blocks
    assert competition_score(broken, slabs(4)).topo == 1.0
    assert voi_score(slabs(4), slabs(4, 10)).score == 1.0  # a missing sheet
    bridge = with_voxels(slabs(4, 10), (slice(6, 10), 3, 3))  # leaves block 0 at z = 8
    assert topo_score(bridge, slabs(4, 10))[0] == 1.0
    assert voi_score(bridge, slabs(4, 10)).score < 1.0


def test_ignored_voxels_are_background_in_both():
    label = slabs(4, 10)
    ignored = label.copy()
    ignored[10:12] = 2
    prediction = slabs(4, 10)
    same = competition_score(prediction, ignored)
    assert same.score == 1.0
    assert same.counts == competition_score(slabs(4), slabs(4)).counts
    by_mask = competition_score(prediction, label, ignore_mask=ignored == 2)
    assert by_mask == same
    assert competition_score(slabs(4), ignored, ignore_label=None).surface_dice < 0.7


def test_predicted_two_is_foreground_and_nan_is_background():
    prediction = slabs(4).astype(np.float32)
    prediction[prediction == 1] = 2
    prediction[9] = np.nan
    assert competition_score(prediction, slabs(4)).score == 1.0


def test_weights_are_clamped_and_renormalised():
    prediction = drilled(3, 3)
    result = competition_score(
        prediction, slabs(4), topo_weight=-1, surface_weight=0.5, voi_weight=1.5
    )
    expected = 0.25 * result.surface_dice + 0.75 * result.voi_score
    assert result.score == pytest.approx(expected, abs=1e-12)
    with pytest.raises(ConfigError, match="at least one must be positive"):
        competition_score(prediction, slabs(4), topo_weight=0, surface_weight=-1, voi_weight=0)


def test_parts_alone_equal_the_whole(rng):
    prediction, label = rng.random((2, 11, 12, 9)) < 0.4
    whole = competition_score(prediction, label)
    assert topo_score(prediction, label) == (whole.topo, whole.counts)
    assert surface_dice(prediction, label) == whole.surface_dice
    assert voi_score(prediction, label).split == whole.voi_split
    for k in range(3):
        total = np.sum([block.counts[k] for block in whole.blocks], axis=0)
        assert tuple(total) == whole.counts[k]
    assert [block.origin_zyx for block in whole.blocks[:2]] == [(0, 0, 0), (0, 0, 5)]
    assert whole.blocks[0].shape_zyx == (6, 6, 5)


def test_threads_do_not_change_the_result(rng):
    prediction, label = rng.random((2, 24, 20, 22)) < 0.3
    assert competition_score(prediction, label, threads=1) == competition_score(
        prediction, label, threads=4
    )


def test_errors_name_argument_and_shape():
    with pytest.raises(ShapeMismatchError, match=r"prediction has shape \(4, 4, 4\), label"):
        competition_score(np.zeros((4, 4, 4)), np.zeros((4, 4, 5)))
    with pytest.raises(VolumeFormatError, match=r"label has shape \(4, 4\); expected a 3-D"):
        competition_score(np.zeros((4, 4, 4)), np.zeros((4, 4)))
    with pytest.raises(ShapeMismatchError, match="ignore_mask has shape"):
        competition_score(empty(), empty(), ignore_mask=np.zeros((4, 4, 4)))
    with pytest.raises(ConfigError, match="spacing must be three positive"):
        competition_score(TWO, TWO, spacing=(1, 0, 1))
    with pytest.raises(ConfigError, match="tolerance must be"):
        surface_dice(TWO, TWO, tolerance=float("nan"))


@pytest.mark.parametrize("tolerance", [0, 1, 1.5, 2, 3.3, 12.0])
@pytest.mark.parametrize("spacing", [(1, 1, 1), (2.0, 1.0, 0.5)])
def test_surface_dice_against_distance_transform(rng, tolerance, spacing):
    label = rng.random((9, 14, 12)) < 0.02
    prediction = rng.random((9, 14, 12)) < 0.03
    expected = reference.surface_dice(prediction, label, surface_areas(spacing), spacing, tolerance)
    found = surface_dice(prediction, label, spacing=spacing, tolerance=tolerance)
    assert found == pytest.approx(expected, abs=1e-12)
    assert 0 < found <= 1


def test_areas_of_known_elements():
    areas = surface_areas()
    corner, edge, plane = np.sqrt(3) / 8, np.sqrt(2) / 2, 1.0
    np.testing.assert_allclose(areas[[1, 128, 254]], corner)
    np.testing.assert_allclose(areas[[0b11, 0b101, 0b10001]], edge)
    np.testing.assert_allclose(areas[[0b1111, 0b110011, 0b1010101]], plane)
    np.testing.assert_array_equal(areas, areas[::-1])  # a code and its complement
    wide = surface_areas((5.0, 3.0, 2.0))  # faces across z, y, x: 6, 10, 15
    np.testing.assert_allclose(wide[[0b1111, 0b110011, 0b1010101]], [6, 10, 15])


def test_areas_do_not_depend_on_orientation():
    """A rotation of the cube may not change an area (ambiguous kinds share one table entry)."""
    areas = surface_areas()
    cube = np.arange(256)[:, None] >> np.arange(8) & 1
    for axes in ((1, 2), (2, 3), (1, 3)):
        turned = np.rot90(cube.reshape(-1, 2, 2, 2), axes=axes).reshape(-1, 8)
        codes = (turned << np.arange(8)).sum(1)
        np.testing.assert_allclose(areas[codes], areas, atol=1e-9)


@pytest.mark.parametrize("density", [0.05, 0.3, 0.6])
def test_voi_against_loops(rng, density):
    label = rng.random((7, 8, 9)) < density
    prediction = label ^ (rng.random(label.shape) < 0.1)
    split, merge = reference.voi(prediction, label)
    found = voi_score(prediction, label)
    assert found.split == pytest.approx(merge, abs=1e-12)  # the reference: H(G | P), H(P | G)
    assert found.merge == pytest.approx(split, abs=1e-12)
    assert found.score == pytest.approx(1 / (1 + 0.3 * (split + merge)), abs=1e-12)


def test_cutting_a_sheet_is_a_split():
    cut = slabs(4)
    cut[:, 8] = 0
    assert voi_score(cut, slabs(4)).split > voi_score(cut, slabs(4)).merge
    assert voi_score(slabs(4), cut).merge > voi_score(slabs(4), cut).split


def test_import_needs_no_torch():
    code = (
        "import sys; from vesuvius.metrics import competition_score; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_every_export_is_a_callable_of_its_name():
    import vesuvius.metrics
    import vesuvius.metrics.cldice
    import vesuvius.metrics.overlap  # a module may not hide a function

    for name in vesuvius.metrics.__all__:
        assert getattr(vesuvius.metrics, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = vesuvius.metrics.nothing
