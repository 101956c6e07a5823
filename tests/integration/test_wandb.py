"""What an offline wandb run holds, read back from its own record file."""

import json
import re
from importlib.metadata import version
from pathlib import Path

import pytest
from conftest import CALLBACKS, TINY
from wandb_records import read_records

from vesuvius.runtime.dashboard import TASKS
from vesuvius.runtime.data_fingerprint import data_fingerprint
from vesuvius.runtime.provenance import git_commit

wandb = pytest.importorskip("wandb")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # wandb's own
]

ROOT = Path(__file__).parents[2]


def logged_name(name, row):
    """Return the metric's name; of media only the part that names them."""
    parent = name.rsplit("/", 1)[0]
    return parent if f"{parent}/_type" in row else name


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    return ("logger=wandb", "logger.wandb.offline=true", "logger.wandb.name=tiny")


def test_an_offline_run_holds_configuration_metrics_pictures_and_the_table(
    tmp_path, run_train, offline, prepared, monkeypatch
):
    # wandb's own switch: Lightning refuses its argument `offline` together with artifacts.
    monkeypatch.setenv("WANDB_MODE", "offline")
    artifacts = ("logger.wandb.offline=false", "logger.wandb.log_model=true")
    result = run_train(tmp_path, *offline, "callbacks.comparison.view3d=numpy", *artifacts)
    found = read_records(tmp_path)
    assert found["exit"] == 0
    check_config(found["config"], prepared)
    logged = {logged_name(name, row) for row in found["history"] for name in row}
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    for name in logged:
        if name.startswith(("val/", "train/loss/t", "time/", "throughput/")) and "<" not in name:
            family = name.rsplit("/", 1)[0]
            assert f"`{name}`" in page or f"`{family}/<" in page, name
    shown = TASKS["surface"]  # every panel of the dashboard has something to show
    curves = {name for group in shown.curves.values() for name in group}
    assert curves - logged == {"memory/gpu_peak_mib"}
    assert {*shown.media, *shown.tables} <= logged
    assert found["summary"]["objective"] == pytest.approx(result)
    check_media(found, tmp_path)
    ((kind, aliases),) = [
        value for name, value in found["artifacts"].items() if name.startswith("model-")
    ]
    assert (kind, "best" in aliases) == ("model", True)


def check_config(config, prepared):
    """Flat groups, choices of every group, versions, sizes, data."""
    assert config["model"]["n_filters"] == 2
    assert config["optimizer"]["lr"] == 0.001
    assert config["choices"]["model"] == "dual_head_unet"
    assert config["choices"]["data"] == "surface_zarr"
    assert config["num_parameters"] == 87_490
    assert set(config["packages"]) >= {"torch", "lightning", "hydra-core", "numpy", "zarr"}
    assert config["packages"]["torch"] == version("torch")
    assert config["data_fingerprint"] == data_fingerprint(prepared / "train")
    assert re.fullmatch(r"[0-9a-f]{12}\+?", config["git_commit"]) or not git_commit()
    assert set(config["module"]) == {"_target_", "threshold", "channels_last", "collapse_patience"}


def check_media(found, folder):
    """Pictures are files of the run; the table holds every validation volume, worst first."""
    for name in ("comparison", "view3d"):
        paths = [path for path in found["files"] if f"val/{name}" in path]
        assert len(paths) == 2  # epochs
    (run,) = folder.glob("wandb/offline-run-*")
    last = max((path for path in found["files"] if "val/volumes" in path), key=step_of)
    table = json.loads((run / "files" / last).read_text())
    assert table["columns"][:3] == ["volume", "mask", "score"]
    scores = [row[2] for row in table["data"]]
    assert scores == sorted(scores)
    split = json.loads((folder / "split.json").read_text())
    assert {row[0] for row in table["data"]} == set(split["val"])


def step_of(path):
    """Return the step in a media file's name."""
    return int(path.rsplit("_", 2)[1])


def test_a_crash_closes_the_run_and_a_resumed_one_keeps_its_id(
    tmp_path, run_train, offline, monkeypatch
):
    from vesuvius.modules.surface import SurfaceModule

    def broken(*_, **__):
        raise RuntimeError("disk on fire")

    with monkeypatch.context() as patch:
        patch.setattr(SurfaceModule, "validation_step", broken)
        with pytest.raises(RuntimeError, match="on fire"):
            run_train(tmp_path, *offline, tiny=TINY + CALLBACKS)
    found = read_records(tmp_path)
    assert found["exit"] == 1
    assert wandb.run is None
    assert found["run"].run_id == (tmp_path / "wandb_id.txt").read_text().strip()


def test_a_collapsed_network_raises_one_alert(tmp_path, run_train, offline):
    run_train(
        tmp_path,
        *offline,
        "module.collapse_patience=1",
        "model.surface_bias=-60",
        "optimizer.lr=1e-9",
        "callbacks=[speed,collapse_alert]",
        "optimized_metric=null",
        tiny=TINY,
    )
    assert read_records(tmp_path)["alerts"] == ["the network collapsed"]
