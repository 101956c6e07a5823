"""What a user writes about one training volume, checked key by key."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from vesuvius.data.splits import check_id
from vesuvius.errors import ConfigError
from vesuvius.types import BACKGROUND, IGNORE

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


@dataclass(frozen=True, slots=True)
class VolumeEntry:
    """One entry of `data.volumes`.

    Attributes:
        image: folder or URL of an OME-Zarr or Zarr array.
        label: the same of its labels: 0 background, 1 surface, 2 ignore.
        level: resolution level of the image.
        label_level: of the labels, which may be coarser than the image by a whole factor.
        region_zyx: [[z0, z1], [y0, y1], [x0, x1]] in voxels of the image's level; None = all.
        weight: share of the crops of an epoch, relative to the other entries.
        scroll: name of the scroll, for split_by=scroll.
        absent_label: what a label chunk that was never written means, 2 (ignore) or 0.
        val: True validates, False trains; None leaves it to the split.
        id: name in tables and predictions; None makes one of the image's name and the region.
    """

    image: str
    label: str
    level: int = 0
    label_level: int = 0
    region_zyx: Box | None = None
    weight: float = 1.0
    scroll: str | None = None
    absent_label: int = IGNORE
    val: bool | None = None
    id: str | None = None

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise ConfigError(f"weight is {self.weight}; expected a number above 0")
        if self.absent_label not in (BACKGROUND, IGNORE):
            raise ConfigError(
                f"absent_label is {self.absent_label}; expected 2 (a label chunk that was never "
                "written is unlabelled) or 0 (it is background)"
            )
        for name in ("level", "label_level"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 0 or more")


def read_entries(volumes: Sequence[Mapping[str, Any]]) -> list[VolumeEntry]:
    """Return the entries of `data.volumes`.

    Raises:
        ConfigError: none, an unknown or missing key, a value out of range; names the entry.
    """
    if not volumes:
        raise ConfigError(
            "data.volumes is empty; expected a list of {image: <path or URL>, label: <path or URL>}"
        )
    return [_read(i, volume) for i, volume in enumerate(volumes)]


def _read(i: int, given: Mapping[str, Any]) -> VolumeEntry:
    where = f"data.volumes[{i}]"
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where} is {given!r}; expected {{image: ..., label: ...}}")
    known = [field.name for field in fields(VolumeEntry)]
    unknown = sorted(set(given) - set(known))
    missing = [name for name in ("image", "label") if not given.get(name)]
    if unknown or missing:
        raise ConfigError(
            f"{where}: "
            + (f"has unknown keys {unknown}" if unknown else f"has no {' and no '.join(missing)}")
            + f"; it takes {', '.join(known)}"
        )
    values = {name: value for name, value in given.items() if value is not None}
    if "region_zyx" in values:
        values["region_zyx"] = _box(values["region_zyx"], where)
    if "scroll" in values:
        values["scroll"] = str(values["scroll"])
    try:
        return VolumeEntry(**values)
    except (ConfigError, TypeError) as error:
        raise ConfigError(f"{where} ({given['image']}): {error}") from error


def _box(region: Any, where: str) -> Box:
    try:
        (z0, z1), (y0, y1), (x0, x1) = ((int(a), int(b)) for a, b in region)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{where}: region_zyx is {region}; expected [[z0, z1], [y0, y1], [x0, x1]]"
        ) from error
    return ((z0, z1), (y0, y1), (x0, x1))


def name_entries(entries: Sequence[VolumeEntry], names: Sequence[str]) -> list[str]:
    """Return a plain name for each entry: its id, else the image's name and where its region lies.

    Args:
        entries: of one run.
        names: of the images.

    Raises:
        ConfigError: two entries have the same name, or an id is no plain name.
    """
    found = []
    for entry, name in zip(entries, names, strict=True):
        full = entry.id or re.sub(r"[^\w\-+=@.]", "_", name).lstrip(".")
        if entry.id is None and entry.region_zyx is not None:
            (z, _), (y, _), (x, _) = entry.region_zyx
            full += f"_z{z}_y{y}_x{x}"
        found.append(check_id(full))
    twice = sorted({name for name in found if found.count(name) > 1})
    if twice:
        raise ConfigError(
            f"data.volumes: {found.count(twice[0])} entries are called {twice[0]!r}; give each an "
            "id of its own"
        )
    return found
