"""Two checkpoints of one interval in one run."""

from lightning.pytorch import Trainer

from vesuvius.callbacks.checkpoint import NamedCheckpoint
from vesuvius.runtime.quiet import quiet


def test_states_are_told_apart_by_file_name(tmp_path):
    quiet()
    callbacks = [NamedCheckpoint(dirpath=tmp_path, filename=name) for name in ("last", "all")]
    keys = {callback.state_key for callback in callbacks}
    assert len(keys) == 2
    trainer = Trainer(callbacks=callbacks, accelerator="cpu", logger=False)
    assert trainer.checkpoint_callbacks == callbacks
