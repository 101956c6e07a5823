"""Voxels as text of a page: slabs along z, deflated, base64."""

import base64
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

_SLAB_BYTES = 4 * 2**20
_LEVEL = 6


@dataclass(frozen=True, slots=True)
class Slab:
    """Some slices of a volume.

    Attributes:
        text: base64 of zlib's format; little endian.
        differences: slices after the first are stored as difference to the slice before, modulo
            2^bits.
    """

    text: str
    differences: bool


def pack(volume: npt.NDArray[Any]) -> Iterator[Slab]:
    """Yield a (z, y, x) volume of uint8 or uint16 in slabs of whole slices, without loss.

    Whether differences are smaller depends on the data (noise that fades along z: yes; a picture
    with few grey levels: no), so the middle slab decides for all.
    """
    plain = volume.astype(volume.dtype.newbyteorder("<"), copy=False)
    slices = max(1, _SLAB_BYTES // max(plain[0].nbytes, 1))
    starts = range(0, len(plain), slices)
    middle = starts[len(starts) // 2]
    trial = plain[middle : middle + slices]
    sizes = [len(zlib.compress(part.tobytes(), 1)) for part in (trial, _differences(trial))]
    differences = sizes[1] < 0.97 * sizes[0]
    for start in starts:
        slab = plain[start : start + slices]
        data = _differences(slab) if differences else slab
        yield Slab(base64.b64encode(zlib.compress(data.tobytes(), _LEVEL)).decode(), differences)


def _differences(slab: npt.NDArray[Any]) -> npt.NDArray[Any]:
    out = slab.copy()
    out[1:] -= slab[:-1]
    return out
