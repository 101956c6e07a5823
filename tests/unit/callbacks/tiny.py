"""A module and data small enough to train in a test; predictions are known by construction."""

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

SHAPE = (8, 8, 8)


def sample(surface_plane, number):
    """Crop whose image is 200 on the labelled plane z = surface_plane and 50 elsewhere."""
    label = torch.zeros(1, *SHAPE, dtype=torch.uint8)
    if surface_plane is not None:
        label[:, surface_plane] = 1
    image = torch.full((1, *SHAPE), 50, dtype=torch.uint8)
    image[label == 1] = 200
    return {"image": image, "label": label, "volume_id": f"vol{number}"}


class TinyModule(LightningModule):
    """Says 0.9 where the image is above 100, else 0.1; trains one useless number."""

    def __init__(self, *, with_normals=True):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.with_normals = with_normals
        self.predicted_ids = []
        self.was_training = []

    def predict_batch(self, batch):
        self.predicted_ids.append(batch["volume_id"])
        self.was_training.append(self.training)
        bright = batch["image"] > 100
        heads = {"probability": torch.where(bright, 0.9, 0.1)}
        if self.with_normals:
            heads["normals"] = torch.zeros(len(bright), 3, *SHAPE)
            heads["normals"][:, 0] = 1.0
        return heads

    def training_step(self, batch, batch_idx):
        loss = (self.weight * batch["image"].float().mean()).square() * 1e-6
        self.log("train/loss/total", loss, on_step=True, on_epoch=True, batch_size=1)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val/loss/total", self.weight.detach(), batch_size=1)

    def on_validation_epoch_end(self):
        if self.trainer.current_epoch % 2 == 0:
            self.log("val/score", torch.tensor(0.25 * (self.trainer.current_epoch + 1)))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def fit(callbacks, *, epochs=1, planes=(None, 2, 3), batch_size=1, ckpt_path=None, **options):
    """Train TinyModule; the validation crops have surface in the given planes."""
    module = options.pop("module", None) or TinyModule()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=callbacks,
        **{
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            "num_sanity_val_steps": 0,
            "log_every_n_steps": 1,
            **options,
        },
    )
    training = DataLoader([sample(1, 0), sample(2, 1)], batch_size=1)
    validation = DataLoader(
        [sample(plane, number) for number, plane in enumerate(planes)], batch_size=batch_size
    )
    trainer.fit(module, training, validation, ckpt_path=ckpt_path)
    return trainer, module
