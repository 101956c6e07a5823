"""Scores whole validation hearts on a dense grid and pictures one of them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torchmetrics import Metric

from vesuvius.callbacks.schedule import is_due
from vesuvius.errors import ConfigError
from vesuvius.inference.heart import cube_points, predict_points
from vesuvius.pictures.hearts import draw_hearts
from vesuvius.types import HEART_CLASSES


class TruthAt(Protocol):
    """True labels of a prepared heart at points of its cube."""

    def __call__(self, case: Path, points: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8] | None:
        """Return (...) labels at (..., 3) points, None if the case has no label map."""
        ...


class HeartDenseValidation(Callback):
    """Decodes validation hearts on a grid of the cube: `val/dense/union_iou`, `.../class_dice`, ...

    Point scores hid the failure of the original project (point IoU 0.70 at a 3-D IoU of 0.10), so
    that the end of every fit reports these. The first validation epoch is scored too, so that a
    monitored value exists. Each rank takes its share of the hearts; the metric synchronises itself.

    Args:
        metric: updated with (labels, true labels), (r, r, r) each.
        truth_at: true labels of a case at points.
        resolution: r, cells of the cube an axis.
        every_n_epochs: score every n-th epoch and the last.
        max_hearts: the first so many; None = all.
        folder: the picture `epoch<NNN>_hearts.png` of the first heart goes there after the last
            epoch and every `picture_every_n_epochs`; None = no pictures.
        picture_every_n_epochs: see there; 0 = after the last epoch only.
        class_names: of classes 1..K.

    Raises:
        ConfigError: a number out of range.
    """

    def __init__(
        self,
        *,
        metric: Metric,
        truth_at: TruthAt,
        resolution: int = 128,
        every_n_epochs: int = 10,
        max_hearts: int | None = None,
        folder: str | None = None,
        picture_every_n_epochs: int = 0,
        class_names: tuple[str, ...] | list[str] = HEART_CLASSES,
    ) -> None:
        if every_n_epochs < 1 or resolution < 8 or picture_every_n_epochs < 0:
            raise ConfigError(
                f"callbacks.heart_dense.every_n_epochs={every_n_epochs} must be >= 1, "
                f"resolution={resolution} >= 8, picture_every_n_epochs={picture_every_n_epochs} "
                ">= 0."
            )
        self.metric = metric
        self.truth_at = truth_at
        self.resolution = resolution
        self.every_n_epochs = every_n_epochs
        self.max_hearts = max_hearts
        self.folder = Path(folder) if folder else None
        self.picture_every_n_epochs = picture_every_n_epochs
        self.class_names = tuple(class_names)
        self._scored_before = False

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score when due; every rank logs the synchronised numbers."""
        first = not self._scored_before and not trainer.sanity_checking
        if getattr(trainer, "fast_dev_run", False) or not trainer.max_epochs:
            return
        if not is_due(trainer, self.every_n_epochs) and not first:
            return
        cases: list[Path] = trainer.datamodule.val_volumes()[: self.max_hearts]  # type: ignore[attr-defined]
        if not cases:
            return
        self._scored_before = True
        self.metric.to(pl_module.device)
        points = cube_points(self.resolution)
        dataset: Any = trainer.datamodule.val_dataset  # type: ignore[attr-defined]
        for number in range(trainer.global_rank, len(cases), trainer.world_size):
            truth = self.truth_at(cases[number], points)
            if truth is None:
                continue
            labels = self.predict(trainer, pl_module, dataset[number], points)
            self.metric.update(torch.from_numpy(labels), torch.from_numpy(truth))
            if number == 0 and self.folder is not None and self._picture_due(trainer):
                rows = [("truth", truth), ("prediction", labels)]
                name = f"epoch{trainer.current_epoch:03d}_hearts.png"
                draw_hearts(rows, self.class_names, self.folder / name)
        for name, value in self.metric.compute().items():
            shown = name in ("union_iou", "class_dice")
            pl_module.log(f"val/dense/{name}", value, prog_bar=shown, rank_zero_only=False)
        self.metric.reset()
        trainer.strategy.barrier("heart_dense")

    def predict(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        sample: Mapping[str, Any],
        points: npt.NDArray[np.float32],
    ) -> npt.NDArray[np.uint8]:
        """Return (...) labels of one heart at (..., 3) points."""
        encode: Callable[[Tensor], Tensor] = pl_module.encode_surface  # type: ignore[assignment]
        decode: Callable[..., Mapping[str, Tensor]] = pl_module.decode_points  # type: ignore[assignment]
        device = pl_module.device
        surface = torch.from_numpy(sample["surface"]).unsqueeze(0).to(device)
        valid = torch.from_numpy(sample["valid_class_mask"]).to(device)
        with trainer.precision_plugin.forward_context():
            latents = encode(surface)
            return predict_points(
                lambda part: decode(latents, part, valid),
                points,
                num_classes=len(valid),
                device=device,
            ).labels

    def _picture_due(self, trainer: Trainer) -> bool:
        epoch = trainer.current_epoch + 1
        every = self.picture_every_n_epochs
        return epoch == trainer.max_epochs or (every > 0 and epoch % every == 0)
