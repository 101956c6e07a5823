"""Two checkpoints of one interval in one run."""

from lightning.pytorch.callbacks import ModelCheckpoint

from vesuvius.callbacks.checkpoint import NamedCheckpoint


def test_states_are_told_apart_by_file_name(tmp_path):
    def key(kind, name):
        return kind(dirpath=tmp_path, filename=name, every_n_epochs=1).state_key

    assert key(ModelCheckpoint, "last") == key(ModelCheckpoint, "all")  # what Lightning refuses
    assert key(NamedCheckpoint, "last") != key(NamedCheckpoint, "all")
    assert key(NamedCheckpoint, "last") == key(NamedCheckpoint, "last")
