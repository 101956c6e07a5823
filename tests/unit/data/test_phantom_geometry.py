"""The spiral's deformation never folds over itself, even at full strength."""

import numpy as np
import pytest

from vesuvius.data import phantom_geometry
from vesuvius.data.phantom_geometry import make_geometry
from vesuvius.data.phantom_noise import streams
from vesuvius.data.phantom_settings import PhantomSettings


@pytest.mark.parametrize("seed", range(6))
def test_displacement_is_invertible_at_full_strength(seed):
    scales = np.array(phantom_geometry._SCALES)
    strengths = scales * phantom_geometry._STRENGTHS
    axis = np.arange(0, 240, 4.0)
    y, x = phantom_geometry._displaced(
        axis, axis, axis, streams(seed, 16), scales, strengths, 0.0, 0.0
    )
    y, x = y.astype(np.float64), x.astype(np.float64)
    jacobian = np.gradient(y, 4, axis=1) * np.gradient(x, 4, axis=2)
    jacobian -= np.gradient(y, 4, axis=2) * np.gradient(x, 4, axis=1)
    assert jacobian.min() > 0.05


def test_a_perfect_spiral_has_the_mean_pitch_everywhere():
    settings = PhantomSettings(pitch=(12.0, 12.0), deformation=0.0, gap_variation=0.0)
    geometry = make_geometry((24, 32, 40), seed=1, settings=settings, umbilicus_yx=(-500.0, 0.0))
    assert geometry.mean_pitch == 12.0
    # the fine waves of each wrap remain: 0.12 of a pitch on scales of 24 voxels and more
    assert abs(np.median(geometry.pitch) - 12.0) < 0.5


def test_gap_variation_makes_neighbouring_gaps_differ():
    spreads = []
    for variation in (0.0, 1.0):
        settings = PhantomSettings(pitch=(12.0, 12.0), deformation=0.0, gap_variation=variation)
        geometry = make_geometry(
            (16, 200, 16), seed=1, settings=settings, umbilicus_yx=(-500.0, 0.0)
        )
        levels = np.flatnonzero(np.diff(np.floor(geometry.winding[8, :, 8])))
        gaps = np.diff(levels)
        spreads.append(gaps.std() / gaps.mean())
    assert spreads[0] < 0.15
    assert spreads[1] > 0.25
