"""The phantom: a chunk of scroll CT made of formulas, with its truth.

Conventions. Axes z, y, x. The winding field rises by 1 from wrap to wrap, outward from the
umbilicus. The recto face (the inner, written side) of wrap k is the level `winding == k`; the
papyrus of wrap k lies just outside of it, so inside papyrus `wrap == floor(winding)`, and a voxel
of the recto line belongs to wrap `rint(winding)`. Where a chunk contains the branch cut (only if
the umbilicus lies inside), the winding jumps there by exactly 1: it is one continuous sheet.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vesuvius.data.phantom_ct import scan
from vesuvius.data.phantom_geometry import default_umbilicus, make_geometry
from vesuvius.data.phantom_noise import smooth_field
from vesuvius.data.phantom_settings import PRESETS, PhantomSettings
from vesuvius.data.phantom_sheet import Papyrus, make_papyrus
from vesuvius.errors import ConfigError
from vesuvius.types import BACKGROUND, IGNORE, SURFACE, ByteVolume, FloatVolume

__all__ = ["PRESETS", "Phantom", "PhantomSettings", "check_shape", "make_phantom"]

_IGNORE_SCALE = 55.0  # voxels: size of the regions nobody labelled


@dataclass(frozen=True, slots=True)
class Phantom:
    """A synthetic chunk and everything that is true about it.

    Attributes:
        image: (z, y, x) uint8 micro-CT grey levels.
        label: (z, y, x) uint8, 0 background, 1 surface, 2 ignore, as in the competition.
        surface: (z, y, x) uint8 {0, 1}: the complete recto line of all wraps, without breaks or
            ignored regions, absent only where the papyrus itself is torn away.
        wrap: (z, y, x) int16 wrap number from 1 in papyrus, 0 elsewhere (gaps inside too).
        winding: (z, y, x) float32 winding field, see the module's conventions.
        normals: (3, z, y, x) float32 unit vectors (nz, ny, nx), gradient direction of the winding.
        umbilicus_yx: centre of the spiral, voxels in the scroll's frame.
        origin_zyx: first voxel of the chunk in the scroll's frame.
        settings: what it was made with.
        seed: what it was made with.
    """

    image: ByteVolume
    label: ByteVolume
    surface: ByteVolume
    wrap: npt.NDArray[np.int16]
    winding: FloatVolume
    normals: npt.NDArray[np.float32]
    umbilicus_yx: tuple[float, float]
    origin_zyx: tuple[int, int, int]
    settings: PhantomSettings
    seed: int


def make_phantom(
    shape_zyx: tuple[int, int, int],
    *,
    seed: int,
    settings: PhantomSettings | None = None,
    umbilicus_yx: tuple[float, float] | None = None,
    origin_zyx: tuple[int, int, int] = (0, 0, 0),
) -> Phantom:
    """Return the phantom of one chunk; the same arguments give the same voxels.

    Args:
        shape_zyx: chunk size in voxels, each at least 8.
        seed: of the scroll. Chunks that share seed, settings and umbilicus but differ in
            `origin_zyx` are cut from one scroll and fit together (up to noise and artefacts).
        settings: appearance and difficulty; None = the default settings.
        umbilicus_yx: centre of the spiral in the scroll's frame; inside the chunk is allowed.
            None = a random place outside the chunk.
        origin_zyx: first voxel of the chunk in the scroll's frame.

    Raises:
        ConfigError: shape, seed or settings are out of range.
    """
    check_shape(shape_zyx, seed)
    settings = settings or PhantomSettings()
    if umbilicus_yx is None:
        umbilicus_yx = default_umbilicus(shape_zyx, np.random.default_rng([seed, 1]))
    geometry = make_geometry(
        shape_zyx,
        seed=seed,
        settings=settings,
        umbilicus_yx=umbilicus_yx,
        origin_zyx=origin_zyx,
    )
    papyrus = make_papyrus(geometry, seed=seed, settings=settings, origin_zyx=origin_zyx)
    rng = np.random.default_rng([seed, 2, *(o & 0xFFFFFFFF for o in origin_zyx)])
    axis_yx = (
        umbilicus_yx[0] - origin_zyx[1] + rng.normal(0.0, 40.0),
        umbilicus_yx[1] - origin_zyx[2] + rng.normal(0.0, 40.0),
    )
    image = scan(papyrus, geometry.normals, rng=rng, settings=settings, axis_yx=axis_yx)
    return Phantom(
        image=image,
        label=_make_label(papyrus, seed=seed, settings=settings, origin_zyx=origin_zyx),
        surface=(papyrus.line > 0).astype(np.uint8),
        wrap=papyrus.wrap,
        winding=geometry.winding,
        normals=geometry.normals,
        umbilicus_yx=umbilicus_yx,
        origin_zyx=origin_zyx,
        settings=settings,
        seed=seed,
    )


def _make_label(
    papyrus: Papyrus, *, seed: int, settings: PhantomSettings, origin_zyx: tuple[int, int, int]
) -> ByteVolume:
    """Return what an annotator left: the line with breaks, unlabelled regions and the rim."""
    label = np.where(papyrus.line == 1, SURFACE, BACKGROUND).astype(np.uint8)
    if settings.ignore_share > 0:
        field = smooth_field(label.shape, seed + 101, origin_zyx=origin_zyx, scale=_IGNORE_SCALE)
        label[field >= np.quantile(field[::2, ::2, ::2], 1.0 - settings.ignore_share)] = IGNORE
    label[papyrus.crumpled > 0.3] = IGNORE
    rim = settings.ignore_rim
    if rim > 0:
        keep = np.zeros(label.shape, bool)
        keep[rim:-rim, rim:-rim, rim:-rim] = True
        label[~keep] = IGNORE
    return label


def check_shape(shape_zyx: tuple[int, int, int], seed: int) -> None:
    """Check what a phantom's size and seed may be.

    Raises:
        ConfigError: fewer than 8 voxels along an axis, not three axes, or a negative seed.
    """
    if len(shape_zyx) != 3 or min(shape_zyx) < 8:
        raise ConfigError(
            f"make_phantom: shape_zyx is {tuple(shape_zyx)}, expected three sizes of at least "
            "8 voxels (z, y, x)"
        )
    if seed < 0:
        raise ConfigError(f"make_phantom: seed is {seed}, expected 0 or more")
