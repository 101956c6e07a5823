"""`vesuvius view`: what is read, what is refused, what is reduced."""

import json
import re

import numpy as np
import pytest
import tifffile
import zarr

from vesuvius.cli.main import main
from vesuvius.cli.view_layers import grey_bytes, open_source, read_cells, read_layers
from vesuvius.data.region import RegionView
from vesuvius.data.volume import Volume
from vesuvius.storage.block_store import BlockStore
from vesuvius.storage.ome import BlockArray


@pytest.fixture
def scan(tmp_path, rng):
    """An image of 10 x 12 x 14 voxels."""
    tifffile.imwrite(tmp_path / "v.tif", rng.integers(0, 256, (10, 12, 14), np.uint8))
    return tmp_path / "v.tif"


def facts(path):
    return json.loads(re.search(r"id='facts'>(.*?)</script>", path.read_text()).group(1))


def test_a_page_of_every_layer(scan, tmp_path, capsys):
    shape = (10, 12, 14)
    group = zarr.open_group(tmp_path / "p.zarr", mode="w")
    group.create_array("probability", data=np.full(shape, 51, np.uint8))
    group.create_array("mask", data=np.ones(shape, np.uint8))
    group.create_array("label", data=np.full(shape, 2, np.uint8))
    group.create_array("labels", data=np.full(shape, 7, np.int32))
    layers = [f"--{name}" for name in ("prediction", "mask", "label", "sheets")]
    command = ["view", str(scan), "--out", str(tmp_path / "o" / "v.html")]
    command += [word for layer in layers for word in (layer, str(tmp_path / "p.zarr"))]
    assert main(command) == 0
    size = (tmp_path / "o" / "v.html").stat().st_size
    assert f"v.html: {size / 1e6:.2f} MB" in capsys.readouterr().out
    found = facts(tmp_path / "o" / "v.html")
    assert [layer["id"] for layer in found["layers"]] == [
        "image", "probability", "sheets", "mask", "label",
    ]  # fmt: skip
    assert found["layers"][2]["values"] == [0, 7]
    assert found["line"] == "10 x 12 x 14 voxels (z, y, x), uint8  \u00b7  voxel size unknown"
    assert found["grey_exact"] is True
    assert not list((tmp_path / "o").glob("*.partial"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mask", "other.tif"], "--mask {}/other.tif has shape (10, 12, 13); expected (10, 12"),
        (["--mask", "none.tif"], "none.tif: no such file or folder"),
        (["--prediction", "g.zarr"], "a Zarr group without the array 'probability'; it holds ['f"),
        (["--prediction", "high.npy"], "values from 0 to 2; expected probabilities in [0, 1]"),
        (["--label", "high.npy"], None),
        (["--label", "number.npy"], "from 0 to 5; numbers of sheets go to --sheets"),
        (["--sheets", "high.npy"], "dtype float32; expected whole numbers"),
        (["--region-zyx", "1:2"], "--region-zyx '1:2' is no box; expected '[[z0,z1],[y0,y1],[x0"),
        (["--region-zyx", "[[0,11],[0,4],[0,4]]"], "whose level 0 has shape (10, 12, 14)"),
        (["--level", "1"], "only a Zarr group has levels"),
        (["--max-mb", "0"], "--max-mb must be above 0, got 0.0"),
        (["--max-mb", "nan"], "--max-mb must be above 0, got nan"),
        (["--max-voxels", "1e-1"], "--max-voxels must be 1 or more, got 0.1"),
        (["--voxel-size-um", "-3"], "--voxel-size-um must be above 0 micrometres, got -3"),
        (["--voxel-size-um", "nan"], "--voxel-size-um must be above 0 micrometres, got nan"),
    ],
)
def test_refusals_name_the_argument(scan, tmp_path, capsys, words, message):
    tifffile.imwrite(tmp_path / "other.tif", np.zeros((10, 12, 13), np.uint8))
    zarr.open_group(tmp_path / "g.zarr", mode="w").create_array("field", data=np.zeros((4, 4, 4)))
    high = np.zeros((10, 12, 14), np.float32)
    high[0, 0, 0] = 2
    np.save(tmp_path / "high.npy", high)
    number = high.astype(np.uint8)
    number[0, 0, 0] = 5
    np.save(tmp_path / "number.npy", number)
    words = [str(tmp_path / word) if "." in word and "[" not in word else word for word in words]
    status = main(["view", str(scan), *words, "--out", str(tmp_path / "v.html")])
    error = capsys.readouterr().err
    assert status == (0 if message is None else 2), error
    assert (message or "").format(tmp_path) in error
    assert (tmp_path / "v.html").exists() == (message is None)


def test_a_prediction_of_another_region_is_refused(scan, tmp_path, capsys):
    group = zarr.open_group(tmp_path / "p.zarr", mode="w")
    group.create_array("probability", data=np.zeros((4, 4, 4), np.uint8))
    made_of = [[2, 6], [0, 4], [0, 4]]
    group.attrs["vesuvius"] = {"provenance": {"input": {"region_zyx": made_of}}}
    command = ["view", str(scan), "--prediction", str(tmp_path / "p.zarr")]
    command += ["--out", str(tmp_path / "v.html")]
    assert main([*command, "--region-zyx", "[[0,4],[0,4],[0,4]]"]) == 2
    assert "--region-zyx '[[2, 6], [0, 4], [0, 4]]'" in capsys.readouterr().err
    assert main([*command, "--region-zyx", json.dumps(made_of)]) == 0
    found = facts(tmp_path / "v.html")
    assert found["origin_zyx"] == [2, 0, 0]
    assert "region from 2, 0, 0" in found["line"]


def test_a_coarse_level_takes_the_layers_at_that_level(tmp_path, capsys):
    numbers = np.arange(70 * 64 * 65, dtype=np.int32).reshape(70, 64, 65) % 200
    arrays = [
        BlockArray("mask", "uint8", pick=True),
        BlockArray("labels", "int32", pick=True, label="sheets"),
    ]
    store = BlockStore(
        tmp_path / "s.zarr", arrays, shape_zyx=numbers.shape, attributes={"settings": {}}, block=128
    )
    store.write((0, 0, 0), {"mask": (numbers > 99).astype(np.uint8), "labels": numbers})
    assert store.finish()
    path = str(tmp_path / "s.zarr")
    layers = {"mask": path, "sheets": path}
    source = open_source(path, level=1, region="[[0,30],[2,30],[1,33]]", layers=layers)
    found = read_layers(source, 1)[0]
    np.testing.assert_array_equal(found["sheets"], numbers[0:60:2, 4:60:2, 2:66:2])
    np.testing.assert_array_equal(found["mask"], numbers[0:60:2, 4:60:2, 2:66:2] > 99)
    half = np.zeros((35, 32, 32), np.uint8)
    np.save(tmp_path / "m.npy", half)
    command = ["view", path, "--level", "1", "--mask", str(tmp_path / "m.npy")]
    assert main([*command, "--out", str(tmp_path / "v.html")]) == 2
    assert "has shape (35, 32, 32); expected (35, 32, 33)" in capsys.readouterr().err


def test_cells_mean_max_and_label(tmp_path, monkeypatch):
    values = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
    np.save(tmp_path / "v.npy", values)
    view = RegionView(Volume(tmp_path / "v.npy"))
    monkeypatch.setattr("vesuvius.cli.view_layers._SLAB_BYTES", 1)  # one layer of cells at a time
    mean = read_cells(view, 2, "mean")
    assert mean.shape == (3, 2, 2)
    assert mean[0, 0, 0] == 8  # mean of 0, 1, 3, 4, 12, 13, 15, 16
    assert read_cells(view, 2, "max")[1, 1, 0] == 46  # z 3, y 3, x 1
    np.testing.assert_array_equal(read_cells(view, 1, "max"), values)
    label = np.zeros((2, 2, 4), np.uint8)
    label[0, 0] = [2, 1, 2, 0]
    np.save(tmp_path / "l.npy", label)
    cells = read_cells(RegionView(Volume(tmp_path / "l.npy")), 2, "label")
    assert cells.tolist() == [[[1, 2]]]  # surface before ignore before background


def test_other_types_of_grey_are_cut_to_percentiles():
    image = np.linspace(1000, 2000, 2001, dtype=np.float32).reshape(3, 23, 29)
    image[0, 0, 0] = np.nan
    grey, (low, high), notes = grey_bytes(image)
    assert grey[0, 0, 0] == 0
    assert abs(low - 1001.5) < 0.1
    assert abs(high - 1999) < 0.1
    assert grey[1, 11, 14] in (127, 128)
    assert notes[0] == "1 grey values are not finite, shown as lowest"
    assert "float32 grey cut to" in notes[1]
    flat = grey_bytes(np.full((2, 2, 2), 5, np.uint16))
    assert flat[0].max() == 0


def test_layers_of_the_whole_volume_follow_the_region(scan, tmp_path):
    mask = np.zeros((10, 12, 14), np.uint8)
    mask[3:5, 6, 7] = 1
    np.save(tmp_path / "m.npy", mask)
    source = open_source(
        str(scan), level=0, region="[[3,7],[5,9],[7,11]]", layers={"mask": str(tmp_path / "m.npy")}
    )
    found = read_layers(source, 1)[0]["mask"]
    assert found.shape == (4, 4, 4)
    assert np.argwhere(found).tolist() == [[0, 1, 0], [1, 1, 0]]


def test_too_large_pages_are_reduced_with_a_word(scan, tmp_path, capsys):
    command = ["view", str(scan), "--out", str(tmp_path / "v.html"), "--max-voxels", "500"]
    assert main(command) == 0
    assert "showing cells of 2^3 voxels" in capsys.readouterr().err
    assert facts(tmp_path / "v.html")["factor"] == 2
    assert facts(tmp_path / "v.html")["notes"][0] == "cells of 2 x 2 x 2 voxels"


def test_an_output_below_a_file_is_one_message(scan, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    assert main(["view", str(scan), "--out", str(tmp_path / "file" / "v.html")]) == 2
    assert f"cannot write {tmp_path / 'file' / 'v.html'}: File exists" in capsys.readouterr().err
