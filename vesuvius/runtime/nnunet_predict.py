"""Inference of whole volumes with an imported nnU-Net model, as nnU-Net itself does it."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from vesuvius.errors import CheckpointError, ConfigError, VolumeFormatError
from vesuvius.inference import Progress, VolumePrediction
from vesuvius.inference.accumulate import PROBABILITY, STORED_MAX
from vesuvius.inference.device import select_device
from vesuvius.inference.network import DTYPES
from vesuvius.inference.nnunet import Normalisation, predict_nnunet
from vesuvius.inference.reading import ImageVolume
from vesuvius.models.nnunet import NnunetSurface
from vesuvius.types import FloatVolume

FILE = "nnunet.json"
FULL_SCALE = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0}


@dataclass(frozen=True, slots=True)
class NnunetInference:
    """How an imported model predicts a volume.

    Attributes:
        network: folds and heads.
        normalisation: from the plans.
        grey_max: full scale of the training volumes.
        roi: window, in the network's axis order.
        step_share: step between windows as a share of the window.
        mirror_axes: axes mirrored, () = none.
        device: where it runs.
        precision: "fp32", "fp16" or "bf16".
    """

    network: NnunetSurface
    normalisation: Normalisation
    grey_max: float
    roi: tuple[int, int, int]
    step_share: float
    mirror_axes: tuple[int, ...]
    device: torch.device
    precision: str

    def probability(
        self, image: ImageVolume, progress: Callable[[int, int], None] | None = None
    ) -> FloatVolume:
        """Return (z, y, x) float32 in [0, 1], equal to nnU-Net's own on the same device.

        Raises:
            VolumeFormatError: grey values of another scale than in training.
        """
        network = self.network
        return predict_nnunet(
            list(network.networks),
            self._grey_values(image),
            roi_zyx=self.roi,
            normalisation=self.normalisation,
            head=network.head,
            softmax=network.softmax,
            step_share=self.step_share,
            mirror_axes=self.mirror_axes,
            transpose=network.transpose,
            device=self.device,
            autocast=None if self.precision == "fp32" else DTYPES[self.precision],
            progress=progress,
        )

    def predict_volume(
        self,
        image: ImageVolume,
        *,
        out: Mapping[str, Any],
        progress: Callable[[Progress], None] | None,
        threshold: float,
    ) -> VolumePrediction:
        """Write round(255 p) to `out` and return it with the figures infer.py reports."""
        start, process, windows, peak = time.perf_counter(), psutil.Process(), 0, 0

        def tell(done: int, total: int) -> None:
            nonlocal windows, peak
            rss = process.memory_info().rss
            windows, peak = total, max(peak, rss)
            if progress is not None:
                seconds = time.perf_counter() - start
                left = seconds / done * (total - done)
                progress(Progress(done, total, seconds, left, rss / 2**20))

        probability = self.probability(image, tell)
        target = out[PROBABILITY]
        step = max(1, 2**26 // max(1, probability[0].size))
        for z in range(0, len(probability), step):  # bounds the temporaries
            part = probability[z : z + step]
            target[z : z + step] = np.round(part * STORED_MAX[PROBABILITY]).astype(np.uint8)
        seconds = time.perf_counter() - start
        return VolumePrediction(
            outputs=out,
            report={
                "shape_zyx": [float(n) for n in probability.shape],
                "windows": windows,
                "windows_skipped": 0,
                "blocks": 1,
                "seconds": seconds,
                "voxels_per_s": probability.size / seconds,
                "mask_share": float(np.mean(probability > threshold)),
                "rss_peak_mb": peak / 2**20,
            },
        )

    def _grey_values(self, image: ImageVolume) -> FloatVolume:
        """Return the volume as the float32 grey values nnU-Net would read from its file."""
        scale = FULL_SCALE.get(np.dtype(image.dtype).newbyteorder("="), 1.0)
        fixed = self.normalisation.scheme not in ("ZScoreNormalization", "RescaleTo01Normalization")
        if fixed and scale != self.grey_max:
            raise VolumeFormatError(
                f"the model was trained on grey values up to {self.grey_max:g} and normalises by "
                f"their figures, but this volume is {image.dtype} (up to {scale:g}). Convert it: "
                "another scale gives wrong probabilities without any other sign."
            )
        values = np.asarray(image[:, :, :]).astype(np.float32)
        if not np.isfinite(values).all():
            raise VolumeFormatError("image holds NaN or infinities; replace them by 0 first")
        return values


def nnunet_inference(
    folder: Path,
    network: object,
    *,
    roi_zyx: Sequence[int],
    overlap: float,
    tta: str,
    device: str,
    precision: str,
) -> NnunetInference | None:
    """Return how an imported model predicts; None for a run of our own.

    Args:
        folder: of the run; an imported one holds nnunet.json.
        network: of the run.
        roi_zyx: window in voxels of the volume.
        overlap: share of a window; 0.5 is nnU-Net's tile_step_size 0.5, 0.4 its 0.6.
        tta: "none", or "flips" to mirror the axes nnU-Net trained with (its default).
        device: "auto", "cpu", "cuda", ...
        precision: "auto" takes nnU-Net's own: fp32 on the CPU, fp16 on CUDA.

    Raises:
        ConfigError: a window the network cannot take, an overlap or tta nnU-Net does not have.
        CheckpointError: nnunet.json is missing parts.
    """
    path = folder / FILE
    if not isinstance(network, NnunetSurface) or not path.is_file():
        return None
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        normalisation = Normalisation(**facts["normalisation"])
        mirror_axes = tuple(int(axis) for axis in facts["mirror_axes"])
        grey_max = float(facts["grey_max"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is damaged ({type(error).__name__}: {error}); import the model again"
        ) from error
    chosen = select_device(device)
    z, y, x = (int(roi_zyx[axis]) for axis in network.transpose)
    wrong = [n % d for n, d in zip((z, y, x), network.divisor, strict=True)]
    if any(wrong):
        raise ConfigError(
            f"roi_zyx={list(roi_zyx)}: in the network's axis order {[z, y, x]} must be multiples "
            f"of {list(network.divisor)}."
        )
    return NnunetInference(
        network=network.eval().to(chosen),
        normalisation=normalisation,
        grey_max=grey_max,
        roi=(z, y, x),
        step_share=_step_share(overlap),
        mirror_axes=_mirror_axes(tta, mirror_axes),
        device=chosen,
        precision=_precision(precision, chosen),
    )


def _step_share(overlap: float) -> float:
    if not isinstance(overlap, (int, float)) or not 0 <= overlap < 1:
        raise ConfigError(f"overlap is {overlap}; an nnU-Net model takes one share in [0, 1).")
    return 1.0 - float(overlap)


def _mirror_axes(tta: str, allowed: tuple[int, ...]) -> tuple[int, ...]:
    if tta == "none":
        return ()
    if tta != "flips":
        raise ConfigError(f"tta={tta}: an nnU-Net model takes tta=none or tta=flips.")
    if not allowed:
        raise ConfigError("tta=flips, but this model was trained without mirroring; use tta=none.")
    return allowed


def _precision(precision: str, device: torch.device) -> str:
    if precision == "auto":
        return "fp16" if device.type == "cuda" else "fp32"
    if precision not in DTYPES or (precision == "fp16" and device.type == "cpu"):
        raise ConfigError(
            f"precision={precision}: expected auto, fp32, bf16, or fp16 (fp16 on a GPU only)."
        )
    return precision
