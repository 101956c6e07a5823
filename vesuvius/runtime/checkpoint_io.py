"""Checkpoints that are whole or not there."""

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO

from vesuvius.storage.files import whole_file


class AtomicCheckpointIO(CheckpointIO):
    """Writes `<path>.partial` in the same folder and renames it; reads plain data only.

    Lightning's own writer moves a file from the temporary folder: across file systems that is a
    copy, and a full disk leaves a truncated checkpoint under the final name.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write the checkpoint.

        Raises:
            StorageError: disk full or no permission; an older checkpoint of that name is kept.
        """
        del storage_options
        cure = (
            "free space or choose another paths.log_dir; ckpt_path=auto goes on from the last "
            "whole checkpoint"
        )
        whole = whole_file(Path(path), alone=True, cure=cure, also=RuntimeError)
        with whole as partial, partial.open("wb") as file:
            torch.save(checkpoint, file)  # tells a full disk by RuntimeError

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any = None,
        weights_only: bool | None = None,  # noqa: FBT001 - Lightning's signature
    ) -> dict[str, Any]:
        """Return the checkpoint, never executing anything in it."""
        del weights_only
        content: dict[str, Any] = torch.load(
            path, map_location=map_location or "cpu", weights_only=True
        )
        return content

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint."""
        Path(path).unlink(missing_ok=True)
