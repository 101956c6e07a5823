"""What pyproject.toml promises: reasons, refused releases, versions that are tested."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
PROJECT = tomllib.loads(TEXT)["project"]
EXTRAS = PROJECT["optional-dependencies"]


def test_every_floor_has_its_reason_beside_it():
    body = TEXT[TEXT.index("dependencies = [") : TEXT.index("[project.scripts]")]
    users = body[: body.index("dev = [")]  # of dev only the lines that are not plain tools
    bare = [line for line in users.splitlines() if re.search(r'"[\w-]+[><=!]', line)
            and "#" not in line]  # fmt: skip
    assert bare == []
    for line in [*PROJECT["dependencies"], *(r for extra in EXTRAS.values() for r in extra)]:
        assert Requirement(line).specifier, f"{line} has no floor"


def test_the_extras_are_there():
    assert {"cuda12", "viz", "track", "cloud", "dev"} <= set(EXTRAS)
    assert [Requirement(line).name for line in EXTRAS["cuda12"]] == ["cupy-cuda12x"]


@pytest.mark.parametrize(
    ("version", "taken"), [("2.6.2", False), ("2.6.3", False), ("2.6.4", True)]
)
def test_compromised_releases_are_refused(version, taken):
    (found,) = [r for r in map(Requirement, PROJECT["dependencies"]) if r.name == "lightning"]
    assert (version in found.specifier) is taken
    assert {"!=2.6.2", "!=2.6.3"} <= {str(one) for one in found.specifier}


def test_only_a_tested_python_is_declared():
    declared = [c.rsplit(" :: ", 1)[1] for c in PROJECT["classifiers"] if "Python :: 3." in c]
    assert declared == ["3.11"]  # what .ci/run has; add one when CI runs it
