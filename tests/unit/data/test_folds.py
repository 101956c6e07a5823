"""Folds: partition, balance, no leak, one file for training and scoring."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesuvius.data.folds import VolumeFacts, load_folds, read_split, save_folds, summary
from vesuvius.data.make_folds import make_folds, read_facts
from vesuvius.data.store import list_prepared
from vesuvius.data.surface import SurfaceDataModule
from vesuvius.errors import ConfigError, VolumeNotFoundError


def volumes(**scrolls: int) -> list[VolumeFacts]:
    """So many volumes of each scroll, densities 1, 2, 3, ... percent."""
    return [
        VolumeFacts(f"{scroll}_{i}", scroll, density=(i + 1) / 100)
        for scroll, count in scrolls.items()
        for i in range(count)
    ]


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    num_folds=st.integers(2, 6),
    seed=st.integers(0, 5),
)
def test_by_volume_partitions_and_spreads_every_scroll(sizes, num_folds, seed):
    facts = volumes(**{f"s{i}": size for i, size in enumerate(sizes)})
    if len(facts) < num_folds:
        with pytest.raises(ConfigError, match="--folds"):
            make_folds(facts, num_folds=num_folds, seed=seed)
        return
    folds = make_folds(facts[::-1], num_folds=num_folds, seed=seed)
    sides = [folds.split(k) for k in range(num_folds)]
    assert sorted(v for s in sides for v in s["val"]) == sorted(f.volume_id for f in facts)
    for side in sides:
        assert sorted(side["train"] + side["val"]) == sorted(f.volume_id for f in facts)
    for size, scroll in zip(sizes, Counter(f.scroll for f in facts), strict=True):
        counts = [sum(v.startswith(f"{scroll}_") for v in s["val"]) for s in sides]
        assert set(counts) <= {size // num_folds, -(-size // num_folds)}
    totals = [len(s["val"]) for s in sides]
    assert max(totals) - min(totals) <= 1
    assert folds == make_folds(facts, num_folds=num_folds, seed=seed)


def test_density_is_alike_in_all_folds():
    rng = np.random.default_rng(0)
    facts = [VolumeFacts(f"v{i}", "a", float(d)) for i, d in enumerate(rng.random(103))]
    means = [row["density"] for row in summary(make_folds(facts, num_folds=5))]
    assert max(means) - min(means) < 0.03  # plain shuffles of 20 differ by about 0.15


def test_by_scroll_keeps_scrolls_whole_and_fills_the_smallest_fold():
    # 7; 4; 3 -> fold of 4; 2 -> 4 + 3 has 7 like the first: a tie; either way 9 and 7
    facts = volumes(a=7, b=4, c=3, d=2)
    folds = make_folds(facts, num_folds=2, by="scroll")
    assert sorted(row["volumes"] for row in summary(folds)) == [7, 9]
    for scroll in "abcd":
        assert len({folds.fold_of[f.volume_id] for f in facts if f.scroll == scroll}) == 1
    leave_one_out = make_folds(facts, num_folds=4, by="scroll")
    assert sorted(map(len, (leave_one_out.split(k)["val"] for k in range(4)))) == [2, 3, 4, 7]


def test_volumes_with_the_same_voxels_stay_together():
    facts = [replace(f, content="x" if i in (0, 9) else "") for i, f in enumerate(volumes(a=10))]
    folds = make_folds(facts, num_folds=5)
    assert folds.fold_of["a_0"] == folds.fold_of["a_9"]


def test_file_round_trip_and_leaks_in_it(tmp_path):
    folds = make_folds(volumes(a=4, b=4), num_folds=2, by="scroll")
    path = tmp_path / "splits.json"
    save_folds(path, folds)
    assert load_folds(path) == folds
    content = json.loads(path.read_text())
    content["volumes"]["a_0"]["fold"] = 1 - content["volumes"]["a_0"]["fold"]
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"splits\.json: leak: volumes a_0 .* are of one scroll"):
        load_folds(path)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"num_folds": 9}, "fold 2 of 9 holds no volume"),
        ({"format_version": 2}, "format version 2"),
        ({"volumes": {"../x": {"fold": 0}}}, "not a plain name"),
        ({"volumes": {"x": {"fold": 7}}}, "volume x is in fold 7; expected 0 to 1"),
        ({"volumes": {"x": {}}}, "not a file of folds"),
        ({"volumes": 3}, "not a file of folds"),
    ],
)
def test_bad_files(tmp_path, change, text):
    path = tmp_path / "splits.json"
    save_folds(path, make_folds(volumes(a=4), num_folds=2))
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ConfigError, match=text):
        load_folds(path)
    with pytest.raises(VolumeNotFoundError, match="vesuvius splits"):
        load_folds(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"by": "crop"}, "by is 'crop'; expected volume or scroll"),
        ({"num_folds": 1}, r"--folds is 1; expected 2 to 5"),
        ({"num_folds": 4, "by": "scroll"}, "expected 2 to 2 .the number of scrolls"),
    ],
)
def test_bad_arguments(options, text):
    with pytest.raises(ConfigError, match=text):
        make_folds(volumes(a=3, b=2), **options)


def test_scrolls_must_be_known():
    with pytest.raises(ConfigError, match=r"1 volumes have no scroll_id, e\.g\. v"):
        make_folds([*volumes(a=2), VolumeFacts("v")], num_folds=2, by="scroll")


def test_facts_of_prepared_volumes(prepared):
    facts = {f.volume_id: f for f in read_facts(list_prepared(prepared), jobs=2)}
    # 3 x 5 surface voxels; the first two of 24 slices of 40 x 36 are ignored
    assert facts["v0"].density == pytest.approx(15 / (22 * 40 * 36))
    assert (facts["v0"].scroll, facts["v1"].scroll) == ("100", "101")
    assert len({f.content for f in facts.values()}) == 5


def test_training_reads_a_fold_of_the_file(prepared, tmp_path):
    path = tmp_path / "splits.json"
    folds = make_folds(list(read_facts(list_prepared(prepared))), num_folds=2, by="scroll")
    save_folds(path, folds)
    seen = []
    for fold in (0, 1):
        module = SurfaceDataModule(prepared, (8, 8, 8), split_file=path, fold=fold)
        module.setup()
        assert module.split == folds.split(fold)
        seen += [p.stem for p in module.val_volumes()]
    assert sorted(seen) == ["v0", "v1", "v2", "v3", "v4"]
    with pytest.raises(ConfigError, match=r"say which one validates: data\.fold=0 to 1"):
        SurfaceDataModule(prepared, (8, 8, 8), split_file=path).setup()


def test_volumes_in_no_fold_are_named(tmp_path, caplog):
    path = tmp_path / "splits.json"
    save_folds(path, make_folds(volumes(a=4), num_folds=2))
    ids = ["a_0", "a_1", "a_2", "a_3", "new"]
    assert "new" not in read_split(path, ids, 0)["train"]
    assert "1 volumes are in no fold" in caplog.text
    with pytest.raises(ConfigError, match=r"lists 1 volumes that are not there, e\.g\. a_3"):
        read_split(path, ids[:3], 0)
