"""docs/troubleshooting.md: its messages exist, and no message is without a cure."""

import re
import tomllib
from pathlib import Path

import pytest
from raised_messages import ADVICE, error_classes, raised

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
PHRASES = [
    quoted
    for line in PAGE.splitlines()
    if line.startswith("| `")
    for quoted in re.findall(r"`([^`]+)`", line.split("|")[1])
]


def pattern(phrase):
    """Return a phrase of the page as an expression; <name> is whatever is filled in."""
    return re.compile(re.sub(r"<\w+>", r"\\{[^}]*\\}", re.escape(phrase)))


@pytest.fixture(scope="module")
def messages():
    return raised()


@pytest.fixture(scope="module")
def source():
    texts = (path.read_text(encoding="utf-8") for path in (ROOT / "vesuvius").rglob("*.py"))
    return re.sub(r'"\s*f?"', "", "".join(texts))


@pytest.mark.parametrize("phrase", PHRASES)
def test_a_message_of_the_page_exists(phrase, messages, source):
    found = any(pattern(phrase).search(text) for _, text, _ in messages)
    assert found or phrase in source or phrase == "device=cuda"


def test_every_message_says_its_cure_or_stands_on_the_page(messages):
    known = [pattern(phrase) for phrase in PHRASES]
    bare = [
        f"{place}: {text}"
        for _, text, place in messages
        if not ADVICE.search(text) and not any(one.search(text) for one in known)
    ]
    assert bare == [], "say what was expected or what to do, or add the phrase to the page"


def test_every_kind_of_error_that_is_raised_has_a_message_on_the_page(messages):
    known = [pattern(phrase) for phrase in PHRASES]
    covered = {name for name, text, _ in messages if any(one.search(text) for one in known)}
    assert {name for name, _, _ in messages} - covered == set()
    assert len(covered) >= 15
    assert covered <= set(error_classes())


def test_the_extras_that_messages_name_exist_and_are_listed(source):
    named = set(re.findall(r"vesuvius\[(\w+)\]", source))
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = set(declared["project"]["optional-dependencies"])
    assert named <= extras
    listed = set(re.findall(r"`\[(\w+)\]`", (ROOT / "docs" / "index.md").read_text("utf-8")))
    assert extras - listed == {"bench"}  # peers of the benchmarks, docs/configuration.md of none
    assert listed <= extras
