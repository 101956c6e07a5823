"""Procedural ten-class hearts: label maps to try, train and test everything without any data.

Own. Millimetre sizes of an adult heart: cut LV ellipsoid, myocardial shell, RV crescent, two atria,
appendage, arch, pulmonary trunk with branches, four veins, three coronaries on the epicardium.
Axes are RAS+: x to the right, y to the front, z to the head. Earlier classes keep their voxels;
coronaries alone are drawn over myocardium and RV.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from vesuvius.data.heart.phantom_shapes import Canvas, Ellipsoid, Points, Warp
from vesuvius.errors import ConfigError
from vesuvius.types import HEART_CLASSES

MYO, LA, LV, RA, RV, AORTA, PA, LAA, CORONARY, PV = range(1, 11)
MIN_FOV_MM = 90.0


@dataclass(frozen=True, slots=True)
class HeartPhantomSettings:
    """How hearts are made.

    Attributes:
        shape: voxels along x, y, z.
        spacing: mm; the heart is about 105 mm long whatever the spacing.
        missing: classes left out (their voxels stay background), 1..10.
        touch_border: the heart is moved until the volume's edge cuts it.
        wall_mm: myocardial thickness; None = 8.5 mm +- 15 %.
        rotation_deg: largest turn about each axis.
        warp_mm: amplitude of the smooth displacement.
    """

    shape: tuple[int, int, int] = (96, 96, 96)
    spacing: tuple[float, float, float] = (1.25, 1.25, 1.25)
    missing: tuple[int, ...] = ()
    touch_border: bool = False
    wall_mm: float | None = None
    rotation_deg: float = 12.0
    warp_mm: float = 1.5

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 8:
            raise ConfigError(f"shape is {self.shape}; expected three sizes of 8 or more")
        if len(self.spacing) != 3 or min(self.spacing) <= 0:
            raise ConfigError(f"spacing is {self.spacing}; expected three lengths above 0 mm")
        fov = min(n * s for n, s in zip(self.shape, self.spacing, strict=True))
        if fov < MIN_FOV_MM:
            raise ConfigError(
                f"shape {self.shape} with spacing {self.spacing} mm spans {fov:.0f} mm; a heart "
                f"needs {MIN_FOV_MM:.0f} mm: give more voxels or a larger spacing"
            )
        wrong = [c for c in self.missing if not 1 <= c <= len(HEART_CLASSES)]
        if wrong:
            raise ConfigError(f"missing is {wrong}; expected classes 1 to {len(HEART_CLASSES)}")
        if self.wall_mm is not None and self.wall_mm <= 0:
            raise ConfigError(f"wall_mm is {self.wall_mm}; expected above 0")


def make_heart(seed: int, settings: HeartPhantomSettings | None = None) -> npt.NDArray[np.uint8]:
    """Return (x, y, z) labels 0..10 of one heart; the same seed gives the same heart.

    Args:
        seed: 0 or more; decides sizes, places and turn.
        settings: grid and difficulty; None = 96^3 of 1.25 mm.

    Raises:
        ConfigError: a seed below 0.
    """
    if seed < 0:
        raise ConfigError(f"seed is {seed}; expected 0 or more")
    settings = settings or HeartPhantomSettings()
    rng = np.random.default_rng([seed, 8])
    canvas = _canvas(rng, settings)
    ventricle = Ellipsoid((0, 0, 0), _vary(rng, (21, 21, 40)), top=18.0)
    drawn_wall = 8.5 * rng.uniform(0.85, 1.15)
    wall = drawn_wall if settings.wall_mm is None else settings.wall_mm
    atrium = _chambers(canvas, rng, ventricle, wall)
    _great_vessels(canvas, rng, ventricle)
    _veins(canvas, rng, atrium)
    _coronaries(canvas, rng, ventricle.grown(wall))
    if not settings.touch_border:
        _clear_border(canvas.labels)
    for number in settings.missing:
        canvas.labels[canvas.labels == number] = 0
    return canvas.labels


def _clear_border(labels: npt.NDArray[np.uint8]) -> None:
    for axis in range(3):
        for end in (0, -1):
            labels[(slice(None),) * axis + (end,)] = 0


def _canvas(rng: np.random.Generator, settings: HeartPhantomSettings) -> Canvas:
    extent = np.array(settings.shape) * settings.spacing
    angles = rng.uniform(-1, 1, 3) * settings.rotation_deg
    rotation = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    # the middle of the drawn structures, so that a cube of 120 mm holds the heart
    middle = rotation @ np.array([6.0, -7.0, 5.5])
    centre = (extent - np.array(settings.spacing)) / 2 - middle + rng.uniform(-1, 1, 3)
    if settings.touch_border:
        centre = centre + np.array([0.0, 0.0, -(extent[2] / 2 - 40.0)])
    warp = Warp(
        settings.warp_mm, rng.uniform(-1, 1, (3, 3)) * 2 * np.pi / 70, rng.uniform(0, 6.28, 3)
    )
    return Canvas(settings.shape, settings.spacing, rotation, centre, warp)


def _vary(
    rng: np.random.Generator, values: Sequence[float], share: float = 0.1
) -> tuple[float, float, float]:
    a, b, c = np.asarray(values) * rng.uniform(1 - share, 1 + share, 3)
    return float(a), float(b), float(c)


def _moved(
    rng: np.random.Generator, point: Sequence[float], by: float = 2.0
) -> tuple[float, float, float]:
    a, b, c = np.asarray(point) + rng.uniform(-by, by, 3)
    return float(a), float(b), float(c)


def _chambers(
    canvas: Canvas, rng: np.random.Generator, ventricle: Ellipsoid, wall: float
) -> Ellipsoid:
    """Draw LV, myocardium, RV, LA, RA, LAA; return the left atrium."""
    canvas.paint(LV, ventricle.contains, ventricle.box)
    outer = ventricle.grown(wall)
    canvas.paint(MYO, outer.contains, outer.box)
    right = Ellipsoid(_moved(rng, (20, 10, 0)), _vary(rng, (30, 26, 36)), top=18.0)
    canvas.paint(RV, right.contains, right.box)
    left = Ellipsoid(_moved(rng, (-3, -15, 33)), _vary(rng, (26, 15, 16)))
    canvas.paint(LA, left.contains, left.box)
    atrium = Ellipsoid(_moved(rng, (30, -6, 33)), _vary(rng, (17, 18, 19)))
    canvas.paint(RA, atrium.contains, atrium.box)
    start = left.surface([-0.8, 0.5, 0.1])
    path = np.array([start, start + _moved(rng, (-7, 9, 2)), start + _moved(rng, (-6, 20, -2))])
    canvas.tube(LAA, path, 6.5 * rng.uniform(0.85, 1.15))
    return left


def _great_vessels(canvas: Canvas, rng: np.random.Generator, ventricle: Ellipsoid) -> None:
    base = ventricle.top
    arch = [(3, 8, base), (6, 9, base + 10), (7, 7, base + 22), (2, 0, base + 31),
            (-9, -17, base + 31), (-15, -37, base + 19), (-15, -42, base - 10)]  # fmt: skip
    canvas.tube(AORTA, [_moved(rng, p, 1.2) for p in arch], 11.5 * rng.uniform(0.9, 1.1))
    fork = np.array(_moved(rng, (-9, 8, base + 27), 1.5))
    trunk = np.array([(17, 26, base - 3), (9, 26, base + 11), fork])
    radius = 9.5 * rng.uniform(0.9, 1.1)
    canvas.tube(PA, trunk, radius)
    right = [fork, fork + _moved(rng, (14, -17, -1), 1.5), fork + _moved(rng, (34, -20, -2), 1.5)]
    left = [fork, fork + _moved(rng, (-12, -7, 2), 1.5), fork + _moved(rng, (-24, -16, 0), 1.5)]
    canvas.tube(PA, right, radius * 0.65)
    canvas.tube(PA, left, radius * 0.65)


def _veins(canvas: Canvas, rng: np.random.Generator, atrium: Ellipsoid) -> None:
    for side in (-1, 1):
        for height in (-0.45, 0.4):
            start = atrium.surface([0.75 * side, -0.6, height])
            ways = (7 * side, -5, 4 * height), (16 * side, -9, 12 * height)
            path = [0.8 * start + 0.2 * np.array(atrium.centre), start]
            path += [start + _moved(rng, way, 1.0) for way in ways]
            canvas.tube(PV, path, 5.0 * rng.uniform(0.85, 1.15))


def _coronaries(canvas: Canvas, rng: np.random.Generator, outer: Ellipsoid) -> None:
    """Draw LAD, circumflex and right coronary on the epicardium."""
    radius = 1.9 * rng.uniform(0.9, 1.1)
    shell = outer.grown(0.6 * radius)
    down = np.linspace(0.35, -0.85, 9)
    front = np.radians(rng.uniform(60, 75)) + 0.25 * np.sin(3 * down)
    canvas.tube(CORONARY, _on(shell, front, down), radius, over=(0, MYO, RV))
    round_left = np.radians(np.linspace(80, 230, 9))
    groove = 0.3 + 0.05 * np.sin(round_left * 2 + rng.uniform(0, 6.28))
    canvas.tube(CORONARY, _on(shell, round_left, groove), radius, over=(0, MYO, RV))
    round_right = np.radians(np.linspace(60, -70, 9))
    wide = Ellipsoid((20, 10, 0), (31, 27, 37))
    path = _on(wide, round_right, 0.3 + 0.05 * np.cos(round_right * 2 + rng.uniform(0, 6.28)))
    canvas.tube(CORONARY, path, radius, over=(0, MYO, RV))


def _on(shell: Ellipsoid, azimuth: Points, height: npt.ArrayLike) -> Points:
    """Return points on an ellipsoid by azimuth (rad) and height as a share of its half length."""
    share = np.broadcast_to(np.asarray(height, np.float64), azimuth.shape)
    level = np.sqrt(1 - share**2)
    unit = np.stack([np.cos(azimuth) * level, np.sin(azimuth) * level, share], -1)
    return np.asarray(np.array(shell.centre) + unit * np.array(shell.radii), np.float64)
