"""Reading a metrics CSV, the history per epoch, and the curves."""

import json
import math

import numpy as np
import pytest

from vesuvius.errors import RunFileError
from vesuvius.pictures.curves import training_curves
from vesuvius.pictures.history import epoch_history, fill_epochs, read_metrics

METRICS = """\
epoch,lr-AdamW,step,throughput/samples_s,train/foreground_share,train/loss/total_epoch,train/loss/total_step,val/loss/total,val/score
,0.1,0,,,,,,
0,,2,,0.2,,4.0,,
0,,5,,0.4,,2.0,,
0,,5,,,,,2.5,0.25
0,,5,12.5,,3.1,,,
,0.01,6,,,,,,
1,,8,,0.6,,1.0,,
1,,11,,,,,1.5,
1,,11,14.0,,0.9,,,
"""


@pytest.fixture
def metrics_csv(tmp_path):
    path = tmp_path / "run" / "metrics.csv"
    path.parent.mkdir()
    path.write_text(METRICS)
    return path


def test_history_by_hand(metrics_csv):
    assert epoch_history(read_metrics(metrics_csv)) == [
        {
            "epoch": 0, "step": 5, "lr-AdamW": 0.1, "throughput/samples_s": 12.5,
            "train/foreground_share": pytest.approx(0.3), "train/loss/total": 3.1,
            "val/loss/total": 2.5, "val/score": 0.25,
        },
        {
            "epoch": 1, "step": 11, "lr-AdamW": 0.01, "throughput/samples_s": 14.0,
            "train/foreground_share": 0.6, "train/loss/total": 0.9, "val/loss/total": 1.5,
        },
    ]  # fmt: skip


def test_step_values_stand_in_where_no_epoch_mean_was_logged():
    rows = [{"epoch": 0, "step": i, "train/loss/bce_step": v} for i, v in enumerate([1.0, 3.0])]
    assert epoch_history(rows) == [{"epoch": 0, "step": 1, "train/loss/bce": 2.0}]


def test_rows_at_the_end_without_an_epoch_belong_to_the_last():
    rows = [{"step": 0.0}, {"step": 1.0, "epoch": 3.0}, {"step": 2.0}]
    assert [row["epoch"] for row in fill_epochs(rows)] == [3.0, 3.0, 3.0]


def test_curves_write_png_and_history_beside_it(metrics_csv, tmp_path, figures):
    png = training_curves(metrics_csv, tmp_path / "out" / "curves.png", title="run 7")
    assert sorted(p.name for p in png.parent.iterdir()) == [
        "curves.png", "history.csv", "history.json",
    ]  # fmt: skip
    assert png.read_bytes().startswith(b"\x89PNG")
    history = json.loads((png.parent / "history.json").read_text())
    assert [row["epoch"] for row in history] == [0, 1]
    assert history[0]["val/score"] == 0.25
    assert "val/score" not in history[1]
    heading = figures[0].texts[0].get_text()
    assert heading == "run 7   |   2 epochs   |   best val/score 0.250 in epoch 0"


def test_lines_carry_the_logged_numbers(metrics_csv, tmp_path, figures):
    training_curves(metrics_csv, tmp_path / "curves.png")
    loss, metrics, rate, speed = figures[0].axes
    ends = {tuple(np.round(line.get_ydata(), 3)) for line in loss.lines}
    assert ends == {(4.0, 2.0, 1.0), (3.1, 0.9), (2.5, 1.5)}
    (mean,) = [line for line in loss.lines if line.get_ydata()[0] == 3.1]
    np.testing.assert_allclose(mean.get_xdata(), [1.0, 2.0])  # the ends of epochs 0 and 1
    (validation,) = [line for line in loss.lines if line.get_ydata()[0] == 2.5]
    assert validation.get_linestyle() == "--"
    assert [list(line.get_ydata()) for line in metrics.lines] == [[0.25]]
    assert [list(line.get_ydata()) for line in rate.lines] == [[0.1, 0.01]]
    assert [list(line.get_ydata()) for line in speed.lines] == [[12.5, 14.0]]


def test_a_measure_keeps_its_colour_in_every_stage(tmp_path, figures):
    path = tmp_path / "metrics.csv"
    path.write_text(
        "epoch,step,val/score,val/proxy/score,val/post/score,val/topo\n0,1,0.1,0.2,0.3,0.01\n"
    )
    training_curves(path, tmp_path / "curves.png")
    panel = figures[0].axes[1]
    drawn = {line.get_ydata()[0]: line for line in panel.lines}
    assert [drawn[v].get_linestyle() for v in (0.1, 0.2, 0.3)] == ["-", "--", ":"]
    assert len({drawn[v].get_color() for v in (0.1, 0.2, 0.3)}) == 1
    assert drawn[0.01].get_color() != drawn[0.1].get_color()
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["score", "topo"]
    assert panel.get_yscale() == "linear", "scores lie in [0, 1]; a tiny one must not stretch them"


def test_a_history_csv_draws_the_same_epochs(metrics_csv, tmp_path, figures):
    training_curves(metrics_csv, tmp_path / "a" / "curves.png")
    training_curves(tmp_path / "a" / "history.csv", tmp_path / "b" / "curves.png")
    first, second = (tmp_path / name / "history.json" for name in "ab")
    assert json.loads(first.read_text()) == json.loads(second.read_text())


def test_not_a_number_is_null_in_json_and_a_gap_in_the_curve(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,step,val/score\n0,1,nan\n1,3,0.5\n")
    training_curves(path, tmp_path / "curves.png")
    history = json.loads((tmp_path / "history.json").read_text())
    assert history[0]["val/score"] is None
    assert math.isnan(read_metrics(tmp_path / "history.csv")[0]["val/score"])


def test_a_panel_without_data_says_so(tmp_path, figures):
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,step,val/dice\n0,1,0.5\n")
    training_curves(path, tmp_path / "curves.png")
    texts = [[text.get_text() for text in axes.texts] for axes in figures[0].axes]
    assert texts[0] == ["nothing logged"]
    assert texts[1] == []
    assert figures[0].axes[1].get_title(loc="left") == "Validation metrics: 0.5 at the end"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(None, r"no metrics file '.*metrics\.csv'; expected the metrics\.csv that "
                     r"logger=csv writes", id="missing"),
        pytest.param("", r"holds no row with a 'step'", id="empty"),
        pytest.param("a,b\n1,2\n", r"holds no row with a 'step'", id="another table"),
    ],
)  # fmt: skip
def test_unusable_csv_is_named(tmp_path, content, message):
    path = tmp_path / "metrics.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RunFileError, match=message):
        training_curves(path, tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()
