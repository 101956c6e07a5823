"""Inference of hearts with a run's network: label map, class meshes, picture, scores."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from omegaconf import DictConfig

from vesuvius.data.heart.format import HeartCase, load_case
from vesuvius.data.heart.labels import write_label_map
from vesuvius.errors import CaseFormatError, ConfigError, VesuviusError
from vesuvius.inference.device import select_device
from vesuvius.inference.heart import HeartPrediction, predict_points
from vesuvius.inference.store import write_json
from vesuvius.metrics.heart.labels import class_overlap, inside_overlap
from vesuvius.metrics.heart.surfaces import class_surfaces
from vesuvius.models.vecset.field import FieldNetwork
from vesuvius.pictures.heart_slices import draw_heart_slices
from vesuvius.pictures.hearts import draw_hearts
from vesuvius.runtime.heart_inputs import Grid, encoder_input, make_grid, prepare_label_map
from vesuvius.runtime.heart_mesh import write_class_meshes
from vesuvius.runtime.run_folder import RunFolder
from vesuvius.types import HEART_CLASSES, Report

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HeartInferOptions:
    """How hearts are predicted.

    Attributes:
        checkpoint: "best", "last" or a path.
        input_classes: numbers or name of the classes the network sees; None = all there are.
        only_given: predict no class that it does not see; else it completes the heart.
        resolution: cells of the cube an axis; None = the voxels of the label map.
        mesh_format: "ply", "obj" or None for no meshes.
        picture: write a PNG of the classes.
        device: "auto", "cpu", "cuda", ...
        seed: of the surface points.
    """

    checkpoint: str = "best"
    input_classes: str | tuple[int, ...] | None = None
    only_given: bool = False
    resolution: int | None = None
    mesh_format: str | None = "ply"
    picture: bool = True
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.mesh_format not in (None, "ply", "obj"):
            raise ConfigError(f"mesh format {self.mesh_format!r}; expected ply, obj or none")
        if self.resolution is not None and self.resolution < 8:
            raise ConfigError(f"--resolution {self.resolution}; expected 8 or more")


def infer_hearts(
    run_dir: Path, inputs: Sequence[Path], out_dir: Path, options: HeartInferOptions
) -> list[Report]:
    """Predict every heart and return its report; one that fails is named, the others go on.

    `<id>_labels.nii.gz`, `<id>_<class>.ply`, `<id>.png`, `<id>_slices.png` and `<id>.json` go to
    `out_dir`; a NIfTI input also leaves its prepared case `<id>.npz` there.

    Args:
        run_dir: folder of a training run.
        inputs: prepared cases (.npz) or label maps (.nii, .nii.gz).
        out_dir: where the results go.
        options: see there.

    Raises:
        VesuviusError: nothing could be started, or some hearts failed.
    """
    if not inputs:
        raise ConfigError("no input; give prepared cases (.npz) or label maps (.nii.gz)")
    run = RunFolder(run_dir)
    device = select_device(options.device)
    network = run.network(run.checkpoint(options.checkpoint))
    if not isinstance(network, FieldNetwork):
        raise ConfigError(
            f"{run_dir}: trained {type(network).__name__}, which decodes no points; give the run "
            "of a heart experiment, e.g. experiment=heart_vecset_tiny."
        )
    network = network.to(device).eval()
    reports, failed = [], []
    for path in inputs:
        try:
            report = infer_heart(path, network, run.config, out_dir, options)
        except VesuviusError as error:
            log.error("%s: %s", path, error)  # noqa: TRY400 - a user's error, no traceback
            failed.append(path.name)
            continue
        log.info("%s: done in %s s", path.name, report["seconds"])
        reports.append(report)
    if failed:
        raise CaseFormatError(
            f"{len(failed)} of {len(inputs)} hearts failed: {', '.join(failed[:5])}; see above"
        )
    return reports


def infer_heart(
    path: Path,
    network: FieldNetwork,
    config: DictConfig,
    out_dir: Path,
    options: HeartInferOptions,
) -> Report:
    """Predict one heart and write its files; return figures about it."""
    begin = time.perf_counter()
    names = tuple(config.data.get("class_names", HEART_CLASSES))
    path = path if path.suffix == ".npz" else prepare_label_map(path, out_dir, names)
    case = load_case(path)
    surface = encoder_input(
        path, config, names, input_classes=options.input_classes, seed=options.seed
    )
    grid = make_grid(case, options.resolution)
    allowed = torch.zeros(network.num_classes)
    allowed[: len(names)] = 1
    if options.only_given:
        allowed = allowed * (surface[:, 3:].sum(0) > 0)
    device = next(network.parameters()).device
    allowed = allowed.to(device)
    with torch.inference_mode():
        latents, _ = network.encode(surface.unsqueeze(0).to(device))
    prediction = predict_points(
        lambda points: network.predict(latents, points, allowed),
        grid.points,
        num_classes=network.num_classes,
        device=device,
        with_fields=options.mesh_format is not None,
        block=network.block,
    )
    files = write_results(case, grid, prediction, names, out_dir, options)
    report: Report = {
        "case": case.case_id,
        "input_classes": [float(c + 1) for c in np.flatnonzero(surface[:, 3:].sum(0).numpy())],
        "seconds": round(time.perf_counter() - begin, 2),
        **score(prediction.labels, grid.truth, names, grid.spacing),
    }
    write_json(out_dir / f"{case.case_id}.json", {**report, "files": files})
    return report


def write_results(
    case: HeartCase,
    grid: Grid,
    prediction: HeartPrediction,
    names: tuple[str, ...],
    out_dir: Path,
    options: HeartInferOptions,
) -> list[str]:
    """Write label map, meshes and picture; return their names."""
    labels = out_dir / f"{case.case_id}_labels.nii.gz"
    write_label_map(labels, prediction.labels, grid.affine)
    files = [labels.name]
    if prediction.fields is not None and options.mesh_format is not None:
        files += write_class_meshes(
            prediction.fields,
            grid.affine,
            [out_dir / f"{case.case_id}_{name}.{options.mesh_format}" for name in names],
        )
    if options.picture:
        rows = [("prediction", prediction.labels)]
        if grid.truth is not None:
            rows.insert(0, ("input labels", grid.truth))
            slices = out_dir / f"{case.case_id}_slices.png"
            draw_heart_slices(grid.truth, prediction.labels, slices, class_names=names)
            files.append(slices.name)
        picture = out_dir / f"{case.case_id}.png"
        draw_hearts(rows, names, picture)
        files.append(picture.name)
    return files


def score(
    found: npt.NDArray[np.uint8],
    truth: npt.NDArray[np.uint8] | None,
    names: Sequence[str],
    spacing: Sequence[float],
) -> Report:
    """Return 3-D IoU of the whole; Dice, NSD (2 mm) and HD95 (mm) of every class; {} without truth.

    Classes that neither side has are left out.
    """
    if truth is None:
        return {}
    pair = torch.from_numpy(found)[None], torch.from_numpy(truth)[None]
    union = inside_overlap(pair[0] > 0, pair[1] > 0)
    dice = class_overlap(*pair, len(names)).dice[0]
    distance = class_surfaces(found, truth, spacing=spacing, num_classes=len(names))
    report: Report = {
        "iou_3d": round(float(union.iou[0]), 4),
        "class_dice": round(float(dice.nanmean()), 4),
    }
    for number, name in enumerate(names):
        if not torch.isnan(dice[number]):
            report[f"dice_{name}"] = round(float(dice[number]), 4)
            report[f"nsd_{name}"] = round(float(distance.nsd[number]), 4)
            report[f"hd95_mm_{name}"] = round(float(distance.hd95[number]), 2)
    return report
