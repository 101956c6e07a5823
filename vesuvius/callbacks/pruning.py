"""Stops a trial of a search that will not become the best."""

import logging
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from vesuvius.errors import ConfigError

log = logging.getLogger(__name__)
PRUNED = "pruned_at_epoch"
"""User attribute of a trial that the callback stopped; the sweeper looks for it."""


class OptunaPruning(Callback):
    """Reports the score of every validation to a study and stops when its pruner says so.

    The sweeper gives the trial's number and stores the trial as pruned afterwards. With several
    ranks the first one reports and all stop together.

    Args:
        storage: the study's URL.
        study_name: its name.
        trial_number: number of this job's trial; None = not in a search, nothing happens.
        monitor: score that is reported.
        pruner: Optuna pruner that decides.
    """

    def __init__(
        self,
        *,
        storage: str,
        study_name: str,
        trial_number: int | None,
        monitor: str,
        pruner: Any,
    ) -> None:
        self.storage, self.study_name, self.pruner = storage, study_name, pruner
        self.trial_number, self.monitor = trial_number, monitor
        self._trial: Any = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the trial."""
        del pl_module
        if self.trial_number is None or not trainer.is_global_zero:
            return
        import optuna

        study = optuna.load_study(
            study_name=self.study_name, storage=self.storage, pruner=self.pruner
        )
        trials = [t for t in study.get_trials(deepcopy=False) if t.number == self.trial_number]
        if not trials:
            raise ConfigError(
                f"callbacks.pruning.trial_number={self.trial_number}: study {self.study_name} in "
                f"{self.storage} has no such trial; the sweeper sets it, leave it out elsewhere."
            )
        # The number of a trial is public, the constructor's id is not (optuna-integration too).
        self._trial = optuna.trial.Trial(study, trials[0]._trial_id)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the score; stop training when the pruner says so."""
        del pl_module
        if self.trial_number is None or trainer.sanity_checking:
            return
        stop = False
        score = trainer.callback_metrics.get(self.monitor)
        if self._trial is not None and score is not None:
            self._trial.report(float(score), trainer.current_epoch)
            stop = bool(self._trial.should_prune())
        if trainer.strategy.broadcast(stop):
            trainer.should_stop = True
            if self._trial is not None:
                self._trial.set_user_attr("pruned_at_epoch", trainer.current_epoch)
                log.info(
                    "trial %d is pruned after epoch %d", self.trial_number, trainer.current_epoch
                )
