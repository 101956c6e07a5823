"""Checkpoints appear whole or not at all."""

import errno

import pytest
import torch

from vesuvius.errors import StorageError
from vesuvius.runtime.checkpoint_io import AtomicCheckpointIO


def test_round_trip_and_removal(tmp_path):
    path = tmp_path / "new" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"a": torch.arange(3), "epoch": 2}, path)
    found = AtomicCheckpointIO().load_checkpoint(path)
    assert found["epoch"] == 2
    assert found["a"].tolist() == [0, 1, 2]
    AtomicCheckpointIO().remove_checkpoint(path)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("file write failed\nat x.cc")],
    ids=["OSError", "RuntimeError"],
)
def test_a_full_disk_keeps_the_old_checkpoint_and_nothing_else(tmp_path, monkeypatch, error):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": 1}, path)

    def half_written(_content, file):
        file.write(b"half")
        raise error

    monkeypatch.setattr(torch, "save", half_written)
    message = r"cannot write .*last\.ckpt: (No space|file write).*free space .*paths\.log_dir; ckpt"
    with pytest.raises(StorageError, match=message):
        AtomicCheckpointIO().save_checkpoint({"epoch": 2}, path)
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]
    assert AtomicCheckpointIO().load_checkpoint(path)["epoch"] == 1
