"""Blocks give the whole volume's integers; what was killed goes on and ends with the same bytes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from vesuvius.data.volume import open_volume
from vesuvius.errors import ConfigError, ShapeMismatchError
from vesuvius.inference import predict_volume
from vesuvius.inference.blocks import plan_columns, predict_blocks
from vesuvius.inference.prediction_blocks import PredictionBlocks
from vesuvius.inference.store import finished_prediction, read_prediction
from vesuvius.storage.ome import halved, num_levels

SHAPE = (130, 66, 66)
HOW = {"roi_zyx": (48, 40, 40), "overlap": 0.25, "device": "cpu"}


def volume(shape=SHAPE):
    return np.random.default_rng(0).integers(1, 256, shape, dtype=np.uint8)


def predict(batch):
    """Depends on the neighbourhood and on the place in the window, like a real network."""
    smooth = torch.nn.functional.avg_pool3d(batch, 3, stride=1, padding=1)
    ramp = torch.linspace(0, 1, batch.shape[-1])
    angle = 6 * smooth + ramp
    normals = torch.cat([angle.sin(), angle.cos() * 0.8, angle.cos() * 0.6], dim=1)
    return {"probability": (smooth * (0.5 + 0.5 * ramp)).clamp(0, 1), "normals": normals}


def files(root):
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def blocks_of(folder, image, **how):
    store = PredictionBlocks(folder, "v", shape_zyx=image.shape, block=64)
    return predict_blocks(predict, image, store, **{**HOW, "max_bytes": 1, **how})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    root = tmp_path_factory.mktemp("undisturbed")
    report = blocks_of(root, volume())
    return root / "v.zarr", report


def test_blocks_equal_the_whole_volume(undisturbed):
    path, report = undisturbed
    whole = predict_volume(predict, volume(), **HOW)
    arrays, attributes = read_prediction(path)
    np.testing.assert_array_equal(np.asarray(arrays["probability"]), whole.probability)
    np.testing.assert_array_equal(np.asarray(arrays["normals"]), whole.normals)
    assert report["blocks"] == report["blocks_written"] == 3 * 2 * 2
    assert attributes["report"]["probability_mean"] == pytest.approx(
        whole.probability.mean() / 255, rel=1e-6
    )
    assert sorted(p.name for p in path.parent.iterdir()) == ["v.zarr"]


def test_wide_columns_and_other_ranks_give_the_same_bytes(undisturbed, tmp_path):
    path, report = undisturbed
    one = blocks_of(tmp_path / "wide", volume(), max_bytes=1 << 30)
    assert one["windows"] == one["windows_once"] < report["windows"]
    assert files(tmp_path / "wide" / "v.zarr") == files(path)
    first = blocks_of(tmp_path / "ranks", volume(), rank=1, world_size=3, max_bytes=1 << 30)
    assert not first["finished"]
    assert blocks_of(tmp_path / "ranks", volume(), rank=0, world_size=3)["blocks_before"] == 4
    last = blocks_of(tmp_path / "ranks", volume())
    assert last["finished"]
    assert files(tmp_path / "ranks" / "v.zarr") == files(path)


_CHILD = """
import os, signal, sys
import numpy as np
sys.path.insert(0, {tests!r})
import test_blocks as t
from vesuvius.storage import block_store
import zarr.storage._local as local

folder, point = sys.argv[1], sys.argv[2]
def die(): os.kill(os.getpid(), signal.SIGKILL)
count = 0
def after(number):
    global count
    count += 1
    if count == number: die()

write_json, replace_folder, replace = (
    block_store.write_json, block_store.replace_folder, local.Path.replace
)
kind, number = point.split(":")
def recorded(path, content, **how):  # around the record of a block
    if kind == "before-record" and "_" in path.name: after(int(number))
    write_json(path, content, **how)
    if kind == "after-record" and "_" in path.name: after(int(number))
def renamed(source, target):  # of one shard
    if kind == "before-shard" and "/c/" in str(target): after(int(number))
    return replace(source, target)
def placed(source, target):  # of the store
    if kind == "before-end": die()
    replace_folder(source, target)
    if kind == "after-end": die()
block_store.write_json, block_store.replace_folder = recorded, placed
local.Path.replace = renamed
for attempt in [0]:
    t.blocks_of(folder, t.volume())
"""

KILLS = ["before-shard:1", "before-shard:4", "before-record:3", "after-record:4",
         "after-record:6", "before-shard:2", "before-end:0", "after-end:0"]  # fmt: skip
"""Counted from each restart: 12 blocks of two shards, 7 done after the fourth kill, the fifth and
the sixth lie in the pyramid (3 blocks), the last two around the renaming of the store."""


def test_killed_at_every_kind_of_moment_it_ends_with_the_same_bytes(undisturbed, tmp_path):
    """One process forks a child a kill, so torch is imported once."""
    script = (
        "import os, sys, traceback\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import test_blocks\n"  # before the fork: imports only, no thread is started
        f"code = {_CHILD.format(tests=str(Path(__file__).parent))!r}\n"
        "for point in sys.argv[2:]:\n"
        "    pid = os.fork()\n"
        "    if not pid:\n"
        "        try:\n"
        "            sys.argv = ['child', os.path.join(sys.argv[1], 'all'), point]\n"
        "            exec(code, {})\n"
        "            os._exit(0)\n"
        "        except BaseException:\n"
        "            traceback.print_exc(); os._exit(1)\n"
        "    print(point, os.waitpid(pid, 0)[1], flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), *KILLS],
        capture_output=True, text=True, timeout=110, check=True,
    )  # fmt: skip
    assert done.stdout.split("\n")[:-1] == [f"{point} 9" for point in KILLS], done.stderr
    path, _ = undisturbed
    assert files(tmp_path / "all" / "v.zarr") == files(path)


def test_recorded_blocks_are_not_predicted_again(tmp_path):
    image = volume((64, 64, 150))
    store = PredictionBlocks(tmp_path, "v", shape_zyx=image.shape, block=64)
    seen = []

    def counting(batch):
        seen.append(len(batch))
        if len(seen) == 29:
            raise KeyboardInterrupt
        return predict(batch)

    with pytest.raises(KeyboardInterrupt):
        predict_blocks(counting, image, store, **HOW, max_bytes=1)
    assert [index for index in store.blocks() if store.is_done(index)] != []
    again = blocks_of(tmp_path, image)
    assert again["blocks_before"] == 2  # of 12, 16 and 4 windows
    assert again["blocks_before"] + again["blocks_written"] == 3
    assert again["windows"] < again["windows_once"]


def test_other_settings_are_refused_not_mixed(tmp_path):
    PredictionBlocks(tmp_path, "v", shape_zyx=(64, 64, 64), settings={"tta": "none"}, block=64)
    with pytest.raises(ConfigError, match=r"begun with other settings \(tta\); go on with those"):
        PredictionBlocks(tmp_path, "v", shape_zyx=(64, 64, 64), settings={"tta": "flips"}, block=64)
    with pytest.raises(ConfigError, match=r"multiple of 64.*block_edge"):
        PredictionBlocks(tmp_path, "w", shape_zyx=(64, 64, 64), block=100)
    store = PredictionBlocks(tmp_path, "w", shape_zyx=(64, 64, 64), block=64)
    with pytest.raises(ShapeMismatchError, match="its store"):
        predict_blocks(predict, volume((64, 64, 65)), store, **HOW)
    with pytest.raises(ConfigError, match="rank is 2 of 2"):
        predict_blocks(predict, volume((64, 64, 64)), store, **HOW, rank=2, world_size=2)


def test_air_and_masked_windows_are_not_predicted(tmp_path):
    image = volume((64, 64, 192))
    image[:, :, 80:] = 5
    report = blocks_of(tmp_path / "air", image, empty_max=5)
    stored = np.asarray(zarr.open_group(tmp_path / "air" / "v.zarr")["probability"])
    assert not stored[:, :, 112:].any()  # 32 further than the last window with content
    assert stored[:, :, :64].all()
    assert report["windows_skipped"] > report["windows"] / 3
    assert not (tmp_path / "air" / "v.zarr" / "probability" / "c" / "0" / "0" / "2").exists()
    reads = []

    class Watched:
        shape, dtype = image.shape, image.dtype

        def __getitem__(self, key):
            reads.append(key[2].start)
            return image[key]

    store = PredictionBlocks(tmp_path / "mask", "v", shape_zyx=image.shape, block=64)
    predict_blocks(
        predict, Watched(), store, **HOW, max_bytes=1, occupied=lambda start, stop: start[2] < 64
    )
    assert max(reads) < 128  # the last block is not even read


def test_store_is_an_ome_zarr_with_the_source_s_transform(tmp_path):
    image = volume((70, 64, 65))
    store = PredictionBlocks(
        tmp_path, "v", shape_zyx=image.shape, block=64, settings={"a": 1},
        voxel_size_zyx_um=(7.91, 7.91, 7.91), origin_zyx=(100, 0, 10),
    )  # fmt: skip
    predict_blocks(predict, image, store, **HOW)
    assert finished_prediction(tmp_path, "v", {"a": 1})
    half = open_volume(tmp_path / "v.zarr", level=1)
    assert half.shape_zyx == (35, 32, 33)
    assert half.voxel_size_um == pytest.approx(15.82)
    full = open_volume(tmp_path / "v.zarr").read_all().astype(int)
    assert half.read_all()[3, 4, 5] == (full[6:8, 8:10, 10:12].sum() + 4) // 8
    meta = json.loads((tmp_path / "v.zarr" / "zarr.json").read_text())["attributes"]["ome"]
    first, normals = meta["multiscales"]
    assert first["datasets"][1]["coordinateTransformations"] == [
        {"type": "scale", "scale": [15.82] * 3},
        {"type": "translation", "translation": pytest.approx([100.5 * 7.91, 3.955, 10.5 * 7.91])},
    ]
    assert normals["axes"][0] == {"name": "c", "type": "channel"}
    array = zarr.open_group(tmp_path / "v.zarr")["normals"]
    assert (array.shards, array.chunks) == ((3, 64, 64, 64), (3, 64, 64, 64))


def test_pyramid_arithmetic():
    fine = np.array([[[0, 2], [4, 6]], [[8, 10], [12, 15]]], np.uint8)
    assert halved(fine, pick=False).item() == 7  # 57 / 8 = 7.125
    assert halved(fine, pick=True).item() == 0
    np.testing.assert_array_equal(halved(np.full((3, 1, 5), 9, np.uint8), pick=False), 9)
    assert [num_levels((n, 1, 1), 64) for n in (64, 65, 128, 129)] == [1, 2, 2, 3]


def test_columns_cover_every_block_once(tmp_path):
    store = PredictionBlocks(tmp_path, "v", shape_zyx=(200, 130, 300), block=64)
    for max_bytes, at_least in ((1, 1), (10**7, 1), (10**9, 7)):
        columns = plan_columns(store, (32, 32, 32), max_bytes=max_bytes, at_least=at_least)
        assert len(columns) >= min(at_least, 4)
        found = [
            (z, y, x)
            for c in columns
            for z in range(*c.z_blocks) for y in range(*c.y_blocks) for x in range(*c.x_blocks)
        ]  # fmt: skip
        assert sorted(found) == list(store.blocks())
