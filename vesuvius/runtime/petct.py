"""Evaluation of lesion segmentation runs: scores, threshold sweep, prediction PNGs."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from omegaconf import OmegaConf
from torch import Tensor, nn

from vesuvius import __version__
from vesuvius.data.petct.dataset import PETCTDataset, collate_petct, read_image
from vesuvius.data.petct.layout import Triple, find_triples, merge
from vesuvius.data.petct.png import png_size, write_png
from vesuvius.data.splits import load_split
from vesuvius.errors import ConfigError, PairingError, VolumeNotFoundError
from vesuvius.inference.device import select_device
from vesuvius.inference.store import write_json
from vesuvius.metrics.lesion import FN, FP, HD95, TP, Floats, dice_of, iou_of, slice_rows, summarize
from vesuvius.runtime.run_folder import RunFolder, file_hash
from vesuvius.runtime.versions import git_commit
from vesuvius.runtime.weights import read_checkpoint
from vesuvius.types import ByteVolume

log = logging.getLogger(__name__)

SWEEP = tuple(round(0.2 + 0.05 * i, 2) for i in range(9))
"""Thresholds tried on the validation slices."""
CRITERION = "dice_positive"


@dataclass(frozen=True, slots=True)
class Trained:
    """A run's network, ready to predict.

    Attributes:
        run: its folder.
        checkpoint: whose weights it has.
        network: in evaluation mode on `device`.
        device: where it runs.
        image_size: edge that slices are averaged down to, or None.
    """

    run: RunFolder
    checkpoint: Path
    network: nn.Module
    device: torch.device
    image_size: int | None

    @torch.no_grad()
    def probability(self, image: Tensor) -> Tensor:
        """Return (b, 1, y, x) float32 for CT and PET (b, 2, y, x) uint8, as in training."""
        logit = self.network(image.to(self.device))["lesion_logit"]
        return torch.sigmoid(logit.float()).cpu()


def load_trained(run_dir: Path, *, checkpoint: str = "best", device: str = "auto") -> Trained:
    """Return the network of a run folder.

    Raises:
        ConfigError: no run there, or a run of another task.
        CheckpointError: no such checkpoint.
        DeviceError: the device is not there.
    """
    run = RunFolder(run_dir)
    if "PETCT" not in str(run.config.module.get("_target_")):
        raise ConfigError(
            f"{run_dir} trained {run.config.module.get('_target_')}, no CT-PET network; use "
            "infer.py for surface networks."
        )
    path = run.checkpoint(checkpoint)
    chosen = select_device(device)
    network = run.network(path).to(chosen).eval()
    return Trained(run, path, network, chosen, run.config.data.image_size)


def run_triples(run: RunFolder, split: str, root: Path | None = None) -> list[Triple]:
    """Return the slices of one side: of the run's own data, or of another root.

    Args:
        run: the run.
        split: "train", "val", "test" or "all".
        root: None = what the run was trained on; its split.json then says who trained.

    Raises:
        ConfigError: no such side.
        VolumeNotFoundError: the data are not there.
    """
    own = root is None
    folder = Path(_own_root(run)) if root is None else root
    sides = find_triples(folder)
    if split == "all":
        return merge(sides)
    if split in sides:
        return sides[split]
    saved = run.path / "split.json"
    if own and split in ("train", "val") and saved.is_file():
        by_name = {t.name: t for t in merge(sides)}
        return [by_name[name] for name in load_split(saved, list(by_name))[split]]
    raise ConfigError(
        f"--split {split}: {folder} has {sorted(sides)}"
        + ("" if own else "; a folder that is not pre-split is evaluated with --split all")
        + "."
    )


def _own_root(run: RunFolder) -> str:
    data = run.config.data
    root = OmegaConf.select(data, "root") or OmegaConf.select(data, "folder")
    if root is None:
        raise ConfigError(f"{run.path}: its configuration names no data folder; give --data.")
    return str(root)


def predictions(
    trained: Trained, triples: Sequence[Triple], *, batch_size: int
) -> Iterator[tuple[Tensor, dict[str, Any]]]:
    """Yield (probability (b, 1, y, x), batch) over the slices in order."""
    dataset = PETCTDataset(triples, image_size=trained.image_size, fixed=True)
    for begin in range(0, len(dataset), batch_size):
        samples = [dataset[i] for i in range(begin, min(begin + batch_size, len(dataset)))]
        batch = collate_petct(samples)
        image = batch["image"]
        assert isinstance(image, Tensor)
        yield trained.probability(image), dict(batch)


def sweep(
    trained: Trained, triples: Sequence[Triple], *, batch_size: int
) -> dict[float, dict[str, float]]:
    """Return threshold -> scores (without HD95)."""
    rows: dict[float, list[Floats]] = {threshold: [] for threshold in SWEEP}
    for probability, batch in predictions(trained, triples, batch_size=batch_size):
        for threshold, found in rows.items():
            mask = probability > threshold
            found.append(
                slice_rows(mask, batch["label"], batch["name"], batch["patient"], hd95=False)
            )
    return {threshold: summarize(np.concatenate(found)) for threshold, found in rows.items()}


def evaluate(
    trained: Trained,
    out: Path,
    *,
    split: str = "val",
    root: Path | None = None,
    threshold: float | None = None,
    batch_size: int = 8,
    save_predictions: bool = True,
) -> dict[str, Any]:
    """Score one side; write `results.json` and `predictions/<name>.png`; return the results.

    Args:
        trained: the network.
        out: folder to write to.
        split: "train", "val", "test" or "all".
        root: other data than the run's own.
        threshold: None = the best of the sweep over the run's validation slices, never over those
            that are scored (unless they are the same).
        batch_size: slices a forward.
        save_predictions: write the masks as PNG, 0 and 255.

    Raises:
        ConfigError: no such side, no validation slices to choose on, or a threshold out of range.
    """
    if threshold is not None and not 0 < threshold < 1:
        raise ConfigError(f"--threshold {threshold}; expected a value between 0 and 1.")
    if batch_size < 1:
        raise ConfigError(f"--batch-size {batch_size}; expected 1 or more.")
    triples = run_triples(trained.run, split, root)
    table: dict[float, dict[str, float]] = {}
    if threshold is None:
        table = sweep(trained, _validation(trained.run), batch_size=batch_size)
        threshold = max(table, key=lambda t: (table[t][CRITERION], -abs(t - 0.5)))
    rows = []
    for probability, batch in predictions(trained, triples, batch_size=batch_size):
        mask = probability > threshold
        rows.append(slice_rows(mask, batch["label"], batch["name"], batch["patient"]))
        if save_predictions:
            for name, one in zip(batch["name"], mask, strict=True):
                write_png(out / "predictions" / f"{name}.png", as_png(one))
    results = {
        "overall": summarize(np.concatenate(rows)),
        "threshold": threshold,
        "threshold_chosen_on": f"val, by {CRITERION}" if table else "command line",
        "sweep_on_val": {str(t): scores for t, scores in table.items()},
        "split": split,
        "num_slices": len(triples),
        "num_patients": len({t.patient for t in triples}),
        **describe(trained),
        "slices": per_slice(np.concatenate(rows), triples),
    }
    write_json(out / "results.json", results)
    return results


def _validation(run: RunFolder) -> list[Triple]:
    """Return the slices that a threshold may be chosen on.

    Raises:
        ConfigError: the run has none, or its data are gone.
    """
    try:
        triples = run_triples(run, "val")
    except (ConfigError, VolumeNotFoundError) as error:
        raise ConfigError(
            f"the threshold is chosen on the run's validation slices, which cannot be read: {error}"
            " Give --threshold."
        ) from error
    if not triples:
        raise ConfigError("the run has no validation slices to choose a threshold on; give one.")
    return triples


def as_png(mask: Tensor) -> ByteVolume:
    """Return a (1, y, x) boolean mask as (y, x) bytes, 0 and 255."""
    return mask[0].to(torch.uint8).mul(255).numpy()


def describe(trained: Trained) -> dict[str, Any]:
    """Return what made the predictions."""
    content = {}
    if trained.checkpoint.suffix == ".ckpt":
        content = read_checkpoint(trained.checkpoint)
    return {
        "run_dir": str(trained.run.path),
        "checkpoint": str(trained.checkpoint),
        "checkpoint_sha256": file_hash(trained.checkpoint),
        "epoch": content.get("epoch"),
        "provenance": content.get("provenance"),
        "image_size": trained.image_size,
        "vesuvius": __version__,
        "git_commit": git_commit(),
    }


def per_slice(rows: Floats, triples: Sequence[Triple]) -> list[dict[str, Any]]:
    """Return one entry a slice."""
    accuracy = 1 - (rows[:, FP] + rows[:, FN]) / rows[:, :HD95].sum(1)
    columns = zip(triples, rows, dice_of(rows), iou_of(rows), accuracy, strict=True)
    return [
        {
            "name": triple.name,
            "patient": triple.patient,
            "dice": float(dice),
            "iou": float(iou),
            "accuracy": float(right),
            "hd95": float(row[HD95]),
            "lesion_pixels": int(row[TP] + row[FN]),
            "predicted_pixels": int(row[TP] + row[FP]),
        }
        for triple, row, dice, iou, right in columns
    ]


def predict_files(
    trained: Trained, ct: Path, pet: Path, out: Path, *, threshold: float = 0.5
) -> list[Path]:
    """Write `<out>/<name>.png` (0, 255) for one CT and PET file, or all of two folders.

    Masks have the files' size, also where the network saw smaller slices.

    Raises:
        PairingError: a name without its partner.
        VolumeNotFoundError: nothing there.
        ConfigError: threshold out of range.
    """
    if not 0 < threshold < 1:
        raise ConfigError(f"--threshold {threshold}; expected a value between 0 and 1.")
    written = []
    for name, (one_ct, one_pet) in pair_files(ct, pet).items():
        image = torch.from_numpy(read_image(one_ct, one_pet, image_size=trained.image_size))
        probability = trained.probability(image[None])
        size = png_size(one_ct)
        if probability.shape[2:] != size:
            probability = F.interpolate(probability, size=size, mode="bilinear")
        mask = probability[0] > threshold
        target = out / f"{name}.png"
        write_png(target, as_png(mask))
        written.append(target)
    return written


def pair_files(ct: Path, pet: Path) -> dict[str, tuple[Path, Path]]:
    """Return name -> (CT, PET) of two files, or of two folders with the same names."""
    if ct.is_file() and pet.is_file():
        return {ct.stem: (ct, pet)}
    missing = [f"--{name} {path}" for name, path in (("ct", ct), ("pet", pet)) if not path.exists()]
    if missing:
        raise VolumeNotFoundError(
            f"{' and '.join(missing)}: not there. Both modalities are needed; a run trained with "
            "model.inputs=[pet,pet] still takes a CT file, which it does not look at."
        )
    found = [{p.stem: p for p in sorted(folder.glob("*.png"))} for folder in (ct, pet)]
    alone = sorted(set(found[0]) ^ set(found[1]))
    if alone:
        where = "CT" if alone[0] in found[0] else "PET"
        raise PairingError(
            f"{len(alone)} slices have one modality only, e.g. {alone[0]} ({where})."
        )
    if not found[0]:
        raise VolumeNotFoundError(f"{ct} holds no PNG files.")
    return {name: (path, found[1][name]) for name, path in found[0].items()}
