"""Surface segmentation: CT crops to surface probability and normals."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from vesuvius.errors import VolumeFormatError
from vesuvius.layout import to_channels_last
from vesuvius.modules.base import OptimizerFactory, SchedulerFactory
from vesuvius.modules.segmentation import SegmentationModule

log = logging.getLogger(__name__)

_FULL_SCALE = {torch.uint8: 255.0, torch.uint16: 65535.0}


def scale_image(image: Tensor) -> Tensor:
    """Return the image as float32 in [0, 1], scaled by its dtype, never by its own maximum.

    Raises:
        VolumeFormatError: dtype other than uint8, uint16, float32 or float64.
    """
    if image.dtype in _FULL_SCALE:
        return image.to(torch.float32) / _FULL_SCALE[image.dtype]
    if image.is_floating_point():
        return image.float()
    raise VolumeFormatError(
        f"image batch has dtype {image.dtype}; expected uint8, uint16 or float in [0, 1]."
    )


class SurfaceModule(SegmentationModule):
    """LightningModule of every surface network.

    The model returns `surface_logit` (b, 1, z, y, x) and, if it has the head, `normals`
    (b, 3, z, y, x). Metrics get (mask, label) of shape (b, 1, z, y, x), mask in {0, 1}, label in
    {0, 1, 2}.

    Args:
        model, loss, optimizer, scheduler, metrics, transforms, threshold: see SegmentationModule.
        channels_last: run in channels_last_3d; None = where it is faster (CUDA, or bf16 on CPU;
            fp32 on CPU is 15 % slower with it).
        collapse_patience: warn after this many steps in a row with an all-zero or all-one mask.
    """

    logit_head = "surface_logit"

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
        channels_last: bool | None = None,
        collapse_patience: int = 50,
    ) -> None:
        super().__init__(
            model=model,
            loss=loss,
            optimizer=optimizer,
            scheduler=scheduler,
            metrics=metrics,
            transforms=transforms,
            threshold=threshold,
        )
        self.channels_last = channels_last
        self.collapse_patience = collapse_patience
        self._collapsed_steps = 0

    def setup(self, stage: str) -> None:
        """Choose the memory format once the device and the precision are known."""
        del stage
        if self.channels_last is None:
            on_gpu = self.trainer.strategy.root_device.type == "cuda"
            self.channels_last = on_gpu or str(self.trainer.precision).startswith("bf16")
        if self.channels_last:
            # torch's stubs lack this overload
            self.model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def forward_batch(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return the heads for `batch["image"]` (b, 1, z, y, x), uint8 or uint16 or float."""
        image = scale_image(batch["image"])
        if self.channels_last:
            image = to_channels_last(image)
        outputs = self.model(image)
        assert isinstance(outputs, dict)
        return outputs

    @torch.no_grad()
    def predict_batch(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return {"probability", "normals"} as float32; normals absent without the head."""
        outputs = self.forward_batch(batch)
        heads = {"probability": self.probability(outputs)}
        if "normals" in outputs:
            heads["normals"] = outputs["normals"].float()
        return heads

    def update_metrics(self, outputs: Mapping[str, Tensor], batch: dict[str, Any]) -> None:
        """Threshold the probability and feed every metric with (mask, label)."""
        mask = (self.probability(outputs) > self.threshold).to(torch.uint8)
        for metric in self.metrics.values():
            assert isinstance(metric, Metric)
            metric.update(mask, batch["label"])

    @property
    def collapsed(self) -> bool:
        """Whether the mask was all zero or all one for `collapse_patience` steps in a row."""
        return self._collapsed_steps >= self.collapse_patience

    def after_training_step(self, outputs: Mapping[str, Tensor], batch: dict[str, Any]) -> None:
        """Warn once when the network plays dead: predicts nothing, or everything, for long."""
        del batch
        share = self.log_foreground_share(outputs)
        collapsed = bool((share == 0) | (share == 1))
        self._collapsed_steps = self._collapsed_steps + 1 if collapsed else 0
        if self._collapsed_steps == self.collapse_patience:
            log.warning(
                "The network predicts %s for %d steps in a row. Raise loss.term.bce.fn.pos_weight "
                "(10 suits 5 %% surface), lower optimizer.lr, or check the labels with "
                "`vesuvius verify`.",
                "surface everywhere" if float(share) == 1 else "no surface at all",
                self._collapsed_steps,
            )
