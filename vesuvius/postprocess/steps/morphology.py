"""Closing and opening with a radius for each axis."""

from collections.abc import Sequence
from typing import Literal

import edt
import numpy as np

from vesuvius.errors import ConfigError
from vesuvius.postprocess.steps.state import ChainState, Mask, mask_of

Radii = tuple[float, float, float]
_NEVER = 1e6
"""Length of a voxel along an axis that must not grow."""


def radii_zyx(radius: float | Sequence[float]) -> Radii:
    """Return (z, y, x) radii in voxels of one number or three.

    Raises:
        ConfigError: not one or three numbers, or one below 0.
    """
    values = list(radius) if isinstance(radius, Sequence) else [radius] * 3
    if len(values) != 3 or not all(0 <= value < _NEVER for value in values):
        raise ConfigError(
            f"radius must be one number or three (z, y, x), each 0 or more voxels, got {radius!r}"
        )
    return float(values[0]), float(values[1]), float(values[2])


def grown(mask: Mask, radius: Radii, *, threads: int = 1) -> Mask:
    """Return the voxels within an ellipsoid of the mask: sum of (d / radius)^2 <= 1."""
    if not mask.any():
        return mask.copy()
    scale = tuple(1 / r if r > 0 else _NEVER for r in radius)
    background = np.ascontiguousarray(~mask)
    distance = edt.edt(background, anisotropy=scale, black_border=False, parallel=threads)
    near: Mask = distance <= 1 + 1e-5
    return near


def closed(mask: Mask, radius: Radii, *, threads: int = 1) -> Mask:
    """Return the closing by an ellipsoid; the volume's faces add and remove nothing."""
    margins = [(int(np.ceil(r)) + 1,) * 2 for r in radius]
    wide = grown(np.pad(mask, margins), radius, threads=threads)
    kept = ~grown(~wide, radius, threads=threads)
    inner = tuple(slice(low, -high) for low, high in margins)
    return np.ascontiguousarray(kept[inner])


def opened(mask: Mask, radius: Radii, *, threads: int = 1) -> Mask:
    """Return the opening by an ellipsoid; beyond its faces the volume goes on as at them."""
    margins = [(int(np.ceil(r)) + 1,) * 2 for r in radius]
    kept = ~grown(~np.pad(mask, margins, mode="edge"), radius, threads=threads)
    wide = grown(kept, radius, threads=threads)
    inner = tuple(slice(low, -high) for low, high in margins)
    return mask & wide[inner]


class Morphology:
    """Closing or opening of the mask by an ellipsoid.

    Args:
        operation: "closing" or "opening".
        radius: voxels, one number or (z, y, x); 0 leaves an axis alone.

    Raises:
        ConfigError: unknown operation or radius out of range.
    """

    reads_mask = True
    makes_mask = True

    def __init__(
        self,
        *,
        operation: Literal["closing", "opening"] = "closing",
        radius: float | Sequence[float] = 3.0,
    ) -> None:
        if operation not in ("closing", "opening"):
            raise ConfigError(f"operation must be 'closing' or 'opening', got {operation!r}")
        self.operation, self.radius = operation, radii_zyx(radius)

    def __call__(self, state: ChainState) -> ChainState:
        """Return the state closed or opened."""
        apply = closed if self.operation == "closing" else opened
        return state.with_mask(apply(mask_of(state), self.radius, threads=state.threads))
