"""A search over overrides with Optuna: ask, launch, tell, resume."""

import csv
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    RangeSweep,
    Transformer,
)
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from vesuvius.callbacks.pruning import PRUNED
from vesuvius.errors import ConfigError, VesuviusError

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

    from hydra_plugins.vesuvius_optuna.optuna_sweeper import OptunaSweeper

log = logging.getLogger(__name__)


def run_search(sweeper: "OptunaSweeper", overrides: Sequence[Override]) -> dict[str, Any]:
    """Run the missing trials of a study; return its summary.

    The study's folder holds `multirun.yaml`, one folder a trial (named by its number),
    `trials.csv` and `optimization_results.yaml`. Run again, it goes on: finished, pruned and failed
    trials count, interrupted ones are asked anew.

    Raises:
        ConfigError: Optuna is missing, an objective that no search may use, an empty space.
        VesuviusError: more failed trials than `max_failure_rate` allows.
    """
    from vesuvius.runtime.train import check_objective

    check_objective(sweeper.settings.optimized_metric)
    if sweeper.settings.optimized_metric is None:
        raise ConfigError("optimized_metric=null: a search needs a score, such as val/score.")
    space, fixed = parse_space(overrides)
    folder = Path(sweeper.settings.hydra.sweep.dir)
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(sweeper.settings, folder / "multirun.yaml")
    study = open_study(sweeper)
    while (missing := sweeper.n_trials - len(finished(study))) > 0:
        trials = [study.ask(space) for _ in range(min(sweeper.n_jobs, missing))]
        batch = [[*fixed, *trial_overrides(trial, sweeper.trial_key)] for trial in trials]
        with failing(study, trials):
            results = sweeper.launcher.launch(batch, initial_job_idx=trials[0].number)
        for trial, result in zip(trials, results, strict=True):
            tell(study, trial, result)
        summary = summarise(study, folder)
        check_failures(study, sweeper.max_failure_rate, folder)
    summary = summarise(study, folder)
    log.info("search %s: %s", study.study_name, summary)
    return summary


def parse_space(overrides: Sequence[Override]) -> "tuple[dict[str, BaseDistribution], list[str]]":
    """Return the distributions of swept keys and the plain overrides; later ones win.

    Raises:
        ConfigError: nothing is swept.
    """
    last: dict[str, Override] = {}
    for override in overrides:
        last[override.get_key_element()] = override
    space = {key: distribution(o) for key, o in last.items() if o.is_sweep_override()}
    fixed = [
        f"{key}={o.get_value_element_as_str()}"
        for key, o in last.items()
        if not o.is_sweep_override()
    ]
    if not space:
        raise ConfigError(
            "The search has nothing to search: give hydra.sweeper.params or sweeps on the command "
            "line, such as 'optimizer.lr=tag(log, interval(1e-4, 1e-2))'."
        )
    return space, fixed


def distribution(override: Override) -> "BaseDistribution":
    """Return Optuna's distribution of one swept override."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    sweep: Any = override.value()
    if isinstance(sweep, IntervalSweep):
        low, high, is_log = sweep.start, sweep.end, "log" in sweep.tags
        if "int" in sweep.tags:
            return IntDistribution(int(low or 0), int(high or 0), log=is_log)
        return FloatDistribution(float(low or 0), float(high or 0), log=is_log)
    if isinstance(sweep, RangeSweep) and not sweep.shuffle:
        start, stop, step = sweep.start or 0, sweep.stop, sweep.step
        if isinstance(start, int) and isinstance(stop, int) and isinstance(step, int):
            return IntDistribution(start, start + (stop - 1 - start) // step * step, step=step)
    if isinstance(sweep, ChoiceSweep | RangeSweep):
        return CategoricalDistribution(
            list(override.sweep_string_iterator())
            if isinstance(sweep, ChoiceSweep)
            else [str(v) for v in override.sweep_iterator(Transformer.identity)]
        )
    return CategoricalDistribution(list(override.sweep_string_iterator()))


def open_study(sweeper: "OptunaSweeper") -> "optuna.Study":
    """Return the study, made or found; its sampler continues with another seed.

    Raises:
        ConfigError: Optuna is not installed, or the storage cannot be opened.
    """
    try:
        import optuna
    except ImportError as error:
        raise ConfigError(
            "hydra/sweeper=optuna needs Optuna: pip install 'vesuvius[tune]'."
        ) from error
    optuna.logging.disable_default_handler()
    optuna.logging.enable_propagation()
    try:
        study = optuna.create_study(
            storage=sweeper.storage,
            study_name=sweeper.study_name,
            direction=sweeper.direction,
            load_if_exists=True,
        )
    except Exception as error:
        raise ConfigError(
            f"hydra.sweeper.storage={sweeper.storage} cannot be opened: {error}. Expected a URL "
            "such as sqlite:///study.db in a folder that can be written."
        ) from error
    done = len(study.get_trials(deepcopy=False))
    study.sampler = sweeper.sampler(seed=sweeper.seed + done)
    if done:
        log.info("study %s has %d trials already; going on", study.study_name, done)
    return study


def finished(study: "optuna.Study") -> "list[optuna.trial.FrozenTrial]":
    """Return the trials that need no further run."""
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]


def trial_overrides(trial: "optuna.Trial", trial_key: str | None) -> list[str]:
    """Return the overrides of one job."""
    chosen = [f"{key}={value}" for key, value in trial.params.items()]
    return chosen if trial_key is None else [*chosen, f"{trial_key}={trial.number}"]


@contextmanager
def failing(study: "optuna.Study", trials: "Sequence[optuna.Trial]") -> Iterator[None]:
    """Mark the trials as failed if the launcher itself breaks off, Ctrl-C included."""
    from optuna.trial import TrialState

    try:
        yield
    except BaseException:
        for trial in trials:
            study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
        raise


def tell(study: "optuna.Study", trial: "optuna.Trial", result: JobReturn) -> None:
    """Store a job's outcome: a score, pruned, or failed (an error, no number)."""
    from optuna.trial import TrialState

    if result.status != JobStatus.COMPLETED:
        error = getattr(result, "_return_value", None)
        log.warning("trial %d failed: %s", trial.number, error)
        trial.set_user_attr("error", str(error)[:500])
        study.tell(trial, state=TrialState.FAIL)
        return
    stored = study.get_trials(deepcopy=False)[trial.number]
    if PRUNED in stored.user_attrs:
        study.tell(trial, state=TrialState.PRUNED)
    elif isinstance(result.return_value, float | int) and math.isfinite(result.return_value):
        study.tell(trial, float(result.return_value))
    else:
        log.warning("trial %d returned %r, no number", trial.number, result.return_value)
        trial.set_user_attr("error", f"objective {result.return_value!r}")
        study.tell(trial, state=TrialState.FAIL)


def check_failures(study: "optuna.Study", max_failure_rate: float, folder: Path) -> None:
    """Raise VesuviusError when too many trials failed."""
    done = finished(study)
    failed = [trial for trial in done if trial.state.name == "FAIL"]
    if len(failed) > max_failure_rate * len(done):
        errors = {trial.user_attrs.get("error", "interrupted") for trial in failed}
        raise VesuviusError(
            f"{len(failed)} of {len(done)} trials failed, more than "
            f"hydra.sweeper.max_failure_rate={max_failure_rate}: {'; '.join(sorted(errors))}. The "
            f"jobs' logs lie in {folder}/<number>; the same command goes on with the search."
        )


def summarise(study: "optuna.Study", folder: Path) -> dict[str, Any]:
    """Write `trials.csv` and `optimization_results.yaml`; return the latter's content."""
    trials = study.get_trials(deepcopy=False)
    names = sorted({name for trial in trials for name in trial.params})
    with (folder / "trials.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["trial", "state", "value", "seconds", *names])
        for trial in trials:
            seconds = trial.duration.total_seconds() if trial.duration else None
            row = [trial.number, trial.state.name.lower(), trial.value, seconds]
            writer.writerow([*row, *(trial.params.get(name) for name in names)])
    counts: dict[str, int] = {}
    for trial in trials:
        counts[trial.state.name.lower()] = counts.get(trial.state.name.lower(), 0) + 1
    summary: dict[str, Any] = {"name": "optuna", "study": study.study_name, "trials": counts}
    if counts.get("complete"):
        best = study.best_trial
        summary |= {
            "best_trial": best.number,
            "best_evaluated_value": best.value,
            "best_evaluated_params": dict(best.params),
        }
    OmegaConf.save(OmegaConf.create(summary), folder / "optimization_results.yaml")
    return summary
