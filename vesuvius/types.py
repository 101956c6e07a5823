"""Types that cross layers, and the axis legend.

Axis legend: b batch, c channel, z y x = depth, height, width of the scan (D, H, W). Normals are
ordered (nz, ny, nx) along their channel axis. Probabilities lie in [0, 1].
"""

from dataclasses import dataclass, field
from typing import NotRequired, Protocol, TypedDict

import numpy as np
import numpy.typing as npt

FloatVolume = npt.NDArray[np.float32]
"""(z, y, x) float32."""
ByteVolume = npt.NDArray[np.uint8]
"""(z, y, x) uint8."""
LabelVolume = npt.NDArray[np.int32]
"""(z, y, x) int32 sheet numbers, 0 = no surface."""

BACKGROUND, SURFACE, IGNORE = 0, 1, 2
"""Values of a surface label."""

Report = dict[str, float | int | str | bool | list[float]]
"""Figures about one run of a step, flat enough for a JSON file or a table row."""


class SurfaceSample(TypedDict):
    """One training crop, before collation; arrays stay uint8 until the batch is on the device."""

    image: npt.NDArray[np.uint8]  # (1, z, y, x), uint8 or uint16
    label: npt.NDArray[np.uint8]  # (1, z, y, x), values 0, 1, 2
    volume_id: str
    origin_zyx: tuple[int, int, int]
    wrap: NotRequired[npt.NDArray[np.int16]]  # (1, z, y, x), true wrap number, phantom only


@dataclass(frozen=True, slots=True)
class PostprocessResult:
    """What any post-processing returns for one volume.

    Attributes:
        mask: (z, y, x) uint8 in {0, 1}.
        labels: (z, y, x) int32 sheet numbers from 1, 0 = no surface; None if the method has none.
        report: figures for the log (seconds per stage, residual, coherence, warnings).
    """

    mask: ByteVolume
    labels: LabelVolume | None = None
    report: Report = field(default_factory=dict)


class Postprocess(Protocol):
    """Probability (and normals) of one volume to a mask."""

    def __call__(
        self, probability: FloatVolume, normals: FloatVolume | None = None
    ) -> PostprocessResult:
        """Return the mask of (z, y, x) probability in [0, 1], normals (3, z, y, x) or None."""
        ...
