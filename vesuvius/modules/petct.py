"""Lesion segmentation: CT and PET slices to lesion probability."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from vesuvius.modules.segmentation import SegmentationModule


class PETCTModule(SegmentationModule):
    """LightningModule of networks from (b, 2, y, x) slices to `lesion_logit` (b, 1, y, x).

    Arguments and errors: see SegmentationModule. The model normalises grey values itself. Metrics
    get (mask, label, names, patients).
    """

    logit_head = "lesion_logit"

    def forward_batch(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return {"lesion_logit"} for `batch["image"]` (b, 2, y, x), uint8 or floats in [0, 1]."""
        outputs = self.model(batch["image"])
        assert isinstance(outputs, dict)
        return outputs

    @torch.no_grad()
    def predict_batch(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return {"probability": (b, 1, y, x)} as float32."""
        return {"probability": self.probability(self.forward_batch(batch))}

    def update_metrics(self, outputs: Mapping[str, Tensor], batch: dict[str, Any]) -> None:
        """Threshold the probability and feed every metric."""
        mask = self.probability(outputs) > self.threshold
        for metric in self.metrics.values():
            assert isinstance(metric, Metric)
            metric.update(mask, batch["label"], batch["name"], batch["patient"])

    def after_training_step(self, outputs: Mapping[str, Tensor], batch: dict[str, Any]) -> None:
        """Log the share of pixels predicted as lesion."""
        del batch
        self.log_foreground_share(outputs)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep where the network's weights started from (random or a file's hash)."""
        checkpoint["provenance"] = dict(getattr(self.model, "provenance", {}))
