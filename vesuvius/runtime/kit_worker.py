"""One process of an offline kit: its volumes on its device within the time that is left."""

import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from vesuvius.data.volume import Volume
from vesuvius.errors import VesuviusError
from vesuvius.inference import predict_volume, prepare_network, surface_predictor, write_mask
from vesuvius.inference.budget import ModelSpeed, Rung, choose_rung
from vesuvius.inference.predictor import Tta
from vesuvius.inference.store import write_json
from vesuvius.runtime.nnunet_predict import nnunet_inference
from vesuvius.runtime.run_folder import RunFolder
from vesuvius.types import ByteVolume, FloatVolume, Postprocess

log = logging.getLogger(__name__)

PER_VOXEL = 1e-6
"""First guess of seconds a voxel beside the networks: 33 s for 320^3; measured from then on."""
THRESHOLD = 0.5
Prediction = tuple[FloatVolume, FloatVolume | None]


@dataclass(frozen=True, slots=True)
class Share:
    """What one process is to do; plain data, so that it can be sent.

    Attributes:
        kit: the kit's folder.
        volumes: id -> path.
        masks: folder for `<id>.tif`.
        device: "cpu", "cuda:0", ...
        deadline: time.time() at which all must be done.
        ladder: settings from best to fastest.
        report: JSON file for the figures.
        threads: torch threads on a CPU, 0 = torch's own choice.
        again: an earlier process with this share died; what it died in is not tried again.
    """

    kit: Path
    volumes: Mapping[str, Path]
    masks: Path
    device: str
    deadline: float
    ladder: tuple[Rung, ...]
    report: Path
    threads: int = 0
    again: bool = False


class KitModel:
    """A network of the kit, ours or an imported nnU-Net, behind one call."""

    def __init__(self, folder: Path, device: str) -> None:
        self.folder, self.device = folder, device
        run = RunFolder(folder)
        network = run.network(run.checkpoint("best"))
        z, y, x = run.patch_zyx()
        self.roi_zyx = (z, y, x)
        self._network: nn.Module = network
        imported = nnunet_inference(folder, network, **self._nnunet(Rung(0.5, "none")))
        self._ours = None if imported else prepare_network(network, device=device)
        self.speed = ModelSpeed(self.roi_zyx, self._ttas(imported is not None), 0.0)

    def _ttas(self, imported: bool) -> tuple[Tta, ...]:  # noqa: FBT001
        if not imported:
            return ("flips_rot90", "flips", "none")
        try:
            nnunet_inference(self.folder, self._network, **self._nnunet(Rung(0.5, "flips")))
        except VesuviusError:
            return ("none",)  # trained without mirroring
        return ("flips", "none")

    def _nnunet(self, rung: Rung) -> dict[str, Any]:
        return {
            "roi_zyx": self.roi_zyx,
            "overlap": rung.overlap,
            "tta": rung.tta,
            "device": self.device,
            "precision": "auto",
        }

    def predict(self, image: Any, rung: Rung) -> Prediction:
        """Return probability and normals (if there are any) of a (z, y, x) image in its dtype."""
        own = self.speed.usable(rung)
        start = time.perf_counter()
        if self._ours is None:
            found = nnunet_inference(self.folder, self._network, **self._nnunet(own))
            assert found is not None
            prediction: Prediction = (found.probability(image), None)
        else:
            result = predict_volume(
                surface_predictor(self._ours, tta=own.tta),
                image,
                roi_zyx=self.roi_zyx,
                overlap=own.overlap,
                device=self.device,
            )
            normals = result.normals
            prediction = (
                np.asarray(result.probability, np.float32) / np.float32(255),
                None if normals is None else np.asarray(normals, np.float32) / np.float32(127),
            )
        forwards = self.speed.forwards(cast("tuple[int, int, int]", image.shape), rung)
        self.speed.learn(time.perf_counter() - start, forwards)
        return prediction


@dataclass(slots=True)
class Worker:
    """State of one process.

    Attributes:
        share: what to do.
        models: the kit's networks.
        weights: of their probabilities, sum 1.
        postprocess: mask of a fused prediction.
        per_voxel: seconds a voxel beside the networks.
        figures: id -> rung, seconds, problem.
    """

    share: Share
    models: list[KitModel]
    weights: list[float]
    postprocess: Postprocess | None
    per_voxel: float = PER_VOXEL
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)

    def run(self) -> None:
        """Predict all volumes, the largest first; a mask is left for each."""
        todo = {name: Volume(path) for name, path in self.share.volumes.items()}
        order = sorted(todo, key=lambda name: -math.prod(todo[name].shape_zyx))
        self.figures = read_report(self.share.report) if self.share.again else {}
        for number, name in enumerate(order):
            if (self.share.masks / f"{name}.tif").is_file():
                continue
            if "started" in self.figures.get(name, {}):
                self.figures[name]["problem"] = "empty mask: the process died in this volume"
                write_mask(
                    self.share.masks / f"{name}.tif", np.zeros(todo[name].shape_zyx, np.uint8)
                )
            else:
                self.figures[name] = {"started": time.time()}
                self._save()
                self._one(name, todo[name], [todo[other].shape_zyx for other in order[number:]])
            self._save()

    def _save(self) -> None:
        write_json(self.share.report, {"device": self.share.device, "volumes": self.figures})

    def _one(self, name: str, volume: Volume, left: Sequence[tuple[int, int, int]]) -> None:
        """Predict one volume; any failure leaves an empty mask: the submission must be whole."""
        start = time.perf_counter()
        figures = self.figures[name]
        figures["shape_zyx"] = list(volume.shape_zyx)
        try:
            image = volume.read_all()
            if self.models[0].speed.seconds == 0:
                self._calibrate(image)
            rung = choose_rung(
                left,
                [model.speed for model in self.models],
                per_voxel=self.per_voxel,
                seconds_left=self.share.deadline - time.time(),
                ladder=self.share.ladder,
            )
            figures["setting"] = str(rung)
            if time.time() > self.share.deadline:
                raise TimeoutError("the time was over before this volume")  # noqa: TRY301
            network_start = time.perf_counter()
            probability, normals = self._fuse(image, rung)
            figures["network_s"] = time.perf_counter() - network_start
            mask = self._mask(probability, normals, figures)
        except Exception as error:
            log.error("%s: EMPTY MASK, because: %s: %s", name, type(error).__name__, error)  # noqa: TRY400
            figures["problem"] = f"empty mask: {type(error).__name__}: {error}"
            mask = np.zeros(volume.shape_zyx, np.uint8)
        write_mask(self.share.masks / f"{name}.tif", mask)
        figures["seconds"] = time.perf_counter() - start
        figures["voxels_per_s"] = math.prod(volume.shape_zyx) / figures["seconds"]
        rest = figures["seconds"] - figures.get("network_s", 0.0)
        if "problem" not in figures:
            self.per_voxel = rest / math.prod(volume.shape_zyx)
        log.info(
            "%s on %s: %s, %.1f s, %.0f s left",
            *(name, self.share.device, figures.get("setting"), figures["seconds"]),
            self.share.deadline - time.time(),
        )

    def _calibrate(self, image: Any) -> None:
        """Measure each network on one window of a real volume; the first call warms up."""
        for model in self.models:
            window = image[tuple(slice(0, n) for n in model.roi_zyx)]
            for _ in range(2):
                model.predict(window, Rung(0.0, "none"))
            log.info("%s: %.3f s a window", model.folder.name, model.speed.seconds)

    def _fuse(self, image: Any, rung: Rung) -> Prediction:
        """Return the weighted mean of the networks; normals with signs that agree."""
        total: FloatVolume | None = None
        normals: FloatVolume | None = None
        for model, weight in zip(self.models, self.weights, strict=True):
            probability, own = model.predict(image, rung)
            total = weight * probability if total is None else total + weight * probability
            if own is not None:
                if normals is not None:
                    own = own * np.where((normals * own).sum(0) < 0, np.float32(-1), np.float32(1))
                normals = weight * own if normals is None else normals + weight * own
        assert total is not None
        return total, normals

    def _mask(
        self, probability: FloatVolume, normals: FloatVolume | None, figures: dict[str, Any]
    ) -> ByteVolume:
        plain = (probability > THRESHOLD).astype(np.uint8)
        if self.postprocess is None:
            return plain
        try:
            return self.postprocess(probability, normals).mask
        except VesuviusError as error:
            log.warning("post-processing failed, plain threshold instead: %s", error)
            figures["problem"] = f"threshold mask: {error}"
            return plain


def read_report(path: Path) -> dict[str, dict[str, Any]]:
    """Return id -> figures of a report, {} if there is none yet."""
    if not path.is_file():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    return {str(name): dict(figures) for name, figures in content["volumes"].items()}


def work(share: Share) -> None:
    """Do one share; the entry point of a process."""
    if share.threads:
        torch.set_num_threads(share.threads)
    settings = OmegaConf.load(share.kit / "kit.yaml")
    postprocess = settings.postprocess
    models = [KitModel(share.kit / "models" / name, share.device) for name in settings.models]
    Worker(
        share=share,
        models=models,
        weights=[float(weight) for weight in settings.weights],
        postprocess=instantiate(postprocess, _convert_="all") if postprocess else None,
    ).run()
