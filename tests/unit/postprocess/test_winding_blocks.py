"""Stitching: plans that tile, offsets that agree, numbers that hold over block borders."""

import itertools
import time

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.winding_cases import DEFAULT, make_case
from vesuvius.data.volume import open_volume
from vesuvius.errors import ConfigError, StorageError, VolumeFormatError, VolumeNotFoundError
from vesuvius.inference.prediction_blocks import PredictionBlocks
from vesuvius.postprocess.winding.blocks import solve_blocks
from vesuvius.postprocess.winding.fusion import fusion_rate
from vesuvius.postprocess.winding.numbering import NO_LEVEL
from vesuvius.postprocess.winding.plan import CoreIndex, common, later_neighbours, plan_blocks
from vesuvius.postprocess.winding.stitch import Link, synchronise, turned, vote
from vesuvius.postprocess.winding.store import LABELS


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


@given(
    shape=st.tuples(*[st.integers(20, 120)] * 3),
    block=st.integers(40, 80),
    share=st.floats(0.2, 0.5),
)
@settings(max_examples=20, deadline=None)
def test_neighbours_and_cores_are_those_of_a_search_over_all_pairs(shape, block, share):
    overlap = max(16, min(int(share * block), block // 2))
    blocks = plan_blocks(shape, block=block, overlap=overlap)
    found = [[other.number for other in others] for others in later_neighbours(blocks)]
    for a in blocks:
        expected = [
            b.number
            for b in blocks[a.number + 1 :]
            if sum(p != q for p, q in zip(a.start_zyx, b.start_zyx, strict=True)) == 1
            and common(a.box(), b.box()) is not None
        ]
        assert found[a.number] == expected
    box = tuple(slice(n // 3, n // 3 + 9) for n in shape)
    meeting = [b.number for b in CoreIndex(blocks).meeting(box)]
    assert meeting == [b.number for b in blocks if common(b.core(), box) is not None]


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


def _grown_by_searching_all_links(count, links):
    """The maximum spanning forest as a search: the strongest link that leaves the tree."""
    parent = {}
    for root in range(count):
        if root in parent:
            continue
        parent[root] = None
        while True:
            leaving = [k for k in links if (k.a in parent) != (k.b in parent)]
            if not leaving:
                break
            best = max(leaving, key=lambda k: k.votes)  # max keeps the first of equals
            parent[best.b if best.a in parent else best.a] = best
    return parent


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_the_tree_is_the_one_of_the_strongest_links(data):
    count = data.draw(st.integers(1, 7))
    pairs = [(a, b) for a in range(count) for b in range(a + 1, count)]
    chosen = data.draw(st.lists(st.sampled_from(pairs), unique=True) if pairs else st.just([]))
    links = [
        Link(a, b, data.draw(st.sampled_from([1, -1])), data.draw(st.integers(-3, 3)),
             data.draw(st.integers(1, 4)), 9)
        for a, b in chosen
    ]  # fmt: skip
    places, broken = synchronise(count, links)
    world = np.arange(-9, 9, dtype=np.int32)
    for link in _grown_by_searching_all_links(count, links).values():
        if link is None:
            continue
        assert link not in broken
        level_b = turned(world, link.sign) + link.offset  # of the same voxels in both blocks
        (sign_a, offset_a), (sign_b, offset_b) = places[link.a], places[link.b]
        np.testing.assert_array_equal(
            turned(world, sign_a) + offset_a, turned(level_b, sign_b) + offset_b
        )


def test_a_scroll_of_many_blocks_is_put_together_in_seconds():
    edge = 25  # 15 625 blocks
    number = np.arange(edge**3).reshape((edge,) * 3)
    rng = np.random.default_rng(0)
    offsets = rng.integers(-50, 50, edge**3)
    pairs = np.concatenate(
        [
            np.stack([number.take(range(n), axis), number.take(range(1, n + 1), axis)], -1)
            .reshape(-1, 2)
            for axis, n in ((0, edge - 1), (1, edge - 1), (2, edge - 1))
        ]
    )  # fmt: skip
    links = [
        Link(int(a), int(b), 1, int(offsets[b] - offsets[a]), int(v), 100)
        for (a, b), v in zip(pairs, rng.integers(1, 100, len(pairs)), strict=True)
    ]
    start = time.process_time()
    places, broken = synchronise(edge**3, links)
    assert time.process_time() - start < 10  # 1 s measured; a search over all links: hours
    assert broken == []
    assert [offset for _, offset in places] == (offsets[0] - offsets).tolist()


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


def test_empty_blocks_cost_nothing_and_the_store_tells_its_place(tmp_path):
    case = make_case(DEFAULT, (32, 40, 64), seed=1)
    stored = np.zeros((32, 40, 288), np.uint8)
    stored[:, :, :64] = np.round(case.probability * 255)
    source = PredictionBlocks(
        tmp_path, "p", shape_zyx=stored.shape, outputs=("probability",), block=64,
        voxel_size_zyx_um=(7.91,) * 3, origin_zyx=(10, 0, 20),
    )  # fmt: skip
    for index in source.blocks():
        source.write(index, {"probability": stored[source.box(index)]})
    assert source.finish()
    out = tmp_path / "w.zarr"
    report = solve_blocks(source.path, out, block=64, overlap=16, shard=64, device="cpu")
    assert (report.blocks, report.empty, report.fallback) == (6, 4, [])  # 48 new voxels a block
    assert report.coherence[2:] == [0.0] * 4
    labels = np.asarray(zarr.open_group(out, mode="r")[LABELS])
    assert labels[:, :, 128:].max() == 0  # a sheet ends a few voxels beyond its data
    assert not (out / LABELS / "c" / "0" / "0" / "4").exists()  # an empty shard is no file
    mask, half = open_volume(out), open_volume(out, level=1)
    assert mask.voxel_size_um == pytest.approx(7.91)
    np.testing.assert_array_equal(mask.read_all(), labels > 0)
    np.testing.assert_array_equal(half.read_all(), mask.read_all()[::2, ::2, ::2])
    meta = zarr.open_group(out, mode="r").attrs["ome"]["multiscales"][0]["datasets"][1]
    assert meta["coordinateTransformations"] == [
        {"type": "scale", "scale": [15.82] * 3},
        {"type": "translation", "translation": pytest.approx([79.1, 0.0, 158.2])},
    ]


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
