"""Lesion segmentation: CT and PET slices to lesion probability."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from vesuvius.errors import ConfigError
from vesuvius.modules.base import BaseModule, OptimizerFactory, SchedulerFactory


class PETCTModule(BaseModule):
    """LightningModule of networks from (b, 2, y, x) slices to `lesion_logit` (b, 1, y, x).

    Args:
        model, loss, optimizer, scheduler, metrics: see BaseModule. The model normalises grey values
            itself. Metrics get (mask, label, names, patients).
        threshold: probability above which a pixel counts as lesion in metrics.
        transforms: (batch, epoch=...) -> batch with a float image in [0, 1]; training batches
            alone, on the device. None = none.
    """

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
        check_heads = getattr(loss, "check_heads", None)
        if check_heads is not None:
            check_heads(tuple(getattr(model, "heads", ("lesion_logit",))))
        self.transforms = transforms
        self.threshold = threshold

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the total loss of one augmented batch."""
        if self.transforms is not None:
            batch = self.transforms(batch, epoch=self.current_epoch)
        return super().training_step(batch, batch_idx)

    def forward_batch(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return {"lesion_logit"} for `batch["image"]` (b, 2, y, x), uint8 or floats in [0, 1]."""
        outputs = self.model(batch["image"])
        assert isinstance(outputs, dict)
        return outputs

    @torch.no_grad()
    def predict_batch(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return {"probability": (b, 1, y, x)} as float32."""
        return {"probability": torch.sigmoid(self.forward_batch(batch)["lesion_logit"].float())}

    def update_metrics(self, outputs: Mapping[str, Tensor], batch: dict[str, Any]) -> None:
        """Threshold the probability and feed every metric."""
        mask = torch.sigmoid(outputs["lesion_logit"].float()) > self.threshold
        for metric in self.metrics.values():
            assert isinstance(metric, Metric)
            metric.update(mask, batch["label"], batch["name"], batch["patient"])

    def after_training_step(self, outputs: Mapping[str, Tensor], batch: dict[str, Any]) -> None:
        """Log the share of pixels predicted as lesion: 0 or 1 for long means collapse."""
        del batch
        share = (outputs["lesion_logit"].detach() > 0).float().mean()
        self.log("train/foreground_share", share, on_step=True, on_epoch=False)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep where the network's weights started from (random or a file's hash)."""
        checkpoint["provenance"] = dict(getattr(self.model, "provenance", {}))
