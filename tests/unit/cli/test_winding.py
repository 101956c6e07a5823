"""`vesuvius winding` and `vesuvius sheets` from prediction to meshes."""

import json
import shlex
import shutil

import numpy as np
import pytest
import zarr
from ome_zarr_models.v05 import Image
from ome_zarr_models.v05.labels import Labels

from benchmarks.winding_cases import DEFAULT, make_case
from vesuvius.cli.main import main
from vesuvius.errors import DeviceError
from vesuvius.postprocess.winding.device import resolve_device


def has_cuda() -> bool:
    try:
        resolve_device("cuda")
    except DeviceError:
        return False
    return True


@pytest.fixture(scope="module")
def prediction(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "p.zarr"
    case = make_case(DEFAULT, (48, 56, 64), seed=2)
    stored = np.round(case.probability * 255).astype(np.uint8)
    zarr.open_group(path, mode="w").create_array("probability", data=stored)
    return path


def test_prediction_to_labels_to_meshes(prediction, tmp_path, capsys):
    out = tmp_path / "w.zarr"
    assert main(["winding", str(prediction), "--out", str(out)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["coherence"] > 0.7
    group = zarr.open_group(out, mode="r")
    np.testing.assert_array_equal(group["mask"][:], group["labels/sheets/0"][:] > 0)
    images = [scales.name for scales in Image.from_zarr(group).ome_attributes.multiscales]
    assert images == ["w mask", "w field"]
    assert Labels.from_zarr(group["labels"]).ome_attributes.labels == ["sheets"]
    assert main(["sheets", str(out), "--out", str(tmp_path / "m"), "--picture"]) == 0
    meshes = sorted((tmp_path / "m").glob("*.ply"))
    assert abs(len(meshes) - report["sheets"]) <= 2  # specks of sheets at the rim have none
    assert (tmp_path / "m" / "sheets.png").stat().st_size > 10_000
    assert not list((tmp_path / "m").glob("*partial*"))
    before = {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()}
    capsys.readouterr()
    for kind in ("ply", "obj"):  # numbers of another solve name other sheets
        words = ["sheets", str(out), "--out", str(tmp_path / "m"), "--format", kind]
        assert main([*words, "--smallest", "10000"]) == 2
        told = f"m holds meshes already ({len(meshes)}, sheet_0001.ply the first)"
        assert told in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()} == before


def test_longer_volumes_go_through_blocks(prediction, tmp_path, capsys):
    args = ["winding", str(prediction), "--out", str(tmp_path / "w.zarr")]
    assert main([*args, "--block", "48", "--overlap", "24", "--threads", "1"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["blocks"] == 4
    assert report["broken_links"] == []


@pytest.mark.parametrize("how", [[], ["--block", "48", "--overlap", "24", "--threads", "1"]])
def test_the_command_that_info_prints_gives_the_same_bytes(prediction, tmp_path, capsys, how):
    out = tmp_path / "w.zarr"
    assert main(["winding", str(prediction), "--out", str(out), "--device", "cpu", *how]) == 0
    before = {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    shutil.rmtree(out)
    capsys.readouterr()
    for place, content in before.items():  # told from the metadata alone
        if place.name == "zarr.json" and place.parent.name == "":
            (tmp_path / "copy").mkdir()
            (tmp_path / "copy" / "zarr.json").write_bytes(content)
    assert main(["info", str(tmp_path / "copy")]) == 0
    told = capsys.readouterr().out.splitlines()
    assert f"input       {prediction} level 0" in told
    words = shlex.split(told[-1])
    assert words[:3] == ["vesuvius", "winding", str(prediction)]
    assert main(words[1:]) == 0
    after = {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert after == before


def test_blocks_refuse_what_they_would_ignore(prediction, tmp_path, capsys):
    args = ["winding", str(prediction), "--out", str(tmp_path / "w.zarr"), "--block", "48"]
    assert main([*args, "--overlap", "24", "--umbilicus-yx", "4", "5"]) == 2
    assert "raise --block to the longest edge" in capsys.readouterr().err
    if not has_cuda():
        assert main([*args, "--overlap", "24", "--device", "cuda"]) == 2
        assert "device is 'cuda', but CuPy" in capsys.readouterr().err
    assert not (tmp_path / "w.zarr").exists()


def test_existing_output_and_missing_input_end_with_status_2(prediction, tmp_path, capsys):
    assert main(["winding", str(prediction), "--out", str(tmp_path)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["winding", str(tmp_path / "no.zarr"), "--out", str(tmp_path / "o.zarr")]) == 2
    assert main(["sheets", str(prediction), "--out", str(tmp_path / "m")]) == 2
    assert "expected 'field' and 'labels/sheets/0'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workers", "-1"], "--workers is -1; expected 1 or more"),
        (["--block", "0"], "block is 0 voxels; expected 32 or more (--block)"),
        (["--block", "40", "--overlap", "30"], "expected 16 to 20: the numbers are agreed upon"),
        (["--umbilicus-yx", "3", "nan"], "expected two finite voxel coordinates, y and x"),
    ],
)
def test_nonsense_is_refused_and_nothing_is_written(prediction, tmp_path, capsys, words, message):
    assert main(["winding", str(prediction), "--out", str(tmp_path / "w.zarr"), *words]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [[], ["--block", "32", "--overlap", "16"]], ids=["one", "blocks"])
def test_a_damaged_chunk_is_one_message(prediction, tmp_path, capsys, words):
    damaged = shutil.copytree(prediction, tmp_path / "p.zarr")
    chunk = next(p for p in (damaged / "probability" / "c").rglob("*") if p.is_file())
    chunk.write_bytes(b"garbage")
    assert main(["winding", str(damaged), "--out", str(tmp_path / "w.zarr"), *words]) == 2
    assert "p.zarr/probability: cannot be read, damaged" in capsys.readouterr().err
    assert not (tmp_path / "w.zarr").exists()
