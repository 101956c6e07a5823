"""Slices for training, validation and inference: one reader, one order of samples."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.utils.data import Dataset

from vesuvius.data.petct.layout import Triple
from vesuvius.data.petct.png import read_png
from vesuvius.errors import ConfigError, ShapeMismatchError
from vesuvius.types import ByteVolume

AUGMENT = ("none", "flips")


class PETCTSample(TypedDict):
    """One slice, before collation."""

    image: ByteVolume  # (2, y, x): CT, PET
    label: ByteVolume  # (1, y, x) in {0, 1}
    name: str
    patient: str


def read_image(ct: Path, pet: Path, *, image_size: int | None = None) -> ByteVolume:
    """Return (2, y, x) uint8, CT and PET; what every part of the system feeds the network with.

    Args:
        ct: 8-bit grey PNG file.
        pet: another of the same size.
        image_size: edge of the result, averaged over areas; None keeps the file's size.

    Raises:
        VolumeNotFoundError, VolumeFormatError: a file is missing or not 8-bit grey PNG.
        ShapeMismatchError: sizes differ, or a resized slice is not square.
    """
    planes = [read_png(ct), read_png(pet)]
    if planes[0].shape != planes[1].shape:
        raise ShapeMismatchError(
            f"{ct.name}: CT has size {planes[0].shape}, PET {planes[1].shape}; resample them to "
            "one grid."
        )
    image = np.stack(planes)
    return image if image_size is None else np.rint(_resize(image, image_size)).astype(np.uint8)


def read_mask(path: Path, *, image_size: int | None = None) -> ByteVolume:
    """Return (1, y, x) in {0, 1}: every value above 0 is lesion, so that 0/1 and 0/255 both count.

    A resized pixel is lesion where at least half of it was.
    """
    mask = (read_png(path) > 0).astype(np.uint8)[None]
    if image_size is None:
        return mask
    return (_resize(mask, image_size) >= 0.5).astype(np.uint8)


def _resize(image: ByteVolume, size: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    height, width = image.shape[1:]
    if height != width:
        raise ShapeMismatchError(
            f"a slice of {height} x {width} cannot become {size} x {size} without distortion; set "
            "data.image_size=null."
        )
    as_float = torch.from_numpy(image).float()[None]
    return F.interpolate(as_float, size=(size, size), mode="area")[0].numpy()


class PETCTDataset(Dataset[PETCTSample]):
    """Slices with masks; index with i or (epoch, i).

    Args:
        triples: slices.
        image_size: see `read_image`.
        seed: of order and flips.
        augment: "flips" (left-right and up-down, each half of the time) or "none".
        fixed: validation: every epoch in the given order.

    Raises:
        ConfigError: unknown `augment`.
    """

    def __init__(
        self,
        triples: Sequence[Triple],
        *,
        image_size: int | None = None,
        seed: int = 42,
        augment: str = "none",
        fixed: bool = False,
    ) -> None:
        if augment not in AUGMENT:
            raise ConfigError(f"data.augment={augment!r}; expected one of {', '.join(AUGMENT)}.")
        self.triples = list(triples)
        self.image_size = image_size
        self.seed = seed
        self.augment = augment
        self.fixed = fixed

    def __len__(self) -> int:
        return len(self.triples)

    def __getitem__(self, index: int | tuple[int, int]) -> PETCTSample:
        epoch, i = index if isinstance(index, tuple) else (0, index)
        triple = self.triples[i % len(self) if self.fixed else self._shuffled(epoch, i)]
        image = read_image(triple.ct, triple.pet, image_size=self.image_size)
        label = read_mask(triple.mask, image_size=self.image_size)
        if self.augment == "flips":
            rng = np.random.default_rng((self.seed, epoch, i))
            axes = tuple(axis for axis in (1, 2) if rng.random() < 0.5)
            image, label = (np.flip(a, axes) for a in (image, label))
        return {
            "image": np.ascontiguousarray(image),
            "label": np.ascontiguousarray(label),
            "name": triple.name,
            "patient": triple.patient,
        }

    def _shuffled(self, epoch: int, i: int) -> int:
        """Return which slice sample i takes; beyond the epoch's length a new round begins."""
        lap, place = divmod(i, len(self))
        order = np.random.default_rng((self.seed, epoch, lap, 7)).permutation(len(self))
        return int(order[place])


def collate_petct(samples: Sequence[PETCTSample]) -> dict[str, Tensor | list[str]]:
    """Return image (b, 2, y, x) and label (b, 1, y, x), both uint8, names and patients.

    Raises:
        ShapeMismatchError: slices of different sizes in one batch.
    """
    sizes = {s["image"].shape[1:]: s["name"] for s in samples}
    if len(sizes) > 1:
        raise ShapeMismatchError(
            f"slices of different sizes cannot share a batch: {sizes}; set data.image_size, or "
            "data.batch_size=1."
        )
    return {
        "image": torch.from_numpy(np.stack([s["image"] for s in samples])),
        "label": torch.from_numpy(np.stack([s["label"] for s in samples])),
        "name": [s["name"] for s in samples],
        "patient": [s["patient"] for s in samples],
    }
