"""Heart data module that makes its own hearts: a first run without any download."""

import logging
from collections.abc import Sequence
from pathlib import Path

from vesuvius.data.exclusive import exclusive
from vesuvius.data.heart.datamodule import Classes, HeartDataModule
from vesuvius.data.heart.phantom import HeartPhantomSettings
from vesuvius.data.heart.phantom_files import write_heart_phantoms
from vesuvius.data.heart.prepare import prepare_hearts
from vesuvius.data.heart.sampler import SamplerOptions
from vesuvius.data.process_pool import default_jobs
from vesuvius.errors import StorageError
from vesuvius.types import HEART_CLASSES

log = logging.getLogger(__name__)


class HeartPhantomDataModule(HeartDataModule):
    """`HeartDataModule` over phantoms that are made and prepared on first use.

    Args:
        folder: label maps go to `<folder>/labels`, cases to `<folder>/cases`; what is there
            already is used again.
        num_hearts: training and validation together.
        grid_size: voxels along each edge of 120 mm.
        phantom_seed: decides all hearts.
        rotation_deg: largest turn of a heart about each axis.
        num_points: of a case: on the surface, in the volume and near the surface each.
        sdf_mode: see `SamplerOptions`; per_class also stores the distance to each class.
        sdf_size, point_cloud_size, num_channels, rotation_std, permute_axes, mirror, partial_prob,
            min_remove, max_remove, partial_subsets, val_input_classes, with_class_sdf, batch_size,
            samples_per_case, num_workers, seed, val_share, split_file, cache_cases: see
            `HeartDataModule`.

    Raises:
        ConfigError: the folder holds hearts of another size or seed.
        StorageError: the hearts could not be written.
    """

    def __init__(
        self,
        *,
        folder: str | Path,
        num_hearts: int = 40,
        grid_size: int = 96,
        phantom_seed: int = 0,
        rotation_deg: float = 12.0,
        num_points: int = 50_000,
        sdf_mode: str = "min_of_classes",
        sdf_size: int = 4096,
        point_cloud_size: int = 8192,
        num_channels: int | None = None,
        rotation_std: float = 1.0,
        permute_axes: bool = False,
        mirror: bool = False,
        partial_prob: float = 0.0,
        min_remove: int = 2,
        max_remove: int = 5,
        partial_subsets: Sequence[Classes] = (),
        val_input_classes: Classes | None = None,
        with_class_sdf: bool = False,
        batch_size: int = 2,
        samples_per_case: int = 1,
        num_workers: int = 0,
        seed: int = 0,
        val_share: float = 0.2,
        split_file: str | Path | None = None,
        cache_cases: int = 64,
    ) -> None:
        self.folder = Path(folder)
        self.num_hearts = num_hearts
        self.phantom_seed = phantom_seed
        self.settings = HeartPhantomSettings(
            shape=(grid_size, grid_size, grid_size),
            spacing=(120 / grid_size, 120 / grid_size, 120 / grid_size),
            rotation_deg=rotation_deg,
        )
        self.options = SamplerOptions(
            num_surface_points=num_points,
            num_vol_points=num_points,
            min_surface_per_class=num_points // 25,
            vol_per_class=num_points // 20,
            sdf_mode=sdf_mode,
            seed=phantom_seed,
        )
        super().__init__(
            root=self.folder / "cases",
            sdf_size=sdf_size,
            point_cloud_size=point_cloud_size,
            class_names=HEART_CLASSES,
            num_channels=num_channels,
            rotation_std=rotation_std,
            permute_axes=permute_axes,
            mirror=mirror,
            partial_prob=partial_prob,
            min_remove=min_remove,
            max_remove=max_remove,
            partial_subsets=partial_subsets,
            val_input_classes=val_input_classes,
            with_class_sdf=with_class_sdf,
            batch_size=batch_size,
            samples_per_case=samples_per_case,
            num_workers=num_workers,
            seed=seed,
            val_share=val_share,
            split_file=split_file,
            cache_cases=cache_cases,
        )

    def prepare_data(self) -> None:
        """Make what is missing; Lightning calls it in one process only."""
        with exclusive(self.folder):
            log.info(
                "phantom: %d hearts %s in %s", self.num_hearts, self.settings.shape, self.folder
            )
            made = write_heart_phantoms(
                self.folder / "labels",
                count=self.num_hearts,
                seed=self.phantom_seed,
                settings=self.settings,
            )
            sources = [path for path, _ in made]
            outcomes = prepare_hearts(
                sources, self.folder / "cases", self.options, file_workers=default_jobs()
            )
            failed = [outcome for outcome in outcomes if outcome.status == "failed"]
            if failed:
                raise StorageError(f"{failed[0].source}: {failed[0].error}")
