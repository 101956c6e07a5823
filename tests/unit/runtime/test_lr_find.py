"""The range test finds where the loss falls, and stops where it explodes."""

import math

import pytest

from vesuvius.cli.main import main
from vesuvius.errors import ConfigError
from vesuvius.runtime.lr_find import RangeTest, RateRamp, suggest, write_table


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([1.0, 0.9, 0.8, 0.3, 5.0], 1e-3),  # least and fastest at 1e-2: a tenth of that
        ([1.0, 0.2, 0.19, 0.1, 9.0], 1e-4),  # fell fastest at 1e-4
        ([1.0, 2.0, 3.0, 4.0, 5.0], None),
        ([1.0, math.nan], None),
    ],
)
def test_suggestion_by_hand(losses, expected):
    rates = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
    assert suggest(rates[: len(losses)], losses) == expected


def test_the_table_is_written_whole(tmp_path):
    write_table(RangeTest([1e-3, 1e-2], [0.5, 0.25], None), tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text().split() == ["lr,loss", "0.001,0.5", "0.01,0.25"]
    assert not list(tmp_path.glob("*.partial"))


def test_nonsense_is_refused():
    with pytest.raises(ConfigError, match=r"--low 1 must be positive and below --high 0\.1"):
        RateRamp(low=1, high=0.1, num_steps=20)


def test_the_command_suggests_a_rate(prepared, tmp_path, capsys):
    data = ["data=surface_zarr", f"data.root={prepared / 'train'}", "data.val_share=0"]
    small = ["data.patch_zyx=[16,16,16]", "data.batch_size=2", "model.n_filters=2"]
    options = ["trainer.precision=32-true", "--steps", "40", "--out", str(tmp_path / "t.csv")]
    code = main(["lr-find", *data, *small, *options])
    printed = capsys.readouterr().out
    assert code == 0, printed
    rate = float(printed.split("optimizer.lr=")[1].split()[0])
    assert 1e-6 < rate < 0.3
    rows = (tmp_path / "t.csv").read_text().split()
    assert 10 < len(rows) <= 41
    rates = [float(row.split(",")[0]) for row in rows[1:]]
    assert rates[0] == pytest.approx(1e-6)
    assert rates[11] / rates[10] == pytest.approx((0.3 / 1e-6) ** (1 / 39))
