"""The sweeper `hydra/sweeper=optuna`: asks a current Optuna for every job's overrides.

The released hydra-optuna-sweeper (1.3.0) pins optuna below 3 and sqlalchemy 1.3, cannot prune and
starts again at job 0 when a study is resumed; Optuna 4 is merged upstream but not released (Hydra
issue 3210). Hydra scans this module at every start, so it imports next to nothing.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class OptunaSweeper(Sweeper):
    """Searches a space of overrides; see `vesuvius.runtime.optuna_search.Search`.

    Args:
        storage: URL of the study, e.g. sqlite:///study.db; a killed search goes on from it.
        study_name: name inside the storage.
        n_trials: trials of the study in all, those of earlier runs included.
        n_jobs: trials that the launcher runs at a time.
        max_failure_rate: share of failed trials above which the search stops with an error.
        seed: of the sampler.
        sampler: seed -> Optuna sampler (a partial).
        trial_key: configuration key that gets the number of a job's trial, None = none.
        direction: maximize or minimize.
        params: key -> sweep, e.g. `tag(log, interval(1e-5, 1e-2))`; the command line adds to it.
    """

    def __init__(
        self,
        *,
        storage: str,
        study_name: str,
        n_trials: int,
        n_jobs: int,
        max_failure_rate: float,
        seed: int,
        sampler: Callable[..., Any],
        trial_key: str | None,
        direction: Literal["maximize", "minimize"],
        params: Mapping[str, Any] | None,
    ) -> None:
        self.storage, self.study_name = storage, study_name
        self.direction: Literal["maximize", "minimize"] = direction
        self.n_trials, self.n_jobs, self.max_failure_rate = n_trials, n_jobs, max_failure_rate
        self.seed, self.sampler, self.trial_key = seed, sampler, trial_key
        self.params = dict(params or {})

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Get the launcher ready."""
        self.settings, self.context = config, hydra_context
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> dict[str, Any]:
        """Run the trials that are missing; return counts, best value and best parameters."""
        from vesuvius.runtime.optuna_search import run_search

        loader = self.context.config_loader
        written = [f"{key}={value}" for key, value in self.params.items()]
        overrides = OverridesParser.create(config_loader=loader).parse_overrides(
            [*written, *arguments]
        )
        return run_search(self, overrides)
