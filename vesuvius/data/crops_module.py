"""What the data modules of surface crops share: split, checks, weights, whole validation scans."""

import logging
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vesuvius.data.crop_source import ChunkLoader, CropReader, CropSource, CropView
from vesuvius.data.epoch_module import EpochDataModule
from vesuvius.data.folds import read_split
from vesuvius.data.prior import ImageWithPrior, PriorReader
from vesuvius.data.splits import Split, save_split, split_volumes
from vesuvius.data.surface_dataset import (
    SurfaceDataset,
    Zyx,
    check_draws,
    check_patch,
    collate_surface,
)
from vesuvius.errors import ConfigError, VolumeFormatError

logger = logging.getLogger(__name__)

SCAN_CACHE_BYTES = 64 * 2**20
"""Decoded chunks kept while a whole volume is read: neighbouring windows share them."""


@dataclass(frozen=True)
class ValidationScan:
    """A whole validation volume, or region of one; read when it is sliced.

    Attributes:
        volume_id: its name.
        image: (z, y, x), or (2, z, y, x) with a prior; sliceable.
        label: (z, y, x) uint8, sliceable.
    """

    volume_id: str
    image: Any
    label: CropView

    def read_label(self) -> npt.NDArray[np.uint8]:
        """Return the labels, (z, y, x) uint8."""
        return self.label[:, :, :]


class CropsDataModule(EpochDataModule):
    """Training and validation crops of labelled volumes; a subclass finds the volumes.

    Args:
        patch_zyx: crop size.
        samples_per_volume: training crops of each volume in an epoch.
        positive_share: share of crops that surely contain surface.
        seed: of crops and augmentation.
        val_share: share of volumes that validate, 0 = none.
        split_file: JSON {"train": [...], "val": [...]}, or the folds of `vesuvius splits`; read
            if it exists, else written.
        split_seed: of the split.
        split_by: "volume", or "scroll" to keep the volumes of one scroll on one side.
        fold: which of `num_folds` folds (or of the file's) validates, None = by `val_share`.
        num_folds: number of folds.
        augment: "flips_rot90", "cube" or "none"; training only.
        ignore_as_background: label 2 counts as 0, as in the original.
        ignored_border: with it, label 2 this near to the volume's faces stays ignored, in voxels.
        with_wrap: batches hold `wrap`, the true wrap number (phantom).
        cache_mb: decoded chunks kept in each worker, MiB.
        val_crops_per_volume: fixed validation crops of each volume, positive and uniform.
        pad_small: allow a patch larger than every volume (crops are then mostly padding).
        prior_root: folder of predictions `<id>.zarr` that become the image's second channel.
        batch_size, num_workers, pin_memory, start_method, prefetch_factor: see `EpochDataModule`.

    Raises:
        ConfigError: an argument out of range; a patch larger than every volume.
        VolumeFormatError: volumes of different dtypes.
    """

    def __init__(
        self,
        *,
        patch_zyx: Sequence[int],
        batch_size: int,
        samples_per_volume: int,
        positive_share: float,
        num_workers: int,
        seed: int,
        val_share: float,
        split_file: str | Path | None,
        split_seed: int,
        split_by: str,
        fold: int | None,
        num_folds: int,
        augment: str,
        ignore_as_background: bool,
        ignored_border: int,
        cache_mb: int,
        val_crops_per_volume: int,
        pad_small: bool,
        pin_memory: bool,
        start_method: str,
        with_wrap: bool = False,
        prior_root: str | Path | None = None,
        prefetch_factor: int | None = None,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            num_workers=num_workers,
            pin_memory=pin_memory,
            start_method=start_method,
            prefetch_factor=prefetch_factor,
            collate=collate_surface,
        )
        self.prior_root = None if prior_root is None else Path(prior_root)
        self.patch_zyx = check_patch(patch_zyx)
        check_draws(samples_per_volume, positive_share, augment, cache_mb)
        if val_crops_per_volume < 1:
            raise ConfigError(f"val_crops_per_volume is {val_crops_per_volume}; expected 1 or more")
        if split_by not in ("volume", "scroll"):
            raise ConfigError(f"split_by is {split_by!r}; expected volume or scroll")
        self.val_crops_per_volume = val_crops_per_volume
        self.split_file = None if split_file is None else Path(split_file)
        self.split_by, self.fold = split_by, fold
        self.pad_small = pad_small
        self._split_volumes = partial(
            split_volumes, val_share=val_share, seed=split_seed, fold=fold, num_folds=num_folds
        )
        self._dataset = partial(
            SurfaceDataset,
            patch_zyx=self.patch_zyx,
            positive_share=positive_share,
            seed=seed,
            ignore_as_background=ignore_as_background,
            ignored_border=ignored_border,
            with_wrap=with_wrap,
            cache_mb=cache_mb,
            prior_root=prior_root,
        )
        self._samples_per_volume = samples_per_volume
        self._augment = augment
        self._sources: dict[str, CropSource] = {}
        self.split: Split = {}
        self.train_dataset: SurfaceDataset | None = None
        self.val_dataset: SurfaceDataset | None = None

    @abstractmethod
    def _find(self) -> list[CropSource]:
        """Return the volumes, checked but for what `setup` checks."""

    @abstractmethod
    def _scrolls(self) -> dict[str, str | None]:
        """Return the scroll of each volume, None if it is unknown."""

    def _groups(self) -> dict[str, str] | None:
        """Return what must stay on one side of the split, None = each volume for itself."""
        if self.split_by != "scroll":
            return None
        groups = self._scrolls()
        unknown = [volume for volume, group in groups.items() if group is None]
        if unknown:
            raise ConfigError(
                f"split_by=scroll, but {len(unknown)} volumes have no scroll_id, e.g. {unknown[0]} "
                "(it comes from train.csv at `vesuvius prepare`; in data.volumes it is `scroll`)"
            )
        return {volume: str(group) for volume, group in groups.items()}

    def _base_weight(self, volume_id: str) -> float:
        """Return the share of a volume in an epoch's crops, relative to the others."""
        del volume_id
        return 1.0

    def setup(self, stage: str | None = None) -> None:  # noqa: ARG002 - both sides are cheap
        """Find and check the volumes, split them, build both data sets."""
        if self.train_dataset is not None:
            return
        self._sources = {source.volume_id: source for source in self._find()}
        loader = ChunkLoader(0)
        readers = [source.open(loader) for source in self._sources.values()]
        check_dtypes(readers)
        check_sizes(readers, self.patch_zyx, pad_small=self.pad_small)
        self.split = self._make_split(list(self._sources))
        if not self.split["train"]:
            raise ConfigError("no volume is left for training (split_file, or val of data.volumes)")
        train, val = ([self._sources[v] for v in self.split[side]] for side in ("train", "val"))
        self.train_dataset = self._dataset(
            train,
            samples_per_volume=self._samples_per_volume,
            augment=self._augment,
            weights=[self._base_weight(v) for v in self.split["train"]],
        )
        self.val_dataset = self._dataset(
            val, samples_per_volume=self.val_crops_per_volume, fixed=True
        )
        if self.prior_root is not None:
            for reader in readers:
                self.train_dataset.prior(reader)  # refuses what is missing or does not fit

    def weigh_volumes(self, weights: Mapping[str, float]) -> None:
        """Let the next epoch's crops come from the training volumes in these proportions.

        Args:
            weights: volume id -> positive weight, which multiplies the volume's own; a volume
                without one gets 1.
        """
        self.setup()
        assert self.train_dataset is not None
        values = [
            self._base_weight(name) * float(weights.get(name, 1.0)) for name in self.split["train"]
        ]
        self.train_dataset.weights.copy_(torch.tensor(values, dtype=torch.float64))

    def val_scans(self) -> list[ValidationScan]:
        """Return the validation volumes that are scored as a whole."""
        self.setup()
        return [self._scan(volume_id) for volume_id in self._whole_ids()]

    def _whole_ids(self) -> list[str]:
        return self.split["val"]

    def _scan(self, volume_id: str) -> ValidationScan:
        reader = self._sources[volume_id].open(ChunkLoader(SCAN_CACHE_BYTES))
        image: Any = CropView(reader, "image")
        if self.prior_root is not None:
            prior = PriorReader(
                self.prior_root, volume_id, shape_zyx=image.shape, dtype=image.dtype
            )
            image = ImageWithPrior(image, prior)
        return ValidationScan(volume_id, image, CropView(reader, "label"))

    def _make_split(self, ids: list[str]) -> Split:
        if self.split_file is not None and self.split_file.is_file():
            return read_split(self.split_file, ids, self.fold)
        split = self._split_volumes(ids, groups=self._groups())
        if self.split_file is not None:
            save_split(self.split_file, split)
        return split


def check_dtypes(volumes: Sequence[CropReader]) -> None:
    """Raise `VolumeFormatError` unless all images have one dtype."""
    dtypes = {str(v.dtype("image")): v.volume_id for v in volumes}
    if len(dtypes) > 1:
        raise VolumeFormatError(f"volumes of different dtypes cannot share a batch: {dtypes}")


def check_sizes(volumes: Sequence[CropReader], patch: Zyx, *, pad_small: bool) -> None:
    """Raise `ConfigError` if no volume holds a patch; warn of those that do not."""
    small = [v for v in volumes if any(p > n for p, n in zip(patch, v.shape_zyx, strict=True))]
    if len(small) == len(volumes) and not pad_small:
        largest = max(volumes, key=lambda v: math.prod(v.shape_zyx))
        raise ConfigError(
            f"patch_zyx {list(patch)} is larger than every volume; the largest, "
            f"{largest.volume_id}, has {list(largest.shape_zyx)}. Choose a smaller patch, or "
            "pad_small=true to pad with ignored voxels"
        )
    if small:
        logger.warning(
            "%d of %d volumes are smaller than patch_zyx %s, e.g. %s %s; their crops are padded "
            "with ignored voxels",
            *(len(small), len(volumes), patch, small[0].volume_id, small[0].shape_zyx),
        )
