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

HEART_CLASSES = (
    "Myocardium", "LA", "LV", "RA", "RV", "Aorta", "PA", "LAA", "Coronary", "PV",
)  # fmt: skip
"""Names of heart classes 1 to 10, as in the public cardiac CT data set (arXiv 2510.06090)."""


class SurfaceSample(TypedDict):
    """One training crop, before collation; arrays stay uint8 until the batch is on the device."""

    image: npt.NDArray[np.uint8]  # (1, z, y, x), uint8 or uint16
    label: npt.NDArray[np.uint8]  # (1, z, y, x), values 0, 1, 2
    volume_id: str
    origin_zyx: tuple[int, int, int]
    wrap: NotRequired[npt.NDArray[np.int16]]  # (1, z, y, x), true wrap number, phantom only


@dataclass(frozen=True, slots=True)
class HeartLayout:
    """Where vol, near and surface points lie among the decoded points of a heart.

    Order: [volume inside | volume outside | near | surface].

    Attributes:
        num_volume: volume queries, half inside.
        num_near: queries beside the surface.
        num_surface: points on the surface.
    """

    num_volume: int = 2048
    num_near: int = 1024
    num_surface: int = 8192

    @property
    def num_queries(self) -> int:
        """Return Q: volume and near points."""
        return self.num_volume + self.num_near

    @property
    def vol(self) -> slice:
        """Return where the volume queries are."""
        return slice(0, self.num_volume)

    @property
    def near(self) -> slice:
        """Return where the near queries are."""
        return slice(self.num_volume, self.num_queries)

    @property
    def surface(self) -> slice:
        """Return where the surface points are, behind the queries."""
        return slice(self.num_queries, self.num_queries + self.num_surface)


class HeartSample(TypedDict):
    """One heart as points, before collation (a batch adds an axis in front).

    Points are (x, y, z) in [-1, 1]; P surface samples, Q = V + N queries ordered [volume inside |
    volume outside | near], C class channels (classes of the data, then padding up to C).
    """

    surface: npt.NDArray[np.float32]  # (P, 3 + C) encoder input: xyz, one-hot; classes may lack
    surface_target: npt.NDArray[np.float32]  # (P, 3 + C) the whole surface; no class dropped
    points: npt.NDArray[np.float32]  # (Q, 3) queries
    target: npt.NDArray[np.float32]  # (Q, 2) signed distance (inside < 0), label 0..C
    valid_class_mask: npt.NDArray[np.float32]  # (C,) 1 = class of the data, 0 = padding
    present_class_mask: npt.NDArray[np.float32]  # (C,) 1 = the heart has the class
    input_class_mask: npt.NDArray[np.float32]  # (C,) 1 = the class is in `surface`
    scale: np.float32  # cube units per mm, NaN if the file does not tell
    case_id: str
    points_class_sdf: NotRequired[npt.NDArray[np.float32]]  # (Q, C), sdf_mode=per_class
    surface_class_sdf: NotRequired[npt.NDArray[np.float32]]  # (P, C) of `surface_target`


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
