"""The index of positive blocks: complete, built once from what exists, resumed when killed."""

import numpy as np
import pytest
import zarr
from sparse_volumes import (
    blocks_of,
    check_crops,
    chunk_requests,
    here,
    make_arrays,
    module_of,
    there,
)

from vesuvius.data import label_index
from vesuvius.errors import RemoteReadError

pytest.importorskip("obstore")


@pytest.mark.parametrize("place", ["here", "there"])
def test_the_index_holds_one_surface_voxel_of_each_block(tmp_path, scroll, server, place):
    _, label = scroll
    entry = here(tmp_path) if place == "here" else there(server)
    module = module_of(tmp_path, entry, positive_share=1.0)
    module.setup()
    found = module.train_dataset.volumes()[0].positive
    assert (label[tuple(found.T)] == 1).all()
    assert len(found) == len(blocks_of(found))
    assert blocks_of(found) == blocks_of(np.argwhere(label == 1))
    assert all((module.train_dataset[i]["label"] == 1).any() for i in range(20))


def test_chunks_that_do_not_divide_into_blocks_give_each_block_once(tmp_path):
    image, label = make_arrays()
    zarr.create_array(tmp_path / "data" / "image.zarr", data=image, chunks=(16, 16, 16))
    zarr.create_array(tmp_path / "data" / "label.zarr", data=label, chunks=(10, 11, 13))
    region = [[3, 38], [5, 47], [0, 56]]
    module = module_of(tmp_path, here(tmp_path, region_zyx=region))
    module.setup()
    found = module.train_dataset.volumes()[0].positive + np.array([3, 5, 0])
    surface = np.argwhere(label[3:38, 5:47] == 1) + np.array([3, 5, 0])
    assert (label[tuple(found.T)] == 1).all()
    assert len(found) == len(blocks_of(found))
    assert blocks_of(found) == blocks_of(surface)


def test_block_edge_grows_with_the_region():
    assert label_index.block_edge((320, 320, 320)) == 8
    assert label_index.block_edge((3248, 3248, 3248)) == 8  # 406^3 = 66.9e6 of 67.1e6 blocks
    assert label_index.block_edge((3264, 3248, 3248)) == 16  # 408 x 406^2 = 67.3e6
    assert label_index.block_edge((10_000, 10_000, 10_000)) == 32


def test_the_index_is_kept_and_follows_changed_labels(tmp_path, scroll, caplog):
    _, label = scroll
    caplog.set_level("INFO")
    for _ in range(2):
        module_of(tmp_path, here(tmp_path)).setup()
    assert caplog.text.count("looking for surface in 2 pieces that exist, once") == 1
    array = zarr.open_array(tmp_path / "data" / "label.zarr", mode="r+")
    array[16:32, 0:16, 0:16] = np.ones((16, 16, 16), np.uint8)
    module = module_of(tmp_path, here(tmp_path))
    module.setup()
    assert "looking for surface in 3 pieces that exist" in caplog.text
    found = module.train_dataset.volumes()[0].positive
    label[16:32, 0:16, 0:16] = 1
    assert blocks_of(found) == blocks_of(np.argwhere(label == 1))


def test_a_broken_build_goes_on_where_it_was(tmp_path, scroll, server, monkeypatch):
    _, label = scroll
    monkeypatch.setattr(label_index, "_GROUP", 4)
    server.faults["label.zarr/c/2/2/3"] = [503, "always"]
    with pytest.raises(RemoteReadError, match=r"http://127.*/label\.zarr/c/2/2/3: cannot be read"):
        module_of(tmp_path, there(server)).setup()
    before = len(set(chunk_requests(server, "label")))
    server.faults.clear()
    server.requests.clear()
    module = module_of(tmp_path, there(server))
    module.setup()
    # 3 x 3 x 4 chunks in groups of 4; the last one failed and is asked for again.
    assert (before, len(chunk_requests(server, "label"))) == (36, 4)
    found = module.train_dataset.volumes()[0].positive
    assert blocks_of(found) == blocks_of(np.argwhere(label == 1))
    assert not list((tmp_path / "cache" / "indexes").glob("*.unfinished"))


def test_in_a_bucket_what_does_not_exist_is_never_asked_for(tmp_path, scroll, s3):
    _, label = scroll
    for name in ("image", "label"):
        s3.put(tmp_path / "data" / f"{name}.zarr", f"s3://scrolls/a/{name}.zarr")
    entry = {name: f"s3://scrolls/a/{name}.zarr" for name in ("image", "label")}
    s3.requests.clear()
    module = module_of(tmp_path, entry)
    module.setup()
    asked = {path.partition("label.zarr/")[2] for path, _ in s3.requests if "label.zarr/c/" in path}
    assert asked == {"c/0/1/0", "c/2/2/3"}
    found = module.train_dataset.volumes()[0].positive
    assert blocks_of(found) == blocks_of(np.argwhere(label == 1))
    check_crops(module, *scroll)
    s3.requests.clear()
    changed = np.ones((16, 16, 16), np.uint8)
    zarr.open_array(tmp_path / "data" / "label.zarr", mode="r+")[:16, 16:32, :16] = changed
    s3.put(tmp_path / "data" / "label.zarr", "s3://scrolls/a/label.zarr")
    label[:16, 16:32, :16] = 1
    check_crops(module_of(tmp_path, entry), *scroll)  # not what the cache holds of before


def test_a_bucket_that_fails_while_it_is_listed(tmp_path, scroll, s3):
    del scroll
    for name in ("image", "label"):
        s3.put(tmp_path / "data" / f"{name}.zarr", f"s3://scrolls/a/{name}.zarr")
    entry = {name: f"s3://scrolls/a/{name}.zarr" for name in ("image", "label")}
    s3.faults["scrolls"] = [500, "always"]
    with pytest.raises(RemoteReadError, match=r"s3://scrolls/a/"):
        module_of(tmp_path, entry).setup()
