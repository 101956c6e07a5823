"""What steps of a chain hand on to each other, and what makes a class a step."""

from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from vesuvius.errors import ConfigError, ShapeMismatchError
from vesuvius.types import FloatVolume, LabelVolume, Report

Mask = npt.NDArray[np.bool_]
"""(z, y, x) bool."""
AXES = "zyx"


@dataclass(frozen=True, slots=True)
class ChainState:
    """One volume between two steps. Steps never write into its arrays.

    Attributes:
        probability: (z, y, x) float32 in [0, 1].
        normals: (3, z, y, x) float32 (nz, ny, nx) or None.
        mask: (z, y, x) bool, None before the first step that makes one.
        labels: (z, y, x) int32 sheet numbers from 1, or None; kept in step with `mask`.
        threads: CPU threads a step may use.
        notes: figures the last step wants in the report.
    """

    probability: FloatVolume
    normals: FloatVolume | None = None
    mask: Mask | None = None
    labels: LabelVolume | None = None
    threads: int = 1
    notes: Report = field(default_factory=dict)

    def with_mask(self, mask: npt.NDArray[np.generic], **notes: float | int | str) -> "ChainState":
        """Return the state with a new mask of the same shape and these notes.

        Raises:
            ShapeMismatchError: another shape.
        """
        if mask.shape != self.probability.shape:
            raise ShapeMismatchError(
                f"a step returned a mask of shape {mask.shape} for a probability of shape "
                f"{self.probability.shape}"
            )
        return replace(self, mask=np.asarray(mask, dtype=np.bool_), notes=dict(notes))

    def with_probability(self, probability: FloatVolume) -> "ChainState":
        """Return the state with a new probability, clipped to [0, 1]; the mask stays."""
        clipped = np.clip(probability, 0, 1).astype(np.float32, copy=False)
        return replace(self, probability=clipped, notes={})


class Step(Protocol):
    """A step: plain keyword arguments, checked at construction; state in, state out."""

    reads_mask: bool
    """Whether a step before it must have made a mask."""
    makes_mask: bool
    """Whether there is a mask after it."""

    def __call__(self, state: ChainState) -> ChainState:
        """Return the state after the step; the given one stays as it is."""
        ...


def mask_of(state: ChainState) -> Mask:
    """Return the mask of a state that must have one.

    Raises:
        ConfigError: no step before made a mask.
    """
    if state.mask is None:
        raise ConfigError("this step needs a mask: put a threshold or hysteresis step before it")
    return state.mask


def check_at_least(name: str, value: float, low: float) -> None:
    """Refuse a number below `low` (or NaN).

    Raises:
        ConfigError: names the argument and what came.
    """
    if not value >= low:
        raise ConfigError(f"{name} must be at least {low:g}, got {value!r}")


def check_between(name: str, value: float, low: float, high: float) -> None:
    """Refuse a number outside [low, high] (or NaN).

    Raises:
        ConfigError: names the argument and what came.
    """
    if not low <= value <= high:
        raise ConfigError(f"{name} must lie in [{low:g}, {high:g}], got {value!r}")


def axis_numbers(axes: str) -> tuple[int, ...]:
    """Return the axis numbers of a string such as "z" or "yx", without repeats.

    Raises:
        ConfigError: empty, or another letter than z, y, x.
    """
    if not axes or set(axes) - set(AXES):
        raise ConfigError(f"axes must be some of the letters z, y, x (such as 'yx'), got {axes!r}")
    return tuple(sorted({AXES.index(letter) for letter in axes}))
