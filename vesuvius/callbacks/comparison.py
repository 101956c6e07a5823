"""Pictures and mask of the same validation crop after each epoch."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import numpy.typing as npt
import tifffile
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from vesuvius.callbacks.schedule import is_due
from vesuvius.errors import ConfigError
from vesuvius.pictures.comparison import comparison_panel
from vesuvius.pictures.view3d import RENDERERS, Renderer, view3d
from vesuvius.storage.files import write_bytes
from vesuvius.types import SURFACE


class ComparisonCallback(Callback):
    """Draws fixed validation crops after an epoch, on rank zero, without any collective.

    The crops are those with most labelled surface among the first validation batches, kept for the
    whole run. Writes `epoch<NNN>_comparison.png`, `epoch<NNN>_pred_mask.tif` (uint8, 0 and 1) and
    `epoch<NNN>_3d_comparison.png`; further crops get `_1`, `_2`, ... before the suffix. The panel
    also goes to every logger that takes images. Silent in the sanity check and `fast_dev_run`.

    Args:
        folder: where the files go.
        every_n_epochs: every n-th epoch and the last.
        num_crops: crops to draw.
        search_batches: validation batches to choose the crops from.
        view3d: None for no 3-D view, else "auto", "pyvista" or "numpy".
        threshold: probability from which a voxel counts as surface.
    """

    def __init__(
        self,
        *,
        folder: str,
        every_n_epochs: int = 1,
        num_crops: int = 1,
        search_batches: int = 8,
        view3d: Renderer | None = "auto",
        threshold: float = 0.5,
    ) -> None:
        for name, value in {
            "every_n_epochs": every_n_epochs,
            "num_crops": num_crops,
            "search_batches": search_batches,
        }.items():
            if value < 1:
                raise ConfigError(f"callbacks.comparison.{name}={value}; expected >= 1.")
        if view3d is not None and view3d not in RENDERERS:
            raise ConfigError(
                f"callbacks.comparison.view3d='{view3d}'; expected null or one of {RENDERERS}."
            )
        self.folder = Path(folder)
        self.every_n_epochs = every_n_epochs
        self.num_crops = num_crops
        self.search_batches = search_batches
        self.view3d = view3d
        self.threshold = threshold
        self._crops: list[tuple[int, dict[str, Any]]] = []
        self._chosen = False

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the crops with most surface while the first batches pass."""
        del pl_module, outputs, dataloader_idx
        if self._chosen or not trainer.is_global_zero or trainer.sanity_checking:
            return
        if batch_idx >= self.search_batches:
            return
        self._crops = richest_crops(self._crops, batch, keep=self.num_crops)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Predict and draw the crops when due."""
        if not trainer.is_global_zero or trainer.sanity_checking:
            return
        self._chosen = bool(self._crops)
        if trainer.state.fn != TrainerFn.FITTING or not is_due(trainer, self.every_n_epochs):
            return
        for number, (_, crop) in enumerate(self._crops):
            heads = predict_crop(trainer, pl_module, crop)
            name = f"epoch{trainer.current_epoch:03d}_{{}}" + (f"_{number}" if number else "")
            pictures = self._write(crop, heads, name=name, epoch=trainer.current_epoch)
            for key, path in pictures.items():
                send_image(trainer, path, key=f"val/{key}" + (f"_{number}" if number else ""))

    def _write(
        self, crop: dict[str, Any], heads: dict[str, Any], *, name: str, epoch: int
    ) -> dict[str, Path]:
        """Write the files of one crop and return the pictures by name."""
        pictures: dict[str, Path] = {}
        probability = heads["probability"][0]
        label = crop["label"][0, 0].numpy()
        title = f"epoch {epoch}   volume {crop['volume_id']}"
        mask = (probability >= self.threshold).astype(np.uint8)
        write_mask(self.folder / f"{name.format('pred_mask')}.tif", mask)
        if self.view3d is not None:
            view = view3d(
                self.folder / f"{name.format('3d_comparison')}.png",
                label=label,
                probability=probability,
                threshold=self.threshold,
                title=title,
                renderer=self.view3d,
            )
            if view is not None:
                pictures["view3d"] = view
        pictures["comparison"] = comparison_panel(
            self.folder / f"{name.format('comparison')}.png",
            image=crop["image"][0, 0].float().numpy(),
            label=label,
            probability=probability,
            normals=heads.get("normals"),
            title=title,
            threshold=self.threshold,
        )
        return pictures


def richest_crops(
    crops: list[tuple[int, dict[str, Any]]], batch: Mapping[str, Any], *, keep: int
) -> list[tuple[int, dict[str, Any]]]:
    """Return the `keep` crops with most surface of those kept so far and the batch's samples.

    A crop is a batch of one on the CPU: {"image", "label": (1, 1, z, y, x), "volume_id": str}. Of
    equal ones the earlier stays.
    """
    for index, label in enumerate(batch["label"]):
        surface = int((label == SURFACE).sum())
        if len(crops) == keep and surface <= crops[-1][0]:
            continue
        names = batch.get("volume_id")
        crop = {
            "image": batch["image"][index : index + 1].cpu().clone(),
            "label": label[None].cpu().clone(),
            "volume_id": str(names[index]) if names is not None else "",
        }
        crops = sorted([*crops, (surface, crop)], key=lambda entry: -entry[0])[:keep]
    return crops


def predict_crop(
    trainer: Trainer, pl_module: LightningModule, crop: Mapping[str, Any]
) -> dict[str, npt.NDArray[np.float32]]:
    """Return "probability" (1, z, y, x) and, with that head, "normals" (3, z, y, x) of one crop."""
    batch = {
        name: value.to(pl_module.device) if isinstance(value, Tensor) else value
        for name, value in crop.items()
    }
    with torch.no_grad(), trainer.precision_plugin.forward_context():
        heads = pl_module.predict_batch(batch)  # type: ignore[operator]
    arrays = {name: head[0].float().cpu().numpy() for name, head in heads.items()}
    return {name: arrays[name] for name in ("probability", "normals") if name in arrays}


def write_mask(path: Path, mask: npt.NDArray[np.uint8]) -> Path:
    """Write a (z, y, x) uint8 mask as LZW TIFF, atomically; return the path."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, mask, compression="lzw", photometric="minisblack")
    return write_bytes(path, buffer.getvalue())


def send_image(trainer: Trainer, path: Path, *, key: str) -> None:
    """Hand a PNG to every logger that takes images (wandb, TensorBoard); none is fine."""
    for logger in trainer.loggers:
        if hasattr(logger, "log_image"):
            logger.log_image(key=key, images=[str(path)], step=trainer.global_step)
            continue
        add_image = getattr(getattr(logger, "experiment", None), "add_image", None)
        if add_image is not None:
            picture = matplotlib.image.imread(path)[..., :3]
            add_image(key, picture, trainer.global_step, dataformats="HWC")
