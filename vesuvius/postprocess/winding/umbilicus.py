"""A scroll's axis inside of the chunk: around it the field gains one winding a turn.

Such a field has no single value anywhere: it is split into a part that has, which is solved and
locked, and the turn about the umbilicus, which is known. Their sum jumps by one at the branch cut,
the half-plane from the umbilicus toward lower x: a sheet goes on under its neighbour's number.

Source: own; holonomy as in phase unwrapping with residues (Goldstein, Zebker, Werner 1988).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vesuvius.errors import ConfigError
from vesuvius.types import FloatVolume

Cells = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Spiral:
    """How the sheets run around an umbilicus.

    Attributes:
        umbilicus_yx: the axis in voxels.
        sense: 1 if the field gains a winding per turn from x toward y, -1 if it loses one.
    """

    umbilicus_yx: tuple[float, float]
    sense: int


def checked_umbilicus(umbilicus_yx: Sequence[float] | None) -> tuple[float, float] | None:
    """Return the axis as (y, x).

    Raises:
        ConfigError: not two finite numbers.
    """
    if umbilicus_yx is None:
        return None
    if len(umbilicus_yx) != 2 or not np.isfinite(umbilicus_yx).all():
        raise ConfigError(
            f"umbilicus_yx is {list(umbilicus_yx)}; expected two finite voxel coordinates, y and x "
            "(--umbilicus-yx)"
        )
    return float(umbilicus_yx[0]), float(umbilicus_yx[1])


def is_inside(umbilicus_yx: tuple[float, float] | None, shape_zyx: tuple[int, ...]) -> bool:
    """Return whether the axis runs through the chunk."""
    if umbilicus_yx is None:
        return False
    return all(0 <= c <= n - 1 for c, n in zip(umbilicus_yx, shape_zyx[1:], strict=True))


def turns(
    y: npt.NDArray[np.floating], x: npt.NDArray[np.floating], umbilicus_yx: tuple[float, float]
) -> FloatVolume:
    """Return the angle about the umbilicus in turns, (-1/2, 1/2], cut toward lower x."""
    angle = np.arctan2(y - umbilicus_yx[0], x - umbilicus_yx[1]) / (2 * np.pi)
    return np.asarray(angle, np.float32)


def plane_turns(
    shape_yx: tuple[int, int], umbilicus_yx: tuple[float, float], cell: int
) -> FloatVolume:
    """Return the turns at the centres of cells of that edge, (y, x)."""
    y, x = ((np.arange(n) + 0.5) * cell - 0.5 for n in shape_yx)
    return turns(y[:, None], x[None, :], umbilicus_yx)


def other_branch(plane: FloatVolume) -> FloatVolume:
    """Return the same turns in [0, 1), cut toward higher x."""
    return plane + (plane < 0).astype(np.float32)


def seed_point(
    shape_zyx: tuple[int, ...], umbilicus_yx: tuple[float, float] | None
) -> tuple[float, float, float]:
    """Return where the phase lock starts: the centre, or half-way from the axis to a far corner.

    At the axis itself the sheets are bent most and their normals known least.
    """
    z, y, x = ((n - 1) / 2 for n in shape_zyx)
    if umbilicus_yx is not None:
        y, x = (
            0.5 * (c + (0.0 if c > middle else 2 * middle))
            for c, middle in zip(umbilicus_yx, (y, x), strict=True)
        )
    return z, y, x
