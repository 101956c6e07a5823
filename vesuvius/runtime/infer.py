"""Inference of one or many volumes with a run's network: predict, post-process, score."""

import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.progress import Progress as Bar
from rich.progress import TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import nn

from vesuvius import __version__
from vesuvius.data.prior import ImageWithPrior, PriorReader
from vesuvius.data.sources import list_volumes
from vesuvius.data.volume import Volume
from vesuvius.errors import ConfigError, VesuviusError
from vesuvius.inference import (
    PredictionWriter,
    RunReport,
    VolumePrediction,
    finished_prediction,
    predict_volume,
    write_mask,
)
from vesuvius.inference.accumulate import NORMALS, PROBABILITY
from vesuvius.inference.store import load_prediction, prediction_path, write_json
from vesuvius.runtime.ensemble import (
    build_ensemble,
    common_patch,
    common_volume_ids,
    find_members,
)
from vesuvius.runtime.memory_errors import inference_memory
from vesuvius.runtime.nnunet_predict import NnunetInference, nnunet_inference
from vesuvius.runtime.provenance import git_commit
from vesuvius.runtime.results import Results
from vesuvius.runtime.run_folder import file_hash
from vesuvius.types import Postprocess, Report

log = logging.getLogger(__name__)


class SlicedVolume:
    """A `Volume` that reads like an array: `image[z0:z1, y0:y1, x0:x1]`."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self.shape = volume.shape_zyx
        self.dtype = volume.dtype

    def __getitem__(self, key: tuple[slice, slice, slice]) -> Any:
        """Return the box of three slices with step 1."""
        bounds = [part.indices(size) for part, size in zip(key, self.shape, strict=True)]
        (z0, z1, _), (y0, y1, _), (x0, x1, _) = bounds
        return self._volume.read((z0, y0, x0), (z1, y1, x1))


@dataclass(frozen=True, slots=True)
class Job:
    """What stays the same for all volumes of one call."""

    cfg: DictConfig
    out_dir: Path
    predict: Any
    roi_zyx: list[int]
    settings: Mapping[str, Any]
    postprocess: Postprocess | None
    outputs: tuple[str, ...] = (PROBABILITY, NORMALS)
    nnunet: NnunetInference | None = None
    prior: Path | None = None


def infer(cfg: DictConfig) -> float | None:
    """Predict every volume; write masks, reports and scores; return the mean score if labelled.

    A volume that fails is named, the others go on, and the call ends with an error. Volumes
    that an earlier call finished with the same settings are not predicted again.

    Raises:
        VesuviusError: nothing could be started, or some volumes failed.
    """
    volumes = find_volumes(cfg)
    job = make_job(cfg)
    report = RunReport(total_volumes=len(volumes))
    results = Results(job.out_dir, pictures=cfg.pictures)
    with Bar(*Bar.get_default_columns()[:3], TimeElapsedColumn(), TimeRemainingColumn(),
             TextColumn("{task.fields[state]}"), transient=True) as bar:  # fmt: skip
        task = bar.add_task("volumes", total=len(volumes), state="")
        for number, (volume_id, path) in enumerate(volumes.items()):

            def show(state: Any, number: int = number, volume_id: str = volume_id) -> None:
                share = number + state.done / state.total
                bar.update(task, completed=share, state=f"{volume_id}: {state}")

            try:
                handle_volume(job, volume_id, path, report, results, show)
            except VesuviusError as error:
                report.add_failed(volume_id, error)
                log.error("%s: %s", volume_id, error)  # noqa: TRY400 - the message is the news
            bar.update(task, completed=number + 1)
    report.write(job.out_dir / "report.json")
    log.info(
        "%d predicted, %d already there, %d failed; %.1f s a volume, %.0f s for all %d",
        *(len(report.volumes), len(report.skipped), len(report.failed)),
        *(report.seconds_per_volume, report.projected_seconds, report.total_volumes),
    )
    score = results.finish()
    if report.failed:
        raise ConfigError(f"{len(report.failed)} volumes failed: {', '.join(report.failed)}.")
    return score


def find_volumes(cfg: DictConfig) -> dict[str, Path]:
    """Return id -> path of what `volume`, `split` and `max_volumes` name."""
    volumes = list_volumes(Path(cfg.volume))
    if cfg.split is not None:
        wanted = common_volume_ids(find_members(cfg.run_dir, cfg.checkpoint), cfg.split)
        missing = sorted(set(wanted) - set(volumes))
        if missing:
            raise ConfigError(
                f"split={cfg.split} names {len(missing)} volumes that volume={cfg.volume} does not "
                f"hold, e.g. {missing[0]}."
            )
        volumes = {name: volumes[name] for name in wanted}
    return dict(list(volumes.items())[: cfg.max_volumes])


def make_job(cfg: DictConfig) -> Job:
    """Rebuild the network of the run, or those of several, and everything else needed once."""
    members = find_members(cfg.run_dir, cfg.checkpoint)
    trained = [member.run.network(member.checkpoint) for member in members]
    roi_zyx = list(cfg.roi_zyx) if cfg.roi_zyx else common_patch(members)
    how: dict[str, Any] = {"device": cfg.device, "precision": cfg.precision, "tta": cfg.tta}
    imported = None
    if len(members) == 1:
        imported = nnunet_inference(
            members[0].run.path, trained[0], roi_zyx=roi_zyx, overlap=cfg.overlap, **how
        )
    predict, network = (
        (None, imported)
        if imported is not None
        else build_ensemble(trained, weights=cfg.weights, **how)
    )
    check_prior(cfg.prior, int(getattr(trained[0], "in_channels", 1)))
    log.info(
        "%s on %s in %s, window %s, overlap %s, tta %s",
        " + ".join(str(member.checkpoint) for member in members),
        *(network.device, network.precision, roi_zyx, cfg.overlap, cfg.tta),
    )
    hashes = [file_hash(member.checkpoint) for member in members]
    settings: dict[str, Any] = {
        "checkpoint": hashes[0] if len(hashes) == 1 else hashes,
        "roi_zyx": roi_zyx,
        "overlap": cfg.overlap,
        "tta": cfg.tta,
        "precision": network.precision,
    }
    if cfg.weights is not None:
        settings["weights"] = list(cfg.weights)
    if cfg.prior is not None:
        settings["prior"] = str(cfg.prior)
    outputs = [stored_outputs(net) for net in trained]
    return Job(
        cfg=cfg,
        out_dir=Path(cfg.out_dir),
        predict=predict,
        roi_zyx=roi_zyx,
        settings=settings,
        postprocess=instantiate(cfg.postprocess, _convert_="all") if cfg.postprocess else None,
        outputs=min(outputs, key=len),
        prior=None if cfg.prior is None else Path(cfg.prior),
        nnunet=imported,
    )


def check_prior(prior: str | None, in_channels: int) -> None:
    """Raise ConfigError where a second stage lacks its prior, or a first stage got one."""
    if in_channels == 2 and prior is None:
        raise ConfigError(
            "this run refines predictions: give prior=<out_dir of the first stage's infer.py>, "
            "which holds <id>.zarr of the same volumes."
        )
    if in_channels != 2 and prior is not None:
        raise ConfigError(
            f"prior={prior}: the network reads {in_channels} channel; only second-stage networks "
            "(experiment=refine, deform) take a prior."
        )


def stored_outputs(network: nn.Module) -> tuple[str, ...]:
    """Return what to store of a network: the probability, and normals if it has that head."""
    heads = getattr(network, "heads", (NORMALS,))
    return (PROBABILITY, NORMALS) if NORMALS in heads else (PROBABILITY,)


def handle_volume(
    job: Job, volume_id: str, path: Path, report: RunReport, results: Results, show: Any
) -> None:
    """Predict one volume (unless done), write its masks, hand them to the results."""
    volume = Volume(path)
    image = SlicedVolume(volume)
    settings = {**job.settings, "source": str(path), "shape_zyx": list(image.shape)}
    if finished_prediction(job.out_dir, volume_id, settings):
        report.add_skipped(volume_id)
    else:
        prediction = predict_one(job, volume_id, image, settings, show)
        report.add(volume_id, prediction.report)
    probability, normals = load_prediction(prediction_path(job.out_dir, volume_id))
    threshold_mask = (probability > job.cfg.threshold).astype(np.uint8)
    write_mask(job.out_dir / "threshold" / f"{volume_id}_mask.tif", threshold_mask)
    mask, figures = threshold_mask, Report()
    if job.postprocess is not None:
        start = time.perf_counter()
        result = job.postprocess(probability, normals)
        mask, figures = result.mask, dict(result.report)
        figures["postprocess_s"] = time.perf_counter() - start
    write_mask(job.out_dir / f"{volume_id}_mask.tif", mask)
    write_json(
        job.out_dir / f"{volume_id}_mask.json",
        {
            "settings": settings,
            "postprocess": OmegaConf.to_container(job.cfg.postprocess, resolve=True)
            if job.cfg.postprocess
            else None,
            "figures": figures,
            "run_dir": str(job.cfg.run_dir),
            "vesuvius": __version__,
            "git_commit": git_commit(),
        },
    )
    results.add(volume_id, path, image, probability, {"threshold": threshold_mask, "final": mask})
    if not job.cfg.save_probability:
        remove_prediction(job.out_dir, volume_id)


def with_prior(image: SlicedVolume, prior: Path, volume_id: str) -> ImageWithPrior:
    """Return the image and its former prediction as one volume of two channels."""
    reader = PriorReader(prior, volume_id, shape_zyx=image.shape, dtype=image.dtype)
    return ImageWithPrior(image, reader)


def predict_one(
    job: Job, volume_id: str, image: SlicedVolume, settings: Mapping[str, Any], show: Any
) -> VolumePrediction:
    """Stream one volume's prediction into its store; nothing is left after a failure."""
    with (
        inference_memory(job.roi_zyx, job.cfg.batch_size),
        PredictionWriter(
            job.out_dir,
            volume_id,
            shape_zyx=image.shape,
            outputs=job.outputs,
            settings=settings,
        ) as writer,
    ):
        if job.nnunet is not None:
            prediction = job.nnunet.predict_volume(
                image, out=writer.arrays, progress=show, threshold=job.cfg.threshold
            )
        else:
            prediction = predict_volume(
                job.predict,
                image if job.prior is None else with_prior(image, job.prior, volume_id),
                channels=1 if job.prior is None else 2,
                roi_zyx=job.roi_zyx,
                overlap=job.cfg.overlap,
                batch_size=job.cfg.batch_size,
                device=job.cfg.device,
                out=writer.arrays,
                progress=show,
                threshold=job.cfg.threshold,
            )
        writer.finish(prediction.report)
    return prediction


def remove_prediction(folder: Path, volume_id: str) -> None:
    """Delete the stored probability of one volume."""
    shutil.rmtree(prediction_path(folder, volume_id), ignore_errors=True)
