"""Means over volumes with their uncertainty, and folds that keep volumes (or scrolls) whole."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vesuvius.errors import ConfigError

Floats = npt.NDArray[np.float64]
_DRAWS = 4000
_SEED = 0


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its 95 % bootstrap interval over volumes."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"


def bootstrap_mean(values: Sequence[float] | Floats, groups: Sequence[str] = ()) -> Interval:
    """Return the mean of values of volumes and its percentile bootstrap interval (4000 draws).

    Args:
        values: one a volume, e.g. scores, or differences of two chains on the same volume.
        groups: scroll of each volume; with three scrolls or more, whole scrolls are drawn
            (volumes of one scroll are alike); fewer tell nothing about scrolls.

    Raises:
        ConfigError: no value.

    Source: Efron and Tibshirani, 1993, percentile interval and cluster bootstrap.
    """
    array = np.asarray(values, np.float64)
    if array.size == 0:
        raise ConfigError("no volume to average over")
    rng = np.random.default_rng(_SEED)
    names = sorted(set(groups))
    if len(names) >= 3:
        member = np.array([[name == group for group in groups] for name in names], np.float64)
        sums, counts = member @ array, member.sum(1)
        draws = rng.integers(len(names), size=(_DRAWS, len(names)))
        means = sums[draws].sum(1) / counts[draws].sum(1)
    else:
        means = array[rng.integers(array.size, size=(_DRAWS, array.size))].mean(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return Interval(float(array.mean()), float(low), float(high))


def make_folds(num_volumes: int, *, num_folds: int, seed: int) -> list[list[int]]:
    """Return the volumes (by place) that each fold holds out; every volume once.

    Raises:
        ConfigError: fewer than 2 folds or more folds than volumes.
    """
    if not 2 <= num_folds <= num_volumes:
        raise ConfigError(
            f"folds must be 2 to {num_volumes} (the number of volumes), got {num_folds} (--folds)"
        )
    order = np.random.default_rng(seed).permutation(num_volumes)
    return [sorted(order[k::num_folds].tolist()) for k in range(num_folds)]


def scroll_folds(scrolls: Sequence[str]) -> list[list[int]]:
    """Return one fold a scroll: its volumes are held out together.

    Raises:
        ConfigError: a volume without a scroll, or a single scroll.
    """
    if "" in scrolls:
        bare = sum(scroll == "" for scroll in scrolls)
        raise ConfigError(f"{bare} of {len(scrolls)} volumes have no scroll id (--scrolls)")
    names = sorted(set(scrolls))
    if len(names) < 2:
        raise ConfigError(f"leaving one scroll out needs two scrolls, got {names} (--scrolls)")
    return [[i for i, scroll in enumerate(scrolls) if scroll == name] for name in names]
