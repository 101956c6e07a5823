"""Scores whole validation volumes with the official metric."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torchmetrics import Metric

from vesuvius.callbacks.schedule import is_due
from vesuvius.callbacks.score_table import ScoreRow, publish_scores
from vesuvius.errors import ConfigError
from vesuvius.inference import PredictionWriter, VolumePrediction, predict_volume


class VolumeValidation(Callback):
    """Sliding-window inference over the validation volumes, each rank its share, then the score.

    Logs `val/score` and its parts (`val/topo`, `val/surface_dice`, `val/voi_score`): what the best
    checkpoint, early stopping and sweeps use. The first validation epoch is always scored, so
    that the monitored value exists.

    Args:
        metric: updated with (mask, label) of one volume, (z, y, x) uint8; synchronises itself.
        roi_zyx: window in voxels.
        overlap: share of a window, in [0, 1).
        threshold: probability above which a voxel counts as surface.
        every_n_epochs: score every n-th epoch and the last.
        max_volumes: only the first so many volumes; None = all.
        folder: the latest predictions go to `<folder>/<id>.zarr` (`PostprocessCallback` reads
            them), the score of every volume to `<folder>/scores.csv` and to the loggers as the
            table `val/volumes`; None keeps none.
    """

    def __init__(
        self,
        *,
        metric: Metric,
        roi_zyx: Sequence[int],
        overlap: float = 0.5,
        threshold: float = 0.5,
        every_n_epochs: int = 1,
        max_volumes: int | None = None,
        folder: str | None = None,
    ) -> None:
        if every_n_epochs < 1:
            raise ConfigError(
                f"callbacks.volume_validation.every_n_epochs={every_n_epochs}; expected >= 1."
            )
        self.metric = metric
        self.roi_zyx = tuple(roi_zyx)
        self.overlap = overlap
        self.threshold = threshold
        self.every_n_epochs = every_n_epochs
        self.max_volumes = max_volumes
        self.folder = Path(folder) if folder else None
        self._scored_before = False

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Predict and score when due; every rank logs the synchronised numbers."""
        first = not self._scored_before and not trainer.sanity_checking
        if not is_due(trainer, self.every_n_epochs) and not (first and trainer.max_epochs):
            return
        if getattr(trainer, "fast_dev_run", False):
            return
        scans: list[Any] = trainer.datamodule.val_scans()[: self.max_volumes]  # type: ignore[attr-defined]
        if not scans:
            return
        self._scored_before = True
        self.metric.to(pl_module.device)
        rows: list[ScoreRow] = []
        for scan in scans[trainer.global_rank :: trainer.world_size]:
            prediction = self.predict(trainer, pl_module, scan.volume_id, scan.image)
            mask = np.asarray(prediction.probability) > 255 * self.threshold
            label = torch.from_numpy(scan.read_label())
            own = self.metric(torch.from_numpy(mask.astype(np.uint8)), label)
            scores = {name: float(value) for name, value in own.items()}
            rows.append({"volume": scan.volume_id, "mask": "threshold", **scores})
        if self.folder is not None:
            publish_scores(trainer, rows, self.folder / "scores.csv", key="val/volumes")
        for name, value in self.metric.compute().items():
            pl_module.log(f"val/{name}", value, prog_bar=name == "score", rank_zero_only=False)
        self.metric.reset()
        trainer.strategy.barrier("volume_validation")

    def predict(
        self, trainer: Trainer, pl_module: LightningModule, volume_id: str, image: Any
    ) -> VolumePrediction:
        """Return the blended prediction of one (z, y, x) or (c, z, y, x) image.

        It is saved when there is a folder.
        """
        predict_batch: Callable[..., Mapping[str, Tensor]] = pl_module.predict_batch  # type: ignore[assignment]

        def network(windows: Tensor) -> Mapping[str, Tensor]:
            with trainer.precision_plugin.forward_context():
                heads: Mapping[str, Tensor] = predict_batch({"image": windows})
                return heads

        def run(out: Mapping[str, Any] | None) -> VolumePrediction:
            return predict_volume(
                network,
                image,
                roi_zyx=self.roi_zyx,
                overlap=self.overlap,
                device=pl_module.device,
                threshold=self.threshold,
                out=out,
                channels=1 if len(image.shape) == 3 else image.shape[0],
            )

        if self.folder is None:
            return run(None)
        names = ("probability", "normals")
        with PredictionWriter(
            self.folder,
            volume_id,
            shape_zyx=image.shape[-3:],
            outputs=names,
            settings={"epoch": trainer.current_epoch, "step": trainer.global_step},
        ) as writer:
            prediction = run(None)
            for name, array in writer.arrays.items():
                if name in prediction.outputs:
                    array[:] = prediction.outputs[name]
            writer.finish(prediction.report)
        return prediction
