"""A volume, or a box of it, that is sliced like an array."""

from collections.abc import Sequence
from operator import index
from typing import Any

import numpy as np
import numpy.typing as npt

from vesuvius.data.volume import Volume
from vesuvius.errors import ConfigError

Zyx = tuple[int, int, int]


class RegionView:
    """`view[z0:z1, y0:y1, x0:x1]` of a volume or of a box of it; nothing is read before.

    Args:
        volume: opened lazily.
        region_zyx: [[z0, z1], [y0, y1], [x0, x1]] in voxels of the volume's level, None takes
            everything.

    Attributes:
        volume: the whole volume.
        origin_zyx: first voxel of the region.
        shape: voxels of the region along z, y, x.
        dtype: of the volume.

    Raises:
        ConfigError: not three pairs, empty, or outside the volume.
    """

    def __init__(self, volume: Volume, region_zyx: Sequence[Sequence[int]] | None = None) -> None:
        self.volume = volume
        whole = volume.shape_zyx
        given = [[0, n] for n in whole] if region_zyx is None else region_zyx
        try:
            pairs = [[index(end) for end in pair] for pair in given]
        except TypeError:  # a number in place of a pair, or one that is not whole
            pairs = []
        inside = len(pairs) == 3 and all(
            len(pair) == 2 and 0 <= pair[0] < pair[1] <= n
            for pair, n in zip(pairs, whole, strict=False)
        )
        if not inside:
            raise ConfigError(
                f"region_zyx={given} is no box of {volume.source}, whose level {volume.level} has "
                f"shape {whole}; expected [[z0,z1],[y0,y1],[x0,x1]] with 0 <= z0 < z1 <= {whole[0]}"
            )
        (z0, z1), (y0, y1), (x0, x1) = pairs
        self.origin_zyx: Zyx = (z0, y0, x0)
        self.shape: Zyx = (z1 - z0, y1 - y0, x1 - x0)
        self.dtype: np.dtype[Any] = volume.dtype

    @property
    def whole(self) -> bool:
        """Tell whether the region is all of the volume."""
        return self.shape == self.volume.shape_zyx

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Return the region as slices of the volume."""
        z, y, x = (slice(o, o + n) for o, n in zip(self.origin_zyx, self.shape, strict=True))
        return z, y, x

    def __getitem__(self, key: tuple[slice, slice, slice]) -> npt.NDArray[Any]:
        """Return the box of three slices with step 1."""
        start, stop = [], []
        for part, size, origin in zip(key, self.shape, self.origin_zyx, strict=True):
            low, high, _ = part.indices(size)
            start.append(origin + low)
            stop.append(origin + high)
        return self.volume.read((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
