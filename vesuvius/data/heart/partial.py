"""Which classes the encoder sees: whole hearts, named parts, or hearts with classes removed."""

from collections.abc import Sequence

import numpy as np

from vesuvius.errors import ConfigError

HEART_SUBSETS: dict[str, tuple[int, ...]] = {
    "left_heart": (1, 2, 3, 6, 8, 10),
    "right_heart": (4, 5, 7),
    "four_chambers": (2, 3, 4, 5),
    "great_vessels": (6, 7, 9),
}
"""Class numbers kept in the input, for the ten classes of `HEART_CLASSES`."""


def subset(kept: str | Sequence[int], num_classes: int) -> tuple[int, ...]:
    """Return class numbers, given themselves or by a name of `HEART_SUBSETS`.

    Raises:
        ConfigError: an unknown name, no class, or a number outside 1..num_classes.
    """
    if isinstance(kept, str):
        if kept not in HEART_SUBSETS:
            raise ConfigError(
                f"{kept!r} is no subset of classes; expected one of {', '.join(HEART_SUBSETS)}, or "
                "a list of class numbers"
            )
        kept = HEART_SUBSETS[kept]
    numbers = tuple(sorted({int(c) for c in kept}))
    if not numbers or numbers[0] < 1 or numbers[-1] > num_classes:
        raise ConfigError(f"classes {list(kept)}; expected some of 1 to {num_classes}")
    return numbers


def draw_kept(
    rng: np.random.Generator,
    present: Sequence[int],
    *,
    min_remove: int,
    max_remove: int,
    subsets: Sequence[tuple[int, ...]] = (),
) -> tuple[int, ...]:
    """Return the classes that stay in the input, at least one of those present.

    Args:
        rng: generator.
        present: classes of the heart.
        min_remove: fewest classes to remove.
        max_remove: most.
        subsets: keep one of these instead of removing at random; one that the heart has nothing of
            is not drawn.
    """
    fitting = [s for s in (tuple(c for c in kept if c in present) for kept in subsets) if s]
    if fitting:
        return fitting[int(rng.integers(len(fitting)))]
    count = min(int(rng.integers(min_remove, max_remove + 1)), len(present) - 1)
    gone = rng.choice(np.array(present), size=count, replace=False)
    return tuple(c for c in present if c not in gone)
