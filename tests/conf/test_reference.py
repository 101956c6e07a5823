"""The documentation that is made from conf/, and the page of messages."""

import re
from pathlib import Path

import pytest

from vesuvius.runtime.config_reference import (
    Key,
    config_reference,
    described,
    header,
    option_keys,
    read_options,
)

ROOT = Path(__file__).parents[2]


def test_every_key_has_a_meaning():
    missing = [
        f"{option.group}/{option.name}.yaml: {key.path}"
        for option in described(read_options(ROOT / "conf"))
        for key in option.keys
        if not key.meaning
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
    assert header(text) == "What it does.  \npython train.py x=y"


def test_an_experiment_borrows_the_meaning_of_the_group():
    page = config_reference(ROOT / "conf")
    assert "### `experiment=demo`" in page
    section = page.split("### `experiment=demo`")[1].split("###")[0]
    assert re.search(r"`data.batch_size` \| `2` \| \S+", section)


MESSAGES = [
    quoted
    for line in (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| `")
    for quoted in re.findall(r"`([^`]+)`", line.split("|")[1])
]


@pytest.fixture(scope="module")
def source():
    texts = (path.read_text(encoding="utf-8") for path in (ROOT / "vesuvius").rglob("*.py"))
    return re.sub(r'"\s*f?"', "", "".join(texts))


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_of_the_page_exists(message, source):
    assert message in source or message == "device=cuda"
