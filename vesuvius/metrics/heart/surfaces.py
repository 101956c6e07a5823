"""Distances between two surfaces: Chamfer, F-score, normals; NSD and HD95 of label maps in mm."""

from collections.abc import Sequence
from dataclasses import dataclass

import edt
import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

from vesuvius.errors import ConfigError, ShapeMismatchError
from vesuvius.metrics.surface_distance import surface_dice

Points = npt.NDArray[np.floating]
Labels = npt.NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class SurfaceScores:
    """How far two surfaces are apart, in the unit of the points.

    Attributes:
        chamfer: mean distance truth -> prediction plus prediction -> truth.
        chamfer_squared: the same with squared distances.
        f_score: harmonic mean of the shares of both within the threshold.
        normal_consistency: mean |cosine| of the angle to the nearest point's normal, both ways;
            NaN without normals.
        hd95: the greater of the two 95th percentiles of the distances.
    """

    chamfer: float
    chamfer_squared: float
    f_score: float
    normal_consistency: float
    hd95: float


def surface_scores(
    prediction: Points,
    truth: Points,
    *,
    threshold: float = 0.02,
    normals: Points | None = None,
    true_normals: Points | None = None,
) -> SurfaceScores:
    """Return the scores of points that are spread evenly on two surfaces.

    Source: F-score: Tatarchenko et al., CVPR 2019; threshold 0.02 in the cube [-1, 1]^3 and
    unsquared Chamfer as VecSetX, squared Chamfer and normals as VecHeart.

    Args:
        prediction: (n, 3).
        truth: (m, 3).
        threshold: of the F-score.
        normals: (n, 3) unit normals of the prediction, or None.
        true_normals: (m, 3) of the truth, or None.

    Raises:
        ShapeMismatchError: no points, or not (n, 3).
        ConfigError: a threshold of 0 or less.
    """
    for name, points in (("prediction", prediction), ("truth", truth)):
        if points.ndim != 2 or points.shape[1] != 3 or len(points) == 0:
            raise ShapeMismatchError(
                f"surface_scores: {name} has shape {points.shape}; expected (n, 3) with n > 0"
            )
    if threshold <= 0:
        raise ConfigError(f"threshold is {threshold}; expected above 0")
    to_truth, near_truth = cKDTree(truth).query(prediction)
    to_prediction, near_prediction = cKDTree(prediction).query(truth)
    precision, recall = (to_truth < threshold).mean(), (to_prediction < threshold).mean()
    consistency = float("nan")
    if normals is not None and true_normals is not None:
        forward = np.abs((normals * true_normals[near_truth]).sum(1)).mean()
        backward = np.abs((true_normals * normals[near_prediction]).sum(1)).mean()
        consistency = float((forward + backward) / 2)
    return SurfaceScores(
        chamfer=float(to_truth.mean() + to_prediction.mean()),
        chamfer_squared=float((to_truth**2).mean() + (to_prediction**2).mean()),
        f_score=float(2 * precision * recall / max(precision + recall, 1e-12)),
        normal_consistency=consistency,
        hd95=float(max(np.percentile(to_truth, 95), np.percentile(to_prediction, 95))),
    )


@dataclass(frozen=True, slots=True)
class ClassSurfaces:
    """Per class, NaN where neither side has it; `hd95` is infinite where one side has it alone.

    Attributes:
        nsd: (K,) share of both surfaces within the tolerance, 0 to 1.
        hd95: (K,) mm.
    """

    nsd: npt.NDArray[np.float64]
    hd95: npt.NDArray[np.float64]


def class_surfaces(
    labels: Labels,
    true_labels: Labels,
    *,
    spacing: Sequence[float],
    num_classes: int = 10,
    tolerance_mm: float = 2.0,
) -> ClassSurfaces:
    """Return NSD and HD95 of every class of two label maps (x, y, z).

    HD95: the greater of the two directed 95th percentiles between border voxels (6-neighbourhood).
    NSD: see `vesuvius.metrics.surface_distance.surface_dice`.

    Args:
        labels: prediction, 0..K.
        true_labels: of the same shape.
        spacing: mm along x, y, z.
        num_classes: K.
        tolerance_mm: of the NSD.

    Raises:
        ShapeMismatchError: the shapes differ or are not 3-D.
        ConfigError: a spacing or tolerance of 0 or less.
    """
    if labels.shape != true_labels.shape or labels.ndim != 3:
        raise ShapeMismatchError(
            f"class_surfaces: labels {labels.shape}, true_labels {true_labels.shape}; expected the "
            "same (x, y, z)"
        )
    if min(spacing) <= 0 or tolerance_mm <= 0:
        raise ConfigError(f"spacing {spacing}, tolerance_mm {tolerance_mm}; expected above 0")
    nsd, hd95 = np.full(num_classes, np.nan), np.full(num_classes, np.nan)
    for c in range(1, num_classes + 1):
        pair = _boxed(labels == c, true_labels == c)
        if pair is None:
            continue
        nsd[c - 1] = surface_dice(*pair, spacing=spacing, tolerance=tolerance_mm, ignore_label=None)
        hd95[c - 1] = _hausdorff95(*pair, spacing)
    return ClassSurfaces(nsd, hd95)


def _boxed(
    a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]] | None:
    """Return both masks cut to the box of their union and padded by a voxel; None if empty."""
    box = ndimage.find_objects((a | b).astype(np.uint8), max_label=1)[0]
    return None if box is None else (np.pad(a[box], 1), np.pad(b[box], 1))


def _hausdorff95(
    a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_], spacing: Sequence[float]
) -> float:
    if not (a.any() and b.any()):
        return float("inf")
    borders = [mask & ~ndimage.binary_erosion(mask) for mask in (a, b)]
    edges = tuple(float(s) for s in spacing)
    distances = [
        edt.edt(np.ascontiguousarray(~other), anisotropy=edges)[own]
        for own, other in (borders, borders[::-1])
    ]
    return float(max(np.percentile(d, 95) for d in distances))
