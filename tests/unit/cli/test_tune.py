"""`vesuvius tune`: from a folder of predictions to a chain that infer.py can name."""

import json

import numpy as np
import pytest
import tifffile

from vesuvius.cli.main import main
from vesuvius.data.folds import Folds, VolumeFacts, save_folds
from vesuvius.inference.store import PredictionWriter


@pytest.fixture
def folders(tmp_path):
    """Three small predictions with specks, their labels and a table of scrolls."""
    label = np.zeros((16, 16, 16), np.uint8)
    label[4:6] = label[11:13] = 1
    for number in range(3):
        probability = np.where(label == 1, 0.9, 0.1)
        probability[8, number::4, ::3] = 0.9
        stored = np.rint(probability * 255).astype(np.uint8)
        with PredictionWriter(
            tmp_path / "oof", str(number), shape_zyx=label.shape, outputs=("probability",)
        ) as writer:
            writer.arrays["probability"][...] = stored
        (tmp_path / "labels").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / "labels" / f"{number}.tif", label)
    (tmp_path / "train.csv").write_text("id,scroll_id\n0,7\n1,7\n2,9\n")
    (tmp_path / "space.yaml").write_text(
        """
chains:
  small:
    cut: {_target_: vesuvius.postprocess.steps.thresholds.Threshold, threshold: 0.5}
    dust:
      _target_: vesuvius.postprocess.steps.dust.RemoveDust
      _optional_: true
      min_size_voxels: {choices: [2, 20]}
"""
    )
    return tmp_path


def command(folder, *more):
    places = [str(folder / "oof"), str(folder / "labels"), "--out", str(folder / "out")]
    return ["tune", *places, "--space", str(folder / "space.yaml"), "--jobs", "1", *more]


def test_writes_a_chain_and_reports_and_goes_on(folders, capsys):
    scroll = ["--scrolls", str(folders / "train.csv"), "--leave-scroll-out"]
    assert main(command(folders, "--trials", "3", *scroll)) == 0
    shown = capsys.readouterr().out
    assert "postprocess=tuned" in shown
    report = json.loads((folders / "out" / "report.json").read_text())
    assert report["means"]["held_out"]["mean"] > report["means"]["baseline"]["mean"] + 0.01
    assert [fold["held_out"] for fold in report["folds"]] == [["0", "1"], ["2"]]
    assert report["trials"] == 3
    assert main(command(folders, "--trials", "4", *scroll)) == 0
    assert json.loads((folders / "out" / "report.json").read_text())["trials"] == 4
    text = (folders / "out" / "postprocess" / "tuned.yaml").read_text()
    assert "vesuvius.postprocess.chain.ChainPostprocess" in text
    assert "min_size_voxels: " in text
    assert "| dust |" in (folders / "out" / "report.md").read_text()


def test_folds_come_from_the_file_that_training_used(folders):
    facts = {str(n): VolumeFacts(str(n), scroll="79"[n // 2]) for n in range(3)}
    folds = Folds("volume", 2, 0, {"0": 1, "1": 0, "2": 1}, facts)
    save_folds(folders / "splits.json", folds)
    assert main(command(folders, "--trials", "1", "--splits", str(folders / "splits.json"))) == 0
    report = json.loads((folders / "out" / "report.json").read_text())
    assert [fold["held_out"] for fold in report["folds"]] == [["1"], ["0", "2"]]
    assert [row["scroll"] for row in report["volumes"]] == ["7", "7", "9"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--leave-scroll-out"], "needs --scrolls"),
        (["--trials", "0"], "--trials must be at least 1"),
        (["--scrolls", "nowhere.csv"], "no such file"),
        (["--name", "../x"], "not a plain name"),
    ],
)
def test_bad_arguments_are_named(folders, capsys, more, message):
    assert main(command(folders, *more)) == 2
    assert message in capsys.readouterr().err


def test_unpaired_and_missing_volumes_are_named(folders, capsys):
    (folders / "labels" / "2.tif").rename(folders / "labels" / "5.tif")
    assert main(command(folders)) == 2
    error = capsys.readouterr().err
    assert "predictions without a label: 2" in error
    assert "labels without a prediction: 5" in error
    assert main(["tune", str(folders / "labels"), str(folders / "labels"), "--out", "x"]) == 2
    assert "holds no <id>.zarr with a probability" in capsys.readouterr().err
