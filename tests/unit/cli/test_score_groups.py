"""Means by fold and scroll, by hand."""

import pytest

from vesuvius.cli.score_groups import group_means, print_groups
from vesuvius.data.folds import Folds, VolumeFacts, save_folds
from vesuvius.errors import ConfigError

ROWS = [
    {"volume": "a", "score": 0.2, "dice": 0.5},
    {"volume": "b", "score": 0.6, "dice": 0.7},
    {"volume": "c", "score": 0.9, "dice": 0.1},
]


@pytest.fixture
def splits(tmp_path):
    scrolls = {"a": "s1", "b": "s2", "c": "s1"}
    folds = Folds(
        by="volume",
        num_folds=2,
        seed=0,
        fold_of={"a": 0, "b": 0, "c": 1},
        facts={name: VolumeFacts(name, scroll) for name, scroll in scrolls.items()},
    )
    save_folds(tmp_path / "splits.json", folds)
    return tmp_path / "splits.json"


def test_means_and_deviations(splits, capsys):
    groups = group_means(ROWS, splits, ("score", "dice"))
    first, second = groups["fold"]
    assert first == {
        "fold": "0",
        "volumes": 2,
        "score": pytest.approx(0.4),
        "dice": pytest.approx(0.6),
        "deviation": pytest.approx(0.2),
    }
    assert (second["volumes"], second["score"], second["deviation"]) == (1, 0.9, 0)
    assert [row["scroll"] for row in groups["scroll"]] == ["s1", "s2"]
    assert groups["scroll"][0]["score"] == pytest.approx(0.55)
    assert groups["scroll"][0]["deviation"] == pytest.approx(0.35)
    print_groups(groups, ("score", "dice"))
    assert "means by scroll" in capsys.readouterr().out


def test_a_volume_in_no_fold_is_named(splits):
    with pytest.raises(ConfigError, match="volume z is in no fold"):
        group_means([{"volume": "z", "score": 1.0}], splits, ("score",))
