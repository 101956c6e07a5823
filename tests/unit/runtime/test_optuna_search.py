"""The search: its space, its folder, what happens after failures, prunings and kills."""

import csv
from types import SimpleNamespace

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from hydra_plugins.vesuvius_optuna.optuna_sweeper import OptunaSweeper
from vesuvius.callbacks.pruning import OptunaPruning
from vesuvius.errors import ConfigError, VesuviusError
from vesuvius.runtime.optuna_search import parse_space, run_search


def parsed(*lines):
    return OverridesParser.create().parse_overrides(list(lines))


@pytest.fixture
def make_sweeper(tmp_path):
    def make(objective, metric="val/score", **changes):
        arguments = {
            "storage": f"sqlite:///{tmp_path}/optuna.db",
            "study_name": "search",
            "n_trials": 4,
            "n_jobs": 1,
            "max_failure_rate": 0.5,
            "seed": 0,
            "sampler": lambda seed: optuna.samplers.TPESampler(seed=seed, n_startup_trials=2),
            "trial_key": None,
            "direction": "maximize",
            "params": {},
            **changes,
        }
        sweeper = OptunaSweeper(**arguments)
        sweeper.settings = OmegaConf.create(
            {"optimized_metric": metric, "hydra": {"sweep": {"dir": str(tmp_path)}}}
        )
        sweeper.batches = []

        def launch(batch, initial_job_idx):
            sweeper.batches.append((initial_job_idx, batch))
            results = []
            for overrides in batch:
                values = dict(line.split("=", 1) for line in overrides)
                try:
                    results.append(JobReturn(_return_value=objective(values)))
                    results[-1].status = JobStatus.COMPLETED
                except ValueError as error:
                    results.append(JobReturn(_return_value=error, status=JobStatus.FAILED))
            return results

        sweeper.launcher = SimpleNamespace(launch=launch)
        return sweeper

    return make


SPACE = ("lr=tag(log, interval(1e-4, 1e-2))", "seed=3")


def test_sweeps_become_distributions_and_the_last_word_wins():
    space, fixed = parse_space(
        parsed(
            "lr=tag(log, interval(1e-4, 1e-2))",
            "depth=range(2, 9, 2)",
            "width=tag(int, log, interval(4, 64))",
            "loss/term=choice([dice],[dice,bce])",
            "seed=1,2",
            "seed=5",
        )
    )
    assert space == {
        "lr": FloatDistribution(1e-4, 1e-2, log=True),
        "depth": IntDistribution(2, 8, step=2),
        "width": IntDistribution(4, 64, log=True),
        "loss/term": CategoricalDistribution(["[dice]", "[dice,bce]"]),
    }
    assert fixed == ["seed=5"]


def test_an_empty_space_is_refused():
    with pytest.raises(ConfigError, match="nothing to search"):
        parse_space(parsed("seed=3"))


@pytest.mark.parametrize(
    ("metric", "message"), [("val/loss/total", "is a loss"), (None, "needs a score")]
)
def test_the_objective_has_to_be_a_score(make_sweeper, metric, message):
    sweeper = make_sweeper(lambda values: 1.0, metric=metric)
    with pytest.raises(ConfigError, match=message):
        run_search(sweeper, parsed(*SPACE))
    assert sweeper.batches == []


def test_a_search_finds_the_best_and_goes_on_where_it_stopped(make_sweeper, tmp_path):
    def objective(values):
        assert values["seed"] == "3"
        return -abs(float(values["lr"]) - 1e-3)

    first = make_sweeper(objective, n_trials=3)
    run_search(first, parsed(*SPACE))
    assert [index for index, _ in first.batches] == [0, 1, 2]
    again = make_sweeper(objective, n_trials=3)
    run_search(again, parsed(*SPACE))
    assert again.batches == []
    more = make_sweeper(objective, n_trials=5)
    summary = run_search(more, parsed(*SPACE))
    assert [index for index, _ in more.batches] == [3, 4]
    rows = list(csv.DictReader((tmp_path / "trials.csv").read_text().splitlines()))
    assert len({row["lr"] for row in rows}) == 5
    best = max(rows, key=lambda row: float(row["value"]))
    assert summary["best_trial"] == int(best["trial"])
    assert summary["trials"] == {"complete": 5}
    assert OmegaConf.load(tmp_path / "optimization_results.yaml") == summary


def test_the_same_seed_asks_the_same(make_sweeper, tmp_path):
    asked = []
    for name in ("a", "b"):
        sweeper = make_sweeper(lambda values: 1.0, study_name=name)
        run_search(sweeper, parsed(*SPACE))
        asked.append(sweeper.batches)
    assert asked[0] == asked[1]


def test_failed_trials_count_and_too_many_stop_the_search(make_sweeper, tmp_path):
    def objective(values):
        raise ValueError("no crop holds surface")

    sweeper = make_sweeper(objective)
    with pytest.raises(VesuviusError, match=r"1 of 1 trials failed.*no crop holds surface"):
        run_search(sweeper, parsed(*SPACE))
    assert "fail" in (tmp_path / "trials.csv").read_text()


def test_a_few_failures_and_missing_numbers_do_not_stop_it(make_sweeper):
    answers = iter([0.5, float("nan"), 0.25, None])
    summary = run_search(make_sweeper(lambda values: next(answers)), parsed(*SPACE))
    assert summary["trials"] == {"complete": 2, "fail": 2}
    assert summary["best_evaluated_value"] == 0.5


def test_ctrl_c_leaves_a_study_that_goes_on(make_sweeper):
    def objective(values):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_search(make_sweeper(objective), parsed(*SPACE))
    summary = run_search(make_sweeper(lambda values: 1.0, n_trials=3), parsed(*SPACE))
    assert summary["trials"] == {"fail": 1, "complete": 2}


def test_a_bad_trial_is_pruned_by_its_intermediate_scores(make_sweeper, tmp_path):
    storage = f"sqlite:///{tmp_path}/optuna.db"

    def objective(values):
        number = int(values["callbacks.pruning.trial_number"])
        callback = OptunaPruning(
            storage=storage,
            study_name="search",
            trial_number=number,
            monitor="val/score",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=1),
        )
        trainer = SimpleNamespace(
            is_global_zero=True,
            sanity_checking=False,
            should_stop=False,
            current_epoch=0,
            callback_metrics={},
            strategy=SimpleNamespace(broadcast=lambda value: value),
        )
        callback.on_fit_start(trainer, None)
        for epoch in range(3):
            trainer.current_epoch = epoch
            trainer.callback_metrics["val/score"] = 0.5 if number < 2 else 0.1
            callback.on_validation_end(trainer, None)
            if trainer.should_stop:
                break
        assert trainer.should_stop == (number >= 2)
        return trainer.callback_metrics["val/score"]

    sweeper = make_sweeper(objective, n_trials=3, trial_key="callbacks.pruning.trial_number")
    summary = run_search(sweeper, parsed(*SPACE))
    assert summary["trials"] == {"complete": 2, "pruned": 1}


def test_a_trial_that_is_not_there_names_the_key(make_sweeper, tmp_path):
    run_search(make_sweeper(lambda values: 1.0, n_trials=1), parsed(*SPACE))
    callback = OptunaPruning(
        storage=f"sqlite:///{tmp_path}/optuna.db",
        study_name="search",
        trial_number=9,
        monitor="val/score",
        pruner=None,
    )
    with pytest.raises(ConfigError, match=r"callbacks\.pruning\.trial_number=9"):
        callback.on_fit_start(SimpleNamespace(is_global_zero=True), None)


def test_a_storage_that_cannot_be_opened_names_the_key(make_sweeper):
    sweeper = make_sweeper(lambda values: 1.0, storage="sqlite:////no/such/folder/optuna.db")
    with pytest.raises(ConfigError, match=r"hydra\.sweeper\.storage"):
        run_search(sweeper, parsed(*SPACE))
