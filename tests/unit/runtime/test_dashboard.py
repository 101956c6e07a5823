"""The dashboard as code: names that exist, a definition that wandb understands, clear refusals."""

import json
import re
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from vesuvius.cli.dashboard import TASKS as OFFERED
from vesuvius.cli.main import main
from vesuvius.errors import ConfigError
from vesuvius.runtime.dashboard import OBJECTIVE, TASKS, report, sections, workspace
from vesuvius.runtime.wandb_run import publish_objective, swept_overrides

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
EXPERIMENTS = {"surface": "demo", "petct": "petct_cocoseg", "heart": "heart_vecset"}
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic V1 style")  # wandb-workspaces' own


def documented(name):
    """Whether docs/metrics.md lists a name, alone or as one of a family."""
    family, last = name.rsplit("/", 1) if "/" in name else ("", name)
    cells = re.findall(r"`([^`]+)`", PAGE)
    return (
        name in cells
        or f"{family}/<term>" in cells
        or (last in cells and any(cell.startswith(f"{family}/") for cell in cells))
        or (last.startswith("gpu_") and "memory/gpu_<kind>_mib" in cells)
    )


def test_the_command_offers_every_task():
    assert tuple(TASKS) == OFFERED


@pytest.mark.parametrize("task", TASKS)
def test_every_name_is_in_the_list_of_metrics(task):
    shown = TASKS[task]
    names = [name for group in shown.curves.values() for name in group]
    unknown = [n for n in [*names, *shown.media, *shown.tables] if not documented(n)]
    assert unknown == []
    assert len(set(names)) == len(names)
    assert not documented("val/no_such")
    assert f"`{OBJECTIVE}`" in PAGE


@pytest.mark.parametrize("task", TASKS)
def test_every_axis_of_the_sweep_is_a_key(task, compose_config, tmp_path):
    options = [f"experiment={EXPERIMENTS[task]}", "data.root=somewhere"]
    cfg = compose_config("train", options if task == "surface" else options[:1], tmp_path)
    missing = [key for key in TASKS[task].sweep if OmegaConf.select(cfg, key) is None]
    assert missing == []


def panels_of(definition):
    """Return [(section, view type, config)] of a workspace's definition."""
    bank = definition["spec"]["section"]["panelBankConfig"]
    return [
        (section["name"], panel["viewType"], panel["config"])
        for section in bank["sections"]
        for panel in section["panels"]
    ]


@pytest.mark.parametrize("task", TASKS)
def test_the_definition_of_a_workspace_shows_what_the_task_lists(task, tmp_path, capsys):
    pytest.importorskip("wandb_workspaces")
    out = tmp_path / "board.json"
    options = ["--entity", "team", "--project", "scroll", "--task", task, "--json", str(out)]
    assert main(["dashboard", *options]) == 0
    definition = json.loads(out.read_text())
    assert (definition["entity"], definition["project"]) == ("team", "scroll")
    panels = panels_of(definition)
    curves = [config for _, kind, config in panels if kind == "Run History Line Plot"]
    single = {config["metrics"][0] for config in curves if len(config["metrics"]) == 1}
    assert single == {name for group in TASKS[task].curves.values() for name in group}
    assert {config["xAxis"] for config in curves} == {"epoch"}
    media = [config["mediaKeys"] for _, kind, config in panels if kind == "Media Browser"]
    assert media == [[name] for name in TASKS[task].media]
    tables = [json.dumps(config) for _, kind, config in panels if kind == "Weave"]
    assert all(name in text for name, text in zip(TASKS[task].tables, tables, strict=True))
    (axes,) = [config["columns"] for _, kind, config in panels if kind.startswith("Parallel")]
    assert axes[0] == {"accessor": "config:optimizer.value.lr", "log": True}
    assert axes[-1]["accessor"] == f"summary:{OBJECTIVE}"
    runs = definition["spec"]["section"]["runSets"][0]
    assert runs["sort"]["keys"][0]["key"] == {"section": "summary", "name": OBJECTIVE}


def test_wandb_reads_the_definition_back():
    pytest.importorskip("wandb_workspaces")
    from wandb_workspaces.workspaces import Workspace, internal

    made = workspace("team", "scroll")
    text = made._to_model().model_dump_json(by_alias=True, exclude_none=True)
    again = Workspace._from_model(internal.View.model_validate_json(text))
    shapes = [
        [(section.name, [type(panel).__name__ for panel in section.panels]) for section in sections]
        for sections in (made.sections, again.sections)
    ]
    assert shapes[0] == shapes[1]
    assert not any("Unknown" in name for _, names in shapes[1] for name in names)


def test_the_share_of_waiting_is_an_expression_of_two_times():
    pytest.importorskip("wandb_workspaces")
    first = sections("surface")["Time, data, memory"][0]
    assert first.y == ["time/data_s", "time/step_s"]
    assert first.custom_expressions == ["${time/data_s} / (${time/data_s} + ${time/step_s})"]


def test_keys_of_the_command_line_become_axes():
    pytest.importorskip("wandb_workspaces")
    made = workspace("team", "scroll", sweep=["model.n_filters", "seed"])
    sweep = made.sections[-1].panels
    assert [column.metric.name for column in sweep[0].columns] == [
        "model.n_filters",
        "seed",
        OBJECTIVE,
    ]
    assert sweep[2].x.name == "model.n_filters"


def test_a_report_has_the_same_panels_in_places_that_do_not_overlap():
    pytest.importorskip("wandb_workspaces")
    made = report("team", "scroll")
    model = made._to_model().model_dump(by_alias=True, exclude_none=True)
    grids = [block for block in model["spec"]["blocks"] if block["type"] == "panel-grid"]
    found = [grid["metadata"]["panelBankSectionConfig"]["panels"] for grid in grids]
    assert [len(panels) for panels in found] == [len(p) for p in sections("surface").values()]
    for panels in found:
        boxes = [panel["layout"] for panel in panels]
        for i, a in enumerate(boxes):
            for b in boxes[i + 1 :]:
                beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
                below = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
                assert beside or below


def test_without_a_login_the_command_says_what_to_do(monkeypatch, tmp_path, capsys):
    pytest.importorskip("wandb_workspaces")
    import wandb

    monkeypatch.setattr(wandb, "login", lambda **_: False)
    assert main(["dashboard", "--entity", "team"]) == 2
    error = capsys.readouterr().err
    assert "no wandb login here" in error
    assert "--json FILE" in error


def test_what_wandb_refuses_is_told(monkeypatch, capsys):
    pytest.importorskip("wandb_workspaces")
    import wandb
    from wandb_workspaces.workspaces import Workspace

    def refused(self):
        raise ValueError("entity team not found")

    monkeypatch.setattr(wandb, "login", lambda **_: True)
    monkeypatch.setattr(Workspace, "save", refused)
    assert main(["dashboard", "--entity", "team"]) == 2
    assert "did not take the dashboard: entity team not found" in capsys.readouterr().err


def test_an_empty_name_and_an_unknown_task_are_refused():
    pytest.importorskip("wandb_workspaces")
    with pytest.raises(ConfigError, match="--entity is empty"):
        workspace("", "scroll")
    with pytest.raises(ConfigError, match="--task mouse: expected one of surface"):
        report("team", "scroll", task="mouse")


def test_without_the_package_the_extra_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    assert main(["dashboard", "--entity", "team", "--json", "x.json"]) == 2
    assert "pip install 'vesuvius[track]'" in capsys.readouterr().err


def test_a_job_is_named_after_what_its_sweep_chose(tmp_path):
    task = ["optimizer.lr=1e-3,2e-3", "logger.wandb.offline=true", "model=glob(surf*)", "seed=3"]
    OmegaConf.save({"hydra": {"overrides": {"task": task}}}, tmp_path / "multirun.yaml")
    job = ["optimizer.lr=0.002", "logger.wandb.offline=True", "model=b", "seed=3", "data.x=0.5"]
    chosen = swept_overrides(tmp_path, job)
    assert chosen == ["optimizer.lr=0.002", "model=b", "data.x=0.5"]  # data.x: of a search's space
    assert swept_overrides(tmp_path, ["seed=3"]) == ["seed=3"]
    assert swept_overrides(tmp_path / "none", job) == job


def test_the_objective_goes_to_loggers_with_a_summary():
    class Run:
        def __init__(self):
            self.summary = {}

    class Logger:
        def __init__(self, experiment):
            self.experiment = experiment

    run, other = Run(), object()
    publish_objective([Logger(other), Logger(run)], None)
    assert run.summary == {}
    publish_objective([Logger(other), Logger(run)], 0.5)
    assert run.summary == {OBJECTIVE: 0.5}
