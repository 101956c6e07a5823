"""Volumes with a high loss give more crops."""

import pytest

from vesuvius.callbacks.hard_volumes import HardVolumes, volume_weights
from vesuvius.data.surface import SurfaceDataModule
from vesuvius.errors import ConfigError


@pytest.mark.parametrize(
    ("strength", "ratio", "expected"),
    [(1.0, 9.0, [0.5, 1.5]), (0.0, 9.0, [1.0, 1.0]), (2.0, 9.0, [0.25, 2.25]), (1.0, 1.2, None)],
)
def test_weights_by_hand(strength, ratio, expected):
    weights = volume_weights({"a": 1.0, "b": 3.0}, strength, ratio)
    assert list(weights.values()) == pytest.approx(expected or [1 / 1.2, 1.2])


def drawn(dataset, epoch):
    names = [dataset[(epoch, i)]["volume_id"] for i in range(len(dataset))]
    return {name: names.count(name) for name in sorted(set(names))}


def test_the_next_epoch_follows_the_weights_and_keeps_its_length(prepared):
    data = SurfaceDataModule(prepared / "train", (8, 8, 8), samples_per_volume=6, val_share=0)
    data.setup()
    dataset = data.train_dataset
    first, second, third = data.split["train"]
    before = [dataset[(0, i)]["origin_zyx"] for i in range(18)]
    assert drawn(dataset, 0) == {first: 6, second: 6, third: 6}
    data.weigh_volumes({first: 0.5, second: 1.0, third: 1.5})
    assert drawn(dataset, 1) == {first: 3, second: 6, third: 9}
    data.weigh_volumes({})
    assert [dataset[(0, i)]["origin_zyx"] for i in range(18)] == before


def test_losses_become_weights_and_survive_a_resume():
    callback = HardVolumes(momentum=0.5)

    class Data:
        def weigh_volumes(self, weights):
            self.weights = dict(weights)

    class Strategy:
        def broadcast(self, value, src):
            return value

    class Fake:
        datamodule, strategy = Data(), Strategy()

        def log(self, name, value, **_):
            self.logged = (name, value)

    trainer = Fake()
    for loss, names in ((1.0, ["a", "a"]), (3.0, ["b"]), (float("nan"), ["a"])):
        callback.on_train_batch_end(trainer, trainer, {"loss": loss}, {"volume_id": names}, 0)
    callback.on_train_epoch_end(trainer, trainer)
    assert trainer.datamodule.weights == {"a": 0.5, "b": 1.5}
    callback.on_train_batch_end(trainer, trainer, {"loss": 2.0}, {"volume_id": ["a"]}, 0)
    callback.on_train_epoch_end(trainer, trainer)
    assert callback.losses == {"a": 1.5, "b": 3.0}
    resumed = HardVolumes()
    resumed.load_state_dict(callback.state_dict())
    trainer.datamodule.weights = {}
    resumed.on_train_start(trainer, trainer)
    assert trainer.datamodule.weights == pytest.approx({"a": 2 / 3, "b": 4 / 3})


def test_weights_reach_loader_processes(prepared):
    data = SurfaceDataModule(
        prepared / "train",
        (8, 8, 8),
        samples_per_volume=4,
        batch_size=1,
        val_share=0,
        num_workers=1,
    )
    loader = data.train_dataloader()
    counts = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        names = [batch["volume_id"][0] for batch in loader]
        counts.append([names.count(name) for name in data.split["train"]])
        data.weigh_volumes(dict(zip(data.split["train"], (3.0, 2.0, 1.0), strict=True)))
    assert counts == [[4, 4, 4], [6, 4, 2]]


def test_nonsense_is_refused():
    with pytest.raises(ConfigError, match="max_ratio=0"):
        HardVolumes(max_ratio=0.5)
