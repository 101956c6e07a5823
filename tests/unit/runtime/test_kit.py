"""The offline kit without wheels: build, run, fuse, budget, what goes wrong."""

import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import nbformat
import numpy as np
import pytest
import tifffile
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from vesuvius.cli.main import main
from vesuvius.data.tiff import write_tiff
from vesuvius.errors import ConfigError, RunFileError
from vesuvius.inference import predict_volume, prepare_network, surface_predictor
from vesuvius.inference.budget import Rung
from vesuvius.inference.submission import check_submission
from vesuvius.models.dual_head_unet import DualHeadResUNet3D
from vesuvius.runtime.kit_build import build_kit, notebook, postprocess_config
from vesuvius.runtime.kit_run import run_kit
from vesuvius.runtime.kit_wheels import dependencies
from vesuvius.runtime.kit_worker import Share, work

ROI = (8, 16, 16)
SHAPES = {"11": (10, 16, 24), "7": (8, 16, 16)}
FAST = (Rung(0.5, "none"), Rung(0.0, "none"))
NNUNET = Path(__file__).parents[2] / "fixtures" / "nnunet" / "residual_zscore"


def network(seed: int) -> DualHeadResUNet3D:
    torch.manual_seed(seed)
    return DualHeadResUNet3D(n_filters=2, surface_bias=0.0).eval()


def write_model(folder: Path, seed: int) -> Path:
    """Write an export as `vesuvius export` does."""
    folder.mkdir(parents=True)
    save_file(network(seed).state_dict(), folder / "model.safetensors")
    model = {
        "_target_": "vesuvius.models.dual_head_unet.DualHeadResUNet3D",
        "n_filters": 2,
        "surface_bias": 0.0,
    }
    config = {"model": model, "data": {"patch_zyx": list(ROI)}}
    OmegaConf.save(OmegaConf.create(config), folder / "config.yaml")
    return folder


@pytest.fixture
def test_folder(tmp_path, rng) -> Path:
    for name, shape in SHAPES.items():
        image = rng.integers(0, 256, shape, dtype=np.uint8)
        write_tiff(tmp_path / "test" / f"{name}.tif", image)
    return tmp_path / "test"


@pytest.fixture
def kit(tmp_path) -> Path:
    runs = [write_model(tmp_path / name, seed) for seed, name in enumerate(("one", "two words"))]
    build_kit(runs, tmp_path / "kit", weights=[3, 1], wheels=False)
    return tmp_path / "kit"


def masks_of(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            archive.extract(name, path.parent / "unzipped")
    return {p.stem: tifffile.imread(p) for p in (path.parent / "unzipped").iterdir()}


def test_submission_is_the_weighted_mean_of_the_networks(kit, test_folder, tmp_path):
    out = tmp_path / "submission.zip"
    ladder = (Rung(0.5, "flips"),)
    result = run_kit(
        kit, test_folder, out, work_dir=tmp_path / "work", devices=["cpu"], ladder=ladder
    )
    assert result.problems == {}
    assert result.submission.shapes == SHAPES
    found = masks_of(out)
    for name in SHAPES:
        image = tifffile.imread(test_folder / f"{name}.tif")
        total = np.zeros(image.shape, np.float32)
        for seed, weight in ((0, 0.75), (1, 0.25)):
            predict = surface_predictor(prepare_network(network(seed), device="cpu"), tta="flips")
            one = predict_volume(predict, image, roi_zyx=ROI, overlap=0.5, device="cpu")
            total += np.float32(weight) * (one.probability.astype(np.float32) / 255)
        assert found[name].dtype == np.uint8
        np.testing.assert_array_equal(found[name], total > 0.5)
        assert 0.02 < found[name].mean() < 0.98
    report = json.loads((tmp_path / "work" / "kit_report.json").read_text())
    assert report["volumes"]["7"]["setting"] == "overlap 0.5, tta flips"
    assert report["volumes"]["7"]["device"] == "cpu"


def test_masks_of_an_earlier_call_are_kept(kit, test_folder, tmp_path):
    options = {"work_dir": tmp_path / "work", "devices": ["cpu"], "ladder": FAST}
    run_kit(kit, test_folder, tmp_path / "a.zip", **options)
    mask = tmp_path / "work" / "masks" / "7.tif"
    write_tiff(mask, np.ones(SHAPES["7"], np.uint8))
    (tmp_path / "work" / "masks" / "11.tif").unlink()
    run_kit(kit, test_folder, tmp_path / "b.zip", **options)
    assert masks_of(tmp_path / "b.zip")["7"].min() == 1


def test_a_bad_volume_costs_only_itself(kit, test_folder, tmp_path):
    bad = np.full((8, 16, 16), np.nan, np.float32)
    np.save(test_folder / "3.npy", bad)
    out = tmp_path / "submission.zip"
    result = run_kit(kit, test_folder, out, work_dir=tmp_path / "w", devices=["cpu"], ladder=FAST)
    assert list(result.problems) == ["3"]
    assert "empty mask: VolumeFormatError: image holds NaN" in result.problems["3"]
    assert masks_of(out)["3"].max() == 0
    assert masks_of(out)["7"].max() == 1


def share_of(kit: Path, test_folder: Path, tmp_path: Path, **changes) -> Share:
    values = {
        "kit": kit,
        "volumes": {name: test_folder / f"{name}.tif" for name in SHAPES},
        "masks": tmp_path / "m",
        "device": "cpu",
        "deadline": time.time() + 600,
        "ladder": FAST,
        "report": tmp_path / "report.json",
    }
    return Share(**(values | changes))


def test_time_that_is_over_leaves_empty_masks(kit, test_folder, tmp_path):
    work(share_of(kit, test_folder, tmp_path, deadline=time.time() - 1))
    volumes = json.loads((tmp_path / "report.json").read_text())["volumes"]
    assert all("the time was over" in v["problem"] for v in volumes.values())
    assert all(v["setting"] == str(FAST[-1]) for v in volumes.values())
    assert tifffile.imread(tmp_path / "m" / "7.tif").max() == 0


def test_enough_time_takes_the_best_setting(kit, test_folder, tmp_path):
    work(share_of(kit, test_folder, tmp_path))
    volumes = json.loads((tmp_path / "report.json").read_text())["volumes"]
    assert {v["setting"] for v in volumes.values()} == {str(FAST[0])}


def test_what_killed_a_process_is_not_tried_again(kit, test_folder, tmp_path):
    started = {"device": "cpu", "volumes": {"11": {"started": 1.0}}}
    (tmp_path / "report.json").write_text(json.dumps(started))
    work(share_of(kit, test_folder, tmp_path, again=True))
    volumes = json.loads((tmp_path / "report.json").read_text())["volumes"]
    assert "died in this volume" in volumes["11"]["problem"]
    assert "problem" not in volumes["7"]
    assert tifffile.imread(tmp_path / "m" / "11.tif").max() == 0


def test_imported_nnunet_models_join(test_folder, tmp_path):
    from vesuvius.runtime.nnunet_import import import_nnunet

    import_nnunet(NNUNET, tmp_path / "imported")
    runs = [tmp_path / "imported", write_model(tmp_path / "ours", 0)]
    build_kit(runs, tmp_path / "kit", wheels=False)
    ladder = (Rung(0.5, "flips_rot90"),)  # nnU-Net has only flips: it takes those
    result = run_kit(
        tmp_path / "kit",
        test_folder,
        tmp_path / "s.zip",
        work_dir=tmp_path / "w",
        devices=["cpu"],
        ladder=ladder,
    )
    assert result.problems == {}


def test_command_lines(tmp_path, test_folder, capsys):
    run = write_model(tmp_path / "one", 0)
    kit, out = tmp_path / "kit", tmp_path / "out" / "submission.zip"
    words = ["kit", str(run), "--no-wheels", "--out", str(kit), "--hours", "2"]
    assert main([*words, "--set", "postprocess.threshold=0.4"]) == 0
    assert "0_one (1.00); 0 wheels" in capsys.readouterr().out
    assert OmegaConf.load(kit / "kit.yaml").postprocess.threshold == 0.4
    words = ["kit-run", str(kit), "--test", str(test_folder), "--out", str(out)]
    assert main([*words, "--ladder", "0:none"]) == 0
    assert "2 volumes in" in capsys.readouterr().out
    assert main(["kit", str(run), "--no-wheels", "--out", str(kit)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_notebook_is_valid_and_names_the_hours(kit):
    nbformat.validate(nbformat.from_dict(notebook(7.25)))
    content = nbformat.read(kit / "submission.ipynb", as_version=4)
    source = "\n".join(cell.source for cell in content.cells)
    assert "'--no-index'" in source
    assert "8.5" in source


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"weights": [1.0]}, r"--weights is \[1.0\]; expected 2 numbers"),
        ({"weights": [0.0, 0.0]}, "expected 2 numbers"),
        ({"weights": [1.0, -1.0]}, "expected 2 numbers"),
        ({"postprocess": "nothing_such"}, "nothing_such"),
        ({"postprocess": "missing.yaml"}, "missing.yaml: no such file"),
    ],
)
def test_bad_arguments(tmp_path, options, text):
    runs = [write_model(tmp_path / name, 0) for name in "ab"]
    with pytest.raises(ConfigError, match=text):
        build_kit(runs, tmp_path / "kit", wheels=False, **options)
    assert not (tmp_path / "kit").exists()


def test_postprocess_from_a_file_or_none(tmp_path):
    file = tmp_path / "tuned.yaml"
    target = "vesuvius.postprocess.threshold.ThresholdPostprocess"
    file.write_text(f"_target_: {target}\nthreshold: 0.5\n")
    found = postprocess_config(str(file), ["postprocess.threshold=0.3"])
    assert found == {"_target_": target, "threshold": 0.3}
    with pytest.raises(ConfigError, match="threshold"):
        postprocess_config(str(file), ["postprocess.threshold=3"])
    assert postprocess_config("none", []) is None
    file.write_text("threshold: 0.5\n")
    with pytest.raises(ConfigError, match="_target_"):
        postprocess_config(str(file), [])


def test_no_kit_or_no_time(tmp_path, kit, test_folder):
    with pytest.raises(RunFileError, match=r"holds no kit\.yaml"):
        run_kit(tmp_path, test_folder, tmp_path / "s.zip", work_dir=tmp_path / "w")
    with pytest.raises(ConfigError, match="--hours is 0"):
        run_kit(kit, test_folder, tmp_path / "s.zip", work_dir=tmp_path / "w", hours=0)


def test_dependencies_are_followed_without_torch_and_dev_tools():
    found = dependencies()
    assert {"hydra-core", "antlr4-python3-runtime", "numba", "llvmlite", "zarr"} <= set(found)
    assert not {"torch", "vesuvius", "pytest", "optuna"} & set(found)
    assert "torch" in dependencies(leave_out=())


@pytest.mark.slow
def test_two_processes_share_the_volumes(kit, test_folder, tmp_path):
    out, work_dir = tmp_path / "s.zip", tmp_path / "w"
    ladder = FAST
    result = run_kit(
        kit, test_folder, out, work_dir=work_dir, devices=["cpu", "cpu"], ladder=ladder
    )
    assert result.problems == {}
    parts = [
        set(json.loads((work_dir / f"worker_{k}.json").read_text())["volumes"]) for k in (0, 1)
    ]
    assert parts == [{"11"}, {"7"}]
    alone = tmp_path / "alone.zip"
    run_kit(kit, test_folder, alone, work_dir=tmp_path / "w2", devices=["cpu"], ladder=ladder)
    assert alone.read_bytes() == out.read_bytes()


@pytest.mark.slow
def test_notebook_runs_in_a_process_of_its_own(kit, test_folder, tmp_path):
    """Every code cell in order; with wheels and a fresh environment: benchmarks/kit.py."""
    cells = nbformat.read(kit / "submission.ipynb", as_version=4).cells
    code = "\n\n".join(cell.source for cell in cells if cell.cell_type == "code")
    out = tmp_path / "out"
    out.mkdir()
    paths = {"KIT": kit, "TEST": test_folder, "OUT": out / "submission.zip", "HOURS": "0.2"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **{key: str(value) for key, value in paths.items()}},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "problems: none" in done.stdout
    assert [path.name for path in out.iterdir()] == ["submission.zip"]
    assert check_submission(out / "submission.zip", SHAPES).shapes == SHAPES
