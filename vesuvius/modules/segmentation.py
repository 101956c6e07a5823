"""What surface and lesion segmentation share: augmented batches, one logit, its threshold."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from vesuvius.errors import ConfigError
from vesuvius.modules.base import BaseModule, OptimizerFactory, SchedulerFactory


class SegmentationModule(BaseModule):
    """BaseModule of networks with a head of one logit; a subclass names it and reads the batch.

    The network names its heads in `model.heads`. The loss may offer `check_heads`.

    Args:
        model, loss, optimizer, scheduler, metrics: see BaseModule.
        transforms: (batch, epoch=...) -> batch with a float image in [0, 1]; training batches
            alone, on the device. None = none.
        threshold: probability above which a voxel or pixel is foreground in metrics.

    Raises:
        ConfigError: the threshold is not between 0 and 1, or terms of the loss miss a head.
    """

    logit_head: str

    def __init__(
        self,
        *,
        model: nn.Module,
        loss: nn.Module,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        metrics: Mapping[str, Metric] | None = None,
        transforms: Callable[..., dict[str, Any]] | None = None,
        threshold: float = 0.5,
    ) -> None:
        if not 0 < threshold < 1:
            raise ConfigError(f"module.threshold={threshold}; expected a value between 0 and 1.")
        super().__init__(
            model=model, loss=loss, optimizer=optimizer, scheduler=scheduler, metrics=metrics
        )
        self.check_heads(getattr(model, "heads", (self.logit_head,)))
        self.transforms = transforms
        self.threshold = threshold

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the total loss of one augmented batch."""
        if self.transforms is not None:
            batch = self.transforms(batch, epoch=self.current_epoch)
        return super().training_step(batch, batch_idx)

    def probability(self, outputs: Mapping[str, Tensor]) -> Tensor:
        """Return the foreground's probability as float32, in the shape of the logit."""
        return torch.sigmoid(outputs[self.logit_head].float())

    def log_foreground_share(self, outputs: Mapping[str, Tensor]) -> Tensor:
        """Log and return the share predicted as foreground: 0 or 1 for long means collapse."""
        share = (outputs[self.logit_head].detach() > 0).float().mean()
        self.log("train/foreground_share", share, on_step=True, on_epoch=False)
        return share
