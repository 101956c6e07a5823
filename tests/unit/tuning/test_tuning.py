"""Search spaces, the step cache, intervals, folds and the guard against harmful steps."""

import json
from dataclasses import dataclass

import numpy as np
import optuna
import pytest
import yaml

from vesuvius.errors import ConfigError
from vesuvius.metrics import competition_score
from vesuvius.postprocess.chain import ChainPostprocess
from vesuvius.runtime.chain_steps import build_step
from vesuvius.tuning.cache import StepCache, key_of
from vesuvius.tuning.cases import Case, CaseData
from vesuvius.tuning.chains import chain_of, chain_text, parsed_chain, removable, without
from vesuvius.tuning.evaluate import Evaluator
from vesuvius.tuning.report import BASELINE, as_json, as_markdown, as_yaml, summarise
from vesuvius.tuning.selection import StepGain, choose_by_fold, select
from vesuvius.tuning.space import parse_space, read_space
from vesuvius.tuning.statistics import bootstrap_mean, make_folds, scroll_folds
from vesuvius.tuning.study import Scorer, Tried, search

STEPS = "vesuvius.postprocess.steps"
CUT = {"_target_": f"{STEPS}.thresholds.Threshold", "threshold": 0.5}
DUST = {"_target_": f"{STEPS}.dust.RemoveDust", "min_size_voxels": 20}
PLUG = {"_target_": f"{STEPS}.plug.PlugHoles"}
LOADS = []


def volume(case):
    """Two slabs; specks only in even volumes, a small true sheet only in odd ones."""
    number = int(case.name)
    label = np.zeros((16, 16, 16), np.uint8)
    label[4:6] = 1
    probability = 0.1 + 0.8 * label.astype(np.float32)
    if number % 2 == 0:
        probability[10, ::3, ::3] = 0.9
    else:
        label[12:14, 2:5, 2:5] = 1
        probability[12:14, 2:5, 2:5] = 0.9
    return CaseData(probability, None, label)


def load(case):
    LOADS.append(case.name)
    return volume(case)


@pytest.fixture
def files(tmp_path):
    """Cases `0` to `3`, whose files exist so that they can be stamped."""
    for number in range(4):
        (tmp_path / f"{number}.bin").write_bytes(b"x" * number)
    return [
        Case(str(n), str(tmp_path / f"{n}.bin"), str(tmp_path / f"{n}.bin"), "ab"[n % 2])
        for n in range(4)
    ]


def evaluator(tmp_path, max_bytes=10**8):
    return Evaluator(load, build_step, StepCache(tmp_path / "cache", max_bytes))


def test_first_trial_has_the_initial_values_and_ranges_are_kept():
    space = read_space("quick")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(space.first_trials()[0])
    first = {step.name: step.node for step in space.suggest(study.ask())}
    assert list(first) == ["threshold", "dust", "gaps", "plug"]
    assert (first["threshold"]["low"], first["threshold"]["high"]) == (0.4, 0.7)
    assert first["dust"]["min_size_voxels"] == 1000
    lengths = set()
    for _ in range(40):
        chain = {step.name: step.node for step in space.suggest(study.ask())}
        lengths.add(len(chain))
        assert 0.1 <= chain["threshold"]["low"] <= 0.5
        if "gaps" in chain:
            assert chain["gaps"]["max_gap"] in (0, 1, 2)
    assert {2, 3, 4} <= lengths  # optional steps come and go


@pytest.mark.parametrize("name", ["quick", "winners", "winding"])
def test_the_spaces_of_the_package_build(name):
    space = read_space(name)
    for values in space.first_trials():
        study = optuna.create_study()
        study.enqueue_trial(values)
        chain = space.suggest(study.ask())
        ChainPostprocess(step={step.name: build_step(step.node) for step in chain})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "expected a mapping with `chains`"),
        ({"chains": {}}, "is empty"),
        ({"chains": {"a": {"cut": {"threshold": 1}}}}, "a/cut has no _target_"),
        ({"chains": {"a": {"cut": CUT | {"threshold": {"min": 2, "max": 1}}}}}, "a/cut/threshold"),
        ({"chains": {"a": {"cut": CUT | {"threshold": {"low": 0}}}}}, "expected a range"),
        ({"chains": {"a": {"cut": CUT | {"threshold": {"choices": []}}}}}, "expected choices"),
        ({"chains": {"a": {"cut": CUT | {"_optional_": 1}}}}, "must be true or false"),
    ],
)
def test_bad_spaces_are_named(content, message):
    with pytest.raises(ConfigError, match=message):
        parse_space(content)


def test_missing_spaces_list_the_known_ones():
    with pytest.raises(ConfigError, match="quick"):
        read_space("nothing")


def test_steps_are_built_or_refused_by_name():
    assert build_step(CUT | {"threshold": 0.3}).threshold == 0.3
    with pytest.raises(ConfigError, match="threshold must lie in"):
        build_step(CUT | {"threshold": 3})
    with pytest.raises(ConfigError, match="RemoveDusty"):
        build_step({"_target_": f"{STEPS}.dust.RemoveDusty"})


def test_chains_as_text_and_what_can_be_left_out():
    chain = chain_of({"cut": CUT, "dust": DUST, "plug": PLUG})
    assert parsed_chain(chain_text(chain)) == chain
    assert removable(chain, build_step) == ["dust", "plug"]
    assert [step.name for step in without(chain, "dust")] == ["cut", "plug"]


def test_cache_forgets_what_was_used_longest_ago(tmp_path):
    cache = StepCache(tmp_path, max_bytes=3000)
    block = np.zeros(1000, np.uint8)
    for name in "ab":
        cache.write_arrays(name, {"mask": block})
    import os

    os.utime(tmp_path / "b.npz", (1, 1))
    cache.write_arrays("c", {"mask": block})
    assert cache.read_arrays("b") is None
    assert np.array_equal(cache.read_arrays("a")["mask"], block)
    cache.write_arrays("big", {"mask": np.zeros(4000, np.uint8)})
    assert cache.read_arrays("big") is None
    (tmp_path / "a.npz").write_bytes(b"torn")
    assert cache.read_arrays("a") is None
    assert key_of("ab", "c") != key_of("a", "bc")


def test_outcome_is_the_official_score_and_is_read_back(tmp_path, files, monkeypatch):
    monkeypatch.setattr("vesuvius.tuning.evaluate._WORTH_STORING_S", -1.0)
    chain = chain_of({"cut": CUT, "dust": DUST})
    found = evaluator(tmp_path).outcome(files[0], chain)
    data = volume(files[0])
    steps = {step.name: build_step(step.node) for step in chain}
    mask = ChainPostprocess(step=steps)(data.probability).mask
    assert found.score == competition_score(mask, data.label).score
    assert found.steps_run == 2
    again = evaluator(tmp_path).outcome(files[0], chain)
    assert (again.score, again.steps_run) == (found.score, 0)
    longer = evaluator(tmp_path).outcome(files[0], (*chain, *chain_of({"plug": PLUG})))
    assert longer.steps_run == 1  # cut and dust come from the cache
    other = evaluator(tmp_path).outcome(files[1], chain)
    assert other.steps_run == 2


def test_interval_of_equal_values_has_no_width_and_of_scrolls_draws_scrolls():
    assert bootstrap_mean([0.5] * 4) == bootstrap_mean([0.5])
    values = [0.0, 0.0, 1.0, 1.0, 0.5, 0.5]
    by_scroll = bootstrap_mean(values, list("aabbcc"))
    by_volume = bootstrap_mean(values)
    assert by_scroll.mean == by_volume.mean == 0.5
    assert (by_scroll.low, by_scroll.high) == (0.0, 1.0) or by_scroll.low < by_volume.low
    assert 0.1 < by_volume.low < 0.3
    with pytest.raises(ConfigError, match="no volume"):
        bootstrap_mean([])


def test_folds_hold_every_volume_once_and_scrolls_together():
    folds = make_folds(7, num_folds=3, seed=1)
    assert sorted(i for fold in folds for i in fold) == list(range(7))
    assert scroll_folds(["x", "y", "x"]) == [[0, 2], [1]]
    with pytest.raises(ConfigError, match="needs two scrolls"):
        scroll_folds(["x", "x"])
    with pytest.raises(ConfigError, match="have no scroll id"):
        scroll_folds(["x", ""])
    with pytest.raises(ConfigError, match="--folds"):
        make_folds(2, num_folds=3, seed=0)


def tried(*rows):
    chain = chain_of({"cut": CUT})
    return [Tried(chain, np.array(row, float), number) for number, row in enumerate(rows)]


def test_a_fold_never_judges_its_own_choice():
    choices = choose_by_fold(tried([1, 0, 0], [0, 1, 1]), [[0], [1], [2]])
    assert [choice.trial for choice in choices] == [1, 0, 0]
    assert [choice.scores.tolist() for choice in choices] == [[0], [0], [0]]
    assert choices[0].chosen_on == 1.0


@dataclass
class TableScorer:
    """Scores by step names: what each step adds on each case."""

    adds: dict
    cases: list

    def __post_init__(self):
        self.evaluator = Evaluator(load, build_step, None)

    def scores(self, chain, places=None):
        rows = [self.adds.get(step.name, [0.0] * len(self.cases)) for step in chain]
        total = np.sum(rows, 0)
        return total if places is None else total[list(places)]


def test_harmful_steps_are_dropped_and_kept_on_request(files):
    chain = chain_of({"cut": CUT, "dust": DUST, "plug": PLUG})
    adds = {
        "cut": [0.5] * 4,
        "dust": [0.05, 0.05, -0.2, -0.2],  # overall harm
        "plug": [0.1, 0.1, 0.1, -0.1],
    }
    scorer = TableScorer(adds, files)
    trials = [Tried(chain, scorer.scores(chain), 0)]
    found = select(trials, scorer, [[0, 1], [2, 3]])
    assert found.dropped == ("dust",)
    assert [step.name for step in found.chain] == ["cut", "plug"]
    gains = {gain.name: gain for gain in found.gains}
    assert gains["dust"].held_out
    assert (gains["dust"].helps, gains["dust"].harms) == pytest.approx((0.1, 0.4))
    assert not gains["plug"].refused
    assert found.scores.tolist() == pytest.approx([0.6, 0.6, 0.6, 0.4])
    kept = select(trials, scorer, [[0, 1], [2, 3]], keep_harmful=True)
    assert kept.kept == ("dust",)
    assert kept.chain == chain


def test_equal_help_and_harm_is_no_reason_to_refuse():
    assert not StepGain("a", np.array([0.1, -0.1]), ("x", "y"), held_out=True).refused
    assert StepGain("a", np.array([0.1, -0.2]), ("x", "y"), held_out=True).refused


SPACE = {
    "chains": {
        "small": {
            "cut": CUT | {"threshold": {"min": 0.05, "max": 0.95, "initial": 0.5}},
            "dust": DUST | {"_optional_": True, "min_size_voxels": {"choices": [2, 100]}},
        }
    }
}


def test_search_finds_resumes_and_refuses_other_volumes(tmp_path, files):
    space = parse_space(SPACE)
    scorer = Scorer(evaluator(tmp_path), files)
    journal = tmp_path / "trials.log"
    seen = []
    first = search(space, scorer, journal, trials=3, progress=lambda *a: seen.append(a))
    assert [one.number for one in first] == [0, 1, 2]
    assert len(seen) == 3
    assert first[0].scores.mean() == pytest.approx(scorer.scores(first[0].chain).mean())
    again = search(space, scorer, journal, trials=6)
    assert len(again) == 6
    assert [one.chain for one in again[:3]] == [one.chain for one in first]
    assert len(search(space, scorer, journal, trials=6)) == 6
    with pytest.raises(ConfigError, match="other volumes or another space"):
        search(space, Scorer(evaluator(tmp_path), files[:2]), journal, trials=7)


def test_contradicting_arguments_count_as_refused_trials(tmp_path, files):
    node = {"_target_": f"{STEPS}.thresholds.Hysteresis", "high": 0.5}
    space = parse_space({"chains": {"a": {"cut": node | {"low": {"min": 0.6, "max": 0.9}}}}})
    scorer = Scorer(evaluator(tmp_path), files)
    assert search(space, scorer, tmp_path / "t.log", trials=2) == []
    with pytest.raises(ConfigError, match="no trial finished"):
        select([], scorer, [])


def test_report_shows_gains_and_yaml_is_a_chain(tmp_path, files):
    scorer = Scorer(evaluator(tmp_path), files)
    chain = chain_of({"cut": CUT, "dust": DUST})
    trials = [Tried(chain, scorer.scores(chain), 0)]
    selection = select(trials, scorer, scroll_folds([case.scroll for case in files]))
    summary = summarise(files, selection, scorer.scores(BASELINE), trials=1, folds_by="scroll")
    gains = {gain.name: gain for gain in selection.gains}["dust"]
    assert sorted(gains.cases) == ["0", "1", "2", "3"]
    assert (gains.gains > 0).sum() == 2  # specks go in 0 and 2 ...
    assert (gains.gains < 0).sum() == 2  # ... and the small sheet in 1 and 3
    text = as_markdown(summary)
    assert "| dust | " in text
    assert "chosen without the scored scroll" in text
    content = json.loads(json.dumps(as_json(summary)))
    assert content["means"]["held_out"]["mean"] == pytest.approx(summary.held_out.mean())
    config = yaml.safe_load(as_yaml(summary))
    assert config["_target_"] == "vesuvius.postprocess.chain.ChainPostprocess"
    assert next(iter(config["step"])) == "cut"
