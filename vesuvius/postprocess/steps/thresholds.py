"""Probability to mask: threshold, and hysteresis along chosen axes."""

import numpy as np
from scipy import ndimage

from vesuvius.errors import ConfigError
from vesuvius.postprocess.components import Connectivity, check_connectivity, hysteresis_mask
from vesuvius.postprocess.steps.state import ChainState, Mask, axis_numbers, check_between
from vesuvius.types import FloatVolume


def axis_hysteresis(probability: FloatVolume, *, low: float, high: float, axes: str) -> Mask:
    """Return p > high and what p > low joins to it by steps along `axes` alone.

    With axes "z" a weak voxel needs a strong one in its own column: strong slices repair weak
    ones, and nothing leaks sideways into the next sheet.

    Raises:
        ConfigError: low above high, or unknown axes.

    Source: Canny, 1986, section V; along one axis as in the competition's 8th place.
    """
    if low > high:
        raise ConfigError(f"the low threshold ({low}) must not exceed the high one ({high})")
    structure = np.zeros((3, 3, 3), np.bool_)
    structure[1, 1, 1] = True
    for axis in axis_numbers(axes):
        np.moveaxis(structure, axis, 0)[:, 1, 1] = True
    strong = probability > high
    labels, count = ndimage.label(probability > low, structure)
    keep = np.zeros(count + 1, np.bool_)
    keep[labels[strong]] = True
    keep[0] = False
    kept: Mask = keep[labels]
    return kept


class Threshold:
    """Mask of p > threshold.

    Raises:
        ConfigError: threshold outside [0, 1].
    """

    reads_mask = False
    makes_mask = True

    def __init__(self, *, threshold: float = 0.5) -> None:
        check_between("threshold", threshold, 0, 1)
        self.threshold = threshold

    def __call__(self, state: ChainState) -> ChainState:
        """Return the state with the mask of p > threshold."""
        return state.with_mask(state.probability > self.threshold)


class Hysteresis:
    """Components of p > low that reach above `high`.

    Args:
        low: weak threshold.
        high: strong threshold.
        connectivity: 6, 18 or 26 neighbours; used if `axes` is None.
        axes: letters such as "z" or "yx": weak voxels count only if steps along these axes join
            them to a strong one.

    Raises:
        ConfigError: thresholds out of range or order, unknown connectivity or axes.
    """

    reads_mask = False
    makes_mask = True

    def __init__(
        self,
        *,
        low: float = 0.3,
        high: float = 0.85,
        connectivity: Connectivity = 26,
        axes: str | None = None,
    ) -> None:
        check_between("low", low, 0, 1)
        check_between("high", high, 0, 1)
        check_connectivity(connectivity)
        if low > high:
            raise ConfigError(f"low ({low}) must not exceed high ({high})")
        if axes is not None:
            axis_numbers(axes)
        self.low, self.high, self.connectivity, self.axes = low, high, connectivity, axes

    def __call__(self, state: ChainState) -> ChainState:
        """Return the state with the mask of hysteresis."""
        if self.axes is None:
            mask = hysteresis_mask(
                state.probability, low=self.low, high=self.high, connectivity=self.connectivity
            )
        else:
            mask = axis_hysteresis(state.probability, low=self.low, high=self.high, axes=self.axes)
        return state.with_mask(mask)
