"""The true label at any point of the cube, from the label map that a case keeps."""

import numpy as np
import numpy.typing as npt

from vesuvius.data.heart.format import HeartCase, HeartGeometry
from vesuvius.errors import CaseFormatError


def true_labels(geometry: HeartGeometry, points: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Return (...,) labels 0..K of the voxels in which points (..., 3) of the cube lie."""
    index = np.rint(geometry.to_index(points)).astype(np.intp) - geometry.crop_origin
    shape = np.array(geometry.label_map.shape)
    there = np.asarray(((index >= 0) & (index < shape)).all(-1))
    index = np.where(there[..., None], index, 0)
    found = geometry.label_map[index[..., 0], index[..., 1], index[..., 2]]
    return np.where(there, found, np.uint8(0))


def geometry_of(case: HeartCase) -> HeartGeometry:
    """Return where the cube of a case lies.

    Raises:
        CaseFormatError: a file of the original project, which does not tell.
    """
    if case.geometry is None:
        raise CaseFormatError(
            f"{case.case_id}: does not tell where its cube lies (a file of the original project); "
            "prepare its label map with `vesuvius heart prepare`"
        )
    return case.geometry
