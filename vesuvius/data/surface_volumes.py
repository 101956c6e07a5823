"""Lightning data module over volumes as they are: OME-Zarr or Zarr, near or far, any size."""

import dataclasses
import hashlib
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vesuvius.data.chunk_listing import identity
from vesuvius.data.crop_source import CropSource
from vesuvius.data.crops_module import CropsDataModule
from vesuvius.data.disk_cache import DiskCache
from vesuvius.data.folds import read_split
from vesuvius.data.label_index import IndexedRegion, build_index
from vesuvius.data.labelled_volume import LabelledVolume, check_image, label_factor
from vesuvius.data.region import RegionView
from vesuvius.data.remote import RemoteSettings
from vesuvius.data.splits import Split, save_split
from vesuvius.data.volume import Volume
from vesuvius.data.volume_entries import VolumeEntry, name_entries, read_entries
from vesuvius.errors import ConfigError

logger = logging.getLogger(__name__)


class SurfaceVolumesDataModule(CropsDataModule):
    """Crops straight from large volumes and the label volumes beside them; nothing is prepared.

    Args:
        volumes: mappings with the keys of `VolumeEntry`.
        cache_folder: local folder of fetched chunks and of the indexes of labels.
        disk_cache_gb: bytes of fetched chunks kept there, in 10^9; 0 keeps none.
        remote: time-out and retries of URLs, None = the defaults.
        val_whole_voxels: validation volumes up to so many voxels are scored as a whole too.
        patch_zyx, batch_size, samples_per_volume, positive_share, num_workers, prefetch_factor,
            seed, val_share, split_file, split_seed, split_by, fold, num_folds, augment,
            ignore_as_background, ignored_border, cache_mb, val_crops_per_volume, pad_small,
            pin_memory, start_method: see `CropsDataModule`. Entries of one image count as one
            volume in the split; with `val` in any entry it is made by those flags alone.

    Raises:
        ConfigError: an entry that makes no sense; training and validation regions that overlap.
        VolumeNotFoundError, VolumeFormatError: no Zarr there, or not of uint8 or uint16.
        ShapeMismatchError: labels of another resolution than the image's or a whole factor of it.
        LabelValueError: labels other than 0, 1, 2.
        RemoteReadError: a URL cannot be read; the chunk is named.
    """

    def __init__(
        self,
        volumes: Sequence[Mapping[str, Any]],
        patch_zyx: Sequence[int] = (64, 64, 64),
        *,
        cache_folder: str | Path,
        disk_cache_gb: float = 20.0,
        remote: RemoteSettings | None = None,
        val_whole_voxels: int = 2**28,
        batch_size: int = 8,
        samples_per_volume: int = 100,
        positive_share: float = 0.7,
        num_workers: int = 2,
        prefetch_factor: int | None = 4,
        seed: int = 42,
        val_share: float = 0.2,
        split_file: str | Path | None = None,
        split_seed: int = 42,
        split_by: str = "volume",
        fold: int | None = None,
        num_folds: int = 5,
        augment: str = "flips_rot90",
        ignore_as_background: bool = False,
        ignored_border: int = 0,
        cache_mb: int = 1024,
        val_crops_per_volume: int = 16,
        pad_small: bool = False,
        pin_memory: bool = False,
        start_method: str = "forkserver",
    ) -> None:
        super().__init__(
            patch_zyx=patch_zyx,
            batch_size=batch_size,
            samples_per_volume=samples_per_volume,
            positive_share=positive_share,
            num_workers=num_workers,
            prefetch_factor=prefetch_factor,
            seed=seed,
            val_share=val_share,
            split_file=split_file,
            split_seed=split_seed,
            split_by=split_by,
            fold=fold,
            num_folds=num_folds,
            augment=augment,
            ignore_as_background=ignore_as_background,
            ignored_border=ignored_border,
            cache_mb=cache_mb,
            val_crops_per_volume=val_crops_per_volume,
            pad_small=pad_small,
            pin_memory=pin_memory,
            start_method=start_method,
        )
        if disk_cache_gb < 0 or val_whole_voxels < 0:
            raise ConfigError(
                f"disk_cache_gb is {disk_cache_gb}, val_whole_voxels {val_whole_voxels}; expected "
                "0 or more"
            )
        self.entries = read_entries(volumes)
        self.cache_folder = Path(cache_folder)
        self.val_whole_voxels = val_whole_voxels
        self._remote = remote or RemoteSettings()
        self._disk_cache = None
        if disk_cache_gb > 0:
            folder = self.cache_folder / "chunks"
            self._disk_cache = DiskCache(folder, round(disk_cache_gb * 1e9))
        self._found: dict[str, tuple[VolumeEntry, LabelledVolume]] = {}
        self._said = False

    def prepare_data(self) -> None:
        """Build the indexes of the labels; Lightning calls it in one process of each machine."""
        self._open_all(check=True)

    def fingerprint(self) -> str:
        """Return 16 hex digits over the volumes' places, metadata, regions and meaning."""
        self.setup()
        lines = [
            f"{dataclasses.replace(entry, weight=1.0, val=None)} {identity(volume.image)} "
            f"{identity(volume.label)} {volume.label_version}"
            for entry, volume in self._found.values()
        ]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]

    def _find(self) -> list[CropSource]:
        self._open_all(check=self.trainer is None)
        return [volume for _, volume in self._found.values()]

    def _open_all(self, *, check: bool) -> None:
        """Open every volume and its index once."""
        if self._found:
            return
        opened = [self._open(entry) for entry in self.entries]
        names = name_entries(self.entries, [image.name for image, _ in opened])
        found = {}
        for name, entry, (image, label) in zip(names, self.entries, opened, strict=True):
            found[name] = (entry, self._labelled(name, entry, image, label, check=check))
        self._found = found

    def _open(self, entry: VolumeEntry) -> tuple[Volume, Volume]:
        image = Volume(entry.image, level=entry.level, remote=self._remote, cache_bytes=0)
        label = Volume(
            entry.label,
            level=entry.label_level,
            remote=self._remote,
            fill=entry.absent_label,
            cache_bytes=0,
        )
        return image, label

    def _labelled(
        self, name: str, entry: VolumeEntry, image: Volume, label: Volume, *, check: bool
    ) -> LabelledVolume:
        region = RegionView(image, entry.region_zyx)
        factor = label_factor(image, label)
        indexed = IndexedRegion(label, region.origin_zyx, region.shape, factor)
        index = build_index(indexed, self.cache_folder / "indexes", name, check=check)
        return LabelledVolume(
            volume_id=name,
            image=self._cached(image, ""),
            label=self._cached(label, index.version),
            origin_zyx=region.origin_zyx,
            shape_zyx=region.shape,
            image_dtype=check_image(image),
            factor=factor,
            index=index.path,
            label_version=index.version,
        )

    def _cached(self, volume: Volume, version: str) -> Volume:
        """Return the volume with its chunks kept on disk under its metadata and version."""
        if self._disk_cache is None:
            return volume
        return Volume(
            volume.source,
            level=volume.level,
            remote=self._remote,
            disk_cache=self._disk_cache.tagged(f"{identity(volume)} {version}"),
            fill=volume.options.fill,
            cache_bytes=0,
        )

    def _scrolls(self) -> dict[str, str | None]:
        return {name: entry.scroll for name, (entry, _) in self._found.items()}

    def _groups(self) -> dict[str, str]:
        """Return what must stay on one side: regions of one image, or of one scroll."""
        by_scroll = super()._groups()
        if by_scroll is not None:
            return by_scroll
        images = image_places([volume for _, volume in self._found.values()])
        return dict(zip(self._found, images, strict=True))

    def _base_weight(self, volume_id: str) -> float:
        return self._found[volume_id][0].weight

    def _make_split(self, ids: list[str]) -> Split:
        if any(entry.val is not None for entry, _ in self._found.values()):
            split = self._flagged_split(ids)
        else:
            split = super()._make_split(ids)
        for one in split["train"]:
            for other in split["val"]:
                check_apart(self._found[one][1], self._found[other][1])
        return split

    def _flagged_split(self, ids: list[str]) -> Split:
        """Return the split that `val` of the entries says; the file keeps it for resuming."""
        val = sorted(name for name, (entry, _) in self._found.items() if entry.val)
        split = {"train": sorted(set(ids) - set(val)), "val": val}
        if self.split_file is not None:
            if self.split_file.is_file() and read_split(self.split_file, ids, self.fold) != split:
                raise ConfigError(
                    f"{self.split_file} holds another split than `val` of data.volumes says; "
                    "delete the file, give another split_file, or leave `val` out of all entries"
                )
            save_split(self.split_file, split)
        return split

    def _whole_ids(self) -> list[str]:
        """Return the validation volumes small enough to be scored as a whole."""
        voxels = {v: math.prod(self._found[v][1].shape_zyx) for v in self.split["val"]}
        large = [v for v, num in voxels.items() if num > self.val_whole_voxels]
        if large and not self._said:
            self._said = True
            logger.warning(
                "%d of %d validation volumes, e.g. %s, have more than data.val_whole_voxels=%d "
                "voxels: they are scored by their crops alone (val/dice, ...), not by val/score; "
                "give them a smaller region_zyx",
                *(len(large), len(voxels), large[0], self.val_whole_voxels),
            )
        return [v for v in voxels if v not in large]


def image_places(volumes: Sequence[LabelledVolume]) -> list[str]:
    """Return where the image of each volume lies, the same for an OME-Zarr and its levels."""
    sources = [v.image.source for v in volumes]
    places = [s if isinstance(s, str) else s.resolve().as_posix() for s in sources]
    return [
        min((p for p in places if f"{place}/".startswith(f"{p}/")), key=len) for place in places
    ]


def check_apart(train: LabelledVolume, val: LabelledVolume) -> None:
    """Raise `ConfigError` if both show the same part of one image, at whatever level."""
    if len(set(image_places([train, val]))) > 1:
        return
    shared = all(
        a * whole_b < (b + size_b) * whole_a and b * whole_a < (a + size_a) * whole_b
        for a, size_a, whole_a, b, size_b, whole_b in zip(
            *(train.origin_zyx, train.shape_zyx, train.image.shape_zyx),
            *(val.origin_zyx, val.shape_zyx, val.image.shape_zyx),
            strict=True,
        )
    )
    if shared:
        regions = [
            [[o, o + n] for o, n in zip(v.origin_zyx, v.shape_zyx, strict=True)]
            for v in (train, val)
        ]
        raise ConfigError(
            f"{train.image.source}: {train.volume_id} trains on {regions[0]} and "
            f"{val.volume_id} validates on {regions[1]}, which overlap; give them regions apart "
            "(data.volumes: region_zyx, val)"
        )
