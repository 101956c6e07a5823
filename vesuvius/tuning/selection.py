"""Which chain is kept: chosen and judged on different volumes, step by step.

All trials score all volumes, so choosing a chain without a fold costs nothing: the best mean over
the other volumes. What the held-out volumes then say is the honest score, and on them each step
of the chosen chain is left out in turn. The candidates themselves were proposed with all volumes
in view: a mild optimism that more volumes than parameters keep small.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vesuvius.errors import ConfigError
from vesuvius.tuning.chains import Chain, removable, without
from vesuvius.tuning.study import Floats, Scorer, Tried


@dataclass(frozen=True, slots=True)
class StepGain:
    """What a step adds on volumes that had no part in choosing its chain.

    Attributes:
        name: of the step.
        gains: score with the step minus without it, one a volume.
        cases: names of these volumes.
        held_out: False if no fold chose a chain with this step: then the volumes had a part.
    """

    name: str
    gains: Floats
    cases: tuple[str, ...]
    held_out: bool

    @property
    def helps(self) -> float:
        """Sum of the gains of the volumes it helps."""
        return float(self.gains[self.gains > 0].sum())

    @property
    def harms(self) -> float:
        """Sum of the losses of the volumes it harms, as a positive number."""
        return float(-self.gains[self.gains < 0].sum())

    @property
    def refused(self) -> bool:
        """Whether it hurts more than it helps."""
        return self.harms > self.helps


@dataclass(frozen=True, slots=True)
class FoldChoice:
    """The chain chosen without one fold.

    Attributes:
        held_out: places of the fold's volumes.
        chain: best mean score on the other volumes.
        trial: its number.
        chosen_on: that mean.
        scores: on the held-out volumes.
    """

    held_out: tuple[int, ...]
    chain: Chain
    trial: int
    chosen_on: float
    scores: Floats


@dataclass(frozen=True, slots=True)
class Selection:
    """The result of a search.

    Attributes:
        chain: the final chain, refused steps dropped.
        scores: of all volumes with it.
        trial: number of the trial it comes from.
        folds: what each fold chose; empty without folds.
        gains: of every removable step that a fold's chain or the final chain has.
        dropped: names of the refused steps that were dropped.
        kept: names of the refused steps kept on request.
    """

    chain: Chain
    scores: Floats
    trial: int
    folds: tuple[FoldChoice, ...]
    gains: tuple[StepGain, ...]
    dropped: tuple[str, ...]
    kept: tuple[str, ...]


def best_on(tried: Sequence[Tried], places: Sequence[int]) -> Tried:
    """Return the trial with the best mean on these volumes; of equal ones the shortest, earliest.

    Raises:
        ConfigError: no trial finished.
    """
    if not tried:
        raise ConfigError("no trial finished: every chain of the space was refused (--space)")

    def rank(one: Tried) -> tuple[float, int, int]:
        return -round(float(one.scores[list(places)].mean()), 9), len(one.chain), one.number

    return min(tried, key=rank)


def choose_by_fold(tried: Sequence[Tried], folds: Sequence[Sequence[int]]) -> list[FoldChoice]:
    """Return for each fold the best chain on all other volumes and its scores on the fold."""
    count = len(tried[0].scores) if tried else 0
    choices = []
    for held_out in folds:
        others = sorted(set(range(count)) - set(held_out))
        best = best_on(tried, others)
        mean = float(best.scores[others].mean())
        scores = best.scores[list(held_out)]
        choices.append(FoldChoice(tuple(held_out), best.chain, best.number, mean, scores))
    return choices


def step_gains(
    scorer: Scorer, parts: Sequence[tuple[Chain, Sequence[int]]], *, held_out: bool
) -> list[StepGain]:
    """Return the gain of each removable step over (chain, places of volumes) pairs.

    Steps of one name count together, whatever their arguments in each chain.
    """
    gains: dict[str, list[float]] = {}
    names: dict[str, list[str]] = {}
    for chain, places in parts:
        whole = scorer.scores(chain, places)
        for name in removable(chain, scorer.evaluator.build):
            rest = scorer.scores(without(chain, name), places)
            gains.setdefault(name, []).extend((whole - rest).tolist())
            names.setdefault(name, []).extend(scorer.cases[i].name for i in places)
    return [
        StepGain(name, np.array(values), tuple(names[name]), held_out)
        for name, values in gains.items()
    ]


def select(
    tried: Sequence[Tried],
    scorer: Scorer,
    folds: Sequence[Sequence[int]],
    *,
    keep_harmful: bool = False,
) -> Selection:
    """Return the chain to use and how far to trust it.

    The best chain on all volumes loses every step that hurts more than it helps on held-out
    volumes (the sum of its losses exceeds the sum of its gains), one after the other, worst
    first, unless the chain would no longer run.

    Args:
        tried: finished trials.
        scorer: scores further chains.
        folds: places of the volumes each fold holds out; empty for none.
        keep_harmful: keep refused steps.

    Raises:
        ConfigError: no trial finished.
    """
    everything = list(range(len(scorer.cases)))
    best = best_on(tried, everything)
    choices = choose_by_fold(tried, folds)
    gains = step_gains(
        scorer, [(choice.chain, choice.held_out) for choice in choices], held_out=True
    )
    seen = {gain.name for gain in gains}
    own = step_gains(scorer, [(best.chain, everything)], held_out=False)
    gains += [gain for gain in own if gain.name not in seen]
    chain, dropped, kept = best.chain, [], []
    worst_first = sorted(gains, key=lambda gain: gain.helps - gain.harms)
    for gain in (gain for gain in worst_first if gain.refused):
        if gain.name not in removable(chain, scorer.evaluator.build):
            continue
        if keep_harmful:
            kept.append(gain.name)
        else:
            chain = without(chain, gain.name)
            dropped.append(gain.name)
    return Selection(
        chain, scorer.scores(chain), best.number, tuple(choices), tuple(gains),
        tuple(dropped), tuple(kept),
    )  # fmt: skip
