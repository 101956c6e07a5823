"""The 48 symmetries of a cube, applied to uint8 crops as index games: no interpolation, no floats.

Image, label, wrap numbers and normals turn together. Costs one strided copy, which the crop
reader makes anyway.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vesuvius.errors import ConfigError

Array = npt.NDArray[Any]
Zyx = tuple[int, int, int]

MODES = ("none", "flips_rot90", "cube")
"""`flips_rot90`: each axis flipped with p = 0.5, turned by 90, 180 or 270 degrees in the y-x plane
with p = 0.5. `cube`: any of the 48 symmetries, equally likely."""


@dataclass(frozen=True, slots=True)
class Symmetry:
    """Axis permutation followed by flips.

    Attributes:
        axes: output axis a shows input axis `axes[a]`.
        flips: whether output axis a runs backwards.
    """

    axes: Zyx = (0, 1, 2)
    flips: tuple[bool, bool, bool] = (False, False, False)

    def apply(self, volume: Array) -> Array:
        """Return a turned view of (..., z, y, x); scalar content (image, label, wrap number)."""
        lead = volume.ndim - 3
        turned = volume.transpose(*range(lead), *(lead + a for a in self.axes))
        flips = tuple(slice(None, None, -1) if flip else slice(None) for flip in self.flips)
        view: Array = turned[(..., *flips)]
        return view

    def turn_normals(self, normals: Array) -> Array:
        """Return (3, z, y, x) normals turned in place and in direction, components nz, ny, nx.

        Example: a flip of z moves the voxels and turns nz = 1 into nz = -1. int8 stays int8
        (components are stored times 127, so -128 does not occur).
        """
        turned = self.apply(normals)
        signs = np.where(self.flips, -1, 1).astype(normals.dtype)
        return np.asarray(turned[list(self.axes)] * signs[:, None, None, None])

    def inverse(self) -> "Symmetry":
        """Return the symmetry that undoes this one."""
        axes = [0, 0, 0]
        flips = [False, False, False]
        for out_axis, in_axis in enumerate(self.axes):
            axes[in_axis] = out_axis
            flips[in_axis] = self.flips[out_axis]
        return Symmetry((axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2]))

    def after(self, first: "Symmetry") -> "Symmetry":
        """Return the symmetry that does `first`, then this one."""
        axes = [first.axes[a] for a in self.axes]
        flips = [flip != first.flips[a] for a, flip in zip(self.axes, self.flips, strict=True)]
        return Symmetry((axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2]))


IDENTITY = Symmetry()
ROT90_YX = (
    IDENTITY,
    Symmetry((0, 2, 1), (False, True, False)),
    Symmetry((0, 1, 2), (False, True, True)),
    Symmetry((0, 2, 1), (False, False, True)),
)
"""Turns by 0, 90, 180, 270 degrees as `np.rot90(volume, k, axes=(1, 2))`."""


def draw_symmetry(mode: str, patch_zyx: Zyx, rng: np.random.Generator) -> Symmetry:
    """Return a random symmetry that keeps the patch shape.

    Where the patch is not square in the plane of a turn, only turns by 180 degrees are drawn.

    Args:
        mode: one of `MODES`.
        patch_zyx: the crop.
        rng: source of the draw.

    Raises:
        ConfigError: unknown mode.
    """
    if mode == "none":
        return IDENTITY
    if mode not in MODES:
        raise ConfigError(f"augment is {mode!r}; expected one of {', '.join(MODES)}")
    flips = rng.random(3) < 0.5
    flip = Symmetry((0, 1, 2), (bool(flips[0]), bool(flips[1]), bool(flips[2])))
    if mode == "cube":
        axes = rng.permutation(3)
        while any(patch_zyx[a] != patch_zyx[b] for a, b in enumerate(axes)):
            axes = rng.permutation(3)
        return flip.after(Symmetry((int(axes[0]), int(axes[1]), int(axes[2]))))
    turn = 0
    if rng.random() < 0.5:
        square = patch_zyx[1] == patch_zyx[2]
        turn = int(rng.integers(1, 4)) if square else 2
    return ROT90_YX[turn].after(flip)
