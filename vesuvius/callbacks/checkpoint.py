"""Checkpoints that tell their states apart by the name of their file."""

from lightning.pytorch.callbacks import ModelCheckpoint


class NamedCheckpoint(ModelCheckpoint):
    """ModelCheckpoint of which a run may have several with the same monitor and interval.

    Lightning keys the state of a checkpoint callback by monitor, mode and interval alone, and
    refuses two of one key: `last` and `periodic` would clash as soon as both save every epoch.
    """

    @property
    def state_key(self) -> str:
        """Return Lightning's key with the name of the file."""
        return f"{super().state_key}, file {self.filename}"
