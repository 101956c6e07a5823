"""The entry point: what a user's error looks like, whatever command raises it."""

import errno
from types import SimpleNamespace

import numpy as np
import pytest
import zarr
from hydra.errors import InstantiationException

from vesuvius.cli import main as entry


def raising(monkeypatch, error):
    def run(args):
        raise error

    parser = SimpleNamespace(parse_args=lambda argv: SimpleNamespace(run=run))
    monkeypatch.setattr(entry, "build_parser", lambda: parser)
    return entry.main([])


def test_a_path_that_cannot_be_used_is_one_line_and_status_2(monkeypatch, capsys):
    assert raising(monkeypatch, OSError(errno.EROFS, "Read-only file system", "out/x")) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: cannot read or write 'out/x': Read-only file system.")
    assert error.count("\n") == 1


def test_other_errors_of_the_system_keep_their_traceback(monkeypatch):
    with pytest.raises(OSError, match="Broken pipe"):
        raising(monkeypatch, OSError(errno.EPIPE, "Broken pipe"))


def test_what_hydra_cannot_build_is_one_message(monkeypatch, capsys):
    error = InstantiationException("Error in call to target 'a.B'\nfull_key: data")
    assert raising(monkeypatch, error) == 2
    assert capsys.readouterr().err == "error: Error in call to target 'a.B'\nfull_key: data\n"


def test_a_bug_keeps_its_traceback(monkeypatch):
    with pytest.raises(ZeroDivisionError):
        raising(monkeypatch, ZeroDivisionError())


def test_interrupted_says_how_to_go_on(monkeypatch, capsys):
    assert raising(monkeypatch, KeyboardInterrupt()) == 130
    assert "run the same command to go on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "{file}"], "cannot write {file}: File exists; choose another output"),
        (["--out", "{file}/m"], "cannot write {file}/m: Not a directory; choose another output"),
        (["--out", "m", "--voxel-size-um", "nan"], "--voxel-size-um is nan; expected a number"),
    ],
)
def test_sheets_to_a_place_that_cannot_be(tmp_path, capsys, words, message):

    file = tmp_path / "file"
    file.write_text("x")
    group = zarr.open_group(tmp_path / "w.zarr", mode="w")
    group.create_array("field", data=np.zeros((4, 4, 4), np.float32))
    group.create_array("labels/sheets/0", data=np.zeros((4, 4, 4), np.int32))
    words = [word.format(file=file) for word in words]
    assert entry.main(["sheets", str(tmp_path / "w.zarr"), *words]) == 2
    assert message.format(file=file) in capsys.readouterr().err
