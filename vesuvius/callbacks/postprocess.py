"""Post-processing of the validation predictions, on rank zero, and what it gains."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torchmetrics import Metric

from vesuvius.callbacks.schedule import is_due
from vesuvius.inference import write_mask
from vesuvius.inference.store import load_prediction, write_json
from vesuvius.types import Postprocess


class PostprocessCallback(Callback):
    """Runs a post-processing on the predictions that `VolumeValidation` left in `folder`.

    Only schedules: the work is `postprocess`, a plain function of arrays. Writes
    `<folder>/<id>_mask.tif` and `<folder>/<id>_postprocess.json`, logs `val/post/score` and its
    parts and `time/postprocess_s`. Must come after `VolumeValidation` in the callbacks.

    Args:
        postprocess: (probability, normals) -> PostprocessResult; None does nothing.
        metric: updated with (mask, label) of one volume by rank zero alone: it must not wait for
            other processes (`sync: false`).
        folder: where the predictions lie.
        every_n_epochs: every n-th epoch and the last.
    """

    def __init__(
        self,
        *,
        postprocess: Postprocess | None,
        metric: Metric,
        folder: str,
        every_n_epochs: int = 10,
    ) -> None:
        self.postprocess = postprocess
        self.metric = metric
        self.folder = Path(folder)
        self.every_n_epochs = every_n_epochs

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Solve and score on rank zero when due; every rank logs the same numbers."""
        if self.postprocess is None or not is_due(trainer, self.every_n_epochs):
            return
        values: dict[str, float] = {}
        if trainer.is_global_zero:
            scans: list[Any] = trainer.datamodule.val_scans()  # type: ignore[attr-defined]
            values = postprocess_folder(self.postprocess, self.metric, self.folder, scans)
        values = trainer.strategy.broadcast(values, src=0)
        for name, value in values.items():
            pl_module.log(name, value)


def postprocess_folder(
    postprocess: Postprocess, metric: Metric, folder: Path, scans: list[Any]
) -> dict[str, float]:
    """Write the masks of all predictions in `folder`; return mean scores and seconds a volume.

    Args:
        postprocess: see PostprocessCallback.
        metric: updated, computed and reset.
        folder: predictions `<id>.zarr`; volumes without one are left out.
        scans: validation volumes, with `volume_id` and `read_label()`.
    """
    seconds = []
    for scan in scans:
        prediction = folder / f"{scan.volume_id}.zarr"
        if not prediction.is_dir():
            continue
        start = time.perf_counter()
        result = postprocess(*load_prediction(prediction))
        seconds.append(time.perf_counter() - start)
        write_mask(folder / f"{scan.volume_id}_mask.tif", result.mask)
        write_json(folder / f"{scan.volume_id}_postprocess.json", result.report)
        metric.update(torch.from_numpy(result.mask), torch.from_numpy(scan.read_label()))
    if not seconds:
        return {}
    values = {f"val/post/{name}": float(value) for name, value in metric.compute().items()}
    metric.reset()
    return {**values, "time/postprocess_s": float(np.mean(seconds))}
