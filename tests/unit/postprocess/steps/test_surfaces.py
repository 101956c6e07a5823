"""Steps with a model of the sheet: sheetness, diffusion, refit and un-merging."""

import numpy as np
import pytest
from scipy import ndimage
from skimage.segmentation import watershed

from vesuvius.errors import ConfigError
from vesuvius.postprocess.steps.diffusion import CoherenceDiffusion, diffuse
from vesuvius.postprocess.steps.flood import flood
from vesuvius.postprocess.steps.heightmap import footprint, height_map, smooth_surface
from vesuvius.postprocess.steps.refit import HeightMapRefit, rbf_surface
from vesuvius.postprocess.steps.sheetness import Sheetness, sheetness, symmetric_eigenvalues
from vesuvius.postprocess.steps.state import ChainState


def plate(normal, size=24, thickness=3.0):
    """Return a soft plate through the middle."""
    n = np.asarray(normal, float) / np.linalg.norm(normal)
    grid = np.stack(np.meshgrid(*[np.arange(size) - size / 2] * 3, indexing="ij"), -1) @ n
    return np.clip(thickness / 2 + 0.5 - np.abs(grid), 0, 1).astype(np.float32), grid


def test_eigenvalues_equal_numpy(rng):
    for _ in range(50):
        m = rng.normal(size=(3, 3))
        m = m + m.T
        ours = symmetric_eigenvalues(*np.diag(m), (m[0, 1], m[0, 2], m[1, 2]))
        assert np.allclose(ours, np.linalg.eigvalsh(m)[::-1], atol=1e-9)
    assert symmetric_eigenvalues(2.0, 2.0, 2.0, (0.0, 0.0, 0.0)) == (2, 2, 2)


@pytest.mark.parametrize("normal", [(1, 0, 0), (0, 1, 1), (1, 2, 3)])
def test_plates_score_high_rods_and_balls_low(normal):
    p, height = plate(normal)
    inner = (slice(6, -6),) * 3
    found = sheetness(p, sigmas=[1.5], contrast=0.25)
    assert found[inner][np.abs(height[inner]) < 0.5].min() > 0.8
    assert found[inner][np.abs(height[inner]) > 4].max() < 0.05
    z, y, x = np.ogrid[:24, :24, :24]
    rod = ((z - 12) ** 2 + (y - 12) ** 2 <= 4).astype(np.float32) * np.ones(
        (24, 24, 24), np.float32
    )
    ball = ((z - 12) ** 2 + (y - 12) ** 2 + (x - 12) ** 2 <= 4).astype(np.float32)
    assert sheetness(rod, sigmas=[1.5], contrast=0.25)[12, 12, 12] < 0.2
    assert sheetness(ball, sigmas=[1.5], contrast=0.25)[12, 12, 12] < 0.05


def test_sheetness_weight_zero_changes_nothing_and_dark_plates_are_none():
    p, _ = plate((1, 0, 0))
    same = Sheetness(weight=0)(ChainState(p)).probability
    assert np.array_equal(same, p)
    assert sheetness(1 - p, sigmas=[1.5])[12].max() == 0


def test_diffusion_fills_a_dent_along_the_sheet_and_keeps_its_edge():
    p, _ = plate((1, 0, 0), size=32, thickness=4)
    dented = p.copy()
    dented[:, 15:18, 15:18] *= 0.3
    out = diffuse(dented, iterations=20, across=0.001, sigma=4)
    assert out[16, 16, 16] > dented[16, 16, 16] + 0.3
    assert np.abs(out[:, 4:9, 4:9] - p[:, 4:9, 4:9]).max() < 0.06  # nothing leaks across
    assert abs(float(out.mean()) - float(dented.mean())) < 1e-3


def test_isotropic_diffusion_is_the_heat_equation():
    p = np.zeros((16, 16, 16), np.float32)
    p[8, 8, 8] = 1.0
    out = diffuse(p, iterations=1, across=1.0, sigma=4)
    assert out[8, 8, 8] == pytest.approx(0, abs=1e-6)
    assert out[7, 8, 8] == pytest.approx(1 / 6)
    step = CoherenceDiffusion(iterations=1, across=1.0)
    assert step(ChainState(p)).probability.sum() == pytest.approx(1, abs=1e-5)


def bent_sheet(size=48, offset=0.0, bend=6.0):
    """Return the height z of a bent sheet over (y, x)."""
    y, x = np.ogrid[:size, :size]
    return size / 2 + offset + bend * np.sin(np.pi * y / size) + 0.1 * x


def painted(heights, thickness=3, size=48):
    z = np.arange(size)[:, None, None]
    return np.abs(z - heights) <= thickness / 2


def test_height_map_is_the_plane_and_its_spread():
    voxels = np.argwhere(painted(np.full((20, 20), 10.0), size=20))
    fitted = height_map(voxels, np.ones(len(voxels), np.float32), margin=2)
    assert abs(abs(fitted.axes[2][0]) - 1) < 1e-9
    assert np.abs(fitted.height[fitted.known]).max() < 1e-6
    assert int(fitted.known.sum()) == 400
    assert set(np.unique(fitted.spread[fitted.known])) == {2.0}


def test_footprint_closes_holes_up_to_the_radius():
    known = np.zeros((40, 40), bool)
    known[5:35, 5:35] = True
    known[18:22, 18:22] = False
    assert footprint(known, hole_radius=4)[5:35, 5:35].all()
    assert not footprint(known, hole_radius=1)[19:21, 19:21].any()
    assert not footprint(known, hole_radius=4)[:4].any()


@pytest.mark.parametrize(
    "surface", [smooth_surface(3.0), rbf_surface(6, 0.0)], ids=["gauss", "rbf"]
)
def test_surfaces_follow_a_curved_height_over_a_hole(surface):
    i, j = np.mgrid[:50, :50]
    true = (0.01 * (i - 25.0) ** 2 + 0.2 * j).astype(np.float32)
    wanted = np.zeros((50, 50), bool)
    wanted[5:45, 5:45] = True
    known = wanted & ~((i - 25) ** 2 + (j - 25) ** 2 <= 16)
    out = surface(np.where(known, true, 0), known, wanted)
    middle = (slice(10, 40),) * 2
    assert np.abs(out - true)[middle].max() < 0.5


@pytest.mark.parametrize("surface", ["heightmap", "rbf"])
def test_refit_closes_a_hole_and_thins_a_blob(surface):
    heights = bent_sheet()
    mask = painted(heights)
    broken = mask.copy()
    broken[:, 20:25, 20:25] = False  # hole
    broken |= painted(heights, thickness=7) & (np.ogrid[:48, :48, :48][2] > 40)  # swelling
    after = HeightMapRefit(surface=surface, hole_radius=5, min_size_voxels=100)(
        ChainState(broken.astype(np.float32), mask=broken)
    )
    centre = np.abs(np.arange(48)[:, None, None] - heights) <= 0.5
    inner = (slice(None), slice(4, 44), slice(4, 44))
    assert after.mask[inner][centre[inner]].all()
    assert not (after.mask & ~painted(heights, thickness=5.5))[inner].any()
    assert after.notes["sheets"] == 1
    assert set(np.unique(after.labels)) == {0, 1}


def merged_sheets():
    """Two sheets 7 voxels apart, joined by a pillar of lower probability."""
    p = np.zeros((48, 48, 48), np.float32)
    for offset in (-3.5, 3.5):
        p[painted(bent_sheet(offset=offset, bend=2.0))] = 0.9
    bridge = (slice(20, 32), slice(10, 30), slice(10, 30))
    p[bridge] = np.maximum(p[bridge], 0.55)
    return p


def test_merged_sheets_come_apart_at_a_higher_threshold():
    p = merged_sheets()
    state = ChainState(p, mask=p > 0.5)
    after = HeightMapRefit(max_spread=6, thresholds=[0.6, 0.7], min_size_voxels=500)(state)
    assert after.notes["sheets"] == 2
    assert after.notes["taken_apart"] == 1
    upper, lower = after.labels[:, 20, 20][after.labels[:, 20, 20] > 0][[0, -1]]
    assert upper != lower
    near = np.zeros(p.shape, bool)
    for axis in range(3):
        a = np.moveaxis(after.labels, axis, 0)
        near_pair = (a[1:] != a[:-1]) & (a[1:] > 0) & (a[:-1] > 0)
        np.moveaxis(near, axis, 0)[1:] |= near_pair
    assert not near.any()
    kept = HeightMapRefit(max_spread=6, thresholds=[], min_size_voxels=500)(state)
    assert kept.notes == {"sheets": 0, "kept_as_they_are": 1, "taken_apart": 0, "contacts_cut": 0}
    assert np.array_equal(kept.mask, state.mask)


def test_flooding_equals_the_watershed_of_scikit_image(rng):
    inside = ndimage.gaussian_filter(rng.random((12, 12, 12)), 1) > 0.5
    levels = rng.permutation(255)[:12]  # one level a plane along z: no ties between floods
    p = np.broadcast_to((levels[:, None, None] / 255).astype(np.float32), inside.shape)
    voxels = np.argwhere(inside)
    seeds = np.zeros(len(voxels), np.int64)
    seeds[[0, len(voxels) // 2, -1]] = 1, 2, 3
    markers = np.zeros(inside.shape, np.int32)
    markers[tuple(voxels.T)] = seeds
    expected = watershed(-p, markers, mask=inside, connectivity=np.ones((3, 3, 3)))
    ours = flood(voxels, p[inside], seeds)
    assert (ours == expected[inside]).mean() > 0.95  # equal but for places equally far from two


def test_flooding_takes_the_likelier_way_and_leaves_islands():
    voxels = np.array([(0, 0, x) for x in range(7)] + [(5, 5, 5)])
    p = np.array([0.9, 0.8, 0.2, 0.7, 0.7, 0.7, 0.9, 0.9], np.float32)
    seeds = np.array([1, 0, 0, 0, 0, 0, 2, 0])
    assert flood(voxels, p, seeds).tolist() == [1, 1, 1, 2, 2, 2, 2, 0]


def test_small_components_stay_and_sheet_numbers_are_needed_for_sheets():
    mask = np.zeros((16, 16, 16), bool)
    mask[3, 3, 3:6] = True
    state = ChainState(mask.astype(np.float32), mask=mask)
    assert np.array_equal(HeightMapRefit()(state).mask, mask)
    with pytest.raises(ConfigError, match="needs sheet numbers"):
        HeightMapRefit(by="sheets")(state)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: HeightMapRefit(by="block"), "by must be"),
        (lambda: HeightMapRefit(thresholds=[0.8, 0.6]), "thresholds must rise"),
        (lambda: HeightMapRefit(thickness=0), "thickness must be at least 1"),
        (lambda: Sheetness(sigmas=[]), "sigmas must be positive"),
        (lambda: CoherenceDiffusion(across=0), "across must lie in"),
    ],
)
def test_bad_arguments_are_named(build, message):
    with pytest.raises(ConfigError, match=message):
        build()
