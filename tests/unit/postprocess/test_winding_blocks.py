"""Stitching: plans that tile, offsets that agree, numbers that hold over block borders."""

import itertools

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.winding_cases import DEFAULT, make_case
from vesuvius.errors import ConfigError, StorageError, VolumeFormatError, VolumeNotFoundError
from vesuvius.postprocess.winding.blocks import solve_blocks
from vesuvius.postprocess.winding.fusion import fusion_rate
from vesuvius.postprocess.winding.numbering import NO_LEVEL
from vesuvius.postprocess.winding.plan import plan_blocks
from vesuvius.postprocess.winding.stitch import synchronise, turned, vote


@given(
    shape=st.tuples(*[st.integers(20, 150)] * 3),
    block=st.integers(32, 80),
    share=st.floats(0.2, 0.5),
)
@settings(max_examples=40, deadline=None)
def test_cores_tile_the_volume_and_neighbours_share_the_overlap(shape, block, share):
    overlap = max(16, min(int(share * block), block // 2))
    hits = np.zeros(shape, np.uint8)
    blocks = plan_blocks(shape, block=block, overlap=overlap)
    for b in blocks:
        hits[b.core()] += 1
        assert all(s >= 0 for s in b.start_zyx)
        assert all(e <= n for e, n in zip(b.stop_zyx, shape, strict=True))
        assert all(e - s <= block for s, e in zip(b.start_zyx, b.stop_zyx, strict=True))
    assert (hits == 1).all()
    along_x = sorted({(b.start_zyx[2], b.stop_zyx[2]) for b in blocks})
    for left, right in itertools.pairwise(along_x):
        assert left[1] - right[0] >= overlap


def test_overlap_must_fit():
    with pytest.raises(ConfigError, match="overlap is 40 at block 64; expected 16 to 32"):
        plan_blocks((100, 100, 100), block=64, overlap=40)


@given(
    true=st.lists(st.tuples(st.sampled_from([1, -1]), st.integers(-9, 9)), min_size=3, max_size=3)
)
@settings(max_examples=50, deadline=None)
def test_signs_and_offsets_are_recovered(true):
    world = np.arange(-20, 20, dtype=np.int32).reshape(4, 5, 2)
    # own level with turned(own, sign) + offset = world
    own = [turned(world - np.int32(c), s) for s, c in true]
    links = [vote(a, b, own[a], own[b]) for a, b in ((0, 1), (1, 2), (0, 2))]
    places, broken = synchronise(3, links)
    assert broken == []
    agreed = [turned(level, s) + c for level, (s, c) in zip(own, places, strict=True)]
    np.testing.assert_array_equal(agreed[0], agreed[1])
    np.testing.assert_array_equal(agreed[0], agreed[2])


def test_a_loop_that_does_not_close_is_reported():
    level = np.zeros((4, 4, 4), np.int32)
    links = [vote(0, 1, level, level), vote(1, 2, level, level), vote(0, 2, level[:2], level[:2])]
    assert synchronise(3, links)[1] == []
    wrong = vote(0, 2, level[:2], level[:2] + np.int32(1))
    places, broken = synchronise(3, [links[0], links[1], wrong])
    assert broken == [wrong]  # the weakest of the three
    assert places == [(1, 0)] * 3


def test_nothing_in_common_gives_no_link():
    empty = np.full((3, 3, 3), NO_LEVEL, np.int32)
    assert vote(0, 1, empty, np.zeros_like(empty)) is None


def test_numbers_agree_over_the_blocks_of_a_volume(tmp_path):
    case = make_case(DEFAULT, (64, 96, 112), seed=1)
    group = zarr.open_group(tmp_path / "prediction.zarr", mode="w")
    stored = np.round(case.probability * 255).astype(np.uint8)
    group.create_array("probability", data=stored, chunks=(32, 32, 32))
    out = tmp_path / "out.zarr"
    seen = []
    report = solve_blocks(
        tmp_path / "prediction.zarr", out, block=72, overlap=32,
        progress=lambda state: seen.append((state.stage, state.done, state.total)), shard=64,
    )  # fmt: skip
    assert report.blocks == 4
    shards = 1 * 2 * 2
    assert seen == [(s, i + 1, n) for s, n in
                    (("solve", 4), ("compare", 3), ("write", shards), ("pyramid", 1))
                    for i in range(n)]  # fmt: skip
    assert report.broken == []
    assert report.fallback == []
    labels = zarr.open_group(out, mode="r")["labels/sheets/0"][:]
    both = (labels > 0) & (case.wrap > 0)
    right = max(
        np.unique(case.wrap[both] - s * labels[both], return_counts=True)[1].max() for s in (1, -1)
    )
    assert right / both.sum() > 0.99
    assert labels[labels > 0].min() == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.zarr", "prediction.zarr"]
    with pytest.raises(StorageError, match="exists already"):
        solve_blocks(tmp_path / "prediction.zarr", out, block=72, overlap=32)


@pytest.mark.slow
def test_two_workers_write_what_one_writes(tmp_path):
    case = make_case(DEFAULT, (48, 64, 96), seed=1)
    group = zarr.open_group(tmp_path / "prediction.zarr", mode="w")
    group.create_array("probability", data=case.probability, chunks=(32, 32, 32))
    written = []
    for workers in (1, 2):
        out = tmp_path / f"{workers}.zarr"
        report = solve_blocks(
            tmp_path / "prediction.zarr", out, block=64, overlap=32, workers=workers
        )
        assert report.blocks == 2
        written.append(zarr.open_group(out, mode="r"))
    for name in ("labels/sheets/0", "mask", "field"):
        np.testing.assert_array_equal(written[0][name][:], written[1][name][:])


def test_predictions_that_cannot_be_read(tmp_path):
    with pytest.raises(VolumeNotFoundError, match="no prediction at"):
        solve_blocks(tmp_path / "none.zarr", tmp_path / "o.zarr")
    zarr.open_group(tmp_path / "g.zarr", mode="w").create_array("image", data=np.zeros((8, 8, 8)))
    with pytest.raises(VolumeFormatError, match=r"\['image'\]; expected 'probability'"):
        solve_blocks(tmp_path / "g.zarr", tmp_path / "o.zarr")


def test_fusion_rate_counts_neighbour_pairs_that_one_component_joins():
    sheets = np.zeros((12, 12, 20), np.int32)
    for k in range(4):  # four sheets, three pairs of neighbours
        sheets[..., 2 + 4 * k : 4 + 4 * k] = k + 1
    mask = (sheets > 0).astype(np.uint8)
    assert fusion_rate(mask, sheets) == 0.0
    mask[6, 6, 2:8] = 1  # a bridge between sheets 1 and 2
    assert fusion_rate(mask, sheets) == pytest.approx(1 / 3)
