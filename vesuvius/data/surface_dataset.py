"""Crops of labelled volumes for surface training: data set, collation.

Sample i of epoch e is a pure function of (seed, e, i); workers hold no random state, and import no
Lightning, which would cost each of them seconds (see `epoch_module.py`).
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vesuvius.data.augment import IDENTITY, MODES, Symmetry, draw_symmetry
from vesuvius.data.crop_source import ChunkLoader, CropReader, CropSource, Fill
from vesuvius.data.crops import origin_containing, uniform_origin
from vesuvius.data.prior import PriorReader
from vesuvius.data.store import PreparedSource
from vesuvius.errors import ConfigError
from vesuvius.types import BACKGROUND, IGNORE, SurfaceSample

Zyx = tuple[int, int, int]
PAD = {"image": 0, "label": IGNORE, "wrap": 0, "prior": 0}
"""Value of voxels beyond a volume that is smaller than the patch."""


class SurfaceBatch(TypedDict):
    """Collated `SurfaceSample`s; nothing is converted to float here."""

    image: Tensor  # (b, 1, z, y, x) uint8 or uint16; (b, 2, z, y, x) with a prior
    label: Tensor  # (b, 1, z, y, x) uint8
    volume_id: list[str]
    origin_zyx: Tensor  # (b, 3) int64
    wrap: NotRequired[Tensor]  # (b, 1, z, y, x) int16


class SurfaceDataset(Dataset[SurfaceSample]):
    """Crops with labels; index with i or (epoch, i).

    Args:
        volumes: paths of prepared volumes `<id>.zarr` with labels, or other sources.
        patch_zyx: crop size.
        samples_per_volume: crops of each volume in an epoch.
        positive_share: share of crops drawn to contain surface, met to one crop in every epoch;
            volumes without any surface give uniform crops instead.
        seed: of everything drawn.
        augment: "none", "flips_rot90" or "cube" (see `augment.MODES`).
        fixed: validation: every epoch the same crops, volumes in order, both positive and uniform
            ones in each volume (if it gives at least two).
        ignore_as_background: label 2 becomes 0, as the original did.
        ignored_border: with `ignore_as_background`, label 2 within so many voxels of the volume's
            faces, and padding, stays ignored; 3 suits the competition, 0 = none.
        with_wrap: add the true wrap number (phantom truth).
        cache_mb: decoded chunks kept in each worker, MiB.
        prior_root: folder of predictions `<id>.zarr` of an earlier run, which become the second
            channel of the image; None = one channel.
        weights: shares of the volumes in an epoch's crops, None = even.

    Raises:
        ConfigError: an argument out of range.
        PairingError: a volume without labels (or wrap numbers, if asked for), or without a prior.
    """

    def __init__(
        self,
        volumes: Sequence[str | Path | CropSource],
        patch_zyx: Sequence[int],
        *,
        samples_per_volume: int = 4,
        positive_share: float = 0.7,
        seed: int = 42,
        augment: str = "none",
        fixed: bool = False,
        ignore_as_background: bool = False,
        ignored_border: int = 0,
        with_wrap: bool = False,
        cache_mb: int = 256,
        prior_root: str | Path | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        self.sources: list[CropSource] = [
            PreparedSource(v) if isinstance(v, str | Path) else v for v in volumes
        ]
        self.patch_zyx = check_patch(patch_zyx)
        check_draws(samples_per_volume, positive_share, augment, cache_mb)
        self.samples_per_volume = samples_per_volume
        self.positive_share = positive_share
        self.seed = seed
        self.augment = augment
        self.fixed = fixed
        if ignored_border < 0 or (ignored_border and not ignore_as_background):
            raise ConfigError(
                f"ignored_border is {ignored_border}; expected 0 or more, and with "
                "ignore_as_background=true only: otherwise all of label 2 is ignored"
            )
        self.ignore_as_background = ignore_as_background
        self.ignored_border = ignored_border
        self.names = ["image", "label", *(["wrap"] if with_wrap else [])]
        self.cache_mb = cache_mb
        self.prior_root = None if prior_root is None else Path(prior_root)
        own = [1.0] * len(self.sources) if weights is None else weights
        self.weights = torch.tensor(own, dtype=torch.float64)
        self.weights.share_memory_()  # type: ignore[no-untyped-call]
        self._volumes: list[CropReader] | None = None
        self._priors: dict[str, PriorReader] = {}
        self._loader: ChunkLoader | None = None
        self._plan: tuple[int, list[int], float] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Drop what is open: each worker opens files for itself, on first use."""
        return {**self.__dict__, "_volumes": None, "_priors": {}, "_loader": None, "_plan": None}

    def __len__(self) -> int:
        return len(self.sources) * self.samples_per_volume

    def volumes(self) -> list[CropReader]:
        """Return the opened volumes, which share one chunk cache in this process."""
        if self._volumes is None:
            loader = self._loader = ChunkLoader(self.cache_mb * 2**20)
            self._volumes = [source.open(loader) for source in self.sources]
        return self._volumes

    def prior(self, volume: CropReader) -> PriorReader:
        """Return the opened prediction of a volume; there must be a `prior_root`."""
        if volume.volume_id not in self._priors:
            assert self.prior_root is not None
            self._priors[volume.volume_id] = PriorReader(
                self.prior_root,
                volume.volume_id,
                shape_zyx=volume.shape_zyx,
                dtype=volume.dtype("image"),
                cache=None if self._loader is None else self._loader.cache,
            )
        return self._priors[volume.volume_id]

    def __getitem__(self, index: int | tuple[int, int]) -> SurfaceSample:
        return self._finish(self._begin(index))

    def __getitems__(self, indices: Sequence[int | tuple[int, int]]) -> list[SurfaceSample]:
        """Return the samples of a batch: all their chunks are asked for before any is waited for.

        PyTorch's loader calls it instead of `__getitem__`, one index after the other.
        """
        return [self._finish(crop) for crop in [self._begin(index) for index in indices]]

    def _begin(self, index: int | tuple[int, int]) -> "_Crop":
        """Draw sample i of epoch e and start fetching its voxels."""
        epoch, i = index if isinstance(index, tuple) else (0, index)
        if self.fixed:
            epoch = 0
        volume_index, positive = self._draw_plan(epoch, i)
        volume = self.volumes()[volume_index]
        rng = np.random.default_rng((self.seed, epoch, i))
        origin = self._origin(volume, rng, positive=positive)
        symmetry = draw_symmetry(self.augment, self.patch_zyx, rng)
        z, y, x = (
            min(o + p, n) for o, p, n in zip(origin, self.patch_zyx, volume.shape_zyx, strict=True)
        )
        stop = (z, y, x)
        return _Crop(volume, origin, stop, symmetry, volume.request(self.names, origin, stop))

    def _finish(self, crop: "_Crop") -> SurfaceSample:
        sample: dict[str, Any] = {
            name: self._array(crop, name, crop.volume.dtype(name), crop.fill) for name in self.names
        }
        if self.prior_root is not None:
            reader = self.prior(crop.volume)

            def fill(_: str, out: np.ndarray[Any, Any]) -> None:
                reader.read_into(out, crop.origin, crop.stop)

            prior = self._array(crop, "prior", reader.dtype, fill)
            sample["image"] = np.concatenate([sample["image"], prior])
        if self.ignore_as_background:
            label = sample["label"]
            forgotten = label == IGNORE
            if self.ignored_border:
                forgotten &= ~self._near_faces(crop)
            label[forgotten] = BACKGROUND
        found = {**sample, "volume_id": crop.volume.volume_id, "origin_zyx": crop.origin}
        return cast(SurfaceSample, found)

    def _draw_plan(self, epoch: int, i: int) -> tuple[int, bool]:
        """Return which volume sample i takes and whether its crop must contain surface.

        Positive draws are spread evenly: of samples 0 to n - 1, share * n are positive, to one.
        Beyond the epoch's length the volumes come round again, with new crops.
        """
        share = self.positive_share
        if self.fixed:
            volume, j = divmod(i % len(self), self.samples_per_volume)
            positives = _fixed_positives(self.samples_per_volume, share)
            return volume, j < positives
        if self._plan is None or self._plan[0] != epoch:
            rng = np.random.default_rng((self.seed, epoch))
            slots = np.repeat(np.arange(len(self.sources)), self._crops_per_volume())
            self._plan = (epoch, rng.permutation(slots).tolist(), float(rng.random()))
        _, slots_in_order, shift = self._plan
        positive = math.floor((i + 1) * share + shift) > math.floor(i * share + shift)
        return slots_in_order[i % len(slots_in_order)], positive

    def _crops_per_volume(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return how many of an epoch's crops each volume gives, in proportion to `weights`.

        The numbers add up to the epoch's length; rounding is spread along the list. `weights` lies
        in shared memory: what the training process writes, loader processes read in the next epoch.
        """
        weights = self.weights.numpy()
        total = len(self)
        if np.all(weights == weights[0]):
            return np.full(len(weights), self.samples_per_volume)
        ends = np.rint(np.cumsum(weights) / weights.sum() * total).astype(np.int64)
        counts: np.ndarray[Any, np.dtype[np.int64]] = np.diff(ends, prepend=0)
        return counts

    def _origin(self, volume: CropReader, rng: np.random.Generator, *, positive: bool) -> Zyx:
        if positive and len(volume.positive):
            z, y, x = volume.positive[rng.integers(len(volume.positive))].tolist()
            return origin_containing((z, y, x), volume.shape_zyx, self.patch_zyx, rng)
        return uniform_origin(volume.shape_zyx, self.patch_zyx, rng)

    def _array(
        self, crop: "_Crop", name: str, dtype: np.dtype[Any], fill: Fill
    ) -> np.ndarray[Any, Any]:
        """Return (1, z, y, x), turned; written once, straight into its final place."""
        out = np.empty(self.patch_zyx, dtype)
        target = out if crop.symmetry == IDENTITY else crop.symmetry.inverse().apply(out)
        size = tuple(b - a for a, b in zip(crop.origin, crop.stop, strict=True))
        if size != self.patch_zyx:
            out.fill(PAD[name])
        fill(name, target[tuple(map(slice, size))])
        return out[None]

    def _near_faces(self, crop: "_Crop") -> np.ndarray[Any, Any]:
        """Return (1, z, y, x) bool, turned: within `ignored_border` of a face, or beyond it."""
        near = np.ones(self.patch_zyx, bool)
        border = self.ignored_border
        inner = tuple(
            slice(max(0, border - o), max(0, n - border - o))
            for o, n in zip(crop.origin, crop.volume.shape_zyx, strict=True)
        )
        crop.symmetry.inverse().apply(near)[inner] = False
        return near[None]


class _Crop(NamedTuple):
    """A drawn sample whose voxels are on their way."""

    volume: CropReader
    origin: Zyx
    stop: Zyx
    symmetry: Symmetry
    fill: Fill


def collate_surface(samples: Sequence[SurfaceSample]) -> SurfaceBatch:
    """Return the batch of samples; arrays keep their dtype."""
    batch: dict[str, Any] = {
        name: torch.from_numpy(np.stack([cast(dict[str, Any], s)[name] for s in samples]))
        for name in ("image", "label", "wrap")
        if name in samples[0]
    }
    batch["volume_id"] = [s["volume_id"] for s in samples]
    batch["origin_zyx"] = torch.tensor([s["origin_zyx"] for s in samples])
    return cast(SurfaceBatch, batch)


def check_patch(patch_zyx: Sequence[int]) -> Zyx:
    """Return the patch as three ints.

    Raises:
        ConfigError: not three positive numbers.
    """
    patch = tuple(int(n) for n in patch_zyx)
    if len(patch) != 3 or min(patch) < 1:
        raise ConfigError(f"patch_zyx is {list(patch_zyx)}; expected three positive sizes z, y, x")
    return (patch[0], patch[1], patch[2])


def check_draws(
    samples_per_volume: int, positive_share: float, augment: str, cache_mb: int
) -> None:
    """Raise `ConfigError` if an argument of the crops is out of range."""
    if samples_per_volume < 1:
        raise ConfigError(f"samples_per_volume is {samples_per_volume}; expected 1 or more")
    if not 0 <= positive_share <= 1:
        raise ConfigError(f"positive_share is {positive_share}; expected 0 to 1")
    if augment not in MODES:
        raise ConfigError(f"augment is {augment!r}; expected one of {', '.join(MODES)}")
    if cache_mb < 0:
        raise ConfigError(f"cache_mb is {cache_mb}; expected 0 or more")


def _fixed_positives(num_crops: int, share: float) -> int:
    """Return how many of a volume's validation crops are positive; both kinds occur from 2 on."""
    wanted = round(num_crops * share)
    if num_crops < 2 or share in (0.0, 1.0):
        return math.ceil(num_crops * share)
    return min(max(wanted, 1), num_crops - 1)
