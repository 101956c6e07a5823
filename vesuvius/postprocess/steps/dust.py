"""Small pieces out, closed cavities filled."""

import cc3d
import numpy as np

from vesuvius.postprocess.components import Connectivity, check_connectivity, remove_dust
from vesuvius.postprocess.steps.state import ChainState, Mask, check_at_least, mask_of


def fill_cavities(mask: Mask, *, max_size_voxels: int) -> tuple[Mask, int]:
    """Return the mask with closed cavities of at most so many voxels filled, and their number.

    A cavity is a 26-connected piece of background that touches no face of the volume, as in the
    TopoScore (k = 2).
    """
    background = np.ascontiguousarray(~mask)
    labels = cc3d.connected_components(background, connectivity=26)
    sizes = np.bincount(labels.ravel())
    fill = sizes <= max_size_voxels
    fill[0] = False
    for axis in range(3):
        for side in (0, -1):
            fill[np.take(labels, side, axis=axis).ravel()] = False
    filled: Mask = mask | fill[labels]
    return filled, int(np.count_nonzero(fill))


class RemoveDust:
    """Drops components below a size.

    Args:
        min_size_voxels: smaller components go.
        connectivity: 6, 18 or 26 neighbours make a component. 6, as the TopoScore sees it, drops
            crumbs that hang on by an edge or a corner.

    Raises:
        ConfigError: negative size or unknown connectivity.
    """

    reads_mask = True
    makes_mask = True

    def __init__(self, *, min_size_voxels: int = 5000, connectivity: Connectivity = 26) -> None:
        check_connectivity(connectivity)
        check_at_least("min_size_voxels", min_size_voxels, 0)
        self.min_size_voxels, self.connectivity = min_size_voxels, connectivity

    def __call__(self, state: ChainState) -> ChainState:
        """Return the state without dust."""
        mask, removed = remove_dust(
            mask_of(state), min_size_voxels=self.min_size_voxels, connectivity=self.connectivity
        )
        return state.with_mask(mask, components_removed=removed)


class FillCavities:
    """Fills closed cavities.

    Args:
        max_size_voxels: larger ones stay.

    Raises:
        ConfigError: size below 1.
    """

    reads_mask = True
    makes_mask = True

    def __init__(self, *, max_size_voxels: int = 500) -> None:
        check_at_least("max_size_voxels", max_size_voxels, 1)
        self.max_size_voxels = max_size_voxels

    def __call__(self, state: ChainState) -> ChainState:
        """Return the state without small cavities."""
        mask, filled = fill_cavities(mask_of(state), max_size_voxels=self.max_size_voxels)
        return state.with_mask(mask, cavities_filled=filled)
