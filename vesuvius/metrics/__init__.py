"""Scores: functional NumPy core and thin torchmetrics classes.

The functions import numba at first use, never torch; `surface_metrics` alone imports torch. No
function may be called like one of these modules, or importing the module would hide it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vesuvius.metrics.betti import betti_errors, betti_numbers
    from vesuvius.metrics.cldice import cldice_score
    from vesuvius.metrics.competition import CompetitionScore, competition_score
    from vesuvius.metrics.normals import NormalError, normal_angle_error
    from vesuvius.metrics.overlap import Overlap, dice, iou, precision, recall, voxel_overlap
    from vesuvius.metrics.surface_distance import surface_dice
    from vesuvius.metrics.topology import topo_score
    from vesuvius.metrics.voi import VoiResult, voi_score
    from vesuvius.metrics.wraps import WrapAccuracy, wrap_accuracy

__all__ = [
    "CompetitionScore",
    "NormalError",
    "Overlap",
    "VoiResult",
    "WrapAccuracy",
    "betti_errors",
    "betti_numbers",
    "cldice_score",
    "competition_score",
    "dice",
    "iou",
    "normal_angle_error",
    "precision",
    "recall",
    "surface_dice",
    "topo_score",
    "voi_score",
    "voxel_overlap",
    "wrap_accuracy",
]

_HOMES = {
    "betti": ("betti_errors", "betti_numbers"),
    "cldice": ("cldice_score",),
    "competition": ("CompetitionScore", "competition_score"),
    "normals": ("NormalError", "normal_angle_error"),
    "overlap": ("Overlap", "dice", "iou", "precision", "recall", "voxel_overlap"),
    "surface_distance": ("surface_dice",),
    "topology": ("topo_score",),
    "voi": ("VoiResult", "voi_score"),
    "wraps": ("WrapAccuracy", "wrap_accuracy"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
