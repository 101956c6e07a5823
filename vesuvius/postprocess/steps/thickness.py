"""Every sheet as thick as every other: the mask's middle, grown by one radius."""

import edt
import numpy as np

from vesuvius.postprocess.steps.link import peel
from vesuvius.postprocess.steps.morphology import grown
from vesuvius.postprocess.steps.state import ChainState, Mask, check_at_least, mask_of
from vesuvius.postprocess.winding.jit import compiled
from vesuvius.postprocess.winding.parallel import over_slabs
from vesuvius.types import ByteVolume, FloatVolume

_FLAT = 0.51
"""Slope of the depth up to which a voxel is in the middle: flanks have 1, two equal layers 0.5."""


@compiled
def _mark_middle(depth: FloatVolume, out: ByteVolume, start: int, stop: int) -> None:
    """Mark where the depth (padded by one) is a largest of 27, or flat by central differences."""
    _, height, width = out.shape
    for z in range(start, stop):
        for y in range(height):
            for x in range(width):
                here = depth[z + 1, y + 1, x + 1]
                if here <= 0:
                    continue
                slope = (depth[z + 2, y + 1, x + 1] - depth[z, y + 1, x + 1]) ** 2
                slope += (depth[z + 1, y + 2, x + 1] - depth[z + 1, y, x + 1]) ** 2
                slope += (depth[z + 1, y + 1, x + 2] - depth[z + 1, y + 1, x]) ** 2
                if slope <= 4 * _FLAT * _FLAT:
                    out[z, y, x] = 1
                    continue
                largest = here
                for code in range(27):
                    near = depth[z + code // 9, y + code // 3 % 3, x + code % 3]
                    largest = max(largest, near)
                out[z, y, x] = 1 if largest <= here + 1e-4 else 0


def middle(mask: Mask, *, threads: int = 1) -> Mask:
    """Return the middle of the mask: one or two voxels thick in a sheet, of the same topology.

    Voxels where the depth inside the mask is largest or flat are anchors; all others are peeled
    off from outside as long as the topology stays. The volume's faces are no rim: a sheet that
    runs out of the volume keeps its middle there.

    Source: distance-ordered homotopic thinning (Pudney, 1998) with anchors of our own.
    """
    depth = edt.edt(np.pad(mask, 1, mode="edge"), black_border=False, parallel=threads)
    anchors = np.zeros(mask.shape, np.uint8)
    over_slabs(lambda a, b: _mark_middle(depth, anchors, a, b), mask.shape[0], threads)
    others = np.flatnonzero(mask & (anchors == 0))
    depths = depth[1:-1, 1:-1, 1:-1].ravel()[others]
    out = np.ascontiguousarray(mask).astype(np.uint8)
    peel(out, others[np.argsort(np.rint(depths * 4), kind="stable")])
    return out.astype(np.bool_)


class NormaliseThickness:
    """Replaces the mask by all voxels within `radius` of its middle.

    Args:
        radius: voxels; 1.5 gives sheets 3 voxels thick (4 where the middle is two voxels thick).

    Raises:
        ConfigError: radius below 0.
    """

    reads_mask = True
    makes_mask = True

    def __init__(self, *, radius: float = 1.5) -> None:
        check_at_least("radius", radius, 0)
        self.radius = radius

    def __call__(self, state: ChainState) -> ChainState:
        """Return the state with sheets of one thickness."""
        ridge = middle(mask_of(state), threads=state.threads)
        return state.with_mask(grown(ridge, (self.radius,) * 3, threads=state.threads))
