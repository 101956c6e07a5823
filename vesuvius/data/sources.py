"""Finds the volumes of a source: Kaggle layout, a folder, TFRecords, a single file or Zarr."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vesuvius.data.splits import check_id
from vesuvius.data.store import TRUTH_DTYPES
from vesuvius.data.tfrecord import IMAGE, LABEL, is_tfrecord, record_names
from vesuvius.data.tiff import TiffStack, is_tiff
from vesuvius.data.volume import Volume
from vesuvius.data.volume_zarr import is_zarr
from vesuvius.errors import PairingError, VolumeFormatError, VolumeNotFoundError


@dataclass(frozen=True, slots=True)
class SourceItem:
    """One volume to prepare.

    Attributes:
        volume_id: its name.
        split: "train" or "test" in the Kaggle layout, else "".
        image: file or folder.
        label: file or folder, None if unlabelled.
        truth: name -> file of the truth arrays a phantom brings along.
        scroll_id: from train.csv / test.csv, None if unknown.
        image_array: which array of the image file, None for a file that is one volume.
        label_array: which array of the label file.
    """

    volume_id: str
    split: str
    image: Path
    label: Path | None = None
    truth: dict[str, Path] = field(default_factory=dict)
    scroll_id: str | None = None
    image_array: str | None = None
    label_array: str | None = None


def find_items(
    source: Path, *, images: Path | None = None, labels: Path | None = None
) -> list[SourceItem]:
    """Return the volumes of a source, sorted by split and name.

    Args:
        source: Kaggle-layout root (`train_images`, `train_labels`, `test_images`), a folder of
            volumes, a folder of 2-D slices (one volume), one file or Zarr, or one or a folder
            of TFRecord files.
        images: folder (or file) of images instead of `source`'s own; relative ones lie in it.
        labels: folder (or file) of labels paired with the images by name.

    Raises:
        VolumeNotFoundError: a folder is missing or empty.
        PairingError: images and labels do not pair up.
    """
    if not source.exists():
        raise VolumeNotFoundError(f"{source}: no such file or folder (SOURCE)")
    if images is not None or labels is not None:
        image_root = source if images is None else _inside(source, images)
        return _pair("", image_root, None if labels is None else _inside(source, labels), {})
    shards = _record_files(source)
    if shards:
        return _record_items(shards)
    if not (source / "train_images").is_dir() and not (source / "test_images").is_dir():
        return _pair("", source, None, {})
    items: list[SourceItem] = []
    for split in ("train", "test"):
        if (source / f"{split}_images").is_dir():
            label_dir = source / f"{split}_labels"
            if split == "train" and not label_dir.is_dir():
                raise PairingError(
                    f"{source}: has train_images but no train_labels folder. For unlabelled images "
                    "give the image folder itself as SOURCE"
                )
            found = label_dir if label_dir.is_dir() else None
            items += _pair(split, source / f"{split}_images", found, _scrolls(source, split))
    return items


def _record_files(source: Path) -> list[Path]:
    """Return the TFRecord files at `source`, [] if it is none and holds none."""
    files = sorted(source.iterdir()) if source.is_dir() else [source]
    return [path for path in files if is_tfrecord(path) and not path.name.startswith(".")]


def _record_items(shards: Sequence[Path]) -> list[SourceItem]:
    """Return one item for each record of the files.

    Raises:
        VolumeFormatError: two records of one name.
    """
    items: dict[str, SourceItem] = {}
    for path in shards:
        for number, (name, has_label) in enumerate(record_names(path)):
            if name in items:
                raise VolumeFormatError(
                    f"{path}: record {number} is called {name!r} like one of "
                    f"{items[name].image.name}; names must differ"
                )
            items[name] = SourceItem(
                volume_id=check_id(name),
                split="",
                image=path,
                label=path if has_label else None,
                image_array=f"{number}/{IMAGE}",
                label_array=f"{number}/{LABEL}" if has_label else None,
            )
    return list(items.values())


def _inside(source: Path, path: Path) -> Path:
    found = path if path.is_absolute() or not (source / path).exists() else source / path
    if not found.exists():
        raise VolumeNotFoundError(f"{path}: no such file or folder (--images, --labels)")
    return found


def _pair(
    split: str, images: Path, labels: Path | None, scrolls: dict[str, str]
) -> list[SourceItem]:
    image_files = list_volumes(images)
    label_files = {} if labels is None else list_volumes(labels)
    if labels is not None and len(image_files) == len(label_files) == 1 and not images.is_dir():
        label_files = dict(zip(image_files, label_files.values(), strict=True))
    if labels is not None:
        _check_pairs(images, labels, list(image_files), list(label_files))
    return [
        SourceItem(
            volume_id=check_id(name),
            split=split,
            image=path,
            # a phantom's test labels are with its truth: held-out volumes can be scored
            label=label_files.get(name) or _existing(images.parent, split, f"{name}_label.tif"),
            truth=_truth(images.parent / f"{split}_truth", name) if split else {},
            scroll_id=scrolls.get(name),
        )
        for name, path in sorted(image_files.items())
    ]


def _existing(root: Path, split: str, name: str) -> Path | None:
    path = root / f"{split}_truth" / name
    return path if split and path.is_file() else None


def list_volumes(root: Path) -> dict[str, Path]:
    """Return name -> path of the volumes at `root` (a file, a Zarr, or a folder of them).

    Raises:
        VolumeNotFoundError: nothing there.
        VolumeFormatError: two volumes of one name.
    """
    if not root.exists():
        raise VolumeNotFoundError(f"{root}: no such file or folder")
    if not root.is_dir() or _is_volume_folder(root):
        return {Volume(root).name: root}
    found: dict[str, Path] = {}
    for path in sorted(root.iterdir()):
        if path.name.startswith(".") or not _looks_like_volume(path):
            continue
        name = Volume(path).name
        if name in found:
            raise VolumeFormatError(
                f"{root}: {found[name].name} and {path.name} are both called {name!r}"
            )
        found[name] = path
    if not found:
        raise VolumeNotFoundError(f"{root}: holds no .tif, .tiff, .npy or .zarr volume")
    return found


def _looks_like_volume(path: Path) -> bool:
    if path.is_dir():
        return is_zarr(path)
    return is_tiff(path) or path.suffix.lower() == ".npy"


def _is_volume_folder(folder: Path) -> bool:
    """Tell whether a folder is itself one volume: a Zarr, or at least two 2-D TIFF slices."""
    if is_zarr(folder):
        return True
    tiffs = sorted(p for p in folder.iterdir() if is_tiff(p) and not p.name.startswith("."))
    if len(tiffs) < 2:
        return False
    try:
        stack = TiffStack(tiffs[0])
    except VolumeFormatError:
        return False  # reported with its name when it is read
    stack.close()
    return stack.shape_zyx[0] == 1


def _check_pairs(
    images: Path, labels: Path, image_names: Sequence[str], label_names: Sequence[str]
) -> None:
    no_label = sorted(set(image_names) - set(label_names))
    no_image = sorted(set(label_names) - set(image_names))
    if not no_label and not no_image:
        return
    parts = []
    if no_label:
        parts.append(f"{len(no_label)} images without a label: {', '.join(no_label[:5])}")
    if no_image:
        parts.append(f"{len(no_image)} labels without an image: {', '.join(no_image[:5])}")
    raise PairingError(
        f"{images} and {labels} do not pair up by file name: {'; '.join(parts)}. "
        "Add or remove the files named"
    )


def _truth(folder: Path, name: str) -> dict[str, Path]:
    """Return the truth files of one volume: <folder>/<array>/<name>.* or <name>_<array>.*."""
    found: dict[str, Path] = {}
    for array in TRUTH_DTYPES:
        for suffix in (".tif", ".npy", ".zarr"):
            for path in (
                folder / array / f"{name}{suffix}",
                folder / f"{name}_{array}{suffix}",
                folder / name / f"{array}{suffix}",
            ):
                if path.exists():
                    found.setdefault(array, path)
    return found


def _scrolls(source: Path, split: str) -> dict[str, str]:
    """Return id -> scroll_id of `<split>.csv`, empty if there is no such file."""
    path = source / f"{split}.csv"
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if rows and not {"id", "scroll_id"} <= set(rows[0]):
        raise VolumeFormatError(f"{path}: columns {list(rows[0])}; expected id, scroll_id")
    return {str(row["id"]).strip(): str(row["scroll_id"]).strip() for row in rows}
