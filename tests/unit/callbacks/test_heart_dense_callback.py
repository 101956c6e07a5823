"""Dense validation of hearts: when it is due, what it logs, what it pictures."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch.utils.data import DataLoader

from vesuvius.callbacks.heart_dense import HeartDenseValidation
from vesuvius.errors import ConfigError
from vesuvius.metrics.heart.metrics import HeartDenseMetric

NAMES = ("one", "two")
RADIUS = {"a": 0.5, "b": 0.7, "c": 0.6}


def truth_at(case, points):
    """Class 1 in the left half of a ball, class 2 in the right; nothing known of case c."""
    if case.stem == "c":
        return None
    inside = np.linalg.norm(points, axis=-1) < RADIUS[case.stem]
    return np.where(inside, np.where(points[..., 0] < 0, 1, 2), 0).astype(np.uint8)


class Hearts(LightningDataModule):
    def __init__(self, names="ab"):
        super().__init__()
        self.names = names
        self.val_dataset = [self.heart(name) for name in names]

    def heart(self, name):
        surface = np.full((4, 5), RADIUS[name], np.float32)
        return {"surface": surface, "valid_class_mask": np.ones(2, np.float32)}

    def val_volumes(self):
        return [Path(f"{name}.npz") for name in self.names]

    def train_dataloader(self):
        return DataLoader([torch.ones(1)])

    def val_dataloader(self):
        return DataLoader([torch.ones(1)])


class Knows(LightningModule):
    """Predicts the ball whose radius it sees, with both classes swapped if asked to."""

    def __init__(self, *, swapped=False):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.sign = -1.0 if swapped else 1.0
        self.scored = []

    def encode_surface(self, surface):
        return surface[:, 0, 0]

    def decode_points(self, latents, points, classes=None):
        assert classes.tolist() == [1, 1]
        side = points[..., :1] * self.sign
        return {
            "inside": points.norm(dim=-1) - latents,
            "class_logits": torch.cat((-side, side), -1),
        }

    def training_step(self, batch, batch_idx):
        return self.weight.sum() * 0

    def validation_step(self, batch, batch_idx):
        pass

    def on_train_epoch_end(self):
        found = self.trainer.callback_metrics.get("val/dense/union_iou")
        self.scored.append(None if found is None else float(found))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(callback, *, epochs=1, module=None, names="ab"):
    module = module or Knows()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, datamodule=Hearts(names))
    return trainer.callback_metrics


def make(**options):
    options = {"resolution": 16, "class_names": NAMES, **options}
    return HeartDenseValidation(
        metric=HeartDenseMetric(num_classes=2), truth_at=truth_at, **options
    )


@pytest.mark.filterwarnings(
    "ignore:`isinstance.treespec, LeafSpec.` is deprecated",
    "ignore:.*does not have many workers",
    "ignore:The number of training batches",
)
class TestFit:
    def test_a_perfect_network_scores_one(self):
        found = fit(make())
        for name in ("union_iou", "union_dice", "class_dice", "iou_class_1", "dice_class_2"):
            assert float(found[f"val/dense/{name}"]) == 1.0

    def test_swapped_classes_keep_the_union_and_lose_the_classes(self):
        found = fit(make(), module=Knows(swapped=True))
        assert float(found["val/dense/union_iou"]) == 1.0
        assert float(found["val/dense/class_dice"]) == 0.0

    def test_cases_without_a_label_map_are_left_out(self):
        assert float(fit(make(), names="ca")["val/dense/union_iou"]) == 1.0

    def test_only_so_many_hearts(self):
        callback = make(max_hearts=1)
        seen = []
        callback.truth_at = lambda case, points: seen.append(case.stem) or truth_at(case, points)
        fit(callback)
        assert seen == ["a"]

    def test_first_every_nth_and_last_epoch_are_scored(self):
        callback = make(every_n_epochs=3)
        epochs = []
        predict = callback.predict

        def counted(trainer, *args):
            epochs.append(trainer.current_epoch)
            return predict(trainer, *args)

        callback.predict = counted
        fit(callback, epochs=5, names="a")
        assert epochs == [0, 2, 4]

    def test_the_picture_is_drawn_after_the_last_epoch(self, tmp_path):
        fit(make(folder=str(tmp_path), every_n_epochs=1), epochs=2)
        assert [p.name for p in tmp_path.iterdir()] == ["epoch001_hearts.png"]


def test_nothing_happens_in_a_fast_dev_run():
    callback = make()
    callback.predict = None
    trainer = SimpleNamespace(sanity_checking=False, fast_dev_run=1, max_epochs=1)
    callback.on_validation_epoch_end(trainer, None)


@pytest.mark.parametrize(
    "options", [{"resolution": 4}, {"every_n_epochs": 0}, {"picture_every_n_epochs": -1}]
)
def test_arguments_out_of_range_are_named(options):
    name = next(iter(options))
    with pytest.raises(ConfigError, match=f"{name}={options[name]}"):
        make(**options)
