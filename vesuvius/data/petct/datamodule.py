"""Lightning data modules of CT-PET slices: from files, or from a phantom made on first use."""

import logging
from collections.abc import Sequence
from pathlib import Path

from vesuvius.data.epoch_module import EpochDataModule
from vesuvius.data.exclusive import exclusive
from vesuvius.data.petct.dataset import PETCTDataset, collate_petct, read_mask
from vesuvius.data.petct.layout import Triple, check_sizes, find_triples, merge
from vesuvius.data.petct.phantom import PhantomSettings
from vesuvius.data.petct.phantom_files import write_phantom
from vesuvius.data.petct.split import Sides, split_patients
from vesuvius.data.splits import load_split, save_split
from vesuvius.errors import ConfigError, LabelValueError, PairingError, ShapeMismatchError

logger = logging.getLogger(__name__)


class PETCTDataModule(EpochDataModule):
    """Training and validation slices of a folder in any of the three layouts.

    A pre-split root is used as it is; otherwise patients (never slices) are divided.

    Args:
        root: folder of slices (`layout.find_triples`).
        image_size: edge slices are averaged down to; None keeps the files' size.
        batch_size: slices of one process and step.
        num_workers: loader processes, 0 = none.
        seed: of order and flips.
        val_ratio: share of patients that validate, if the root has no val side.
        split_seed: of that split.
        split_file: JSON {"train": [names], "val": [names]}; read if it exists, else written.
        augment: "flips" or "none"; training only. More: transforms=petct.
        max_slices: use the first so many training slices by name, None = all.
        pin_memory: page-locked batches, for a GPU.
        start_method: how workers start, "forkserver" or "spawn".

    Raises:
        ConfigError: an argument out of range.
        LabelValueError: no training slice has a lesion.
        PairingError, ShapeMismatchError, VolumeFormatError, VolumeNotFoundError: see
            `layout.find_triples`; also slices of different sizes without `image_size`.
    """

    def __init__(
        self,
        *,
        root: str | Path,
        image_size: int | None = None,
        batch_size: int = 8,
        num_workers: int = 0,
        seed: int = 42,
        val_ratio: float = 0.2,
        split_seed: int = 42,
        split_file: str | Path | None = None,
        augment: str = "flips",
        max_slices: int | None = None,
        pin_memory: bool = False,
        start_method: str = "forkserver",
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            num_workers=num_workers,
            pin_memory=pin_memory,
            start_method=start_method,
            collate=collate_petct,
        )
        low = {"image_size": (image_size or 16, 16), "max_slices": (max_slices or 1, 1)}
        for name, (value, least) in low.items():
            if value < least:
                raise ConfigError(f"data.{name}={value}; expected {least} or more.")
        self.root = Path(root)
        self.image_size = image_size
        self.seed = seed
        self.val_ratio, self.split_seed = val_ratio, split_seed
        self.split_file = None if split_file is None else Path(split_file)
        self.augment = augment
        self.max_slices = max_slices
        self.train_dataset: PETCTDataset | None = None
        self.val_dataset: PETCTDataset | None = None

    def setup(self, stage: str | None = None) -> None:  # noqa: ARG002 - both sides are cheap
        """Find and check the slices, split them by patient, build both data sets."""
        if self.train_dataset is not None:
            return
        sides = self._sides()
        train = sides["train"][: self.max_slices]
        if not train:
            raise ConfigError(f"{self.root}: no slice is left for training (data.val_ratio).")
        self._check_one_size([*train, *sides["val"]])
        check_some_lesion(train, self.root)
        self.train_dataset = PETCTDataset(
            train, image_size=self.image_size, seed=self.seed, augment=self.augment
        )
        self.val_dataset = PETCTDataset(
            sides["val"], image_size=self.image_size, seed=self.seed, fixed=True
        )
        logger.info(
            "%d slices of %d patients train, %d of %d validate",
            *(len(train), len({t.patient for t in train})),
            *(len(sides["val"]), len({t.patient for t in sides["val"]})),
        )

    def _sides(self) -> Sides:
        found = find_triples(self.root)
        if "val" in found:
            return {"train": found.get("train", []), "val": found["val"]}
        pool = merge(found, [side for side in found if side != "test"])
        if self.split_file is not None and self.split_file.is_file():
            return _from_file(self.split_file, pool)
        if self.val_ratio == 0:
            return {"train": pool, "val": []}
        sides = split_patients(pool, val_ratio=self.val_ratio, seed=self.split_seed)
        if self.split_file is not None:
            names = {side: [t.name for t in sides[side]] for side in ("train", "val")}
            save_split(self.split_file, names)
        return sides

    def _check_one_size(self, triples: Sequence[Triple]) -> None:
        """Raise ShapeMismatchError where a batch would mix sizes."""
        if self.image_size is not None or self.batch_size == 1:
            return
        sizes: dict[tuple[int, int], str] = {}
        for triple in triples:
            sizes.setdefault(check_sizes(triple), triple.name)
        if len(sizes) > 1:
            raise ShapeMismatchError(
                f"{self.root} holds slices of {len(sizes)} sizes, {sizes}; set data.image_size "
                "(for example 512), or data.batch_size=1."
            )


class PETCTPhantomDataModule(PETCTDataModule):
    """`PETCTDataModule` over a phantom that is made on first use: runs without any download.

    Args:
        folder: of the slices; what is there already is used again.
        num_patients, slices_per_patient: how many, training and validation together.
        phantom_size: edge of the slices in pixels.
        lesion_radius: smallest and largest, in pixels of a 512 grid.
        phantom_seed: decides all slices.
        image_size, batch_size, num_workers, seed, val_ratio, split_seed, split_file, augment: see
            `PETCTDataModule`.

    Raises:
        ConfigError: the folder holds a phantom of other settings.
    """

    def __init__(
        self,
        *,
        folder: str | Path,
        num_patients: int = 20,
        slices_per_patient: int = 10,
        phantom_size: int = 512,
        lesion_radius: Sequence[float] = (5.0, 26.0),
        phantom_seed: int = 0,
        image_size: int | None = None,
        batch_size: int = 8,
        num_workers: int = 0,
        seed: int = 42,
        val_ratio: float = 0.2,
        split_seed: int = 42,
        split_file: str | Path | None = None,
        augment: str = "flips",
    ) -> None:
        low, high = (float(r) for r in lesion_radius)
        self.settings = PhantomSettings(size=phantom_size, lesion_radius=(low, high))
        self.num_patients = num_patients
        self.slices_per_patient = slices_per_patient
        self.phantom_seed = phantom_seed
        super().__init__(
            root=folder,
            image_size=image_size,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            val_ratio=val_ratio,
            split_seed=split_seed,
            split_file=split_file,
            augment=augment,
        )

    def prepare_data(self) -> None:
        """Draw what is missing; Lightning calls it in one process only."""
        with exclusive(self.root):
            write_phantom(
                self.root,
                num_patients=self.num_patients,
                slices_per_patient=self.slices_per_patient,
                settings=self.settings,
                seed=self.phantom_seed,
            )


def check_some_lesion(triples: Sequence[Triple], root: Path) -> None:
    """Raise LabelValueError if every mask is empty; reads masks up to the first lesion."""
    if not any(read_mask(triple.mask).any() for triple in triples):
        raise LabelValueError(
            f"{root}: all {len(triples)} training masks are empty (0 everywhere), so nothing can "
            "be learned. Were the masks exported, and to the folder masks?"
        )


def _from_file(path: Path, triples: Sequence[Triple]) -> Sides:
    """Return the sides a split file names, checked for patients on both."""
    by_name = {t.name: t for t in triples}
    names = load_split(path, list(by_name))
    sides = {side: [by_name[name] for name in names[side]] for side in ("train", "val")}
    shared = {t.patient for t in sides["train"]} & {t.patient for t in sides["val"]}
    if shared:
        raise PairingError(
            f"{path}: patient {sorted(shared)[0]} is on both sides; split by patient, or delete "
            "the file to have it written anew."
        )
    return sides
