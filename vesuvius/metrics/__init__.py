"""Scores: functional NumPy core and thin torchmetrics classes.

The functions import numba at first use, never torch; `surface_metrics` alone imports torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vesuvius.metrics.competition import CompetitionScore, competition_score
    from vesuvius.metrics.overlap import Overlap, dice, iou, overlap, precision, recall
    from vesuvius.metrics.surface_distance import surface_dice
    from vesuvius.metrics.topology import topo_score
    from vesuvius.metrics.voi import VoiResult, voi_score

__all__ = [
    "CompetitionScore",
    "Overlap",
    "VoiResult",
    "competition_score",
    "dice",
    "iou",
    "overlap",
    "precision",
    "recall",
    "surface_dice",
    "topo_score",
    "voi_score",
]

_HOMES = {
    "competition": ("CompetitionScore", "competition_score"),
    "overlap": ("Overlap", "dice", "iou", "overlap", "precision", "recall"),
    "surface_distance": ("surface_dice",),
    "topology": ("topo_score",),
    "voi": ("VoiResult", "voi_score"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
