"""Probability above a threshold, without dust."""

import time

import numpy as np

from vesuvius.errors import ConfigError
from vesuvius.postprocess.components import (
    Connectivity,
    check_connectivity,
    close_gaps,
    hysteresis_mask,
    remove_dust,
)
from vesuvius.postprocess.inputs import check_probability, check_share
from vesuvius.types import FloatVolume, PostprocessResult, Report


class ThresholdPostprocess:
    """Mask of p > threshold, optionally with hysteresis, closing and dust removal.

    Args:
        threshold: a voxel above it is surface.
        hysteresis_low: if given, components of p > hysteresis_low are kept whole where they reach
            above `threshold`.
        closing: steps of a morphological closing (cube of 3 voxels), 0 for none.
        min_size_voxels: smaller components are removed; 0 or 1 keeps all.
        connectivity: 6, 18 or 26 neighbours make a component.

    Raises:
        SolverError: threshold outside [0, 1].
        ConfigError: another argument out of range.
    """

    def __init__(
        self,
        *,
        threshold: float = 0.5,
        hysteresis_low: float | None = None,
        closing: int = 0,
        min_size_voxels: int = 0,
        connectivity: Connectivity = 26,
    ) -> None:
        check_connectivity(connectivity)
        self.threshold = check_share("threshold", threshold)
        if hysteresis_low is not None and check_share("hysteresis_low", hysteresis_low) > threshold:
            msg = f"hysteresis_low ({hysteresis_low}) must not exceed threshold ({threshold})"
            raise ConfigError(msg)
        if closing < 0 or min_size_voxels < 0:
            msg = (
                "closing and min_size_voxels must be 0 or more, got "
                f"closing={closing}, min_size_voxels={min_size_voxels}"
            )
            raise ConfigError(msg)
        self.hysteresis_low, self.closing = hysteresis_low, closing
        self.min_size_voxels, self.connectivity = min_size_voxels, connectivity

    def __call__(
        self, probability: FloatVolume, normals: FloatVolume | None = None
    ) -> PostprocessResult:
        """Return the mask of (z, y, x) probability in [0, 1]; normals are not used.

        Raises:
            SolverError: the probability is not a volume, holds NaN or leaves [0, 1].
        """
        del normals
        started = time.perf_counter()
        volume = check_probability(probability)
        if self.hysteresis_low is None:
            mask = volume > self.threshold
        else:
            mask = hysteresis_mask(
                volume,
                low=self.hysteresis_low,
                high=self.threshold,
                connectivity=self.connectivity,
            )
        mask = close_gaps(mask, iterations=self.closing)
        mask, removed = remove_dust(
            mask, min_size_voxels=self.min_size_voxels, connectivity=self.connectivity
        )
        report: Report = {
            "method": "threshold",
            "seconds": time.perf_counter() - started,
            "components_removed": removed,
            "mask_share": float(mask.mean()),
        }
        return PostprocessResult(mask=mask.astype(np.uint8), report=report)
