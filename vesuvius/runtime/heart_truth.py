"""True labels of prepared hearts, for the dense validation callback."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from vesuvius.data.heart.dense import true_labels
from vesuvius.data.heart.format import load_case


def truth_at(case: Path, points: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8] | None:
    """Return (...) labels 0..K of a case at (..., 3) points of its cube, None if it cannot tell."""
    geometry = load_case(case).geometry
    return None if geometry is None else true_labels(geometry, points)
