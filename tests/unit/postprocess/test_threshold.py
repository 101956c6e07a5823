"""ThresholdPostprocess."""

import numpy as np
import pytest

from vesuvius.errors import ConfigError, SolverError
from vesuvius.postprocess import ThresholdPostprocess


def volume():
    probability = np.full((4, 4, 8), 0.1, np.float32)
    probability[1, 1, 1:4] = [0.45, 0.9, 0.45]
    probability[3, 3, 6] = 0.7
    return probability


@pytest.mark.parametrize(
    ("arguments", "voxels"),
    [
        ({}, 2),
        ({"threshold": 0.4}, 4),
        ({"threshold": 0.9}, 0),
        ({"hysteresis_low": 0.4}, 4),
        ({"threshold": 0.8, "hysteresis_low": 0.4}, 3),
        ({"min_size_voxels": 2}, 0),
        ({"hysteresis_low": 0.4, "min_size_voxels": 2}, 3),
        ({"closing": 1}, 2),
    ],
)
def test_counts_by_hand(arguments, voxels):
    result = ThresholdPostprocess(**arguments)(volume())
    assert result.mask.sum() == voxels
    assert result.mask.dtype == np.uint8
    assert result.labels is None
    assert result.report["mask_share"] == voxels / 128


def test_threshold_is_exclusive():
    """0.5 itself is no surface: the same rule as the harmonic graph's nodes."""
    assert ThresholdPostprocess()(np.full((2, 2, 2), 0.5, np.float32)).mask.sum() == 0


def test_dust_is_reported():
    report = ThresholdPostprocess(hysteresis_low=0.4, min_size_voxels=2)(volume()).report
    assert report["components_removed"] == 1
    assert report["method"] == "threshold"


@pytest.mark.parametrize(
    ("error", "text", "arguments"),
    [
        (SolverError, "threshold must lie in \\[0, 1\\], got 50", {"threshold": 50}),
        (ConfigError, "hysteresis_low \\(0.6\\) must not exceed", {"hysteresis_low": 0.6}),
        (ConfigError, "min_size_voxels=-3", {"min_size_voxels": -3}),
        (ConfigError, "connectivity must be 6, 18 or 26", {"connectivity": 4}),
    ],
)
def test_bad_arguments(error, text, arguments):
    with pytest.raises(error, match=text):
        ThresholdPostprocess(**arguments)


def test_bad_volume():
    probability = volume()
    probability[0, 0, 0] = np.nan
    with pytest.raises(SolverError, match="holds NaN in 1 of 128 voxels"):
        ThresholdPostprocess()(probability)
