"""Planning of a time budget, by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vesuvius.errors import ConfigError
from vesuvius.inference.budget import (
    LADDER,
    ModelSpeed,
    Rung,
    choose_rung,
    parse_ladder,
    projected_seconds,
    share_out,
)

ALL = ("flips_rot90", "flips", "none")


def speed(seconds: float = 1.0, ttas=ALL) -> ModelSpeed:
    return ModelSpeed((10, 10, 10), ttas, seconds)


def test_forwards_are_windows_times_symmetries():
    # 20 voxels, windows of 10 at a step of 5: starts 0, 5, 10
    assert speed().forwards((20, 20, 10), Rung(0.5, "none")) == 3 * 3 * 1
    assert speed().forwards((20, 20, 10), Rung(0.0, "flips")) == 2 * 2 * 1 * 8
    assert speed().forwards((20, 20, 10), Rung(0.5, "flips_rot90")) == 9 * 16
    # what a network cannot do is done as well as it can
    assert speed(ttas=("flips", "none")).forwards((20, 20, 10), Rung(0.5, "flips_rot90")) == 72


def test_projection_adds_networks_and_the_rest():
    models = [speed(0.5), speed(2.0)]
    shapes = [(20, 20, 10), (10, 10, 10)]
    assert projected_seconds(shapes, models, Rung(0.5, "none"), per_voxel=0.001) == pytest.approx(
        (9 * 0.5 + 9 * 2.0 + 4.0) + (0.5 + 2.0 + 1.0)
    )


@pytest.mark.parametrize(
    ("left", "expected"), [(200, LADDER[0]), (143.9, LADDER[1]), (71, LADDER[2]), (1, LADDER[4])]
)
def test_best_setting_that_fits(left, expected):
    # 144, 72, 9 seconds; then 0.25 (step 8: 3 starts) and 0.1 (step 9: 3 starts)
    found = choose_rung([(20, 20, 10)], [speed()], per_voxel=0.0, seconds_left=left)
    assert found == expected


def test_measured_speed_replaces_the_guess():
    model = speed(100.0)
    model.learn(6.0, 3)
    assert model.seconds == 2.0


def test_ladder_of_texts():
    assert parse_ladder(["0.5:flips", "0:none"]) == (Rung(0.5, "flips"), Rung(0.0, "none"))
    for text, message in (
        ("0.5", "is no setting"),
        ("a:none", "no share"),
        ("1:none", r"must lie in \[0, 1\)"),
        ("0.5:rot", "is no setting"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse_ladder([text])
    with pytest.raises(ConfigError, match="empty"):
        choose_rung([], [], per_voxel=0.0, seconds_left=1, ladder=())


@given(sizes=st.lists(st.integers(1, 100), max_size=30), parts=st.integers(1, 4))
def test_shares_are_disjoint_and_even(sizes, parts):
    named = {f"v{i}": size for i, size in enumerate(sizes)}
    shared = share_out(named, parts)
    assert sorted(name for part in shared for name in part) == sorted(named)
    sums = [sum(named[name] for name in part) for part in shared]
    # greedy: the fullest part was the emptiest before its last volume
    assert max(sums) - min(sums) <= max(sizes, default=0)
    assert math.fsum(sums) == sum(sizes)
