"""Learning-rate schedules over optimizer steps, or by a validation score."""

import math
from typing import SupportsFloat

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from vesuvius.errors import ConfigError


def cosine(
    optimizer: Optimizer, *, num_steps: int, final_share: float = 0.01, warmup_share: float = 0.0
) -> LambdaLR:
    """Return linear warm-up, then half a cosine from lr down to `final_share` * lr.

    Args:
        optimizer: its `lr` is the peak.
        num_steps: optimizer steps of the whole run.
        final_share: last learning rate relative to the peak, in [0, 1].
        warmup_share: share of the steps spent warming up, in [0, 1).

    Source: Loshchilov and Hutter 2017 (SGDR) without restarts.

    Raises:
        ConfigError: a share out of range.
    """
    if not 0 <= final_share <= 1 or not 0 <= warmup_share < 1:
        raise ConfigError(
            f"scheduler.final_share={final_share} must lie in [0, 1], "
            f"scheduler.warmup_share={warmup_share} in [0, 1)."
        )
    warmup_steps = int(warmup_share * num_steps)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        progress = min(1.0, (step - warmup_steps) / max(1, num_steps - warmup_steps))
        return final_share + (1 - final_share) * 0.5 * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, factor)


def poly(optimizer: Optimizer, *, num_steps: int, exponent: float = 0.9) -> LambdaLR:
    """Return lr * (1 - step / num_steps)^exponent, nnU-Net's schedule (Isensee et al. 2021)."""
    if exponent <= 0:
        raise ConfigError(f"scheduler.exponent={exponent}; expected > 0.")
    return LambdaLR(optimizer, lambda step: max(0.0, 1 - step / max(1, num_steps)) ** exponent)


def batch_scaled_cosine(
    optimizer: Optimizer,
    *,
    num_steps: int,
    base_lr: float,
    effective_batch: int,
    warmup_epochs: float,
    epochs: int,
    min_lr: float = 1e-6,
) -> LambdaLR:
    """Return linear warm-up to base_lr * effective_batch / 256, then half a cosine to min_lr.

    The schedule always spans the run: step n is at epoch e = n / num_steps * epochs, so that a run
    of another length has the same shape. `optimizer.lr` has no influence.

    Args:
        optimizer: whose rate is set.
        num_steps: optimizer steps of the whole run.
        base_lr: rate of a batch of 256.
        effective_batch: samples of an optimizer step: batch * accumulation * devices.
        warmup_epochs: epochs of the warm-up, below `epochs`.
        epochs: length the preset is made for.
        min_lr: last rate.

    Source: He et al. 2022 (MAE), the schedule of 3DShape2VecSet.

    Raises:
        ConfigError: a number out of range.
    """
    if base_lr <= 0 or effective_batch < 1 or not 0 <= warmup_epochs < epochs or min_lr < 0:
        raise ConfigError(
            f"scheduler.base_lr={base_lr} must be > 0, scheduler.effective_batch="
            f"{effective_batch} >= 1, scheduler.warmup_epochs={warmup_epochs} in [0, epochs="
            f"{epochs}), scheduler.min_lr={min_lr} >= 0."
        )
    peak = base_lr * effective_batch / 256
    given = float(optimizer.defaults["lr"])  # LambdaLR multiplies it

    def rate(step: int) -> float:
        epoch = min(step / max(1, num_steps), 1.0) * epochs
        if epoch < warmup_epochs:
            return peak * epoch / warmup_epochs
        progress = (epoch - warmup_epochs) / (epochs - warmup_epochs)
        return min_lr + (peak - min_lr) * 0.5 * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, lambda step: rate(step) / given)


class ScorePlateau(ReduceLROnPlateau):
    """ReduceLROnPlateau that names what it monitors and counts each value once.

    Where a score is computed every n-th epoch only, the last tensor comes again in between and is
    no lack of progress.
    """

    monitor: str
    _seen: SupportsFloat | None = None

    def step(  # type: ignore[override] # as in ReduceLROnPlateau itself
        self, metrics: SupportsFloat, epoch: int | None = None
    ) -> None:
        """Take a new value into account; a value seen before changes nothing."""
        if metrics is self._seen:
            return
        self._seen = metrics
        super().step(float(metrics), epoch)

    def state_dict(self) -> dict[str, object]:
        """Return the state as plain numbers."""
        return {k: v for k, v in super().state_dict().items() if k != "_seen"}


class PlateauStepper(Callback):
    """Steps a `ScorePlateau` after each validation, before the checkpoints are written.

    Lightning itself does so after them and not at all in the epoch in which a run is resumed, so
    that a resumed run would end differently.
    """

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hand the monitored value over.

        Raises:
            ConfigError: it was never logged.
        """
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        schedules = pl_module.lr_schedulers()
        for schedule in schedules if isinstance(schedules, list) else [schedules]:
            if not isinstance(schedule, ScorePlateau) or getattr(trainer, "fast_dev_run", False):
                continue
            value = trainer.callback_metrics.get(schedule.monitor)
            if value is None:
                raise ConfigError(
                    f"scheduler.monitor={schedule.monitor} was not logged; logged: "
                    f"{sorted(trainer.callback_metrics)}. Choose one of them, or scheduler=cosine."
                )
            schedule.step(value)


def plateau(
    optimizer: Optimizer,
    *,
    num_steps: int,
    monitor: str | None,
    mode: str = "max",
    factor: float = 0.5,
    patience: int = 10,
    threshold: float = 1e-3,
    cooldown: int = 0,
    min_lr: float = 1e-6,
) -> ScorePlateau:
    """Return a schedule that multiplies lr by `factor` after `patience` values without progress.

    Args:
        optimizer: its `lr` is the first learning rate.
        num_steps: not used: this schedule does not know how long the run is.
        monitor: logged name of the value, such as val/score.
        mode: "max" if more is better, else "min".
        factor: in (0, 1).
        patience: values in a row that may be no better.
        threshold: least absolute improvement that counts as progress.
        cooldown: values after a reduction that do not count.
        min_lr: the rate stays above it.

    Raises:
        ConfigError: nothing to monitor, or a number out of range.
    """
    del num_steps
    if not monitor:
        raise ConfigError(
            "scheduler.monitor is null: scheduler=plateau needs a logged value, e.g. val/score "
            "(optimized_metric); use scheduler=cosine for a run without validation."
        )
    if mode not in ("max", "min") or not 0 < factor < 1 or patience < 0:
        raise ConfigError(
            f"scheduler.mode={mode!r} must be max or min, scheduler.factor={factor} lie in (0, 1), "
            f"scheduler.patience={patience} be >= 0."
        )
    schedule = ScorePlateau(
        optimizer,
        mode=mode,  # type: ignore[arg-type]
        factor=factor,
        patience=patience,
        threshold=threshold,
        threshold_mode="abs",
        cooldown=cooldown,
        min_lr=min_lr,
    )
    schedule.monitor = monitor
    return schedule
