"""The search: Optuna trials whose volumes are scored side by side, kept in a journal file."""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vesuvius.errors import ConfigError
from vesuvius.tuning.cases import Case
from vesuvius.tuning.chains import Chain, chain_text, check_built, parsed_chain
from vesuvius.tuning.evaluate import Evaluator, Outcome
from vesuvius.tuning.space import SearchSpace

STUDY = "vesuvius-tune"
_STARTUP = 10
"""Random trials before the sampler learns."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Tried:
    """A finished trial.

    Attributes:
        chain: what was run.
        scores: official score of each case, in the cases' order.
        number: of the trial.
    """

    chain: Chain
    scores: Floats
    number: int


class Scorer:
    """Scores chains on cases, cases side by side; keeps what it has scored.

    Args:
        evaluator: does the work, in the executor's processes.
        cases: volumes.
        executor: None runs in this process.
    """

    def __init__(
        self, evaluator: Evaluator, cases: Sequence[Case], executor: Executor | None = None
    ) -> None:
        self.evaluator, self.cases, self.executor = evaluator, tuple(cases), executor
        self._known: dict[tuple[str, str], Outcome] = {}

    def outcomes(self, chain: Chain, places: Sequence[int] | None = None) -> list[Outcome]:
        """Return the outcomes of a chain on all cases, or on those at `places`."""
        cases = self.cases if places is None else [self.cases[i] for i in places]
        text = chain_text(chain)
        new = [case for case in cases if (text, case.name) not in self._known]
        if self.executor is None:
            found = [self.evaluator.outcome(case, chain) for case in new]
        else:
            jobs = [self.executor.submit(self.evaluator.outcome, case, chain) for case in new]
            found = [job.result() for job in jobs]
        self._known |= {
            (text, case.name): outcome for case, outcome in zip(new, found, strict=True)
        }
        return [self._known[text, case.name] for case in cases]

    def scores(self, chain: Chain, places: Sequence[int] | None = None) -> Floats:
        """Return the official scores of a chain, one a case."""
        return np.array([outcome.score for outcome in self.outcomes(chain, places)])


def search(
    space: SearchSpace,
    scorer: Scorer,
    journal: Path,
    *,
    trials: int,
    seed: int = 0,
    timeout_s: float | None = None,
    progress: Callable[[int, float, float], None] | None = None,
) -> list[Tried]:
    """Return all finished trials: those of the journal and up to `trials` in all.

    The first trials take every chain of the space at its initial values. A trial whose arguments
    contradict each other is noted as pruned and counts.

    Args:
        space: what may be tried.
        scorer: scores a chain on every case.
        journal: file of the study; an existing one is continued.
        trials: number in all, those of the journal included.
        seed: of the sampler.
        timeout_s: no trial starts after so many seconds.
        progress: called after each trial with (number, its mean score, best mean score).

    Raises:
        ConfigError: the journal is of other cases or another space.
    """
    with quiet_optuna() as optuna:
        study = _open_study(optuna, journal, seed, _identity(space, scorer))
        left = trials - sum(trial.state.is_finished() for trial in study.trials)
        if not study.trials:
            for values in space.first_trials():
                study.enqueue_trial(values)

        def objective(trial: Any) -> float:
            chain = space.suggest(trial)
            trial.set_user_attr("chain", chain_text(chain))
            try:
                check_built(chain, scorer.evaluator.build)
            except ConfigError as error:
                trial.set_user_attr("refused", str(error))
                raise optuna.TrialPruned(str(error)) from error
            scores = scorer.scores(chain)
            trial.set_user_attr("scores", scores.tolist())
            return float(scores.mean())

        def report(study: Any, trial: Any) -> None:
            if progress is not None and trial.value is not None:
                progress(trial.number, trial.value, study.best_value)

        if left > 0:
            study.optimize(objective, n_trials=left, timeout=timeout_s, callbacks=[report])
        return [
            Tried(
                parsed_chain(trial.user_attrs["chain"]),
                np.array(trial.user_attrs["scores"]),
                trial.number,
            )
            for trial in study.trials
            if trial.state == optuna.trial.TrialState.COMPLETE
        ]


@contextmanager
def quiet_optuna() -> Iterator[Any]:
    """Import Optuna; its log lines are left to our own progress.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise ConfigError("vesuvius tune needs Optuna: pip install 'vesuvius[tune]'") from error
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.WARNING)
    try:
        yield optuna
    finally:
        optuna.logging.set_verbosity(level)


def _open_study(optuna: Any, journal: Path, seed: int, identity: str) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    journal.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(journal))),
        study_name=STUDY,
        direction="maximize",
        load_if_exists=True,
    )
    known = study.user_attrs.get("identity")
    if known is None:
        study.set_user_attr("identity", identity)
    elif known != identity:
        raise ConfigError(
            f"{journal} holds a search over other volumes or another space; choose another --out, "
            "or delete it to start afresh"
        )
    # A resumed search must not draw what it has drawn before.
    done = len(study.trials)
    study.sampler = optuna.samplers.TPESampler(
        seed=seed + done, n_startup_trials=max(_STARTUP - done, 0) if done else _STARTUP
    )
    return study


def _identity(space: SearchSpace, scorer: Scorer) -> str:
    """Return a hash of what the trials of one study share."""
    names = [case.name for case in scorer.cases]
    return hashlib.sha256(repr((names, space)).encode()).hexdigest()[:16]
