"""The module augments training batches and no others."""

from functools import partial

import pytest
import torch

from vesuvius.data.transforms import SurfaceTransforms
from vesuvius.modules.surface import SurfaceModule


class Seeing(torch.nn.Module):
    """Keeps what it was shown."""

    heads = ("surface_logit",)

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.seen = []

    def forward(self, image):
        self.seen.append(image.detach().clone())
        return {"surface_logit": image * self.scale}


class LabelMean(torch.nn.Module):
    def forward(self, outputs, batch):
        return {"total": outputs["surface_logit"].mean() + batch["label"].float().mean()}


@pytest.fixture
def batch():
    label = torch.ones(1, 1, 8, 8, 8, dtype=torch.uint8)
    image = torch.full((1, 1, 8, 8, 8), 51, dtype=torch.uint8)
    origin = torch.zeros(1, 3, dtype=torch.long)
    return {"image": image, "label": label, "volume_id": ["a"], "origin_zyx": origin}


def make_module(monkeypatch, transforms):
    module = SurfaceModule(
        model=Seeing(),
        loss=LabelMean(),
        optimizer=partial(torch.optim.SGD, lr=1.0),
        transforms=transforms,
    )
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    return module


def test_training_sees_augmented_batches_and_validation_does_not(monkeypatch, batch):
    module = make_module(monkeypatch, SurfaceTransforms(seed=0, rotate_share=1, cutout_share=1))
    loss = module.training_step(batch, 0)
    assert (module.model.seen[0] == 0).any()  # a cut-out
    assert loss > 1.2  # label 1 everywhere would give at most 1.2: corners became 2
    module.validation_step(batch, 0)
    assert torch.equal(module.model.seen[1], torch.full((1, 1, 8, 8, 8), 0.2))


def test_without_transforms_training_sees_the_batch(monkeypatch, batch):
    module = make_module(monkeypatch, None)
    assert module.training_step(batch, 0).item() == pytest.approx(1.2)
    assert torch.equal(module.model.seen[0], torch.full((1, 1, 8, 8, 8), 0.2))
