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

from vesuvius.data.prior import ImageWithPrior, PriorReader
from vesuvius.data.region import RegionView
from vesuvius.data.remote import RemoteSettings, as_source
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
from vesuvius.runtime.infer_blocks import (
    is_large,
    predict_in_blocks,
    rank_suffix,
    use_blocks,
    which_rank,
    winding_command,
)
from vesuvius.runtime.infer_checks import check_settings
from vesuvius.runtime.infer_facts import model_facts, provenance
from vesuvius.runtime.memory_errors import inference_memory
from vesuvius.runtime.nnunet_predict import NnunetInference, nnunet_inference
from vesuvius.runtime.results import Results
from vesuvius.runtime.run_folder import file_hash
from vesuvius.storage.block_store import remove_leftovers
from vesuvius.types import Postprocess, Report

log = logging.getLogger(__name__)


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
    models: tuple[Mapping[str, str], ...] = ()


def infer(cfg: DictConfig) -> float | None:
    """Predict every volume; write masks, reports and scores; return the mean score if labelled.

    A volume that fails is named, the others go on, and the call ends with an error. Volumes
    that an earlier call finished with the same settings are not predicted again.

    Raises:
        VesuviusError: nothing could be started, or some volumes failed.
    """
    check_settings(cfg)
    volumes = find_volumes(cfg)
    job = make_job(cfg)
    report = RunReport(total_volumes=len(volumes))
    suffix = rank_suffix(cfg)
    results = Results(job.out_dir, pictures=cfg.pictures, suffix=suffix)
    without_mask = []
    with Bar(*Bar.get_default_columns()[:3], TimeElapsedColumn(), TimeRemainingColumn(),
             TextColumn("{task.fields[state]}"), transient=True) as bar:  # fmt: skip
        task = bar.add_task("volumes", total=len(volumes), state="")
        for number, (volume_id, path) in enumerate(volumes.items()):

            def show(state: Any, number: int = number, volume_id: str = volume_id) -> None:
                share = number + state.done / state.total
                bar.update(task, completed=share, state=f"{volume_id}: {state}")

            try:
                large = handle_volume(job, volume_id, path, report, results, show)
                without_mask += [] if large is None else [large]
            except VesuviusError as error:
                report.add_failed(volume_id, error)
                log.error("%s: %s", volume_id, error)  # noqa: TRY400 - the message is the news
            bar.update(task, completed=number + 1)
    report.write(job.out_dir / f"report{suffix}.json")
    log.info(
        "%d predicted, %d already there, %d failed; %.1f s a volume, %.0f s for all %d",
        *(len(report.volumes), len(report.skipped), len(report.failed)),
        *(report.seconds_per_volume, report.projected_seconds, report.total_volumes),
    )
    score = results.finish()
    for large in without_mask:
        log.info(
            "%s is larger than whole_voxels: no mask yet. This numbers its sheets, in blocks; see "
            "--workers and --dask:\n%s",
            *(large.name, winding_command(large)),
        )
    if report.failed:
        raise ConfigError(f"{len(report.failed)} volumes failed: {', '.join(report.failed)}.")
    return score


def find_volumes(cfg: DictConfig) -> dict[str, Path | str]:
    """Return id -> path or URL of what `volume`, `split` and `max_volumes` name."""
    source = as_source(str(cfg.volume))
    if isinstance(source, str):
        return {Volume(source).name: source}
    volumes: dict[str, Path | str] = {**list_volumes(source)}
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
        else build_ensemble(trained, weights=cfg.weights, normals=cfg.normals, **how)
    )
    if imported is not None and cfg.normals != "head":
        raise ConfigError(
            f"normals={cfg.normals}: an imported nnU-Net model is predicted as nnU-Net does, "
            "without normals; leave normals=head (winding does without them)."
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
    if cfg.normals != "head":
        settings["normals"] = cfg.normals
    if cfg.prior is not None:
        settings["prior"] = str(cfg.prior)
    outputs = [stored_outputs(net, cfg.normals) for net in trained]
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
        models=tuple(model_facts(members, hashes)),
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


def stored_outputs(network: nn.Module, normals: str) -> tuple[str, ...]:
    """Return what to store of a network: the probability, and normals where there are any."""
    known = normals != "head" or NORMALS in getattr(network, "heads", (NORMALS,))
    return (PROBABILITY, NORMALS) if known else (PROBABILITY,)


def open_image(cfg: DictConfig, path: Path | str) -> RegionView:
    """Return the volume at a path or URL, or the level and region of it that `cfg` selects."""
    remote = RemoteSettings(**{str(key): value for key, value in cfg.remote.items()})
    return RegionView(Volume(path, level=cfg.level, remote=remote), cfg.region_zyx)


def volume_settings(job: Job, path: Path | str, image: RegionView) -> dict[str, Any]:
    """Return what decides the prediction of one volume, as compared on resume."""
    settings = {**job.settings, "source": str(path), "shape_zyx": list(image.shape)}
    if job.cfg.level:
        settings["level"] = job.cfg.level
    if not image.whole:
        settings["origin_zyx"] = list(image.origin_zyx)
    for key in ("air_max", "mask"):
        if job.cfg[key] is not None:
            settings[key] = job.cfg[key]
    return settings


def handle_volume(
    job: Job, volume_id: str, path: Path | str, report: RunReport, results: Results, show: Any
) -> Path | None:
    """Predict one volume (unless done), write its masks, hand them to the results.

    Returns:
        The prediction if it is too large for a mask, else None.
    """
    image = open_image(job.cfg, path)
    settings = volume_settings(job, path, image)
    facts = provenance(job.cfg, models=job.models, settings=settings, image=image)
    if finished_prediction(job.out_dir, volume_id, settings):
        remove_leftovers(prediction_path(job.out_dir, volume_id))
        report.add_skipped(volume_id)
        if which_rank(job.cfg)[0] != 0:
            return None  # the masks of what is there are rank 0's
    elif use_blocks(job.cfg, image):
        figures = predict_blockwise(job, volume_id, image, settings, facts, show)
        report.add(volume_id, figures)
        if not figures["finished"]:
            log.info("%s: another process finishes it", volume_id)
            return None
    else:
        prediction = predict_one(job, volume_id, image, settings, facts, show)
        report.add(volume_id, prediction.report)
    if is_large(job.cfg, image):
        return prediction_path(job.out_dir, volume_id)
    write_masks(job, volume_id, path, image, facts, results)
    return None


def write_masks(
    job: Job,
    volume_id: str,
    path: Path | str,
    image: RegionView,
    facts: Mapping[str, Any],
    results: Results,
) -> None:
    """Post-process one stored prediction, write its masks, hand them to the results."""
    probability, normals = load_prediction(prediction_path(job.out_dir, volume_id))
    threshold_mask = (probability > job.cfg.threshold).astype(np.uint8)
    write_mask(
        job.out_dir / "threshold" / f"{volume_id}_mask.tif", threshold_mask, provenance=facts
    )
    mask, figures = threshold_mask, Report()
    if job.postprocess is not None:
        start = time.perf_counter()
        result = job.postprocess(probability, normals)
        log.info("%s: post-processed in %.1f s", volume_id, time.perf_counter() - start)
        # No times beside a mask: the same work gives the same bytes.
        mask = result.mask
        figures = {k: v for k, v in result.report.items() if not k.startswith("seconds")}
    steps = (
        OmegaConf.to_container(job.cfg.postprocess, resolve=True) if job.cfg.postprocess else None
    )
    facts = {**facts, "postprocess": steps}
    write_mask(job.out_dir / f"{volume_id}_mask.tif", mask, provenance=facts)
    write_json(job.out_dir / f"{volume_id}_mask.json", {**facts, "figures": figures})
    truth = path if job.cfg.level == 0 and isinstance(path, Path) else None
    masks = {"threshold": threshold_mask, "final": mask}
    results.add(volume_id, truth, image, probability, masks, region=image.slices)
    if not job.cfg.save_probability:
        remove_prediction(job.out_dir, volume_id)


def predict_blockwise(
    job: Job,
    volume_id: str,
    image: RegionView,
    settings: Mapping[str, Any],
    facts: Mapping[str, Any],
    show: Any,
) -> Report:
    """Predict what is missing of one volume's block store."""
    if job.nnunet is not None or job.prior is not None:
        raise ConfigError(
            "blocks=true does not go with imported nnU-Net models or second stages (prior); use "
            "blocks=false and a region_zyx that fits into memory"
        )
    with inference_memory(job.roi_zyx, job.cfg.batch_size):
        return predict_in_blocks(
            job.cfg,
            job.predict,
            volume_id,
            image,
            roi_zyx=job.roi_zyx,
            outputs=job.outputs,
            settings=settings,
            provenance=facts,
            show=show,
        )


def with_prior(image: RegionView, prior: Path, volume_id: str) -> ImageWithPrior:
    """Return the image and its former prediction as one volume of two channels."""
    reader = PriorReader(prior, volume_id, shape_zyx=image.shape, dtype=image.dtype)
    return ImageWithPrior(image, reader)


def predict_one(
    job: Job,
    volume_id: str,
    image: RegionView,
    settings: Mapping[str, Any],
    facts: Mapping[str, Any],
    show: Any,
) -> VolumePrediction:
    """Stream one volume's prediction into its store; nothing is left after a failure."""
    if job.cfg.mask is not None or job.cfg.air_max is not None:
        raise ConfigError("mask and air_max are for block inference: give blocks=true with them")
    with (
        inference_memory(job.roi_zyx, job.cfg.batch_size),
        PredictionWriter(
            job.out_dir,
            volume_id,
            shape_zyx=image.shape,
            outputs=job.outputs,
            settings=settings,
            provenance=facts,
            voxel_size_zyx_um=image.volume.voxel_size_zyx_um,
            origin_zyx=image.origin_zyx,
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
