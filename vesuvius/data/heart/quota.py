"""How many samples each class gets."""

from collections.abc import Mapping

import numpy as np

from vesuvius.errors import ConfigError


def shared_out(weights: Mapping[int, float], total: int, minimum: int, what: str) -> dict[int, int]:
    """Return class -> count: `minimum` each, the rest in proportion to the weights.

    Counts add up to `total` exactly (largest remainders; the lower class number first).

    Args:
        weights: class -> area or volume, above 0.
        total: all samples.
        minimum: of every class.
        what: arguments named in the message.

    Raises:
        ConfigError: the minimum alone needs more than `total`.
    """
    rest = total - minimum * len(weights)
    if rest < 0:
        raise ConfigError(
            f"{what}: {len(weights)} classes of {minimum} samples are more than {total}; raise the "
            "total or lower the minimum"
        )
    numbers = sorted(weights)
    share = np.array([weights[n] for n in numbers], np.float64)
    exact = rest * share / share.sum()
    counts = np.floor(exact).astype(int)
    order = np.argsort(counts - exact, kind="stable")  # largest remainder first
    counts[order[: rest - int(counts.sum())]] += 1
    return {n: minimum + int(c) for n, c in zip(numbers, counts, strict=True)}
