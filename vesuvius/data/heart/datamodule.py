"""Lightning data module over a folder of prepared hearts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vesuvius.data.epoch_module import EpochDataModule
from vesuvius.data.folds import read_split
from vesuvius.data.heart.dataset import HeartDataset, HeartDraws
from vesuvius.data.heart.index import list_cases, read_index, split_cases
from vesuvius.data.splits import save_split
from vesuvius.errors import ConfigError
from vesuvius.types import HEART_CLASSES

Classes = str | Sequence[int]


class HeartDataModule(EpochDataModule):
    """Training and validation samples of prepared hearts.

    Args:
        root: folder with `<id>.npz`, as `vesuvius heart prepare` writes; split by patient. May be
            null if both CSVs are given.
        train_csv, val_csv: lists of cases (rows subdir,stem,category) instead of a split.
        sdf_size, point_cloud_size, num_channels, rotation_std, permute_axes, mirror, partial_prob,
            min_remove, max_remove: see `HeartDraws`.
        partial_subsets: classes kept instead of removing at random: names or lists of numbers.
        val_input_classes: classes in the input of validation, a name or numbers; null = all.
        class_names: of classes 1..K.
        with_class_sdf: batches hold the distances to each class (sdf_mode per_class).
        batch_size: hearts of one process and step.
        samples_per_case: samples of each heart in a training epoch.
        num_workers: loader processes, 0 = none.
        seed: of points and augmentation.
        val_share: share of the patients that validate, 0 = none.
        split_file: JSON {"train": [...], "val": [...]}; read if it exists, else written.
        split_seed: of the split.
        patient_pattern: regular expression that finds the patient in a case's id.
        fold, num_folds: which of how many folds validates; null = by `val_share`.
        cache_cases: hearts kept in memory by each worker.
        pin_memory: page-locked batches, for a GPU.

    Raises:
        ConfigError: an argument out of range.
        VolumeNotFoundError: no cases.
        CaseFormatError: a case that cannot be read or has other classes (when it is drawn).
    """

    def __init__(
        self,
        root: str | Path | None = None,
        *,
        train_csv: str | Path | None = None,
        val_csv: str | Path | None = None,
        sdf_size: int = 4096,
        point_cloud_size: int = 8192,
        class_names: Sequence[str] = HEART_CLASSES,
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
        split_seed: int = 42,
        patient_pattern: str | None = None,
        fold: int | None = None,
        num_folds: int = 5,
        cache_cases: int = 64,
        pin_memory: bool = False,
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers, pin_memory=pin_memory)
        if (train_csv is None) != (val_csv is None):
            raise ConfigError("train_csv and val_csv belong together; give both or none")
        if root is None and train_csv is None:
            raise ConfigError("neither root nor train_csv and val_csv is given")
        self.root = None if root is None else Path(root)
        self.csvs = None
        if train_csv is not None and val_csv is not None:
            self.csvs = {"train": Path(train_csv), "val": Path(val_csv)}
        self.split_file = None if split_file is None else Path(split_file)
        self.fold = fold
        self._split_args: dict[str, Any] = {
            "val_share": val_share,
            "seed": split_seed,
            "patient_pattern": patient_pattern,
            "fold": fold,
            "num_folds": num_folds,
        }
        draws = HeartDraws(
            sdf_size=sdf_size,
            point_cloud_size=point_cloud_size,
            class_names=tuple(class_names),
            num_channels=num_channels,
            rotation_std=rotation_std,
            permute_axes=permute_axes,
            mirror=mirror,
            partial_prob=partial_prob,
            min_remove=min_remove,
            max_remove=max_remove,
            subsets=tuple(_kept(kept) for kept in partial_subsets),
            input_classes=None if val_input_classes is None else _kept(val_input_classes),
        )
        self._dataset_args: dict[str, Any] = {
            "draws": draws,
            "seed": seed,
            "cache_cases": cache_cases,
            "with_class_sdf": with_class_sdf,
        }
        self.samples_per_case = samples_per_case
        self.cases: dict[str, list[Path]] = {}
        self.train_dataset: HeartDataset | None = None
        self.val_dataset: HeartDataset | None = None

    def setup(self, stage: str | None = None) -> None:  # noqa: ARG002 - both sides are cheap
        """Find the cases, split them, build both data sets."""
        if self.train_dataset is not None:
            return
        self.cases = self._find()
        if not self.cases["train"]:
            raise ConfigError(f"{self.root}: no case is left for training (split_file)")
        self.train_dataset = HeartDataset(
            self.cases["train"], samples_per_case=self.samples_per_case, **self._dataset_args
        )
        self.val_dataset = HeartDataset(self.cases["val"], fixed=True, **self._dataset_args)

    def train_volumes(self) -> list[Path]:
        """Return the cases that train."""
        self.setup()
        return self.cases["train"]

    def val_volumes(self) -> list[Path]:
        """Return the cases that validate, for dense scores."""
        self.setup()
        return self.cases["val"]

    def _find(self) -> dict[str, list[Path]]:
        if self.csvs is not None:
            cases = {side: read_index(path) for side, path in self.csvs.items()}
            both = sorted(
                {p.resolve() for p in cases["train"]} & {p.resolve() for p in cases["val"]}
            )
            if both:
                raise ConfigError(f"{both[0].name} is listed in train_csv and in val_csv")
            return cases
        assert self.root is not None
        paths = {path.stem: path for path in list_cases(self.root)}
        if self.split_file is not None and self.split_file.is_file():
            split = read_split(self.split_file, list(paths), self.fold)
        else:
            split = split_cases(list(paths.values()), **self._split_args)
            if self.split_file is not None:
                save_split(self.split_file, split)
        return {side: [paths[name] for name in split[side]] for side in ("train", "val")}


def _kept(classes: Classes) -> str | tuple[int, ...]:
    return classes if isinstance(classes, str) else tuple(int(c) for c in classes)
