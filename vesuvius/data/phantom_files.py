"""Writes phantoms to disk in the competition's layout, with the truth beside them.

<root>/phantom.json                     what the folder was made with
<root>/train.csv, test.csv              id, scroll_id
<root>/train_images/<id>.tif            uint8, LZW, one strip a page, no predictor
<root>/train_labels/<id>.tif            uint8 0/1/2, the same
<root>/train_truth/<id>_surface.tif     uint8 0/1, complete recto line
<root>/train_truth/<id>_wrap.tif        int16 wrap number
<root>/train_truth/<id>_winding.tif     float32 winding field
<root>/train_truth/<id>_normals.npy     (3, z, y, x) int8, (nz, ny, nx) * 127
<root>/test_images/<id>.tif
<root>/test_truth/<id>_label.tif, ...   as train_truth, and the label nobody hands out
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vesuvius.data.phantom import Phantom, check_shape, make_phantom
from vesuvius.data.phantom_settings import PhantomSettings
from vesuvius.data.process_pool import as_they_come
from vesuvius.data.tiff import write_tiff
from vesuvius.errors import ConfigError, StorageError
from vesuvius.storage.files import whole_file, write_text

GENERATOR_VERSION = 1
"""Raised whenever the same settings and seed give other voxels."""

_RECORD = "phantom.json"
_TRUTH = ("surface.tif", "wrap.tif", "winding.tif", "normals.npy")


@dataclass(frozen=True, slots=True)
class PhantomVolume:
    """One volume of a folder of phantoms.

    Attributes:
        volume_id: numeric, as in the competition.
        scroll_id: numeric; volumes of one scroll are cut from one spiral at different places.
        split: `train` or `test`.
        scroll_seed: seed of the scroll.
        origin_zyx: first voxel in the scroll's frame, whose umbilicus is y = x = 0.
    """

    volume_id: str
    scroll_id: str
    split: str
    scroll_seed: int
    origin_zyx: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class WriteOutcome:
    """What became of one volume: `written` False = it was there already."""

    volume: PhantomVolume
    written: bool


def write_kaggle_phantom(
    root: Path,
    *,
    num_train: int,
    num_test: int,
    shape_zyx: tuple[int, int, int],
    seed: int,
    settings: PhantomSettings | None = None,
    num_scrolls: int = 3,
    num_jobs: int = 1,
    progress: Callable[[WriteOutcome], None] | None = None,
) -> list[PhantomVolume]:
    """Write a folder of phantoms and return its volumes; finished ones are left alone.

    Running it again is quick; asking for more volumes adds them; asking for fewer removes none.

    Args:
        root: folder, made if missing.
        num_train: volumes with labels.
        num_test: volumes whose label is kept with the truth only.
        shape_zyx: size of every volume.
        seed: decides everything; the same seed gives the same files.
        settings: appearance and difficulty; None = the default settings.
        num_scrolls: volumes are dealt out to this many scrolls in turn.
        num_jobs: processes; 1 works in this one.
        progress: called after each volume.

    Raises:
        ConfigError: a number is out of range, or the folder holds phantoms of other settings.
        StorageError: writing failed; the volumes finished before are kept.
    """
    for name, value, low in (
        ("num_train", num_train, 0),
        ("num_test", num_test, 0),
        ("num_scrolls", num_scrolls, 1),
        ("num_jobs", num_jobs, 1),
        ("seed", seed, 0),
    ):
        if value < low:
            raise ConfigError(f"write_kaggle_phantom: {name} is {value}, expected {low} or more")
    check_shape(shape_zyx, seed)
    settings = settings or PhantomSettings()
    identity = {
        "generator_version": GENERATOR_VERSION,
        "seed": seed,
        "shape_zyx": list(shape_zyx),
        "num_scrolls": num_scrolls,
        "settings": settings.as_dict(),
    }
    before = _read_record(root, identity)
    counts = {
        "train": max(num_train, before.get("num_train", 0)),
        "test": max(num_test, before.get("num_test", 0)),
    }
    volumes = plan_volumes(counts, shape_zyx=shape_zyx, seed=seed, num_scrolls=num_scrolls)
    _write_record(root, identity, counts, volumes)
    for outcome in _write_all(root, volumes, shape_zyx, settings, num_jobs):
        if progress is not None:
            progress(outcome)
    return volumes


def plan_volumes(
    counts: dict[str, int], *, shape_zyx: tuple[int, int, int], seed: int, num_scrolls: int
) -> list[PhantomVolume]:
    """Return ids, scrolls and places; volume i of a split does not depend on how many follow."""
    volumes: list[PhantomVolume] = []
    taken: set[int] = set()
    for split_number, split in enumerate(("train", "test")):
        for index in range(counts[split]):
            rng = np.random.default_rng([seed, split_number, index])
            number = int(rng.integers(10_000_000, 1_000_000_000)) * 2 + split_number
            while number in taken:
                number += 2
            taken.add(number)
            scroll = index % num_scrolls
            place = 2 * (index // num_scrolls) + split_number  # no two volumes share slices
            size = max(shape_zyx[1:])
            angle, distance = rng.uniform(0.0, 2 * math.pi), size * rng.uniform(1.0, 3.0)
            origin = (
                place * (shape_zyx[0] + 32),
                round(distance * math.sin(angle) - shape_zyx[1] / 2),
                round(distance * math.cos(angle) - shape_zyx[2] / 2),
            )
            scroll_seed = int(np.random.default_rng([seed, 9, scroll]).integers(1 << 31))
            volumes.append(
                PhantomVolume(str(number), str(90001 + scroll), split, scroll_seed, origin)
            )
    return volumes


def _read_record(root: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """Return the record of an earlier run, empty if there is none; refuse another identity."""
    path = root / _RECORD
    if root.is_file():
        raise ConfigError(f"{root}: is a file, expected a folder to write phantoms into")
    if not path.is_file():
        if root.is_dir() and any((root / "train_images").glob("*.tif")):
            raise ConfigError(
                f"{root}: holds train_images that are no phantoms (no {_RECORD}); choose an empty "
                "folder"
            )
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}: cannot be read ({error}); delete the folder and start again"
        ) from error
    known = {key: record.get(key) for key in identity}
    if known != identity:
        raise ConfigError(
            f"{root}: holds phantoms made with other settings ({_difference(known, identity)}); "
            "choose another folder, or delete this one"
        )
    return dict(record)


def _difference(known: dict[str, Any], asked: dict[str, Any]) -> str:
    old = {**known, **(known.get("settings") or {})}
    new = {**asked, **asked["settings"]}
    changed = [k for k in new if k != "settings" and old.get(k) != new[k]]
    return ", ".join(f"{k} {old.get(k)} there, {new[k]} asked for" for k in changed)


def _write_record(
    root: Path, identity: dict[str, Any], counts: dict[str, int], volumes: Sequence[PhantomVolume]
) -> None:
    places = {v.volume_id: {"split": v.split, "origin_zyx": v.origin_zyx} for v in volumes}
    record = {
        **identity,
        "num_train": counts["train"],
        "num_test": counts["test"],
        "umbilicus_yx": [0.0, 0.0],
        "volumes": places,
    }
    write_text(root / _RECORD, json.dumps(record, indent=1) + "\n")
    for split in counts:
        rows = [f"{v.volume_id},{v.scroll_id}\n" for v in volumes if v.split == split]
        write_text(root / f"{split}.csv", "id,scroll_id\n" + "".join(rows))


def volume_paths(root: Path, volume: PhantomVolume) -> dict[str, Path]:
    """Return the files of one volume by what they hold; the image comes last."""
    truth = root / f"{volume.split}_truth"
    paths = {name.split(".")[0]: truth / f"{volume.volume_id}_{name}" for name in _TRUTH}
    if volume.split == "train":
        paths["label"] = root / "train_labels" / f"{volume.volume_id}.tif"
    else:
        paths["label"] = truth / f"{volume.volume_id}_label.tif"
    paths["image"] = root / f"{volume.split}_images" / f"{volume.volume_id}.tif"
    return paths


def _write_all(
    root: Path,
    volumes: Sequence[PhantomVolume],
    shape_zyx: tuple[int, int, int],
    settings: PhantomSettings,
    num_jobs: int,
) -> Iterator[WriteOutcome]:
    missing = []
    for volume in volumes:
        if all(path.is_file() for path in volume_paths(root, volume).values()):
            yield WriteOutcome(volume, written=False)
        else:
            missing.append(volume)
    write = partial(_write_volume, root=root, shape_zyx=shape_zyx, settings=settings)
    yield from as_they_come(write, missing, num_jobs=num_jobs, if_killed=_killed)


def _killed(volume: PhantomVolume) -> WriteOutcome:
    raise StorageError(
        f"volume {volume.volume_id}: a worker process was killed, most likely out of memory; "
        "finished volumes are kept, run again with --jobs 1"
    )


def _write_volume(
    volume: PhantomVolume, *, root: Path, shape_zyx: tuple[int, int, int], settings: PhantomSettings
) -> WriteOutcome:
    phantom = make_phantom(
        shape_zyx,
        seed=volume.scroll_seed,
        settings=settings,
        umbilicus_yx=(0.0, 0.0),
        origin_zyx=volume.origin_zyx,
    )
    for name, path in volume_paths(root, volume).items():
        if name == "normals":
            _write_normals(path, phantom)
        else:
            write_tiff(path, getattr(phantom, name))
    return WriteOutcome(volume, written=True)


def _write_normals(path: Path, phantom: Phantom) -> None:
    coded = np.rint(phantom.normals * np.float32(127.0)).astype(np.int8)
    # a name instead of a file would get a second suffix
    with whole_file(path, alone=True) as unnamed, unnamed.open("wb") as file:
        np.save(file, coded, allow_pickle=False)
