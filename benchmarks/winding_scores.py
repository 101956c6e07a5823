"""Masks against labels: competition score of threshold and winding masks, worth of every mask key.

Volumes are the project's phantoms, damaged artificially, or predictions of a trained network.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile
import zarr

from benchmarks.winding_cases import DEFAULT, phantom_case
from vesuvius.metrics import competition_score
from vesuvius.postprocess.winding import MaskSettings, winding_field
from vesuvius.postprocess.winding.field import solve_field
from vesuvius.postprocess.winding.fusion import fusion_rate
from vesuvius.postprocess.winding.result import sheet_labels, threshold_labels
from vesuvius.postprocess.winding.store import open_probability, read_box

PRESETS = ("default", "touching", "holes", "folds")
HARD = replace(DEFAULT, holes=0.12, bridges=60.0, specks=100.0, noise=1.3, fading=0.2)
HEAD = (
    "| volumes | threshold 0.5 | threshold, no dust | winding | better on | worst gain | "
    "fused neighbours | coherence | fallback | s |\n|---|---|---|---|---|---|---|---|---|---|"
)
WITHOUT: dict[str, dict[str, object]] = {
    "cut": {"cut": False},
    "dust": {"dust": 0},
    "hole closing (support_radius)": {"support_radius": 0.0},
    "holes kept open (hole_probability)": {"hole_probability": 0.0},
    "support, half of it": {"support": 0.2},
    "thickness of the data, not 3": {"thickness": 3.0},
}
"""What the mask does without one key: the change of the settings that switches it off."""


@dataclass(frozen=True)
class Volume:
    """One scored volume: (z, y, x) probability in [0, 1], label 0/1/2, true wraps or None."""

    name: str
    probability: npt.NDArray[np.float32]
    normals: npt.NDArray[np.float32] | None
    label: npt.NDArray[np.uint8]
    wrap: npt.NDArray[np.int32] | None


def phantom_volumes(preset: str, kind: str, seeds: range) -> Iterator[Volume]:
    """Yield phantoms of a preset with mild or hard damage."""
    condition = HARD if kind == "hard" else None
    for seed in seeds:
        case, label = phantom_case(preset, seed=seed, condition=condition)
        yield Volume(f"{preset} {kind} {seed}", case.probability, None, label, case.wrap)


def _label_of(
    labels: Path, name: str
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32] | None]:
    """Return the label (and true wraps on the surface, if stored) of a volume.

    Found as <name>.tif or as a prepared store <name>.zarr with `label`, `surface` and `wrap`.
    """
    stores = sorted(labels.rglob(f"{name}.zarr"))
    for path in stores:
        arrays = dict(zarr.open_group(path, mode="r").arrays())
        if "label" not in arrays:
            continue
        wrap = None
        if {"surface", "wrap", "winding"} <= arrays.keys():
            line = np.asarray(arrays["surface"]) > 0
            wrap = np.where(line, np.rint(np.asarray(arrays["winding"])), 0).astype(np.int32)
        return np.asarray(arrays["label"]), wrap
    images = sorted(labels.rglob(f"{name}.tif"))
    if not images:
        raise SystemExit(f"no label of volume {name} below {labels}: neither .zarr nor .tif")
    return tifffile.imread(images[0]), None


def predicted_volumes(predictions: Path, labels: Path) -> Iterator[Volume]:
    """Yield the predictions of a folder with their labels."""
    box = (slice(None), slice(None), slice(None))
    for path in sorted(predictions.glob("*.zarr")):
        probability, normals = read_box(*open_probability(path), box)
        yield Volume(path.stem, probability, normals, *_label_of(labels, path.stem))


def compare(volume: Volume, threads: int | None) -> list[float]:
    """Return scores (threshold, cleaned, winding), fusion (before, after), coherence, ..."""
    settings = MaskSettings()
    result = winding_field(
        volume.probability, volume.normals, threads=threads, mask_settings=settings
    )
    masks = (
        volume.probability > settings.threshold,
        threshold_labels(volume.probability, settings) > 0,
        result.mask,
    )
    scores = [competition_score(mask, volume.label).score for mask in masks]
    wraps = volume.wrap if volume.wrap is not None else result.labels
    fused = [fusion_rate(masks[i], wraps) for i in (0, 2)]
    seconds = sum(result.seconds.values())
    return [*scores, *fused, result.coherence, float(result.fallback), seconds]


def print_scores(name: str, rows: list[list[float]]) -> None:
    array = np.asarray(rows)
    gain = array[:, 2] - array[:, 0]
    m = array.mean(0)
    print(
        f"| {name} | {m[0]:.3f} | {m[1]:.3f} | {m[2]:.3f} | {(gain > 0).mean():.0%} | "
        f"{gain.min():+.3f} | {m[3]:.0%} -> {m[4]:.0%} | {m[5]:.2f} | {m[6]:.0%} | "
        f"{np.median(array[:, 7]):.1f} |",
        flush=True,
    )


def phantom_rows(seeds: range, threads: int | None) -> None:
    """Print the table of threshold and winding masks on phantoms."""
    print(HEAD)
    for kind in ("mild", "hard"):
        for preset in PRESETS:
            rows = [compare(volume, threads) for volume in phantom_volumes(preset, kind, seeds)]
            print_scores(f"phantom {preset}, {kind} damage", rows)


def prediction_rows(predictions: Path, labels: Path, threads: int | None) -> None:
    """Print the same table for predictions of a network."""
    print(HEAD)
    rows = []
    for volume in predicted_volumes(predictions, labels):
        rows.append(compare(volume, threads))
        print_scores(volume.name, rows[-1:])
    if rows:
        print_scores(f"all {len(rows)}", rows)


def key_scores(volume: Volume, threads: int) -> list[float]:
    """Return the score of the full mask and the gain of every key: full minus without it."""
    solution = solve_field(volume.probability, volume.normals, threads=threads)
    full = MaskSettings()

    def score(settings: MaskSettings) -> float:
        labels = sheet_labels(volume.probability, solution, settings, threads=threads)
        return competition_score(labels > 0, volume.label).score

    best = score(full)
    return [best, *(best - score(replace(full, **change)) for change in WITHOUT.values())]


def key_rows(
    seeds: range, predictions: Path | None, labels: Path | None, threads: int | None
) -> None:
    """Print what each mask key gains (mean) and where it harms (worst volume)."""
    print("| volumes | full score | " + " | ".join(WITHOUT) + " |")
    print("|---|---|" + "---|" * len(WITHOUT))
    groups: list[tuple[str, Iterator[Volume]]] = [
        (f"{preset}, {kind}", phantom_volumes(preset, kind, seeds))
        for kind in ("mild", "hard")
        for preset in PRESETS
    ]
    if predictions is not None:
        groups.append(("trained network", predicted_volumes(predictions, labels or predictions)))
    for name, volumes in groups:
        rows = np.asarray([key_scores(volume, threads or 1) for volume in volumes])
        mean, worst = rows.mean(0), rows.min(0)
        cells = [f"{m:+.3f} ({w:+.3f})" for m, w in zip(mean[1:], worst[1:], strict=True)]
        print(f"| {name} | {mean[0]:.3f} | " + " | ".join(cells) + " |", flush=True)
