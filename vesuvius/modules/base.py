"""The one training loop's module: step, log, optimizer. Knows no task."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric

from vesuvius.cpu_conv import mend_cpu_convolutions
from vesuvius.errors import ConfigError
from vesuvius.modules.schedule_free import ScheduleFreeMode
from vesuvius.modules.schedules import PlateauStepper, ScorePlateau

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
SchedulerFactory = Callable[..., LRScheduler]


class BaseModule(LightningModule):
    """Injected network, loss, optimizer and schedule; a task fills in `forward_batch`.

    Args:
        model: network.
        loss: returns {"total", "<term>": unweighted} from (outputs, batch).
        optimizer: parameters -> optimizer (a partial).
        scheduler: (optimizer, num_steps=...) -> schedule over optimizer steps, or None.
        metrics: name -> metric over validation crops; logged as `val/<name>`.
    """

    model: nn.Module
    loss: nn.Module

    def __init__(
        self,
        *,
        model: nn.Module,
        loss: nn.Module,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        metrics: Mapping[str, Metric] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.metrics = nn.ModuleDict(dict(metrics or {}))

    def check_heads(self, heads: Sequence[str]) -> None:
        """Let the loss, if it can, refuse terms without a head and heads without a term."""
        check = getattr(self.loss, "check_heads", None)
        if check is not None:
            check(tuple(heads))

    def forward_batch(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return the network's outputs for a batch already on the device."""
        raise NotImplementedError

    def update_metrics(self, outputs: Mapping[str, Tensor], batch: dict[str, Any]) -> None:
        """Feed `self.metrics` with one validation batch."""
        raise NotImplementedError

    def on_fit_start(self) -> None:
        """Keep the CPU's bf16 convolutions right and fast."""
        mend_cpu_convolutions(self.model)

    def on_train_epoch_start(self) -> None:
        """Log the learning rate the epoch starts with, whatever the optimizer is called."""
        self.log("lr", self.trainer.optimizers[0].param_groups[0]["lr"])

    def batch_size(self, batch: dict[str, Any]) -> int:
        """Return the number of samples in a batch: the weight of its losses in the epoch's mean."""
        return len(batch["image"])

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the total loss of one batch; every term is logged unweighted."""
        del batch_idx
        outputs = self.forward_batch(batch)
        losses = self.loss(outputs, batch)
        self.log_losses("train", losses, batch)
        self.after_training_step(outputs, batch)
        total = losses["total"]
        assert isinstance(total, Tensor)
        return total

    def after_training_step(self, outputs: Mapping[str, Tensor], batch: dict[str, Any]) -> None:
        """Task hook: watch the outputs of a training step."""

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Log the losses and feed the metrics with one batch of validation crops."""
        del batch_idx
        outputs = self.forward_batch(batch)
        self.log_losses("val", self.loss(outputs, batch), batch)
        self.update_metrics(outputs, batch)

    def on_validation_epoch_end(self) -> None:
        """Log and reset the metrics; a metric may return one number or a mapping of them."""
        for name, metric in self.metrics.items():
            assert isinstance(metric, Metric)
            value = metric.compute()
            values = value if isinstance(value, Mapping) else {"": value}
            for part, number in values.items():
                self.log(f"val/{name}/{part}".rstrip("/"), number.float(), prog_bar=not part)
            metric.reset()

    def log_losses(self, stage: str, losses: Mapping[str, Tensor], batch: dict[str, Any]) -> None:
        """Log `<stage>/loss/<term>` as epoch means, and in training `train/step/total` per step."""
        size = self.batch_size(batch)
        for name, loss in losses.items():
            self.log(
                f"{stage}/loss/{name}",
                loss.detach(),
                on_step=False,
                on_epoch=True,
                prog_bar=name == "total",
                batch_size=size,
                sync_dist=stage == "val",
            )
        if stage == "train":
            self.log("train/step/total", losses["total"].detach(), batch_size=size)

    def configure_optimizers(self) -> Any:
        """Return the optimizer and, stepped after every optimizer step, its schedule.

        Raises:
            ConfigError: the optimizer refuses a value: torch checks it only here.
        """
        try:
            optimizer = self.make_optimizer([p for p in self.parameters() if p.requires_grad])
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"the optimizer refuses its settings: {error}; look at the keys optimizer.*"
            ) from error
        if self.make_scheduler is None:
            return optimizer
        num_steps = int(self.trainer.estimated_stepping_batches)
        scheduler = self.make_scheduler(optimizer, num_steps=num_steps)
        plan = {"scheduler": scheduler, "interval": "step", "reduce_on_plateau": False}
        return {"optimizer": optimizer, "lr_scheduler": plan}

    def configure_callbacks(self) -> list[Callback]:
        """Return what steps a schedule that follows a score, and what minds schedule-free modes."""
        return [PlateauStepper(), ScheduleFreeMode()]

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step a schedule over optimizer steps."""
        if not isinstance(scheduler, ScorePlateau):
            super().lr_scheduler_step(scheduler, metric)

    @torch.no_grad()
    def count_parameters(self) -> int:
        """Return the number of trainable parameters."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)
