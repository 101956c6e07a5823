"""Learning-rate schedules at hand-computed steps."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import DataLoader

from vesuvius.errors import ConfigError
from vesuvius.modules.base import BaseModule
from vesuvius.modules.schedules import (
    PlateauStepper,
    batch_scaled_cosine,
    cosine,
    plateau,
    poly,
)


def rates(make, num_steps, **options):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = make(optimizer, num_steps=num_steps, **options)
    found = []
    for _ in range(num_steps + 1):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_cosine_goes_from_lr_through_the_middle_to_the_final_share():
    found = rates(cosine, 10, final_share=0.01)
    assert found[0] == pytest.approx(2.0)
    assert found[5] == pytest.approx(2.0 * 0.505)
    assert found[10] == pytest.approx(2.0 * 0.01)


def test_warm_up_is_linear():
    found = rates(cosine, 10, warmup_share=0.4)
    assert found[:5] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0])


def test_poly_by_hand():
    found = rates(poly, 4, exponent=0.9)
    assert found == pytest.approx([2 * (1 - i / 4) ** 0.9 for i in range(5)])


def test_shares_out_of_range_are_named():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(ConfigError, match=r"scheduler\.warmup_share=1"):
        cosine(optimizer, num_steps=3, warmup_share=1)


def make_plateau(**options):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    return optimizer, plateau(optimizer, num_steps=9, monitor="val/score", **options)


def test_plateau_halves_after_patience_values_without_progress():
    optimizer, schedule = make_plateau(patience=1, threshold=0.1, min_lr=0.75)
    found = []
    for score in (0.5, 0.7, 0.75, 0.79, 0.9, 0.9, 0.9, 0.9, 0.9):
        schedule.step(torch.tensor(score))
        found.append(optimizer.param_groups[0]["lr"])
    # 0.75 and 0.79 are less than 0.1 above 0.7; then 0.9 counts; min_lr ends it
    assert found == [2, 2, 2, 1, 1, 1, 0.75, 0.75, 0.75]


def test_a_value_that_was_not_logged_again_is_no_lack_of_progress():
    optimizer, schedule = make_plateau(patience=0)
    score = torch.tensor(0.5)
    for _ in range(4):
        schedule.step(score)
    assert optimizer.param_groups[0]["lr"] == 2
    schedule.step(torch.tensor(0.5))
    assert optimizer.param_groups[0]["lr"] == 1


def test_plateau_resumes():
    _, schedule = make_plateau(patience=2)
    for score in (0.5, 0.4):
        schedule.step(torch.tensor(score))
    state = schedule.state_dict()
    assert all(isinstance(v, (int, float, str, list, bool, type(None))) for v in state.values())
    optimizer, again = make_plateau(patience=2)
    again.load_state_dict(state)
    for _ in range(2):
        again.step(torch.tensor(0.4))
    assert optimizer.param_groups[0]["lr"] == 1
    assert again.monitor == "val/score"


def test_plateau_needs_a_monitored_value_and_sane_numbers():
    with pytest.raises(ConfigError, match=r"scheduler\.monitor is null: scheduler=plateau needs"):
        plateau(torch.optim.SGD([torch.zeros(1)], lr=1), num_steps=1, monitor=None)
    with pytest.raises(ConfigError, match=r"scheduler.factor=2 lie in \(0, 1\)"):
        make_plateau(factor=2)


class ScoredModule(BaseModule):
    """Logs a score that never rises, every second epoch; notes the learning rate."""

    def __init__(self, **options):
        super().__init__(**options)
        self.rates = []

    def forward_batch(self, batch):
        return {"y": self.model(batch["image"])}

    def on_train_epoch_start(self):
        self.rates.append(self.optimizers().param_groups[0]["lr"])

    def validation_step(self, batch, batch_idx):
        if self.current_epoch % 2 == 0:
            self.log("val/score", 0.5, batch_size=1)


class SquareLoss(torch.nn.Module):
    def forward(self, outputs, batch):
        return {"total": outputs["y"].square().mean()}


@pytest.mark.filterwarnings(
    "ignore:The '.*_dataloader' does not have many workers",
    "ignore:`isinstance.treespec, LeafSpec.` is deprecated",
    "ignore:GPU available but not used",
)
def test_the_module_steps_a_plateau_by_the_score_once_a_scored_epoch():
    module = ScoredModule(
        model=torch.nn.Linear(1, 1),
        loss=SquareLoss(),
        optimizer=partial(torch.optim.SGD, lr=2.0),
        scheduler=partial(plateau, monitor="val/score", patience=1),
    )
    data = DataLoader([{"image": torch.ones(1)}] * 3, batch_size=1)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=8,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, data, data)
    # scores come in epochs 0, 2, 4, 6: the second without progress (epoch 4) halves the rate
    assert module.rates == [2, 2, 2, 2, 2, 1, 1, 1]


def test_a_score_that_is_never_logged_is_named():
    stepper = PlateauStepper()
    _, schedule = make_plateau()
    module = SimpleNamespace(lr_schedulers=lambda: schedule)
    trainer = SimpleNamespace(
        sanity_checking=False,
        state=SimpleNamespace(fn=TrainerFn.FITTING),
        callback_metrics={"val/dice": torch.tensor(0.1)},
    )
    with pytest.raises(ConfigError, match=r"val/score was not logged; logged: \['val/dice'\]"):
        stepper.on_validation_end(trainer, module)


@pytest.mark.parametrize(
    ("base_lr", "warmup", "epochs", "peak", "at_107", "at_200"),
    [
        (1e-4, 40, 800, 2.5e-5, 2.45e-5, 2.25e-5),
        (4e-4, 10, 800, 1.0e-4, 9.64e-5, 8.65e-5),
        (1e-3, 20, 400, 2.5e-4, 2.19e-4, 1.36e-4),
        (2e-4, 20, 400, 5.0e-5, 4.39e-5, 2.75e-5),
    ],
    ids=["first", "v1", "v2", "cluster"],
)
def test_batch_scaled_cosine_has_the_rates_of_the_heart_presets(
    base_lr, warmup, epochs, peak, at_107, at_200
):
    steps_per_epoch = 2
    found = rates(
        batch_scaled_cosine,
        epochs * steps_per_epoch,
        base_lr=base_lr,
        effective_batch=64,
        warmup_epochs=warmup,
        epochs=epochs,
    )
    assert found[0] == 0
    assert found[warmup * steps_per_epoch // 2] == pytest.approx(peak / 2)
    assert found[warmup * steps_per_epoch] == pytest.approx(peak) == max(found)
    assert found[107 * steps_per_epoch] == pytest.approx(at_107, rel=5e-3)
    assert found[200 * steps_per_epoch] == pytest.approx(at_200, rel=5e-3)
    assert found[-1] == pytest.approx(1e-6)


def test_batch_scaled_cosine_needs_a_warm_up_within_the_run():
    with pytest.raises(ConfigError, match=r"scheduler\.warmup_epochs=20"):
        rates(batch_scaled_cosine, 4, base_lr=1e-3, effective_batch=64, warmup_epochs=20, epochs=20)
