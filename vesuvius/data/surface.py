"""Lightning data module over a folder of prepared volumes; the crops: `surface_dataset.py`."""

import logging
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vesuvius.data.epoch_module import EpochDataModule
from vesuvius.data.folds import read_split
from vesuvius.data.prior import ImageWithPrior, PriorReader
from vesuvius.data.splits import Split, save_split, split_volumes
from vesuvius.data.store import PreparedVolume, list_prepared
from vesuvius.data.surface_dataset import (
    SurfaceDataset,
    Zyx,
    check_draws,
    check_patch,
    collate_surface,
)
from vesuvius.errors import ConfigError, PairingError, VolumeFormatError

logger = logging.getLogger(__name__)


class SurfaceDataModule(EpochDataModule):
    """Training and validation crops of a folder of prepared volumes.

    Args:
        root: folder with `<id>.zarr`, as `vesuvius prepare` writes to OUT/train.
        patch_zyx: crop size.
        batch_size: crops of one process and step; R ranks make a global batch R times as large.
            Epochs are rounded up to whole global batches with further crops.
        samples_per_volume: training crops of each volume in an epoch.
        positive_share: share of crops that surely contain surface.
        num_workers: loader processes, 0 = none.
        seed: of crops and augmentation.
        val_share: share of volumes that validate, 0 = none.
        split_file: JSON {"train": [...], "val": [...]}, or the folds of `vesuvius splits`; read
            if it exists, else written.
        split_seed: of the split.
        split_by: "volume", or "scroll" to keep the volumes of one scroll on one side.
        fold: which of `num_folds` folds (or of the file's) validates, None = by `val_share`.
        num_folds: number of folds.
        max_volumes: use the first so many volumes by name, None = all.
        augment: "flips_rot90", "cube" or "none"; training only.
        ignore_as_background: label 2 counts as 0, as in the original.
        ignored_border: with it, label 2 this near to the volume's faces stays ignored, in voxels.
        with_wrap: batches hold `wrap`, the true wrap number (phantom).
        cache_mb: decoded chunks kept in each worker, MiB.
        val_crops_per_volume: fixed validation crops of each volume, positive and uniform.
        pad_small: allow a patch larger than every volume (crops are then mostly padding).
        pin_memory: page-locked batches, for a GPU.
        start_method: how workers start, "forkserver" or "spawn".
        prior_root: folder of predictions `<id>.zarr` that become the image's second channel (for
            second-stage networks); those of training volumes must be out-of-fold.

    Raises:
        ConfigError: an argument out of range; a patch larger than every volume.
        VolumeNotFoundError: no prepared volumes in `root`.
        PairingError: a volume without labels.
    """

    def __init__(
        self,
        root: str | Path,
        patch_zyx: Sequence[int] = (64, 64, 64),
        *,
        batch_size: int = 8,
        samples_per_volume: int = 4,
        positive_share: float = 0.7,
        num_workers: int = 0,
        seed: int = 42,
        val_share: float = 0.2,
        split_file: str | Path | None = None,
        split_seed: int = 42,
        split_by: str = "volume",
        fold: int | None = None,
        num_folds: int = 5,
        max_volumes: int | None = None,
        augment: str = "flips_rot90",
        ignore_as_background: bool = False,
        ignored_border: int = 0,
        with_wrap: bool = False,
        cache_mb: int = 256,
        val_crops_per_volume: int = 4,
        pad_small: bool = False,
        pin_memory: bool = False,
        start_method: str = "forkserver",
        prior_root: str | Path | None = None,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            num_workers=num_workers,
            pin_memory=pin_memory,
            start_method=start_method,
            collate=collate_surface,
        )
        self.prior_root = None if prior_root is None else Path(prior_root)
        self.root = Path(root)
        self.patch_zyx = check_patch(patch_zyx)
        check_draws(samples_per_volume, positive_share, augment, cache_mb)
        if val_crops_per_volume < 1:
            raise ConfigError(f"val_crops_per_volume is {val_crops_per_volume}; expected 1 or more")
        if split_by not in ("volume", "scroll"):
            raise ConfigError(f"split_by is {split_by!r}; expected volume or scroll")
        if max_volumes is not None and max_volumes < 1:
            raise ConfigError(f"max_volumes is {max_volumes}; expected 1 or more, or null for all")
        self.val_crops_per_volume = val_crops_per_volume
        self.max_volumes = max_volumes
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
        self._with_wrap = with_wrap
        self.split: Split = {}
        self.train_dataset: SurfaceDataset | None = None
        self.val_dataset: SurfaceDataset | None = None

    def setup(self, stage: str | None = None) -> None:  # noqa: ARG002 - both sides are cheap
        """Find and check the volumes, split them, build both data sets."""
        if self.train_dataset is not None:
            return
        paths = list_prepared(self.root)[: self.max_volumes]
        volumes = {v.volume_id: v for v in map(PreparedVolume, paths)}
        _check_arrays(list(volumes.values()), with_wrap=self._with_wrap)
        _check_sizes(list(volumes.values()), self.patch_zyx, pad_small=self.pad_small)
        self.split = self._make_split(volumes)
        if not self.split["train"]:
            raise ConfigError(f"{self.root}: no volume is left for training (split_file)")
        self.train_dataset = self._dataset(
            self._paths("train"), samples_per_volume=self._samples_per_volume, augment=self._augment
        )
        self.val_dataset = self._dataset(
            self._paths("val"), samples_per_volume=self.val_crops_per_volume, fixed=True
        )
        if self.prior_root is not None:
            for volume in volumes.values():
                self.train_dataset.prior(volume)  # refuses what is missing or does not fit

    def weigh_volumes(self, weights: Mapping[str, float]) -> None:
        """Let the next epoch's crops come from the training volumes in these proportions.

        Args:
            weights: volume id -> positive weight; a volume without one gets 1.
        """
        self.setup()
        assert self.train_dataset is not None
        values = [float(weights.get(name, 1.0)) for name in self.split["train"]]
        self.train_dataset.weights.copy_(torch.tensor(values, dtype=torch.float64))

    def with_prior(self, volume_id: str, image: Any) -> Any:
        """Return the (z, y, x) image, stacked with its prediction if there is a `prior_root`."""
        if self.prior_root is None:
            return image
        prior = PriorReader(self.prior_root, volume_id, shape_zyx=image.shape, dtype=image.dtype)
        return ImageWithPrior(image, prior)

    def train_volumes(self) -> list[Path]:
        """Return the prepared volumes that train."""
        self.setup()
        return self._paths("train")

    def val_volumes(self) -> list[Path]:
        """Return the prepared volumes that validate, for whole-volume scores."""
        self.setup()
        return self._paths("val")

    def _paths(self, side: str) -> list[Path]:
        return [self.root / f"{volume_id}.zarr" for volume_id in self.split[side]]

    def _make_split(self, volumes: dict[str, PreparedVolume]) -> Split:
        ids = list(volumes)
        if self.split_file is not None and self.split_file.is_file():
            return read_split(self.split_file, ids, self.fold)
        groups = None
        if self.split_by == "scroll":
            groups = {v: str(volumes[v].attributes.get("scroll_id")) for v in ids}
            unknown = [v for v, group in groups.items() if group == "None"]
            if unknown:
                raise ConfigError(
                    f"split_by=scroll, but {len(unknown)} volumes have no scroll_id, e.g. "
                    f"{unknown[0]} (it comes from train.csv at `vesuvius prepare`)"
                )
        split = self._split_volumes(ids, groups=groups)
        if self.split_file is not None:
            save_split(self.split_file, split)
        return split


def _check_arrays(volumes: list[PreparedVolume], *, with_wrap: bool) -> None:
    for name in ("label", *(["wrap"] if with_wrap else [])):
        without = [v.volume_id for v in volumes if not v.has(name)]
        if without:
            raise PairingError(
                f"{len(without)} of {len(volumes)} volumes have no {name}, e.g. {without[0]}; "
                "training needs it in all of them. Prepare them together with their labels"
            )
    dtypes = {str(v.array("image").dtype): v.volume_id for v in volumes}
    if len(dtypes) > 1:
        raise VolumeFormatError(f"volumes of different dtypes cannot share a batch: {dtypes}")


def _check_sizes(volumes: list[PreparedVolume], patch: Zyx, *, pad_small: bool) -> None:
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
