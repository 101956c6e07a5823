"""Lightning data module over a folder of prepared volumes; the crops: `surface_dataset.py`."""

from collections.abc import Sequence
from pathlib import Path

from vesuvius.data.crop_source import CropSource
from vesuvius.data.crops_module import CropsDataModule
from vesuvius.data.store import PreparedSource, PreparedVolume, list_prepared
from vesuvius.errors import ConfigError, PairingError


class SurfaceDataModule(CropsDataModule):
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
            patch_zyx=patch_zyx,
            batch_size=batch_size,
            samples_per_volume=samples_per_volume,
            positive_share=positive_share,
            num_workers=num_workers,
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
            with_wrap=with_wrap,
            cache_mb=cache_mb,
            val_crops_per_volume=val_crops_per_volume,
            pad_small=pad_small,
            pin_memory=pin_memory,
            start_method=start_method,
            prior_root=prior_root,
        )
        if max_volumes is not None and max_volumes < 1:
            raise ConfigError(f"max_volumes is {max_volumes}; expected 1 or more, or null for all")
        self.root = Path(root)
        self.max_volumes = max_volumes
        self._with_wrap = with_wrap
        self._prepared: list[PreparedVolume] = []

    def train_volumes(self) -> list[Path]:
        """Return the prepared volumes that train."""
        self.setup()
        return [self.root / f"{volume_id}.zarr" for volume_id in self.split["train"]]

    def val_volumes(self) -> list[Path]:
        """Return the prepared volumes that validate."""
        self.setup()
        return [self.root / f"{volume_id}.zarr" for volume_id in self.split["val"]]

    def _find(self) -> list[CropSource]:
        paths = list_prepared(self.root)[: self.max_volumes]
        self._prepared = [PreparedVolume(path) for path in paths]
        for name in ("label", *(["wrap"] if self._with_wrap else [])):
            without = [v.volume_id for v in self._prepared if not v.has(name)]
            if without:
                raise PairingError(
                    f"{len(without)} of {len(paths)} volumes have no {name}, e.g. {without[0]}; "
                    "training needs it in all of them. Prepare them together with their labels"
                )
        return [PreparedSource(path) for path in paths]

    def _scrolls(self) -> dict[str, str | None]:
        return {v.volume_id: v.attributes.get("scroll_id") for v in self._prepared}
