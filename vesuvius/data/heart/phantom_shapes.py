"""Draws ellipsoids and tubes of the phantom into a label map, each in its bounding box only.

Own. Local coordinates are mm in the heart's frame; the canvas turns them into the volume's.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.interpolate import CubicSpline

Points = npt.NDArray[np.float64]
Inside = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.bool_]]
"""(n, 3) local mm -> (n,) bool."""


@dataclass(frozen=True, slots=True)
class Ellipsoid:
    """An axis-aligned ellipsoid, cut by a plane.

    Attributes:
        centre: (3,) mm.
        radii: (3,) mm.
        top: z above which nothing belongs to it, mm.
    """

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    top: float = np.inf

    def grown(self, thickness: float) -> "Ellipsoid":
        """Return the ellipsoid with every radius longer by `thickness` mm."""
        a, b, c = self.radii
        return Ellipsoid(self.centre, (a + thickness, b + thickness, c + thickness), self.top)

    def contains(self, points: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        """Return which of (n, 3) points lie inside."""
        unit = (points - np.array(self.centre, np.float32)) / np.array(self.radii, np.float32)
        return np.asarray(((unit * unit).sum(1) < 1) & (points[:, 2] < self.top))

    def surface(self, direction: npt.ArrayLike) -> Points:
        """Return the (n, 3) surface points in (n, 3) directions from the centre."""
        way = np.asarray(direction, np.float64)
        length = 1 / np.sqrt(((way / self.radii) ** 2).sum(-1, keepdims=True))
        return np.asarray(self.centre + way * length, np.float64)

    @property
    def box(self) -> tuple[Points, Points]:
        """Return the lower and upper corner, mm."""
        centre, radii = np.array(self.centre), np.array(self.radii)
        return centre - radii, centre + radii


@dataclass(frozen=True, slots=True)
class Warp:
    """A smooth displacement x + amplitude * sin(frequency . x + phase), axis by axis.

    Attributes:
        amplitude: mm.
        frequency: (3, 3) rad/mm; row i moves axis i.
        phase: (3,) rad.
    """

    amplitude: float
    frequency: Points
    phase: Points

    def __call__(self, points: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the displaced (n, 3) points."""
        angle = points @ self.frequency.T.astype(np.float32) + self.phase.astype(np.float32)
        return np.asarray(points + np.float32(self.amplitude) * np.sin(angle), np.float32)


class Canvas:
    """A label map in which shapes are drawn in the heart's coordinates.

    Args:
        shape: voxels along x, y, z.
        spacing: mm.
        rotation: (3, 3), heart to volume.
        centre: (3,) mm in the volume where the heart's origin lies.
        warp: displacement in the heart's frame.
    """

    def __init__(
        self,
        shape: Sequence[int],
        spacing: Sequence[float],
        rotation: Points,
        centre: Points,
        warp: Warp,
    ) -> None:
        self.labels = np.zeros(tuple(shape), np.uint8)
        self.spacing = np.asarray(spacing, np.float64)
        self.rotation = rotation
        self.centre = centre
        self.warp = warp

    def paint(
        self,
        value: int,
        inside: Inside,
        box: tuple[Points, Points],
        over: Sequence[int] = (0,),
    ) -> None:
        """Set voxels to `value` where `inside`, if their label is one of `over`.

        Args:
            value: label.
            inside: local points to bool.
            box: lower and upper corner around the shape, local mm.
            over: labels that give way.
        """
        window = self._window(box)
        view = self.labels[window]
        free = np.isin(view, over)
        index = np.argwhere(free)
        if len(index) == 0:
            return
        start = [axis.start for axis in window]
        world = (index + start) * self.spacing - self.centre
        local = self.warp((world @ self.rotation).astype(np.float32))
        hit = index[inside(local)]
        view[tuple(hit.T)] = value

    def tube(
        self, value: int, path: npt.ArrayLike, radius: float, over: Sequence[int] = (0,)
    ) -> None:
        """Draw a tube of `radius` mm along a smooth curve through the (n, 3) points of `path`."""
        nodes = smooth_path(np.asarray(path, np.float64), step=radius)
        for a, b in itertools.pairwise(nodes):
            low, high = np.minimum(a, b) - radius, np.maximum(a, b) + radius
            self.paint(value, _Capsule(a, b, radius), (low, high), over)

    def _window(self, box: tuple[Points, Points]) -> tuple[slice, slice, slice]:
        low, high = box[0] - self.warp.amplitude, box[1] + self.warp.amplitude
        corners = np.array(np.meshgrid(*zip(low, high, strict=True))).reshape(3, -1)
        index = ((self.rotation @ corners).T + self.centre) / self.spacing
        first = np.clip(np.floor(index.min(0)), 0, self.labels.shape).astype(int)
        last = np.clip(np.ceil(index.max(0)) + 1, 0, self.labels.shape).astype(int)
        x, y, z = (slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
        return x, y, z


@dataclass(frozen=True, slots=True)
class _Capsule:
    start: Points
    stop: Points
    radius: float

    def __call__(self, points: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        way = self.stop - self.start
        rest = points - self.start
        share = np.clip(rest @ way / max(float(way @ way), 1e-9), 0, 1)
        gap = rest - share[:, None] * way
        return np.asarray((gap * gap).sum(1) < self.radius**2)


def smooth_path(points: Points, step: float) -> Points:
    """Return points at most about `step` mm apart on a cubic spline through (n, 3) points."""
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    if len(points) < 3:
        return points
    count = max(int(np.ceil(length[-1] / step)), 2)
    return np.asarray(CubicSpline(length, points)(np.linspace(0, length[-1], count + 1)))
