"""Phantom hearts: all classes, coronaries of the right size, every difficulty, repeatable."""

import json
import time

import numpy as np
import pytest
from scipy import ndimage

from vesuvius.data.heart.labels import read_label_map
from vesuvius.data.heart.phantom import (
    AORTA,
    CORONARY,
    LA,
    LV,
    MYO,
    PV,
    RA,
    RV,
    HeartPhantomSettings,
    make_heart,
)  # fmt: skip
from vesuvius.data.heart.phantom_files import write_heart_phantoms
from vesuvius.data.heart.phantom_shapes import smooth_path
from vesuvius.errors import ConfigError


@pytest.fixture(scope="module")
def hearts():
    return [make_heart(seed) for seed in range(3)]


def test_all_classes_are_there_in_their_proportions(hearts):
    shares = np.array([np.bincount(h.ravel(), minlength=11) / h.size for h in hearts])
    assert (shares[:, 1:] > 0.0005).all()
    assert shares[:, CORONARY].mean() == pytest.approx(0.00125, abs=0.0002)
    assert 0.13 < 1 - shares[:, 0].mean() < 0.22
    ml = shares * 120**3 / 1000
    assert 50 < ml[:, LV].mean() < 90
    assert ml[:, MYO].mean() > ml[:, RA].mean()


def test_structures_are_whole_and_meet_where_they_should(hearts):
    cross = ndimage.generate_binary_structure(3, 1)
    for heart in hearts:
        for c in (MYO, LA, LV, RA, RV, AORTA):
            assert ndimage.label(heart == c, np.ones((3, 3, 3)))[1] == 1, c
        around = {c: ndimage.binary_dilation(heart == c, cross) for c in (LV, LA, PV)}
        assert (around[LV] & (heart == MYO)).sum() > 1000
        assert (around[LV] & (heart == AORTA)).any()
        # the veins hang on the atrium, but for one that another vessel may cut off
        assert ndimage.label(around[PV] | (heart == LA))[1] <= 2
        for axis in range(3):
            assert not heart.take(0, axis).any()
            assert not heart.take(-1, axis).any()


def test_a_seed_is_a_heart():
    settings = HeartPhantomSettings(shape=(48, 48, 48), spacing=(2.5, 2.5, 2.5))
    assert (make_heart(5, settings) == make_heart(5, settings)).all()
    assert (make_heart(5, settings) != make_heart(6, settings)).mean() > 0.02


def test_voxels_of_any_shape_hold_the_same_heart():
    even = make_heart(1, HeartPhantomSettings(shape=(60, 60, 60), spacing=(2, 2, 2)))
    flat = make_heart(1, HeartPhantomSettings(shape=(60, 60, 30), spacing=(2, 2, 4)))
    volume = [np.bincount(h.ravel(), minlength=11)[1:] * v for h, v in ((even, 8), (flat, 16))]
    assert volume[0] == pytest.approx(volume[1], rel=0.15)


def test_difficulties_are_what_they_say():
    base = {"shape": (48, 48, 48), "spacing": (2.5, 2.5, 2.5)}
    assert not (make_heart(0, HeartPhantomSettings(**base, missing=(9, 4))) == 4).any()
    cut = make_heart(0, HeartPhantomSettings(**base, touch_border=True))
    assert (cut[:, :, 0] > 0).sum() > 50
    thin = make_heart(0, HeartPhantomSettings(**base, wall_mm=1.5))
    assert 1 < (make_heart(0, HeartPhantomSettings(**base)) == MYO).sum() / (thin == MYO).sum() < 12
    assert (thin == MYO).sum() > 100


def test_128_cubed_takes_far_less_than_ten_seconds():
    start = time.process_time()
    make_heart(0, HeartPhantomSettings(shape=(128, 128, 128), spacing=(0.9375,) * 3))
    assert time.process_time() - start < 10


def test_smooth_paths_pass_through_their_ends_in_short_steps():
    path = smooth_path(np.array([[0.0, 0, 0], [10, 5, 0], [20, 0, 0]]), step=2.0)
    assert path[0] == pytest.approx([0, 0, 0])
    assert path[-1] == pytest.approx([20, 0, 0])
    assert np.linalg.norm(np.diff(path, axis=0), axis=1).max() < 3


def test_folders_of_hearts_grow_and_keep_what_they_have(tmp_path):
    settings = HeartPhantomSettings(shape=(40, 40, 40), spacing=(3, 3, 3))
    first = list(write_heart_phantoms(tmp_path, count=1, seed=4, settings=settings))
    before = first[0][0].read_bytes()
    second = list(write_heart_phantoms(tmp_path, count=2, seed=4, settings=settings))
    assert [new for _, new in second] == [False, True]
    assert first[0][0].read_bytes() == before
    assert read_label_map(second[1][0]).spacing.tolist() == [3, 3, 3]
    assert json.loads((tmp_path / "phantom.json").read_text())["seed"] == 4
    with pytest.raises(ConfigError, match=r"made with other settings \(seed\)"):
        list(write_heart_phantoms(tmp_path, count=1, seed=5, settings=settings))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"shape": (4, 40, 40)}, "shape is"),
        ({"spacing": (1, 1, 0)}, "spacing is"),
        ({"shape": (32, 96, 96)}, "spans 40 mm; a heart needs 90 mm"),
        ({"missing": (11,)}, r"missing is \[11\]"),
        ({"wall_mm": 0.0}, "wall_mm is 0.0"),
    ],
    ids=["small", "flat", "narrow", "unknown", "no wall"],
)
def test_impossible_hearts_are_refused(change, text):
    with pytest.raises(ConfigError, match=text):
        HeartPhantomSettings(**change)
    with pytest.raises(ConfigError, match="seed is -1"):
        make_heart(-1)
