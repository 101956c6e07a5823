"""Files that are whole or not there; errors that name the path and the cure that fits."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from vesuvius.errors import ConfigError, StorageError, VolumeFormatError, VolumeNotFoundError
from vesuvius.storage.files import place_message, reading, storage_errors, whole_file, write_bytes


def refused(number, text):
    def refuse(*_args, **_kwargs):
        raise OSError(number, text)

    return refuse


def write_half(path, error, **options):
    with whole_file(path, **options) as partial:
        partial.write_text("half")
        raise error


def test_a_file_appears_when_it_is_whole_and_its_folder_with_it(tmp_path):
    path = tmp_path / "new" / "a.bin"
    with whole_file(path) as partial:
        partial.write_bytes(b"half")
        assert partial.parent == path.parent
        assert not path.exists()
    assert path.read_bytes() == b"half"
    assert [p.name for p in path.parent.iterdir()] == ["a.bin"]


def test_a_full_disk_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "replace", refused(errno.ENOSPC, "No space left on device"))
    message = r"cannot write .*a\.png: No space left on device; free disk space or choose"
    with pytest.raises(StorageError, match=message):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_a_read_only_disk_is_told_by_its_first_error(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "write_bytes", refused(errno.EROFS, "Read-only file system"))
    monkeypatch.setattr(Path, "unlink", refused(errno.EIO, "the clean-up failed, too"))
    message = r"cannot write .*a\.png: Read-only file system; choose another output"
    with pytest.raises(StorageError, match=message):
        write_bytes(tmp_path / "a.png", b"new")


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"cannot write .*file/b/a\.png: Not a directory"):
        write_bytes(tmp_path / "file" / "b" / "a.png", b"new")


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("a bug"), KeyboardInterrupt(), VolumeNotFoundError("no such scan")]
)
def test_an_error_of_the_block_is_passed_on_as_it_is(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(type(error)) as caught:
        write_half(path, error)
    assert caught.value is error
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_library_that_raises_its_own_error_and_a_cure_of_its_own(tmp_path):
    error = RuntimeError("file write failed\nat x.cc")
    with pytest.raises(StorageError) as caught:
        write_half(tmp_path / "a", error, cure="lower x", also=RuntimeError)
    assert f"cannot write {tmp_path / 'a'}: file write failed; lower x." in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_of_a_file_of_one_writer_is_written_over(tmp_path):
    (tmp_path / "a.ckpt.partial").write_bytes(b"long and dead")
    with whole_file(tmp_path / "a.ckpt", alone=True) as partial, partial.open("wb") as file:
        file.write(b"new")
    assert (tmp_path / "a.ckpt").read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.ckpt"]


_WRITER = """
import sys
from pathlib import Path
from vesuvius.storage.files import whole_file
with whole_file(Path(sys.argv[1])) as partial, partial.open("w") as file:
    file.write(sys.argv[2] * 3)
    file.flush()
    print("half", flush=True)
    sys.stdin.readline()
    file.write(sys.argv[2] * 3)
print("whole", flush=True)
"""


def test_processes_that_write_one_file_side_by_side_each_write_a_whole_one(tmp_path):
    path = tmp_path / "a.txt"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(path), letter],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for letter in "ab"
    ]  # fmt: skip
    assert [writer.stdout.readline() for writer in writers] == ["half\n"] * 2
    found = []
    for writer in writers:
        assert writer.communicate("go on\n")[0] == "whole\n"
        found.append(path.read_text())
    assert found == ["aaaaaa", "bbbbbb"]
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize(
    ("number", "cure"),
    [
        pytest.param(errno.ENOSPC, "; free disk space or choose another output", id="full"),
        pytest.param(errno.EROFS, "; choose another output", id="read-only"),
        pytest.param(errno.EEXIST, "; choose another output", id="a file in the way"),
    ],
)
def test_only_a_full_disk_is_to_be_freed(tmp_path, number, cure):
    with pytest.raises(StorageError) as caught, storage_errors(tmp_path / "x"):
        raise OSError(number, "Refused")
    assert f"cannot write {tmp_path / 'x'}: Refused{cure}" in str(caught.value)


def test_a_damaged_chunk_is_said_with_its_place(tmp_path):
    array = zarr.create_array(tmp_path / "a.zarr", shape=(8,), chunks=(4,), dtype="uint8")
    array[:] = np.arange(1, 9)
    (tmp_path / "a.zarr" / "c" / "1").write_bytes(b"garbage")
    message = r"a\.zarr: cannot be read, damaged"
    with pytest.raises(VolumeFormatError, match=message), reading(tmp_path / "a.zarr"):
        np.asarray(array[:])


def test_our_own_errors_and_bugs_pass_through(tmp_path):
    with pytest.raises(ConfigError, match="mine"), reading(tmp_path):
        raise ConfigError("mine")
    with pytest.raises(AttributeError), reading(tmp_path):
        raise AttributeError("a bug")


def test_places_that_cannot_be_used_are_told_from_bugs():
    full = OSError(errno.ENOSPC, "No space left on device", "a/b")
    message = place_message(full)
    assert message is not None
    assert message.startswith("cannot read or write 'a/b': No space left on device.")
    assert place_message(OSError(errno.EPIPE, "Broken pipe")) is None
    assert place_message(OSError("no number")) is None
