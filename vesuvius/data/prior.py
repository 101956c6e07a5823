"""Predictions of an earlier run as a second image channel: what second-stage networks read."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vesuvius.data.chunk_cache import ChunkCache, ChunkReader
from vesuvius.errors import ConfigError, PairingError, ShapeMismatchError, VolumeFormatError

Array = npt.NDArray[Any]
Zyx = tuple[int, int, int]
PROBABILITY = "probability"
_TO_IMAGE = {"uint8": 1, "uint16": 257}
"""Factor of a stored probability (uint8, 255 = 1) so that it fills the image's range."""


class PriorReader:
    """Reads the stored probability of one volume in the image's dtype.

    Args:
        root: folder of predictions `<id>.zarr`, as `infer.py` and cross-validation write them.
        volume_id: file stem.
        shape_zyx: of the image, which the prediction must have.
        dtype: of the image, uint8 or uint16.
        cache: where decoded chunks are kept; None keeps none.

    Raises:
        PairingError: no prediction of this volume.
        ShapeMismatchError: it has another shape.
        VolumeFormatError: it is no prediction of this package.
        ConfigError: the image has another dtype.
    """

    def __init__(
        self,
        root: Path,
        volume_id: str,
        *,
        shape_zyx: Zyx,
        dtype: Any,
        cache: ChunkCache | None = None,
    ) -> None:
        path = root / f"{volume_id}.zarr"
        if not (path / PROBABILITY / "zarr.json").is_file():
            raise PairingError(
                f"{path} holds no prediction of volume {volume_id} (prior_root, or prior of "
                "infer.py). Predict it first: infer.py of the first-stage run with "
                "save_probability=true."
            )
        self.dtype = np.dtype(dtype)
        if self.dtype.name not in _TO_IMAGE:
            raise ConfigError(
                f"{volume_id}: a prior goes with uint8 or uint16 images, this one is {self.dtype}."
            )
        self._reader = ChunkReader(path / PROBABILITY, cache)
        if self._reader.dtype != np.uint8:
            raise VolumeFormatError(f"{path}: its probability is {self._reader.dtype}, not uint8.")
        if self._reader.shape != tuple(shape_zyx):
            raise ShapeMismatchError(
                f"{path} has shape {self._reader.shape}, the image {tuple(shape_zyx)}: it belongs "
                "to another volume."
            )
        self.shape = self._reader.shape

    def read(self, start: tuple[int, ...], stop: tuple[int, ...]) -> Array:
        """Return the box [start, stop)."""
        out = np.empty([b - a for a, b in zip(start, stop, strict=True)], self.dtype)
        self.read_into(out, start, stop)
        return out

    def read_into(self, out: Array, start: tuple[int, ...], stop: tuple[int, ...]) -> None:
        """Copy the box [start, stop) into `out`, which may be any (flipped, transposed) view."""
        self._reader.read_into(out, start, stop)
        factor = _TO_IMAGE[self.dtype.name]
        if factor > 1:
            out *= self.dtype.type(factor)


class ImageWithPrior:
    """An image and its prior as one (2, z, y, x) volume that is sliced like an array.

    Args:
        image: (z, y, x), sliceable.
        prior: of the same shape.
    """

    def __init__(self, image: Any, prior: PriorReader) -> None:
        self._image = image
        self._prior = prior
        self.shape = (2, *prior.shape)
        self.dtype = prior.dtype

    def __getitem__(self, key: tuple[slice, slice, slice, slice]) -> Array:
        """Return `[:, z0:z1, y0:y1, x0:x1]`."""
        bounds = [part.indices(n)[:2] for part, n in zip(key[1:], self.shape[1:], strict=True)]
        (z0, z1), (y0, y1), (x0, x1) = bounds
        image = np.asarray(self._image[z0:z1, y0:y1, x0:x1])
        return np.stack([image, self._prior.read((z0, y0, x0), (z1, y1, x1))])[key[0]]
