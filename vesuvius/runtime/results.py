"""Scores and pictures of inferred volumes: threshold mask beside final mask."""

import csv
import logging
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from rich.console import Console
from rich.table import Table

from vesuvius.metrics import competition_score, dice
from vesuvius.pictures.volume import slice_panel
from vesuvius.types import BACKGROUND, ByteVolume, FloatVolume

log = logging.getLogger(__name__)

COLUMNS = ("dice", "score", "surface_dice", "voi_score", "topo")


class Results:
    """Collects volumes; `finish` prints the table and writes `scores.csv`.

    Args:
        folder: of masks and pictures.
        pictures: write `<id>.png` for each volume.
        suffix: of the name `scores.csv`, for several processes that share a folder.
    """

    def __init__(self, folder: Path, *, pictures: bool, suffix: str = "") -> None:
        self.folder = folder
        self.suffix = suffix
        self.pictures = pictures
        self.rows: list[dict[str, Any]] = []

    def add(
        self,
        volume_id: str,
        path: Path | None,
        image: Any,
        probability: FloatVolume,
        masks: dict[str, ByteVolume],
        *,
        region: tuple[slice, slice, slice] | None = None,
    ) -> None:
        """Score the masks if the volume has labels; draw a picture if wanted.

        Args:
            volume_id: its name.
            path: of a prepared volume, whose label is read; None if there is none.
            image: (z, y, x), sliceable.
            probability: in [0, 1].
            masks: by kind, "threshold" and "final".
            region: part of the label that the masks cover; None if all of it.
        """
        label = None if path is None else read_label(path)
        if label is not None and region is not None:
            label = label[region]
        if label is not None and not (label == BACKGROUND).any():
            log.info("%s: the label marks no background, so nothing can be scored", volume_id)
            label = None
        for name, mask in masks.items():
            if label is not None:
                self.rows.append({"volume": volume_id, "mask": name, **score_mask(mask, label)})
        if self.pictures:
            whole = image[:, :, :]
            mask = masks["final"]
            slice_panel(
                self.folder / f"{volume_id}.png", whole, probability, mask, label, title=volume_id
            )

    def finish(self) -> float | None:
        """Print and save the scores; return the mean score of the final masks, if any."""
        log.info("masks, predictions and pictures in %s", self.folder)
        if not self.rows:
            return None
        with (self.folder / f"scores{self.suffix}.csv").open(
            "w", newline="", encoding="utf-8"
        ) as file:
            writer = csv.DictWriter(file, ["volume", "mask", *COLUMNS])
            writer.writeheader()
            writer.writerows(self.rows)
        table = Table(title=f"{len(self.rows) // 2} volumes, higher is better")
        for column in ("volume", "mask", *COLUMNS):
            table.add_column(column, justify="left" if column in ("volume", "mask") else "right")
        for row in self.rows + self.means():
            table.add_row(row["volume"], row["mask"], *(f"{row[column]:.4f}" for column in COLUMNS))
        Console(width=100).print(table)
        return float(self.means()[-1]["score"])

    def means(self) -> list[dict[str, Any]]:
        """Return one mean row per kind of mask."""
        kinds = list(dict.fromkeys(row["mask"] for row in self.rows))
        return [
            {
                "volume": "mean",
                "mask": kind,
                **{
                    column: float(np.mean([r[column] for r in self.rows if r["mask"] == kind]))
                    for column in COLUMNS
                },
            }
            for kind in kinds
        ]


def read_label(path: Path) -> ByteVolume | None:
    """Return the label of a prepared volume, None for anything else."""
    if not (path / "label" / "zarr.json").is_file():
        return None
    return np.asarray(zarr.open_group(path, mode="r")["label"], dtype=np.uint8)


def score_mask(mask: ByteVolume, label: ByteVolume) -> dict[str, float]:
    """Return Dice on labelled voxels and the official score with its parts."""
    score = competition_score(mask, label)
    return {
        "dice": float(dice(mask, label)),
        "score": score.score,
        "surface_dice": score.surface_dice,
        "voi_score": score.voi_score,
        "topo": score.topo,
    }
