"""Runs listed and compared from their folders alone."""

import json
import os
import re

import pytest

from vesuvius.cli.main import main
from vesuvius.errors import RunFileError
from vesuvius.runtime.compare_runs import compare_runs
from vesuvius.runtime.run_table import find_runs

HEADER = "epoch,step,train/loss/total,val/score,val/loss/total"


def make_run(folder, *, lr=0.001, scores=(0.1, 0.3, 0.2), objective=None, started=1e9, alive=60.0):
    folder.mkdir(parents=True)
    (folder / ".hydra").mkdir()
    config = folder / ".hydra" / "config.yaml"
    config.write_text("seed: 0\n")
    facts = {
        "config": {
            "optimized_metric": "val/score",
            "optimizer": {"lr": lr},
            "module": {"optimizer": {"lr": lr}},
            "paths": {"output_dir": str(folder)},
            "callbacks": {"best": {"dirpath": f"{folder}/checkpoints"}},
            "logger": {"wandb": {"id": folder.parent.name, "name": folder.name}},
        },
        "choices": {"model": "dual_head_unet"},
        "overrides": [f"optimizer.lr={lr}", "callbacks=[checkpoint]"],
        "num_parameters": 1_500_000,
        "git_commit": "abc",
    }
    (folder / "run.json").write_text(json.dumps(facts))
    lines = [HEADER] + [f"{i},{i},{1 - 0.1 * i},{s},{0.9 - s}" for i, s in enumerate(scores)]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    files = [folder / "run.json", folder / "metrics.csv"]
    if objective is not None:
        (folder / "result.json").write_text(json.dumps({"objective": objective}))
        files.append(folder / "result.json")
    for path in files:
        os.utime(path, (started + alive, started + alive))
    os.utime(config, (started, started))
    return folder


def test_a_run_is_read_from_its_folder(tmp_path):
    make_run(tmp_path / "b", scores=(0.2,), started=2e9)
    make_run(tmp_path / "a" / "deep", objective=0.3, alive=90.0)
    first, second = find_runs(tmp_path)
    assert (first.path, first.status, first.best, first.epochs) == (
        tmp_path / "a" / "deep",
        "finished",
        0.3,
        3,
    )
    assert first.minutes == pytest.approx(1.5)
    assert (first.choices["model"], first.num_parameters) == ("dual_head_unet", 1_500_000)
    assert (second.best, second.epochs) == (0.2, 1)


def test_status_tells_running_stopped_and_failed_apart(tmp_path):
    running = make_run(tmp_path / "running")
    os.utime(running / "metrics.csv")  # now
    make_run(tmp_path / "stopped")
    failed = make_run(tmp_path / "failed")
    (failed / "checkpoints").mkdir()
    (failed / "checkpoints" / "emergency.ckpt").write_bytes(b"")
    found = {run.path.name: run.status for run in find_runs(tmp_path)}
    assert found == {"running": "running", "stopped": "stopped", "failed": "failed"}


def test_a_job_that_failed_before_it_began_is_listed(tmp_path):
    make_run(tmp_path / "0", objective=0.3)
    for name, config in {"1": "optimized_metric: val/score\n", "infer": "run_dir: x\n"}.items():
        folder = tmp_path / name / ".hydra"
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(config)
        (folder / "hydra.yaml").write_text(
            "hydra: {overrides: {task: [model.n_filters=0]}, runtime: {choices: {model: unet}}}\n"
        )
    (fresh,) = [run for run in find_runs(tmp_path) if run.path.name == "1"]
    assert fresh.status == "running"  # may still be making its data
    os.utime(tmp_path / "1" / ".hydra" / "config.yaml", (1e9, 1e9))
    found = {run.path.name: run for run in find_runs(tmp_path)}
    assert set(found) == {"0", "1"}  # infer.py's folder is none
    assert (found["1"].status, found["1"].best) == ("failed", None)
    assert found["1"].overrides == ("model.n_filters=0",)
    assert found["1"].choices["model"] == "unet"


def test_the_table_shows_brackets_and_sorts_by_score(tmp_path, capsys):
    make_run(tmp_path / "good", objective=0.7)
    make_run(tmp_path / "bad", objective=0.2, lr=0.5)
    make_run(tmp_path / "none", scores=())
    assert main(["runs", str(tmp_path), "--sort", "best"]) == 0
    table = capsys.readouterr().out
    assert re.findall(r"│ (good|bad|none) ", table) == ["none", "bad", "good"]
    assert table.count("callbacks=[checkpoint]") == 1  # what all runs share is said once, below
    assert table.splitlines()[-1].strip() == "in all of them: callbacks=[checkpoint]"
    assert table.count("optimizer.lr=0.5") == 1
    assert main(["runs", str(tmp_path), "--json", "--where", "lr=0.5"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["best"] == 0.2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "is no folder"),
        (lambda p: p.mkdir(), "holds no run"),
        (lambda p: (p.mkdir(), (p / "run.json").write_text("{")), "run.json is damaged"),
        (lambda p: (p.mkdir(), (p / "run.json").write_text("[]")), "expected a JSON object"),
    ],
    ids=["missing", "empty", "damaged", "list"],
)
def test_bad_folders(tmp_path, make, message):
    make(tmp_path / "logs")
    with pytest.raises(RunFileError, match=message):
        find_runs(tmp_path / "logs")


def test_comparing_shows_what_differs_and_nothing_else(tmp_path):
    a = make_run(tmp_path / "x" / "0", lr=0.001)
    b = make_run(tmp_path / "y" / "0", lr=0.002, scores=(0.4, 0.5))
    for folder, scores in ((a, (0.5, 0.5)), (b, (0.25, 0.75))):
        (folder / "predictions").mkdir()
        rows = [f"v{i},final,{score}" for i, score in enumerate(scores)]
        (folder / "predictions" / "scores.csv").write_text(
            "\n".join(["volume,mask,score", *rows]) + "\n"
        )
    tables = compare_runs([a, b], tmp_path / "out")
    names = ["x/0", "y/0"]
    assert tables["Configuration"] == (["key", *names], [["optimizer.lr", "0.001", "0.002"]])
    assert tables["Best of every score"][1] == [
        ["val/loss/total", pytest.approx(0.6), pytest.approx(0.4)],
        ["val/score", 0.3, 0.5],
    ]
    assert tables["Score of every volume"][1] == [
        ["v0 final", 0.5, 0.25, -0.25],
        ["v1 final", 0.5, 0.75, 0.25],
    ]
    page = (tmp_path / "out" / "compare.html").read_text()
    assert "optimizer.lr" in page
    assert "data:image/png;base64," in page
    assert (tmp_path / "out" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_comparing_refuses_one_run_twice_and_no_run(tmp_path, capsys):
    a = make_run(tmp_path / "a")
    assert main(["compare", str(a)]) == 2
    assert "needs two or more" in capsys.readouterr().err
    assert main(["compare", str(a), str(a)]) == 2
    assert "the same run twice" in capsys.readouterr().err
    assert main(["compare", str(a), str(tmp_path)]) == 2
    assert "is no run" in capsys.readouterr().err


def test_names_in_the_page_are_escaped(tmp_path):
    a, b = make_run(tmp_path / "<b>x"), make_run(tmp_path / "y")
    compare_runs([a, b], tmp_path / "out")
    page = (tmp_path / "out" / "compare.html").read_text()
    assert "<b>x" not in page
    assert "&lt;b&gt;x" in page
