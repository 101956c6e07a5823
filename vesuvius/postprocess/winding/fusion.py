"""How many neighbouring sheets a mask glues together."""

import numpy as np
import numpy.typing as npt

from vesuvius.errors import ShapeMismatchError


def fusion_rate(
    mask: npt.NDArray[np.generic], sheets: npt.NDArray[np.integer], *, smallest: int = 30
) -> float:
    """Return the share of neighbouring sheet pairs that one component of the mask joins.

    Args:
        mask: (z, y, x), non-zero is surface; components are 26-connected, as in the VOI score.
        sheets: (z, y, x) sheet or wrap numbers, 0 = none; k and k + 1 are neighbours.
        smallest: a component joins two sheets if it holds this many voxels of each.

    Raises:
        ShapeMismatchError: the shapes differ.
    """
    if mask.shape != sheets.shape:
        raise ShapeMismatchError(
            f"mask has shape {mask.shape} but sheets {sheets.shape}; expected the same volume"
        )
    import cc3d  # slow to import

    pieces = cc3d.connected_components((mask != 0).astype(np.uint8), connectivity=26)
    both = (sheets > 0) & (pieces > 0)
    pairs, counts = np.unique(
        np.stack([sheets[both].astype(np.int64), pieces[both].astype(np.int64)]),
        axis=1,
        return_counts=True,
    )
    members: dict[int, set[int]] = {}
    for sheet, piece in pairs[:, counts >= smallest].T.tolist():
        members.setdefault(sheet, set()).add(piece)
    neighbours = [k for k in members if k + 1 in members]
    if not neighbours:
        return 0.0
    return sum(bool(members[k] & members[k + 1]) for k in neighbours) / len(neighbours)
