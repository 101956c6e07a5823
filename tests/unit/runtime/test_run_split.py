"""A run keeps the split it was trained with."""

import json

import pytest

from vesuvius.data.folds import save_folds
from vesuvius.data.make_folds import make_folds, read_facts
from vesuvius.data.store import list_prepared
from vesuvius.data.surface import SurfaceDataModule
from vesuvius.errors import ConfigError
from vesuvius.runtime.run_split import keep_split


def module(prepared, split_file, fold=None) -> SurfaceDataModule:
    return SurfaceDataModule(
        prepared / "train", (8, 8, 8), split_file=split_file, fold=fold, num_folds=3
    )


def test_folds_file_leaves_the_runs_own_ids(prepared, tmp_path):
    path, run = tmp_path / "splits.json", tmp_path / "run"
    folds = make_folds(list(read_facts(list_prepared(prepared / "train"))), num_folds=3)
    save_folds(path, folds)
    keep_split(module(prepared, path, 1), run, resumed=False)
    kept = json.loads((run / "split.json").read_text())
    assert kept == {**folds.split(1), "fold": 1, "split_file": str(path)}
    keep_split(module(prepared, path, 1), run, resumed=True)
    with pytest.raises(ConfigError, match=r"another split \(fold 1, now 2\)"):
        keep_split(module(prepared, path, 2), run, resumed=True)
    keep_split(module(prepared, path, 2), run, resumed=False)
    assert json.loads((run / "split.json").read_text())["fold"] == 2


def test_without_a_file_and_with_the_runs_own(prepared, tmp_path):
    keep_split(module(prepared, None), tmp_path, resumed=False)
    assert json.loads((tmp_path / "split.json").read_text())["val"]
    own = tmp_path / "own" / "split.json"
    keep_split(module(prepared, own), tmp_path / "own", resumed=False)
    assert not own.exists()  # the data module writes it itself
    keep_split(object(), tmp_path / "other", resumed=False)
    assert not (tmp_path / "other").exists()
