"""Prepared volumes as a data set in nnU-Net's raw format (3-D TIFF with a spacing file)."""

import json
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vesuvius.data.folds import Folds
from vesuvius.data.store import PreparedVolume, list_prepared
from vesuvius.data.tiff import TiffStack, write_tiff
from vesuvius.errors import ConfigError, PairingError, ShapeMismatchError
from vesuvius.storage.files import write_text
from vesuvius.types import BACKGROUND, IGNORE, SURFACE

LABELS = {"background": BACKGROUND, "surface": SURFACE, "ignore": IGNORE}
CHANNELS = {
    "CT": "clipped and scaled by the intensities of the labelled surface in all volumes",
    "zscore": "by mean and deviation of each volume",
    "rescale_to_0_1": "by least and greatest value of each volume",
    "noNorm": "not at all",
}
"""Channel names and how nnU-Net normalises a channel so called."""
SPACING = (1.0, 1.0, 1.0)
"""In voxels: nnU-Net then resamples nothing."""


@dataclass(frozen=True, slots=True)
class _Case:
    volume: PreparedVolume
    image: Path
    label: Path | None


def export_raw(
    prepared: Path,
    out: Path,
    *,
    test: Path | None = None,
    channel: str = "CT",
    folds: Folds | None = None,
    jobs: int = 1,
) -> Iterator[str]:
    """Write `out` (imagesTr, labelsTr, imagesTs, dataset.json) and yield each finished id.

    A volume whose files are there already is not written again; `dataset.json` comes last.

    Args:
        prepared: folder of prepared volumes with labels.
        out: folder named as nnU-Net wants it, e.g. nnUNet_raw/Dataset001_scroll.
        test: folder of prepared volumes for imagesTs; their labels are not exported.
        channel: name of the image channel, one of CHANNELS: decides nnU-Net's normalisation.
        folds: cross-validation folds; written to `splits_final.json`, which nnU-Net takes instead
            of its own random ones when it lies in nnUNet_preprocessed/<data set>.
        jobs: volumes at a time.

    Raises:
        ConfigError: the folder's name, the channel or a fold does not fit.
        PairingError: a volume without labels.
        ShapeMismatchError: a file of another volume lies where one would be written.
        StorageError: the disk is full.
    """
    if not re.fullmatch(r"Dataset\d{3}_\w+", out.name):
        raise ConfigError(
            f"--out is {out}; nnU-Net wants a folder called Dataset<three digits>_<name>, e.g. "
            "nnUNet_raw/Dataset001_scroll"
        )
    if channel not in CHANNELS:
        raise ConfigError(f"--channel is {channel!r}; expected one of {', '.join(CHANNELS)}")
    train = [PreparedVolume(path) for path in list_prepared(prepared)]
    _check(train, folds)
    held_out = [] if test is None else [PreparedVolume(path) for path in list_prepared(test)]
    both = sorted({v.volume_id for v in train} & {v.volume_id for v in held_out})
    if both:
        raise ConfigError(f"{both[0]} is in {prepared} and in {test} (--test)")
    cases = [*_cases(train, out, "Tr"), *_cases(held_out, out, "Ts")]
    with ThreadPoolExecutor(max(1, jobs)) as pool:
        yield from pool.map(_write_case, cases)
    if folds is not None:
        write_text(out / "splits_final.json", json.dumps(nnunet_splits(folds), indent=1))
    write_text(out / "dataset.json", json.dumps(_dataset(channel, len(train)), indent=1))


def nnunet_splits(folds: Folds) -> list[dict[str, list[str]]]:
    """Return the folds as nnU-Net's `splits_final.json` holds them."""
    return [folds.split(fold) for fold in range(folds.num_folds)]


def _check(volumes: Sequence[PreparedVolume], folds: Folds | None) -> None:
    without = [v.volume_id for v in volumes if not v.has("label")]
    if without:
        raise PairingError(
            f"{len(without)} of {len(volumes)} volumes have no label, e.g. {without[0]}; nnU-Net "
            "trains on labelled volumes only. Prepare them together with their labels"
        )
    if folds is not None:
        folds.check_covers([v.volume_id for v in volumes])


def _cases(volumes: Sequence[PreparedVolume], out: Path, part: str) -> list[_Case]:
    return [
        _Case(
            volume=volume,
            image=out / f"images{part}" / f"{volume.volume_id}_0000.tif",
            label=out / f"labels{part}" / f"{volume.volume_id}.tif" if part == "Tr" else None,
        )
        for volume in volumes
    ]


def _write_case(case: _Case) -> str:
    volume = case.volume
    for name, path in (("image", case.image), ("label", case.label)):
        if path is None:
            continue
        if not _there(path, volume):
            reader = volume.array(name)
            write_tiff(path, reader.read((0, 0, 0), volume.shape_zyx))
        spacing = path.parent / f"{volume.volume_id}.json"
        write_text(spacing, json.dumps({"spacing": list(SPACING)}))
    return volume.volume_id


def _there(path: Path, volume: PreparedVolume) -> bool:
    if not path.is_file():
        return False
    stack = TiffStack(path)
    shape = stack.shape_zyx
    stack.close()
    if shape != volume.shape_zyx:
        raise ShapeMismatchError(
            f"{path}: has shape {shape}, but volume {volume.volume_id} {volume.shape_zyx}; it "
            "belongs to another export. Remove it, or give another --out"
        )
    return True


def _dataset(channel: str, num_training: int) -> dict[str, Any]:
    return {
        "channel_names": {"0": channel},
        "labels": LABELS,
        "numTraining": num_training,
        "file_ending": ".tif",
        "overwrite_image_reader_writer": "Tiff3DIO",
    }
