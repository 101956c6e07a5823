"""What an offline wandb run holds, read back from its own record file."""

import json
import struct
import time
from pathlib import Path

import pytest
from conftest import CALLBACKS, TINY

from vesuvius.runtime.data_fingerprint import data_fingerprint

wandb = pytest.importorskip("wandb")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # wandb's own
]

ROOT = Path(__file__).parents[2]


def scan(path):
    """Yield the records of a .wandb file: LevelDB's log format behind a header of 7 bytes.

    Blocks of 32 KiB hold chunks of crc (4), length (2), type (1: whole, 2 first, 3 middle, 4 last).
    """
    data, position, record = path.read_bytes(), 7, b""
    assert data.startswith(b":W&B")
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        length, kind = struct.unpack_from("<HB", data, position + 4)
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            yield record
            record = b""


def read_records(folder):
    """Wait until wandb's own process has written the end of the run, then return what it holds."""
    for _ in range(100):
        found = parse_records(folder)
        if found["exit"] is not None:
            break
        time.sleep(0.2)
    return found


def parse_records(folder):
    """Return {"config", "history": list, "files", "alerts", "exit"} of the run in a folder."""
    from wandb.proto import wandb_internal_pb2

    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    found = {"config": {}, "history": [], "files": set(), "alerts": [], "exit": None, "run": None}
    for data in scan(path):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found["run"] = record.run
            updates = record.run.config.update
        elif kind == "config":
            updates = record.config.update
        else:
            updates = []
        for item in updates:
            key = item.key or "/".join(item.nested_key)
            found["config"][key] = json.loads(item.value_json)
        if kind == "history":
            found["history"].append(
                {
                    item.key or "/".join(item.nested_key): json.loads(item.value_json)
                    for item in record.history.item
                }
            )
        elif kind == "files":
            found["files"] |= {item.path for item in record.files.files}
        elif kind == "alert":
            found["alerts"].append(record.alert.title)
        elif kind == "exit":
            found["exit"] = record.exit.exit_code
    return found


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
    tmp_path, run_train, offline, prepared
):
    run_train(tmp_path, *offline, "callbacks.comparison.view3d=numpy")
    found = read_records(tmp_path)
    assert found["exit"] == 0
    config = found["config"]
    assert config["model"]["n_filters"] == 2
    assert config["choices"]["model"] == "dual_head_unet"
    assert config["num_parameters"] == 87_490
    assert config["packages"]["torch"].startswith("2.")
    assert config["data_fingerprint"] == data_fingerprint(prepared / "train")
    assert "git_commit" in config
    logged = {logged_name(name, row) for row in found["history"] for name in row}
    assert {
        "val/score",
        "train/loss/total",
        "val/comparison",
        "val/volumes",
        "val/view3d",
    } <= logged
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    for name in logged:
        if name.startswith(("val/", "train/loss/t", "time/", "throughput/")) and "<" not in name:
            family = name.rsplit("/", 1)[0]
            assert f"`{name}`" in page or f"`{family}/<" in page, name
    assert any("comparison" in name for name in found["files"])


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
