"""What makes a notebook run elsewhere: its install cell, its outputs, its badges."""

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = [path.name for path in NOTEBOOKS]
URL = "https://github.com/owner/scrolls"


def cells(path):
    """Return [(type, source)]."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return [(cell["cell_type"], "".join(cell["source"])) for cell in content["cells"]]


@pytest.fixture
def install(monkeypatch, tmp_path):
    """Run a notebook's install cell where the package is missing; return pip's arguments."""
    calls = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(subprocess, "run", lambda command, check: calls.append(command[1:]))

    def run(path):
        exec(cells(path)[1][1], {})
        return calls

    return run


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_a_notebook_installs_what_is_missing_and_needs_nothing_beside_it(path):
    (kind, first), *rest = cells(path)[1:]
    assert kind == "code"
    assert first == cells(NOTEBOOKS[0])[1][1]  # the same cell everywhere
    code = "\n".join(source for kind, source in rest if kind == "code")
    assert not re.search(r"shared|\.\./|train\.py|tempfile", code)
    assert f'"outputs" / "{path.stem}"' in code
    assert "savefig" not in code
    assert 'print("saved:"' in rest[-1][1]


def test_the_install_cell_takes_a_wheel_beside_the_notebook(install, tmp_path):
    wheel = tmp_path / "vesuvius-0.1.0-py3-none-any.whl"
    wheel.touch()
    assert install(NOTEBOOKS[0]) == [["-m", "pip", "install", "--quiet", str(wheel)]]


def test_without_a_source_the_install_cell_says_what_to_do(install):
    with pytest.raises(RuntimeError, match="set SOURCE above, or upload its wheel"):
        install(NOTEBOOKS[0])


@pytest.fixture
def tool(tmp_path):
    """The script, in a folder with copies of the notebooks."""
    folder = tmp_path / "notebooks"
    shutil.copytree(ROOT / "notebooks", folder, ignore=shutil.ignore_patterns("outputs", ".*"))
    spec = importlib.util.spec_from_file_location("set_repository", folder / "set_repository.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_one_command_names_the_repository_everywhere_and_takes_it_out(tool, monkeypatch, capsys):
    before = {path.name: path.read_bytes() for path in tool.FOLDER.glob("*.ipynb")}
    for url in (URL, URL, f"{URL}-2"):
        monkeypatch.setattr("sys.argv", ["set_repository.py", url])
        assert tool.main() == 0
        for path in tool.FOLDER.glob("*.ipynb"):
            title, install = (source for _, source in cells(path)[:2])
            assert title.count("colab-badge") == 1
            place = f"{url.removeprefix('https://')}/blob/main/notebooks/{path.name}"
            assert f"welcome?src=https://{place})" in title
            assert f"/github/{place.removeprefix('github.com/')})" in title
            assert f'SOURCE = "git+{url}"' in install
    monkeypatch.setattr("sys.argv", ["set_repository.py", ""])
    assert tool.main() == 0
    assert before == {path.name: path.read_bytes() for path in tool.FOLDER.glob("*.ipynb")}


def test_what_is_no_repository_is_refused(tool, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["set_repository.py", "owner/scrolls"])
    assert tool.main() == 2
    assert "is no https://github.com/OWNER/NAME" in capsys.readouterr().err
