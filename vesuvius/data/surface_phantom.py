"""Surface data module that makes its own volumes: a first run without any download."""

import logging
from collections.abc import Sequence
from pathlib import Path

from vesuvius.data.exclusive import exclusive
from vesuvius.data.phantom_files import write_kaggle_phantom
from vesuvius.data.prepare import PrepareOptions, prepare_all
from vesuvius.data.process_pool import default_jobs
from vesuvius.data.sources import find_items
from vesuvius.data.surface import SurfaceDataModule
from vesuvius.errors import StorageError

log = logging.getLogger(__name__)


class SurfacePhantomDataModule(SurfaceDataModule):
    """`SurfaceDataModule` over phantoms that are made and prepared on first use.

    Args:
        folder: phantoms go to `<folder>/kaggle` (TIFF), stores to `<folder>/prepared/train`;
            what is there already is used again.
        num_volumes: volumes, training and validation together.
        shape_zyx: size of each in voxels.
        phantom_seed: decides all volumes.
        patch_zyx, batch_size, samples_per_volume, positive_share, num_workers, seed, val_share,
            split_file, augment, ignore_as_background, ignored_border, with_wrap, cache_mb,
            val_crops_per_volume: see `SurfaceDataModule`.

    Raises:
        ConfigError: the folder holds phantoms of another size or seed.
        StorageError: the volumes could not be written.
    """

    def __init__(
        self,
        *,
        folder: str | Path,
        num_volumes: int = 5,
        shape_zyx: Sequence[int] = (96, 96, 96),
        phantom_seed: int = 0,
        patch_zyx: Sequence[int] = (64, 64, 64),
        batch_size: int = 2,
        samples_per_volume: int = 8,
        positive_share: float = 0.7,
        num_workers: int = 0,
        seed: int = 42,
        val_share: float = 0.2,
        split_file: str | Path | None = None,
        augment: str = "flips_rot90",
        ignore_as_background: bool = False,
        ignored_border: int = 0,
        with_wrap: bool = False,
        cache_mb: int = 256,
        val_crops_per_volume: int = 4,
    ) -> None:
        self.folder = Path(folder)
        self.num_volumes = num_volumes
        self.shape_zyx = (int(shape_zyx[0]), int(shape_zyx[1]), int(shape_zyx[2]))
        self.phantom_seed = phantom_seed
        super().__init__(
            root=self.folder / "prepared" / "train",
            patch_zyx=patch_zyx,
            batch_size=batch_size,
            samples_per_volume=samples_per_volume,
            positive_share=positive_share,
            num_workers=num_workers,
            seed=seed,
            val_share=val_share,
            split_file=split_file,
            augment=augment,
            ignore_as_background=ignore_as_background,
            ignored_border=ignored_border,
            with_wrap=with_wrap,
            cache_mb=cache_mb,
            val_crops_per_volume=val_crops_per_volume,
        )

    def prepare_data(self) -> None:
        """Make what is missing; Lightning calls it in one process only."""
        with exclusive(self.folder):
            jobs = default_jobs()
            log.info(
                "phantom: %d volumes of %s in %s", self.num_volumes, self.shape_zyx, self.folder
            )
            write_kaggle_phantom(
                self.folder / "kaggle",
                num_train=self.num_volumes,
                num_test=0,
                shape_zyx=self.shape_zyx,
                seed=self.phantom_seed,
                num_jobs=jobs,
            )
            items = find_items(self.folder / "kaggle")
            outcomes = prepare_all(items, self.folder / "prepared", PrepareOptions(), num_jobs=jobs)
            failed = [outcome for outcome in outcomes if outcome.status == "failed"]
            if failed:
                raise StorageError(f"{failed[0].item.volume_id}: {failed[0].error}")
