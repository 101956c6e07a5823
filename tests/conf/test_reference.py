"""The documentation that is made from conf/, and the page of messages."""

from pathlib import Path

import pytest

from vesuvius.runtime.config_keys import (
    Key,
    arguments,
    described,
    documented_arguments,
    located,
    option_keys,
    read_options,
)
from vesuvius.runtime.config_reference import config_reference, header

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def known():
    """{(group, option): {full path: meaning}}."""
    return {
        (o.group, o.name): {o.full(key): key.meaning for key in o.keys}
        for o in described(read_options(ROOT / "conf"))
    }


def test_every_key_has_a_meaning(known):
    missing = [
        f"{group}/{name}.yaml: {path}"
        for (group, name), meanings in known.items()
        for path, meaning in meanings.items()
        if not meaning
    ]
    assert missing == []


def test_comments_docstrings_and_nesting():
    text = (
        "# @package _global_\n# What it does.\n# python train.py x=y\ndefaults:\n  - a: b\n"
        "bce:\n  weight: 1.0 # factor\n  fn:\n    _target_: vesuvius.losses.overlap.DiceLoss\n"
        "    smooth: 1.0e-6\nlist: [1, 2]\n"
    )
    keys = list(option_keys(text))
    assert [(key.path, key.value) for key in keys] == [
        ("bce.weight", "1.0"),
        ("bce.fn.smooth", "1.0e-6"),
        ("list", "[1, 2]"),
    ]
    assert keys[0] == Key("bce.weight", "1.0", "factor")
    assert keys[1].meaning  # of the docstring
    assert header(text) == "What it does.  \n`python train.py x=y`"


def test_a_header_keeps_angle_brackets_and_shows_commands_as_code():
    assert (
        header("# Show:  python infer.py run_dir=<run>\n")
        == "Show:  `python infer.py run_dir=<run>`"
    )
    assert header("# A <run> folder.\na: 1\n# later\n") == "A &lt;run> folder."


def test_an_experiment_borrows_the_meaning_of_the_options_it_chooses(known):
    def meaning(experiment, path):
        return known["experiment", experiment][path]

    zarr = known["data", "surface_zarr"]
    assert meaning("quick", "data.batch_size") == zarr["data.batch_size"]
    through_quick = meaning("demo", "data.samples_per_volume")
    assert through_quick == zarr["data.samples_per_volume"]
    hearts = meaning("heart_vecset_tiny", "data.batch_size")
    assert hearts == known["data", "heart_phantom"]["data.batch_size"]
    assert "heart" in hearts
    assert meaning("preset_schedule_free", "optimizer.lr") == "higher than AdamW's"
    assert known["", "train"]["scheduler"] == "switched off"  # not a preset's remark on its own
    weight = known["loss", "vecset_per_class"]["loss.term.sdf_vol.weight"]
    assert weight == known["loss/term", "sdf_vol"]["loss.term.sdf_vol.weight"]


def test_a_group_put_elsewhere_keeps_its_meanings(known):
    inner = known["experiment", "preset_lowres_cascade"]["model.network.deep_supervision"]
    assert inner == known["model", "resenc_m"]["model.deep_supervision"]


@pytest.mark.parametrize(
    ("entry", "place"),
    [
        (("experiment", "override /data", "surface_zarr"), ("data", "surface_zarr", "")),
        (("experiment", "", "base/preset_unet"), ("experiment/base", "preset_unet", "")),
        (("loss", "term", "dice"), ("loss/term", "dice", "")),
        (("model", "", "/model/dual_head_unet@backbone"), ("model", "dual_head_unet", "backbone")),
        (("", "optional local", "default"), ("local", "default", "")),
        (("logger", "", "csv"), ("logger", "csv", "")),
    ],
)
def test_where_an_entry_of_a_defaults_list_lies(entry, place):
    assert located(*entry) == place


def test_arguments_of_a_base_class_and_of_another_package():
    inherited = arguments("vesuvius.modules.petct.PETCTModule")
    assert inherited["loss"] == 'returns {"total", "<term>": unweighted} from (outputs, batch).'
    assert arguments("torch.optim.AdamW")["lr"] == "learning rate (default: 1e-3)."
    assert arguments("no.such.thing") == {}


def test_the_page_has_every_option_with_its_keys(tmp_path):
    (tmp_path / "loss").mkdir()
    (tmp_path / "train.yaml").write_text("# Training.\nseed: 0 # a|b\n")
    (tmp_path / "loss" / "one.yaml").write_text("defaults: [two]\nweight: 1.0\n")
    (tmp_path / "loss" / "two.yaml").write_text("weight: 2.0 # factor\n")
    page = config_reference(tmp_path)
    assert "## `train.yaml`\n\nTraining.\n\n| key | value | meaning |" in page
    assert "| `seed` | `0` | a\\|b |" in page
    assert "## loss\n\n### `loss=one`\n" in page
    assert "| `weight` | `1.0` | factor |" in page


def test_names_and_texts_of_several_lines():
    text = (
        "Does.\n\nArgs:\n    a, b,\n        c: three of\n        them.\n"
        "    d (tuple[int, (int)], optional): one.\n\nReturns:\n    e: nothing.\n"
    )
    three = dict.fromkeys("abc", "three of them.")
    assert documented_arguments(text) == {**three, "d": "one."}
