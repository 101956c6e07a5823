"""Schedule-free optimizers under Lightning: the average validates and is stored, runs resume."""

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.utils.data import DataLoader

from vesuvius.modules.base import BaseModule
from vesuvius.runtime.quiet import quiet

schedulefree = pytest.importorskip("schedulefree")


class Line(BaseModule):
    """Fits a line; remembers what it validated with."""

    validated: list[float]

    def forward_batch(self, batch):
        return {"out": self.model(batch["image"])}

    def update_metrics(self, outputs, batch):
        self.validated = [*getattr(self, "validated", []), self.model.weight.item()]


class Squared(nn.Module):
    def forward(self, outputs, batch):
        return {"total": (outputs["out"] - 3 * batch["image"]).square().mean()}


def data():
    torch.manual_seed(0)
    return DataLoader([{"image": x} for x in torch.randn(8, 1)], batch_size=2)


def module(name="AdamWScheduleFree"):
    torch.manual_seed(1)
    optimizer = getattr(schedulefree, name)
    return Line(
        model=nn.Linear(1, 1, bias=False),
        loss=Squared(),
        optimizer=lambda p: optimizer(p, lr=0.05),
    )


def fit(folder, model, epochs, ckpt_path=None):
    quiet()
    trainer = Trainer(
        default_root_dir=folder, accelerator="cpu", max_epochs=epochs, logger=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(model, data(), data(), ckpt_path=ckpt_path, weights_only=True)
    return trainer


@pytest.mark.parametrize("name", ["AdamWScheduleFree", "RAdamScheduleFree"])
def test_the_average_is_validated_and_stored(tmp_path, name):
    model = module(name)
    trainer = fit(tmp_path, model, 3)
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    optimizer = trainer.optimizers[0]
    stored = torch.load(tmp_path / "end.ckpt", weights_only=True)["state_dict"]["model.weight"]
    average = model.model.weight.item()
    assert stored.item() == average == pytest.approx(model.validated[-1])
    optimizer.train()
    assert model.model.weight.item() != average  # the training point is another one


def test_a_resumed_run_ends_with_the_same_weights(tmp_path):
    whole = module()
    trainer = fit(tmp_path, whole, 2)
    trainer.save_checkpoint(tmp_path / "two.ckpt")
    resumed, straight = module(), module()
    fit(tmp_path, resumed, 4, ckpt_path=tmp_path / "two.ckpt")
    fit(tmp_path, straight, 4)
    assert resumed.model.weight.item() == pytest.approx(straight.model.weight.item(), rel=1e-6)
