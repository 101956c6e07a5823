"""The comparison dashboard of a wandb project, as code: one workspace, or one report.

What is shown stands in `TASKS` as plain names of docs/metrics.md, so that a test can compare them
with what a run logs. wandb's own objects are made from them only when asked for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vesuvius.errors import ConfigError

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2.interface import Report
    from wandb_workspaces.workspaces.interface import Workspace

OBJECTIVE = "objective"
"""Name in a run's summary: the best value of `optimized_metric`; see docs/metrics.md."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is worth comparing between runs of one kind.

    Attributes:
        curves: section -> metrics, one panel each, over epochs.
        media: pictures, one browser each.
        tables: tables, one panel each, all runs joined.
        sweep: configuration keys, the axes of the parallel coordinates.
    """

    curves: Mapping[str, Sequence[str]]
    media: Sequence[str]
    tables: Sequence[str]
    sweep: Sequence[str]


_LOSSES = ("train/loss/total", "val/loss/total")
_HEALTH = ("lr", "train/skipped_steps")
_TIME = ("time/data_s", "time/step_s", "throughput/samples_s", "memory/ram_mib")
_GPU = "memory/gpu_peak_mib"

TASKS: Mapping[str, Task] = {
    "surface": Task(
        curves={
            "Scores": (
                "val/score", "val/topo", "val/surface_dice", "val/voi_score",
                "val/post/score", "val/post/topo", "val/post/surface_dice", "val/post/voi_score",
                "val/proxy/score", "val/proxy/dice",
            ),
            "Losses": (
                *_LOSSES, "train/loss/dice", "val/loss/dice", "train/loss/bce", "val/loss/bce",
            ),
            "Normals": ("train/loss/normal", "val/loss/normal"),
            "Health": (*_HEALTH, "train/foreground_share"),
            "Time, data, memory": (*_TIME, _GPU, "time/postprocess_s"),
        },
        media=("val/comparison", "val/view3d"),
        tables=("val/volumes",),
        sweep=("optimizer.lr", "loss.term.bce.fn.pos_weight", "data.positive_share", "seed"),
    ),
    "petct": Task(
        curves={
            "Scores": (
                "val/lesion/dice_positive", "val/lesion/dice_slice", "val/lesion/dice_patient",
                "val/lesion/dice_global", "val/lesion/hd95", "val/lesion/fp_rate",
            ),
            "Losses": _LOSSES,
            "Health": _HEALTH,
            "Time, data, memory": (*_TIME, _GPU),
        },
        media=(),
        tables=(),
        sweep=("optimizer.lr", "data.batch_size", "seed"),
    ),
    "heart": Task(
        curves={
            "Scores": (
                "val/dense/union_dice", "val/dense/class_dice", "val/points/iou",
                "val/points/dice", "val/points/class_dice", "val/points/acc",
            ),
            "Losses": _LOSSES,
            "Health": _HEALTH,
            "Time, data, memory": (*_TIME, _GPU),
        },
        media=(),
        tables=(),
        sweep=("optimizer.lr", "data.batch_size", "seed"),
    ),
}  # fmt: skip
"""Task -> what its dashboard shows."""


def workspace(
    entity: str, project: str, *, task: str = "surface", sweep: Sequence[str] = ()
) -> "Workspace":
    """Return the workspace of a project; `save()` puts it there, `_to_model()` is its definition.

    Args:
        entity: user or team.
        project: `logger.wandb.project` of the runs.
        task: surface, petct or heart.
        sweep: configuration keys of the parallel coordinates; empty = the task's.

    Raises:
        ConfigError: wandb-workspaces is missing, an unknown task, an empty name.
    """
    ws, _ = libraries()
    shown = sections(task, sweep)
    place = {"entity": entity, "project": project}
    check_names(place)
    made: Workspace = ws.Workspace(
        **place,
        name=f"vesuvius: {task} runs compared",
        auto_generate_panels=False,
        sections=[
            ws.Section(
                name=title,
                panels=panels,
                is_open=title != "Health",
                layout_settings=ws.SectionLayoutSettings(columns=3, rows=3),
            )
            for title, panels in shown.items()
        ],
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=20),
        runset_settings=ws.RunsetSettings(
            order=[ws.Ordering(ws.Summary(OBJECTIVE), ascending=False)],
            pinned_columns=[
                "run:displayName",
                f"summary:{OBJECTIVE}",
                "config:choices.value.model",
                "config:optimizer.value.lr",
                "config:num_parameters.value",
            ],
        ),
    )
    return made


def report(
    entity: str, project: str, *, task: str = "surface", sweep: Sequence[str] = ()
) -> "Report":
    """Return the same as a report, which can be sent to people; arguments as `workspace`."""
    _, wr = libraries()
    shown = sections(task, sweep)
    place = {"entity": entity, "project": project}
    check_names(place)
    blocks: list[Any] = [wr.TableOfContents()]
    for title, panels in shown.items():
        order = [wr.OrderBy(wr.SummaryMetric(OBJECTIVE), ascending=False)]
        # Without a project the runs are those of the report's own; naming it asks the server.
        runs = wr.Runset(name="all runs", order=order)
        blocks += [wr.H1(title), wr.PanelGrid(runsets=[runs], panels=panels)]
    title = f"vesuvius: {task} runs compared"
    made: Report = wr.Report(**place, title=title, blocks=blocks, width="fluid")
    return made


def sections(task: str, sweep: Sequence[str] = ()) -> dict[str, list[Any]]:
    """Return title -> panels, in the order of the page.

    Raises:
        ConfigError: an unknown task.
    """
    if task not in TASKS:
        raise ConfigError(f"--task {task}: expected one of {', '.join(TASKS)}.")
    _, wr = libraries()
    chosen = TASKS[task]
    found: dict[str, list[Any]] = {
        title: [wr.LinePlot(title=name, x="epoch", y=[name]) for name in names]
        for title, names in chosen.curves.items()
    }
    # Terms differ from run to run: whatever there is, next to the totals.
    found["Losses"].append(
        wr.LinePlot(title="all terms", x="epoch", metric_regex="(train|val)/loss/.+")
    )
    waiting, working = "time/data_s", "time/step_s"
    found["Time, data, memory"].insert(
        0,
        wr.LinePlot(
            title="share of a step spent waiting for data",
            x="epoch",
            y=[waiting, working],
            custom_expressions=[f"${{{waiting}}} / (${{{waiting}}} + ${{{working}}})"],
            range_y=(0.0, 1.0),
        ),
    )
    pictures = [
        wr.MediaBrowser(title=name, media_keys=[name], layout=wr.Layout(w=24, h=12))
        for name in chosen.media
    ]
    tables = [
        wr.WeavePanelSummaryTable(table_name=name, layout=wr.Layout(w=24, h=12))
        for name in chosen.tables
    ]
    found |= {"Pictures": pictures} if pictures else {}
    found |= {"Score of every volume": tables} if tables else {}
    found["Sweep"] = sweep_panels(sweep or chosen.sweep)
    return found


def sweep_panels(keys: Sequence[str]) -> list[Any]:
    """Return what shows the keys of a sweep against its objective."""
    _, wr = libraries()
    axes: list[Any] = [wr.Config(key) for key in keys] + [wr.SummaryMetric(OBJECTIVE)]
    column = wr.ParallelCoordinatesPlotColumn
    return [
        wr.ParallelCoordinatesPlot(
            title="what was chosen, what came of it",
            layout=wr.Layout(w=24, h=10),
            columns=[column(axis, log=axis.name.endswith((".lr", "weight"))) for axis in axes],
        ),
        wr.ParameterImportancePlot(with_respect_to=OBJECTIVE),
        wr.ScatterPlot(title=keys[0], x=axes[0], y=axes[-1], log_x=keys[0].endswith(".lr")),
        wr.RunComparer(diff_only="split"),
    ]


def libraries() -> tuple[Any, Any]:
    """Return wandb-workspaces' two modules.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import wandb_workspaces.reports.v2 as reports
        import wandb_workspaces.workspaces as workspaces
    except ImportError as error:
        raise ConfigError(
            f"a dashboard needs wandb-workspaces ({error}): pip install 'vesuvius[track]'."
        ) from error
    return workspaces, reports


def check_names(place: Mapping[str, str]) -> None:
    """Raise ConfigError for an empty entity or project."""
    for name, value in place.items():
        if not value:
            raise ConfigError(
                f"--{name} is empty; expected what https://wandb.ai/<entity>/<project> says."
            )


def publish(dashboard: Any) -> str:
    """Save a workspace or report in its project; return its URL.

    Raises:
        ConfigError: no login, or wandb refused.
    """
    import wandb

    if not wandb.login(prompt=False):
        raise ConfigError(
            "no wandb login here: run `wandb login` or set WANDB_API_KEY; "
            "`--json FILE` writes the definition without one."
        )
    try:
        dashboard.save()
    except Exception as error:  # wandb raises many kinds, plain Exception among them
        raise ConfigError(
            f"wandb did not take the dashboard: {error}. Expected an entity and a project that "
            "exist and that this login may change (--entity, --project)."
        ) from error
    return str(dashboard.url)
