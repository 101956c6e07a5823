"""The phantom's truth is true: winding, wraps, normals, line and label agree with each other."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from vesuvius.data.phantom import Phantom, PhantomSettings, make_phantom
from vesuvius.errors import ConfigError

SHAPE = (64, 64, 64)
INNER = (slice(2, -2),) * 3


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(SHAPE, seed=3)


@pytest.fixture(scope="module")
def clean() -> Phantom:
    return make_phantom(SHAPE, seed=5, settings=PhantomSettings.preset("clean"))


def along_normals(p: Phantom, volume: np.ndarray, points: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Nearest-voxel samples (points, t) of a volume along the normals at integer points (n, 3)."""
    normals = p.normals[(slice(None), *points.T)].T
    places = points[:, None, :] + t[None, :, None] * normals[:, None, :]
    return ndimage.map_coordinates(volume, places.transpose(2, 0, 1), order=0, cval=0)


def run_lengths(p: Phantom, mask: np.ndarray, *, margin: int, reach: float) -> np.ndarray:
    """Length of the mask's run along the normal through random voxels of it (step 0.25)."""
    rng = np.random.default_rng(0)
    inside = np.argwhere(mask)
    size = np.array(mask.shape)
    inside = inside[((inside >= margin) & (inside < size - margin)).all(1)]
    points = inside[rng.choice(len(inside), 400)]
    t = np.arange(0, reach, 0.25)
    length = np.full(len(points), -0.25)
    for sign in (1, -1):
        hit = along_normals(p, mask.astype(np.uint8), points, sign * t) > 0
        length += 0.25 * np.where(hit.all(1), len(t), np.argmin(hit, axis=1))
    return length


@pytest.mark.parametrize("shape", [(40, 33, 57), (8, 16, 9)], ids=str)
def test_any_shape_has_the_documented_arrays(shape):
    p = make_phantom(shape, seed=1)
    expected = {"image": np.uint8, "label": np.uint8, "surface": np.uint8, "wrap": np.int16}
    for name, dtype in {**expected, "winding": np.float32}.items():
        assert getattr(p, name).shape == shape
        assert getattr(p, name).dtype == dtype
    assert p.normals.shape == (3, *shape)
    assert p.normals.dtype == np.float32


def test_same_seed_same_voxels_other_seed_other_voxels(phantom):
    again = make_phantom(SHAPE, seed=3)
    other = make_phantom(SHAPE, seed=4)
    for name in ("image", "label", "surface", "wrap", "winding", "normals"):
        np.testing.assert_array_equal(getattr(phantom, name), getattr(again, name))
    assert (phantom.image != other.image).mean() > 0.9


@pytest.mark.parametrize("name", ["default", "touching", "holes", "folds", "clean"])
def test_wrap_is_the_whole_part_of_the_winding_inside_papyrus(name):
    p = make_phantom((48, 48, 48), seed=2, settings=PhantomSettings.preset(name))
    inside = p.wrap > 0
    assert 0.2 < inside.mean() < 0.95
    np.testing.assert_array_equal(p.wrap[inside], np.floor(p.winding)[inside])


@pytest.mark.parametrize("deformation", [0.0, 0.6, 1.0])
def test_winding_rises_along_the_normals_so_wraps_never_cross(deformation):
    p = make_phantom(SHAPE, seed=6, settings=PhantomSettings(deformation=deformation))
    places = np.indices(SHAPE)[:, 4:-4, 4:-4, 4:-4].astype(float)
    step = 1.5 * p.normals[:, 4:-4, 4:-4, 4:-4]
    ahead = ndimage.map_coordinates(p.winding, places + step, order=1)
    behind = ndimage.map_coordinates(p.winding, places - step, order=1)
    assert (ahead - behind).min() > 0.03  # 3 voxels of a pitch below 100


def test_normals_are_the_unit_gradient_of_the_winding(phantom):
    length = np.linalg.norm(phantom.normals, axis=0)
    np.testing.assert_allclose(length, 1.0, atol=1e-5)
    gradient = np.array(np.gradient(phantom.winding.astype(np.float64)))
    gradient /= np.linalg.norm(gradient, axis=0)
    cosine = (gradient * phantom.normals).sum(0)[INNER]
    assert cosine.min() > 0.9999


def test_winding_rises_outward_from_the_umbilicus():
    p = make_phantom(
        SHAPE, seed=0, settings=PhantomSettings(deformation=0.0), umbilicus_yx=(-80.0, 32.0)
    )
    assert p.normals[1].min() > 0.8  # the chunk lies at larger y than the umbilicus
    assert p.winding.min() > 1


def test_pitch_stays_near_the_asked_range():
    settings = PhantomSettings(pitch=(10.0, 20.0))
    pitch = []
    for seed in range(4):
        winding = make_phantom((64, 64, 64), seed=seed, settings=settings).winding
        gradient = np.array(np.gradient(winding.astype(np.float64)))
        pitch.append(1.0 / np.linalg.norm(gradient, axis=0)[INNER])
    low, middle, high = np.percentile(pitch, [2, 50, 98])
    assert low > 5.0
    assert 10.0 < middle < 20.0
    assert high < 40.0


def test_umbilicus_inside_leaves_one_continuous_sheet():
    p = make_phantom(SHAPE, seed=1, umbilicus_yx=(32.0, 32.0))
    jumps = np.diff(p.winding.astype(np.float64), axis=1)
    away = np.hypot(*(np.indices(SHAPE)[1:, :, :-1] - 32.0)) > 14
    rest = jumps - np.round(jumps)
    assert set(np.unique(np.round(jumps[away]))) <= {-1.0, 0.0, 1.0}
    assert np.abs(np.round(jumps[away])).max() == 1.0  # the cut is there
    assert np.abs(rest[away]).max() < 0.35


def test_chunks_of_one_scroll_fit_together():
    whole = make_phantom((48, 64, 48), seed=7, umbilicus_yx=(-90.0, 20.0))
    part = make_phantom((20, 24, 28), seed=7, umbilicus_yx=(-90.0, 20.0), origin_zyx=(10, 30, 12))
    box = (slice(10, 30), slice(30, 54), slice(12, 40))
    shift = part.winding - whole.winding[box]
    np.testing.assert_allclose(shift, np.round(shift), atol=1e-4)
    same = (part.surface == whole.surface[box]).mean()
    assert same > 0.999
    assert ((part.wrap > 0) == (whole.wrap[box] > 0)).mean() > 0.999


def test_label_is_the_surface_line_with_a_rim_breaks_and_ignored_regions(phantom):
    label = phantom.label
    assert set(np.unique(label)) == {0, 1, 2}
    rim = np.ones(SHAPE, bool)
    rim[3:-3, 3:-3, 3:-3] = False
    assert (label[rim] == 2).all()
    assert (phantom.surface[label == 1] == 1).all()
    lacking = (label == 0) & (phantom.surface == 1)
    assert 0.01 < lacking.sum() / (lacking.sum() + (label == 1).sum()) < 0.2


def test_clean_labels_are_complete(clean):
    inner = (slice(3, -3),) * 3
    np.testing.assert_array_equal(clean.label[inner], clean.surface[inner])


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_ignore_share_is_met(share):
    settings = PhantomSettings(ignore_share=share, ignore_rim=0, crumpled_share=0.0)
    p = make_phantom(SHAPE, seed=2, settings=settings)
    assert abs((p.label == 2).mean() - share) < 0.02


def test_line_is_two_to_three_voxels_thick_and_centred_on_the_recto_face(clean):
    lengths = run_lengths(clean, clean.surface > 0, margin=6, reach=6.0)
    assert 2.0 <= np.median(lengths) <= 3.0
    inside = clean.surface[INNER] > 0
    offset = (clean.winding - np.round(clean.winding))[INNER][inside]
    assert abs(np.median(offset)) < 0.02  # fractions of a pitch
    # co-area: line volume / area of whole-number levels = thickness
    gradient = np.array(np.gradient(clean.winding.astype(np.float64)))
    area = np.linalg.norm(gradient, axis=0)[INNER].sum()
    assert abs(inside.sum() / area - clean.settings.line_thickness) < 0.3


def test_papyrus_is_within_the_thickness_asked_for_and_below_the_pitch(clean):
    lengths = run_lengths(clean, clean.wrap > 0, margin=16, reach=15.0)
    assert np.percentile(lengths, 10) > 3.5
    assert np.percentile(lengths, 90) < 17.0  # two wraps where they touch


def contact_share(p: Phantom) -> float:
    """Share of papyrus voxels beside another wrap's papyrus."""
    wrap = p.wrap
    touching = 0
    for axis in range(3):
        a, b = np.moveaxis(wrap, axis, 0)[:-1], np.moveaxis(wrap, axis, 0)[1:]
        touching += np.count_nonzero((a > 0) & (b > 0) & (a != b))
    return touching / np.count_nonzero(wrap)


def test_touching_preset_touches_more():
    contacts = {
        name: contact_share(make_phantom(SHAPE, seed=9, settings=PhantomSettings.preset(name)))
        for name in ("clean", "default", "touching")
    }
    assert contacts["clean"] < contacts["touching"]
    assert contacts["touching"] > 1.5 * contacts["default"]


def test_hole_share_is_met():
    base = PhantomSettings(hole_share=0.0)
    shapes = (48, 160, 160)
    whole = make_phantom(shapes, seed=4, settings=base).surface.sum()
    torn = make_phantom(shapes, seed=4, settings=replace(base, hole_share=0.33)).surface.sum()
    assert abs(1 - torn / whole - 0.33) < 0.1


def test_a_threshold_does_not_find_the_line():
    """The best single threshold for four chunks, labelled voxels only."""
    chunks = [make_phantom((72, 72, 72), seed=s) for s in range(4)]
    image = np.concatenate([p.image[p.label != 2] for p in chunks])
    truth = np.concatenate([p.label[p.label != 2] for p in chunks]) == 1
    found = np.cumsum(np.bincount(image, minlength=256)[::-1])[::-1]
    right = np.cumsum(np.bincount(image[truth], minlength=256)[::-1])[::-1]
    dice = 2 * right / (found + truth.sum())
    assert 0.1 < dice.max() < 0.3


def test_recto_layer_is_brighter_than_verso_layer():
    p = make_phantom((96, 96, 96), seed=2, settings=PhantomSettings(crumpled_share=0.0))
    gradient = np.array(np.gradient(p.winding.astype(np.float64)))
    depth = (p.winding % 1.0) / np.linalg.norm(gradient, axis=0)
    papyrus = p.wrap > 0
    recto = p.image[papyrus & (depth > 1) & (depth < 3)].mean()
    verso = p.image[papyrus & (depth > 6) & (depth < 9)].mean()
    assert recto - verso > 12


def test_image_has_the_contrast_of_a_scan(phantom):
    air = phantom.image[(ndimage.distance_transform_edt(phantom.wrap == 0) > 3)]
    papyrus = phantom.image[phantom.wrap > 0]
    assert 70 < np.median(air) < 105
    assert np.median(papyrus) - np.median(air) > 40
    assert phantom.image.max() < 256
    assert (phantom.image == 255).mean() < 0.02


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"pitch": (4.0, 30.0)}, r"PhantomSettings.pitch is \(4.0, 30.0\), expected \(smallest"),
        ({"pitch": (30.0, 10.0)}, "6 <= smallest <= largest <= 200"),
        ({"thickness": (9.0, 14.0)}, "thickness starts at 9 voxels, above the smallest pitch 8"),
        ({"hole_share": 1.5}, "PhantomSettings.hole_share is 1.5, expected a value from 0 to 1"),
        ({"noise": -1.0}, "PhantomSettings.noise is -1, expected a value from 0"),
        ({"blur": float("nan")}, "PhantomSettings.blur is nan"),
        ({"air": 300.0}, "PhantomSettings.air is 300, expected a value from 0 to 255"),
        ({"line_thickness": 0.5}, "line_thickness is 0.5, expected a value from 1 to 6"),
    ],
    ids=["pitch-low", "pitch-order", "thickness", "share", "noise", "nan", "grey", "line"],
)
def test_settings_out_of_range_are_named(values, text):
    with pytest.raises(ConfigError, match=text):
        PhantomSettings(**values)


def test_unknown_preset_lists_the_known():
    with pytest.raises(ConfigError, match="'hard'; choose one of default, touching, holes, folds"):
        PhantomSettings.preset("hard")


@pytest.mark.parametrize(
    ("shape", "seed", "text"),
    [
        ((4, 64, 64), 0, r"shape_zyx is \(4, 64, 64\), expected three sizes of at least 8"),
        ((64, 64), 0, r"shape_zyx is \(64, 64\)"),
        ((16, 16, 16), -1, "seed is -1, expected 0 or more"),
    ],
    ids=["thin", "2-D", "seed"],
)
def test_shape_and_seed_are_checked(shape, seed, text):
    with pytest.raises(ConfigError, match=text):
        make_phantom(shape, seed=seed)
