"""Crop positions, the positive index, and symmetries: properties and hand-made cases."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesuvius.data.augment import ROT90_YX, Symmetry, draw_symmetry
from vesuvius.data.crops import grid_origins, origin_containing, uniform_origin
from vesuvius.data.positive_index import BLOCK, positive_voxels
from vesuvius.errors import ConfigError

sizes = st.tuples(*[st.integers(1, 40)] * 3)
seeds = st.integers(0, 2**32 - 1)
symmetries = st.builds(
    Symmetry, st.permutations((0, 1, 2)).map(tuple), st.tuples(*[st.booleans()] * 3)
)


def _inside(origin, shape, patch):
    return all(
        o >= 0 and (o + p <= n or (o == 0 and p > n))
        for o, p, n in zip(origin, patch, shape, strict=True)
    )


@given(sizes, sizes, seeds)
def test_uniform_crops_stay_inside(shape, patch, seed):
    assert _inside(uniform_origin(shape, patch, np.random.default_rng(seed)), shape, patch)


@given(sizes, sizes, seeds, st.data())
def test_crop_contains_the_voxel_and_stays_inside(shape, patch, seed, data):
    voxel = tuple(data.draw(st.integers(0, n - 1)) for n in shape)
    origin = origin_containing(voxel, shape, patch, np.random.default_rng(seed))
    assert _inside(origin, shape, patch)
    assert all(o <= v < o + p for o, v, p in zip(origin, voxel, patch, strict=True))


def test_origin_containing_reaches_every_legal_position():
    rng = np.random.default_rng(0)
    drawn = {origin_containing((10, 2, 9), (20, 8, 10), (4, 8, 3), rng) for _ in range(300)}
    assert drawn == {(z, 0, 7) for z in (7, 8, 9, 10)}


@given(sizes, sizes, st.data())
@settings(max_examples=50)
def test_grid_covers_every_voxel(shape, patch, data):
    step = tuple(data.draw(st.integers(max(1, p // 3), p)) for p in patch)
    seen = np.zeros(shape, bool)
    origins = grid_origins(shape, patch, step)
    for z, y, x in origins:
        assert _inside((z, y, x), shape, patch)
        seen[z : z + patch[0], y : y + patch[1], x : x + patch[2]] = True
    assert seen.all()
    assert len(set(origins)) == len(origins)


def test_grid_by_hand():
    origins = grid_origins((10, 4, 4), (4, 4, 8))
    assert origins == [(0, 0, 0), (4, 0, 0), (6, 0, 0)]


def test_grid_with_gaps_is_refused():
    with pytest.raises(ConfigError, match=r"step_zyx is \(5, 4, 4\); expected 1 to patch_zyx"):
        grid_origins((10, 10, 10), (4, 4, 4), (5, 4, 4))


@given(st.tuples(*[st.integers(1, 20)] * 3), st.floats(0, 0.2), seeds)
@settings(max_examples=50)
def test_index_has_one_true_surface_voxel_for_each_block(shape, share, seed):
    label = (np.random.default_rng(seed).random(shape) < share).astype(np.uint8)
    voxels = positive_voxels(label)
    assert all(label[tuple(v)] == 1 for v in voxels)
    blocks = {tuple(v // BLOCK) for v in voxels}
    assert len(blocks) == len(voxels)
    expected = set()
    for block in itertools.product(*(range(-(-n // BLOCK)) for n in shape)):
        box = tuple(slice(b * BLOCK, (b + 1) * BLOCK) for b in block)
        if (label[box] == 1).any():
            expected.add(block)
    assert blocks == expected


def test_index_ignores_label_2_and_adds_the_offset():
    label = np.full((8, 8, 8), 2, np.uint8)
    assert positive_voxels(label).shape == (0, 3)
    label[1, 2, 3] = 1
    assert positive_voxels(label, offset_zyx=(16, 0, 8)).tolist() == [[17, 2, 11]]


@given(symmetries, symmetries, seeds)
def test_symmetries_invert_and_compose(first, second, seed):
    volume = np.random.default_rng(seed).integers(0, 255, (3, 4, 5), dtype=np.uint8)
    assert np.array_equal(first.inverse().apply(first.apply(volume)), volume)
    assert np.array_equal(second.after(first).apply(volume), second.apply(first.apply(volume)))


@pytest.mark.parametrize("k", range(4))
def test_turns_are_those_of_numpy(k):
    volume = np.arange(2 * 3 * 3).reshape(2, 3, 3)
    assert np.array_equal(ROT90_YX[k].apply(volume), np.rot90(volume, k, (1, 2)))


@pytest.mark.parametrize(
    ("symmetry", "normal"),
    [
        # A normal (nz, ny, nx) = (1, 2, 3): flips negate, swaps exchange.
        pytest.param(Symmetry(flips=(True, False, False)), (-1, 2, 3), id="flip-z"),
        pytest.param(Symmetry(flips=(False, True, True)), (1, -2, -3), id="turn-180"),
        pytest.param(Symmetry(axes=(0, 2, 1)), (1, 3, 2), id="swap-y-x"),
        # rot90 takes +x to -y (row 0 shows the last column) and +y to +x.
        pytest.param(ROT90_YX[1], (1, -3, 2), id="turn-90"),
    ],
)
def test_normals_turn_by_hand(symmetry, normal):
    field = np.zeros((3, 4, 4, 4), np.int8)
    field[:, 1, 0, 2] = (1, 2, 3)
    turned = symmetry.turn_normals(field)
    place = np.zeros((4, 4, 4), np.uint8)
    place[1, 0, 2] = 1
    where = tuple(np.argwhere(symmetry.apply(place))[0])
    assert tuple(turned[(slice(None), *where)]) == normal
    assert turned.dtype == np.int8


@given(symmetries)
@settings(max_examples=48)
def test_turned_normals_are_the_normals_of_the_turned_volume(symmetry):
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, 6)] * 3, indexing="ij")
    field = z**2 + 0.5 * y * x + 2 * x + y * z
    turned = symmetry.turn_normals(np.stack(np.gradient(field)))
    assert np.allclose(turned, np.stack(np.gradient(symmetry.apply(field))))


def test_drawn_symmetries_have_the_promised_frequencies():
    rng = np.random.default_rng(0)
    drawn = [draw_symmetry("flips_rot90", (8, 8, 8), rng) for _ in range(4000)]
    assert {s.axes for s in drawn} == {(0, 1, 2), (0, 2, 1)}
    # Half of the draws turn, two of three turns exchange y and x: 1/3 in all.
    assert np.mean([s.axes == (0, 2, 1) for s in drawn]) == pytest.approx(1 / 3, abs=0.03)
    assert np.mean([s.flips[0] for s in drawn]) == pytest.approx(0.5, abs=0.03)
    assert len({draw_symmetry("cube", (8, 8, 8), rng) for _ in range(3000)}) == 48


@pytest.mark.parametrize("mode", ["flips_rot90", "cube"])
def test_turns_keep_the_shape_of_the_patch(mode):
    rng = np.random.default_rng(0)
    volume = np.zeros((4, 6, 8))
    shapes = {draw_symmetry(mode, (4, 6, 8), rng).apply(volume).shape for _ in range(100)}
    assert shapes == {(4, 6, 8)}


def test_unknown_mode():
    with pytest.raises(ConfigError, match="augment is 'flip'; expected one of none, flips_rot90"):
        draw_symmetry("flip", (4, 4, 4), np.random.default_rng(0))
