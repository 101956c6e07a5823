"""Errors of reading and writing that name the path and the cure that fits."""

import errno

import numpy as np
import pytest
import zarr

from vesuvius.errors import ConfigError, StorageError, VolumeFormatError
from vesuvius.storage.files import place_message, reading, storage_errors


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
