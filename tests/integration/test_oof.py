"""Folds from file to training to out-of-fold prediction and the score of each fold."""

import json

import numpy as np
import pytest
from conftest import TINY
from hydra.core.hydra_config import HydraConfig

from vesuvius.cli.main import main
from vesuvius.inference.store import load_prediction

pytestmark = pytest.mark.slow

QUICK = (
    *TINY,
    "trainer.max_epochs=1",
    "callbacks=[checkpoint]",
    "optimized_metric=val/proxy/score",
)


def test_cross_validation_from_file_to_scores(
    prepared, run_train, run_infer, tmp_path, capsys, monkeypatch
):
    data, splits = str(prepared / "train"), tmp_path / "splits.json"
    assert main(["splits", data, "--folds", "3", "--out", str(splits)]) == 0
    assert main(["splits", data, "--check", str(splits)]) == 0
    assert "3 volumes, 3 folds, no leak" in capsys.readouterr().out
    for fold in range(3):
        folder = tmp_path / "sweep" / str(fold)
        run_train(folder, f"data.split_file={splits}", f"data.fold={fold}", tiny=QUICK)
    held_out = {}
    for fold in range(3):
        split = json.loads((tmp_path / "sweep" / str(fold) / "split.json").read_text())
        (held_out[fold],) = split["val"]
        assert held_out[fold] not in split["train"]
    out = tmp_path / "oof"
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)  # run_train leaves its job's
    command = ["oof", str(tmp_path / "sweep"), "--volumes", data, "--out", str(out)]
    settings = ["--set", "checkpoint=last", "postprocess=threshold", "pictures=false"]
    assert main([*command, "--splits", str(splits), *settings]) == 0
    assert "3 volumes, each by the one of 3 runs that did not see it" in capsys.readouterr().out
    facts = json.loads((out / "oof.json").read_text())
    for fold, name in held_out.items():
        run = tmp_path / "sweep" / str(fold)
        assert facts["volumes"][name] == str(run)
        run_infer(
            run,
            tmp_path / f"alone{fold}",
            f"volume={data}/{name}.zarr",
            "checkpoint=last",
            "postprocess=threshold",
            "pictures=false",
        )
        alone = load_prediction(tmp_path / f"alone{fold}" / f"{name}.zarr")[0]
        np.testing.assert_array_equal(load_prediction(out / f"{name}.zarr")[0], alone)
    assert main(["score", str(out), data, "--splits", str(splits)]) == 0
    text = capsys.readouterr().out
    assert "by fold" in text
    assert "by scroll" in text
    # a run that is given twice holds out what the other holds out
    twice = ["oof", str(tmp_path / "sweep"), str(tmp_path / "sweep" / "0"), *command[2:]]
    assert main([*twice, *settings]) == 2
    assert "both hold out" in capsys.readouterr().err
