"""Where to crop: uniform, around a surface voxel, or on a grid. Pure NumPy and a Generator.

An origin may leave room beyond the volume only where the volume is smaller than the patch on that
axis; there it is 0 and the crop is padded at its end.
"""

import itertools

import numpy as np

from vesuvius.errors import ConfigError

Zyx = tuple[int, int, int]


def uniform_origin(shape_zyx: Zyx, patch_zyx: Zyx, rng: np.random.Generator) -> Zyx:
    """Return the origin of a crop, every legal position equally likely."""
    z, y, x = (
        int(rng.integers(0, max(size - patch, 0) + 1))
        for size, patch in zip(shape_zyx, patch_zyx, strict=True)
    )
    return (z, y, x)


def origin_containing(
    voxel_zyx: Zyx, shape_zyx: Zyx, patch_zyx: Zyx, rng: np.random.Generator
) -> Zyx:
    """Return the origin of a crop that contains `voxel_zyx`, every such position equally likely.

    Example: voxel 10 of 100, patch 32: origins 0 to 10; voxel 99: only 68.
    """
    origin = []
    for voxel, size, patch in zip(voxel_zyx, shape_zyx, patch_zyx, strict=True):
        lowest = max(0, voxel - patch + 1)
        highest = min(voxel, max(size - patch, 0))
        origin.append(int(rng.integers(lowest, highest + 1)))
    return (origin[0], origin[1], origin[2])


def grid_origins(shape_zyx: Zyx, patch_zyx: Zyx, step_zyx: Zyx | None = None) -> list[Zyx]:
    """Return origins of crops that cover every voxel, in z, y, x order.

    Args:
        shape_zyx: the volume.
        patch_zyx: the crop.
        step_zyx: distance of neighbouring crops, at most the patch; None = the patch (no overlap
            but for the last crop of an axis, which is shifted back inside).

    Raises:
        ConfigError: a step of 0 or beyond the patch would leave gaps.
    """
    step = patch_zyx if step_zyx is None else step_zyx
    if any(not 1 <= s <= p for s, p in zip(step, patch_zyx, strict=True)):
        raise ConfigError(f"step_zyx is {step}; expected 1 to patch_zyx {patch_zyx} on each axis")
    axes = []
    for size, patch, stride in zip(shape_zyx, patch_zyx, step, strict=True):
        last = max(size - patch, 0)
        axes.append([*range(0, last, stride), last])
    return [(z, y, x) for z, y, x in itertools.product(*axes)]
