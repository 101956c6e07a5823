"""Turns, mirrors and swaps of axes for points; distances and classes stay as they are."""

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]


def draw_motion(
    rng: np.random.Generator,
    *,
    rotation_std: float = 1.0,
    permute_axes: bool = False,
    mirror: bool = False,
) -> Matrix:
    """Return an orthogonal (3, 3) matrix M for points @ M.T.

    Source: vecset-heart specification, 1.6: axes permuted, signs flipped, then Rz Ry Rx with normal
    angles. Anatomy is not its own mirror image, so `mirror` is apart: without it a permutation or
    sign flip that mirrors is completed by another to a turn (determinant +1).

    Args:
        rng: generator.
        rotation_std: of the three angles, rad; 0 = none.
        permute_axes: axes are permuted and their signs flipped.
        mirror: determinant -1 may come out, with probability 1/2.
    """
    matrix = np.eye(3)
    if permute_axes:
        matrix = matrix[rng.permutation(3)] * rng.choice([-1.0, 1.0], size=3)[:, None]
        if np.linalg.det(matrix) < 0:
            matrix[0] *= -1
    if mirror and rng.random() < 0.5:
        matrix[rng.integers(3)] *= -1
    if rotation_std > 0:
        matrix = _turn(rng.normal(0, rotation_std, 3)) @ matrix
    return np.asarray(matrix, np.float32)


def _turn(angles: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return Rz Ry Rx."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        one = np.eye(3)
        one[i, i] = one[j, j] = np.cos(angle)
        one[i, j], one[j, i] = -np.sin(angle), np.sin(angle)
        matrix = one @ matrix
    return matrix
