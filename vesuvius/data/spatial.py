"""One interpolation for everything that moves voxels: turns, zoom and elastic bending, batched.

Points of the patch are mapped to points of the crop: rotation and zoom about the centre, plus a
smooth displacement. The image is taken there by linear interpolation, labels by the nearest voxel.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vesuvius.data.transforms import (
    OUTSIDE,
    rotation_grid,
    sample_linear,
    sample_nearest,
)
from vesuvius.errors import ConfigError

Generators = Sequence[np.random.Generator]


class SpatialTransform:
    """Random rotation by any angle, zoom and elastic deformation of a batch in one interpolation.

    Args:
        share: share of the crops that are moved at all, in [0, 1].
        max_degrees: greatest angle about z, y and x, in [0, 180].
        zoom: greatest relative change of size, in [0, 1): 0.2 draws factors from 1/1.2 to 1.2.
        elastic: standard deviation of the displacement of the control points, voxels.
        spacing: distance of the control points, voxels; greater bends more slowly. The sheets keep
            their order while elastic < 0.2 spacing or so.

    Raises:
        ConfigError: a number out of range.

    Source: cubic B-spline displacements as in Rueckert et al. 1999.
    """

    def __init__(
        self,
        *,
        share: float = 0.3,
        max_degrees: float = 180.0,
        zoom: float = 0.15,
        elastic: float = 2.0,
        spacing: float = 16.0,
    ) -> None:
        if not 0 <= share <= 1 or not 0 <= max_degrees <= 180 or not 0 <= zoom < 1:
            raise ConfigError(
                f"transforms spatial: share={share} must lie in [0, 1], max_degrees={max_degrees} "
                f"in [0, 180], zoom={zoom} in [0, 1)."
            )
        if elastic < 0 or spacing < 4:
            raise ConfigError(
                f"transforms spatial: elastic={elastic} must be >= 0 and spacing={spacing} be >= 4."
            )
        self.share, self.max_degrees, self.zoom = share, max_degrees, zoom
        self.elastic, self.spacing = elastic, spacing

    def __call__(self, batch: Mapping[str, Any], rngs: Generators) -> dict[str, Any]:
        """Return the batch with moved `image` (float) and label volumes; outside is ignored."""
        changed = dict(batch)
        moved = [n for n, rng in enumerate(rngs) if rng.random() < self.share]
        if not moved:
            return changed
        image: Tensor = batch["image"]
        grid = self.grid(image.shape[2:], [rngs[n] for n in moved], image.device)
        changed["image"] = image.clone()
        changed["image"][moved] = sample_linear(image[moved], grid)
        for name, outside in OUTSIDE.items():
            if name in batch:
                changed[name] = batch[name].clone()
                changed[name][moved] = sample_nearest(batch[name][moved], grid, outside)
        return changed

    def grid(
        self, shape_zyx: Sequence[int], rngs: Generators, device: torch.device
    ) -> Float[Tensor, "b z y x 3"]:
        """Return where each voxel comes from, for `grid_sample` (align_corners=False)."""
        angles = np.array([rng.uniform(-1, 1, 3) * self.max_degrees for rng in rngs])
        grid = rotation_grid(shape_zyx, angles, device)
        sign = [(1 + self.zoom) ** rng.uniform(-1, 1) for rng in rngs]
        grid = grid * torch.tensor(sign, dtype=grid.dtype, device=device).view(-1, 1, 1, 1, 1)
        if self.elastic > 0:
            shift = self.displacement(shape_zyx, rngs, device)  # z, y, x in voxels
            half = torch.tensor([n / 2 for n in shape_zyx], device=device)
            grid = grid + (shift.movedim(1, -1) / half).flip(-1)
        return grid

    def displacement(
        self, shape_zyx: Sequence[int], rngs: Generators, device: torch.device
    ) -> Float[Tensor, "b 3 z y x"]:
        """Return smooth random displacements in voxels, components z, y, x."""
        bases = [spline_basis(n, self.spacing) for n in shape_zyx]
        controls = np.stack(
            [rng.normal(0, self.elastic, (3, *(basis.shape[1] for basis in bases))) for rng in rngs]
        )
        field = torch.from_numpy(controls.astype(np.float32)).to(device)
        z, y, x = (torch.from_numpy(basis).to(device) for basis in bases)
        return torch.einsum("bcijk,zi,yj,xk->bczyx", field, z, y, x)


def spline_basis(size: int, spacing: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return (size, controls) weights of cubic B-splines at voxels 0 to size - 1; rows sum to 1."""
    places = np.arange(size) / spacing
    first = np.floor(places).astype(int)
    t = places - first
    weights = np.stack(
        [
            (1 - t) ** 3 / 6,
            (3 * t**3 - 6 * t**2 + 4) / 6,
            (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
            t**3 / 6,
        ]
    )
    basis = np.zeros((size, int(first[-1]) + 4), np.float32)
    for k in range(4):
        basis[np.arange(size), first + k] = weights[k]
    return basis
