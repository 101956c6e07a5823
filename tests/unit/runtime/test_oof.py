"""Who predicts what out of fold, and what is refused."""

import json
from pathlib import Path

import pytest

from vesuvius.data.folds import Folds, VolumeFacts
from vesuvius.errors import ConfigError, RunFileError
from vesuvius.runtime.oof import FoldRun, find_runs, mean_scores, plan, predict_out_of_fold

IDS = ["a", "b", "c", "d"]


def fold_run(name: str, train: str, val: str) -> FoldRun:
    return FoldRun(Path(name), frozenset(train), frozenset(val))


def folds_of(**fold_of: int) -> Folds:
    return Folds(
        by="volume",
        num_folds=2,
        seed=0,
        fold_of=fold_of,
        facts={name: VolumeFacts(name) for name in fold_of},
    )


def test_each_volume_goes_to_the_run_that_held_it_out():
    first, second = fold_run("0", "cd", "ab"), fold_run("1", "ab", "cd")
    planned = plan([first, second], IDS, folds_of(a=0, b=0, c=1, d=1))
    assert planned == {"a": first, "b": first, "c": second, "d": second}
    assert plan([first, second], ["c"]) == {"c": second}


@pytest.mark.parametrize(
    ("runs", "text"),
    [
        ([("0", "cd", "abc"), ("1", "ab", "d")], "leak: 0 trained on c, which it validates on"),
        ([("0", "cd", "ab"), ("1", "ab", "bcd")], "leak: 1 trained on b"),
        ([("0", "d", "abc"), ("1", "a", "cd")], "0 and 1 both hold out c"),
        ([("0", "cd", "ab")], r"2 of 4 volumes are held out by none of the 1 runs, e\.g\. c"),
        ([("0", "d", "abc"), ("1", "a", "d")], "0 holds out other volumes than any fold"),
    ],
)
def test_leaks_and_gaps_are_refused(runs, text):
    with pytest.raises(ConfigError, match=text):
        plan([fold_run(*run) for run in runs], IDS, folds_of(a=0, b=0, c=1, d=1))


def test_runs_are_found_in_sweeps(tmp_path):
    for name in ("0", "1"):
        (tmp_path / "sweep" / name / ".hydra").mkdir(parents=True)
        (tmp_path / "sweep" / name / ".hydra" / "config.yaml").write_text("")
        split = {"train": ["a"], "val": [name]}
        (tmp_path / "sweep" / name / "split.json").write_text(json.dumps(split))
    runs = find_runs([tmp_path / "sweep"])
    assert [sorted(run.val) for run in runs] == [["0"], ["1"]]
    assert find_runs([tmp_path / "sweep" / "0", tmp_path / "sweep" / "1"]) == runs
    (tmp_path / "sweep" / "1" / "split.json").write_text("{}")
    with pytest.raises(RunFileError, match="not the split of a run"):
        find_runs([tmp_path / "sweep"])
    (tmp_path / "sweep" / "1" / "split.json").unlink()
    with pytest.raises(RunFileError, match="nobody knows what the run was trained on"):
        find_runs([tmp_path / "sweep"])
    with pytest.raises(RunFileError, match="holds no run"):
        find_runs([tmp_path])


def test_what_the_command_sets_cannot_be_overridden(tmp_path):
    with pytest.raises(ConfigError, match="split=null: this command sets run_dir"):
        predict_out_of_fold([tmp_path], tmp_path, tmp_path / "out", overrides=["split=null"])


def test_mean_score_is_weighted_by_volumes():
    facts = {
        "runs": {"x": {"score": 0.5}, "y": {"score": 0.8}},
        "volumes": {"a": "x", "b": "x", "c": "y"},
    }
    assert mean_scores(facts) == pytest.approx(0.6)
    facts["runs"]["y"]["score"] = None
    assert mean_scores(facts) is None
