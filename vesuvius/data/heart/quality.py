"""Checks of prepared cases: signs, balance, contradictions, slopes, agreement with the label map.

Source: vecset-heart specification, 1.10 (`check_data_quality`, `debug_consistency`); slope, balance
per class and agreement with the label map are own.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vesuvius.data.heart.dense import true_labels
from vesuvius.data.heart.format import Floats, HeartCase, Labels

EXCELLENT, OK, WARNING, CRITICAL = "excellent", "ok", "warning", "critical"


@dataclass(frozen=True, slots=True)
class Pool:
    """Signed distances of volume or near points.

    Attributes:
        positive: share outside, 0 to 1.
        mean, std, low, high: of the distance, cube units.
        inside_background: points inside whose label is background.
        outside_class: points outside with a class.
        count: points.
    """

    positive: float
    mean: float
    std: float
    low: float
    high: float
    inside_background: int
    outside_class: int
    count: int


@dataclass(frozen=True, slots=True)
class Quality:
    """What was found in one case.

    Attributes:
        case_id: its name.
        pools: "vol" and "near".
        consistency: share of points whose sign and label agree.
        class_counts: class -> volume points.
        near_inside: class -> share of its near points that lie in the class itself; empty if near
            and surface points are not pairs.
        slope: median of distance over way to the surface for near points outside; 1 if the
            distance is one, 2 if half a voxel is missing; NaN if they are no pairs.
        agreement: share of the volume points a voxel or more from any surface whose label is the
            label map's; NaN if the case keeps none.
        verdicts: (level, text), what speaks for and against the case.
    """

    case_id: str
    pools: Mapping[str, Pool]
    consistency: float
    class_counts: Mapping[int, int]
    near_inside: Mapping[int, float]
    slope: float
    agreement: float
    verdicts: tuple[tuple[str, str], ...]

    @property
    def critical(self) -> bool:
        """Return whether the case must not be trained on."""
        return any(level == CRITICAL for level, _ in self.verdicts)


def check_quality(case: HeartCase) -> Quality:
    """Return figures and verdicts of a case."""
    pools = {
        "vol": _pool(case.vol_sdf, case.vol_labels),
        "near": _pool(case.near_sdf, case.near_labels),
    }
    wrong = sum(p.inside_background + p.outside_class for p in pools.values())
    consistency = 1 - wrong / sum(p.count for p in pools.values())
    counts = np.bincount(case.vol_labels.astype(int), minlength=case.num_classes + 1)
    near_inside = _near_inside(case)
    slope, agreement = _slope(case), _agreement(case)
    verdicts = [
        _consistency_verdict(consistency),
        _volume_verdict(pools["vol"].positive),
        _near_verdict(pools["near"].positive),
        *_balance_verdicts(case, near_inside),
        *_class_verdicts(case, counts),
        *([_slope_verdict(slope)] if np.isfinite(slope) else []),
        *([_agreement_verdict(agreement)] if np.isfinite(agreement) else []),
    ]
    return Quality(
        case_id=case.case_id,
        pools=pools,
        consistency=consistency,
        class_counts={c: int(counts[c]) for c in range(1, case.num_classes + 1)},
        near_inside=near_inside,
        slope=slope,
        agreement=agreement,
        verdicts=tuple(verdicts),
    )


def contradictions(sdf: Floats, labels: Labels) -> tuple[npt.NDArray[np.intp], ...]:
    """Return indices of points inside without a class, and of points outside with one."""
    inside = sdf < 0
    return np.flatnonzero(inside & (labels == 0)), np.flatnonzero(~inside & (labels > 0))


def _pool(sdf: Floats, labels: Labels) -> Pool:
    inside_background, outside_class = contradictions(sdf, labels)
    return Pool(
        positive=float((sdf >= 0).mean()),
        mean=float(sdf.mean()),
        std=float(sdf.std()),
        low=float(sdf.min()),
        high=float(sdf.max()),
        inside_background=len(inside_background),
        outside_class=len(outside_class),
        count=len(sdf),
    )


def _near_inside(case: HeartCase) -> dict[int, float]:
    if len(case.near_labels) != len(case.surface_labels):
        return {}
    own = case.near_labels == case.surface_labels
    return {
        c: float(own[case.surface_labels == c].mean())
        for c in range(1, case.num_classes + 1)
        if (case.surface_labels == c).any()
    }


def _slope(case: HeartCase) -> float:
    """Return the median of distance over way to the own surface point, for near points outside."""
    outside = np.flatnonzero(case.near_sdf > 0)
    if len(case.near_points) != len(case.surface_points) or len(outside) == 0:
        return float("nan")
    way = np.linalg.norm(case.near_points[outside] - case.surface_points[outside], axis=1)
    return float(np.median(case.near_sdf[outside] / np.maximum(way, 1e-9)))


def _agreement(case: HeartCase) -> float:
    if case.geometry is None:
        return float("nan")
    voxel = float(case.geometry.spacing.max()) * case.geometry.scale
    apart = np.abs(case.vol_sdf) > voxel
    if case.sdf_mode == "union_mask":  # its inner walls are at no distance of 0
        apart &= case.vol_sdf > 0
    if not apart.any():
        return float("nan")
    truth = true_labels(case.geometry, case.vol_points[apart])
    return float((truth == case.vol_labels[apart]).mean())


def _consistency_verdict(consistency: float) -> tuple[str, str]:
    text = f"sign and label agree for {consistency:.2%} of the points"
    if consistency > 0.95:
        return EXCELLENT, text
    if consistency > 0.90:
        return OK, text
    return CRITICAL, f"{text}; expected over 90 %: signs are swapped or labels belong elsewhere"


def _volume_verdict(positive: float) -> tuple[str, str]:
    text = f"{positive:.1%} of the volume points lie outside"
    if not 0.01 <= positive <= 0.99:
        return CRITICAL, f"{text}; expected 45 to 95 %: no sign is learned from that"
    return (OK if 45 <= round(100 * positive) <= 95 else WARNING), text


def _near_verdict(positive: float) -> tuple[str, str]:
    text = f"{positive:.1%} of the near points lie outside the heart"
    if not 0.01 <= positive <= 0.99:
        return CRITICAL, f"{text}; expected 40 to 60 %: no surface is learned from that"
    return (EXCELLENT if 0.4 <= positive <= 0.6 else OK), text


def _balance_verdicts(case: HeartCase, near_inside: Mapping[int, float]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for c, share in near_inside.items():
        if 0.4 <= share <= 0.6:
            continue
        level = WARNING if 0.2 <= share <= 0.8 else CRITICAL
        name = case.class_names[c - 1]
        found.append(
            (level, f"class {c} {name}: {share:.0%} of its near points lie in it; expected 50 %")
        )
    if near_inside and not found:
        found.append((EXCELLENT, "the near points of every class lie half inside it"))
    return found


def _class_verdicts(case: HeartCase, counts: npt.NDArray[np.intp]) -> list[tuple[str, str]]:
    absent = [c for c in range(1, case.num_classes + 1) if c not in case.present_classes]
    names = ", ".join(f"{c} {case.class_names[c - 1]}" for c in absent)
    found = [(WARNING, f"the heart has no {names}")] if absent else []
    lost = [c for c in case.present_classes if counts[c] == 0]
    if lost:
        found.append((CRITICAL, f"classes {lost} have surface points but no volume point"))
    return found


def _slope_verdict(slope: float) -> tuple[str, str]:
    text = f"the distance rises by {slope:.2f} per unit of way near the surface"
    if 0.7 <= slope <= 1.3:
        return EXCELLENT, text
    return WARNING, f"{text}; expected 1: half a voxel too much or too little, or another scale"


def _agreement_verdict(agreement: float) -> tuple[str, str]:
    text = f"{agreement:.2%} of the labels away from surfaces are the label map's"
    if agreement > 0.99:
        return EXCELLENT, text
    return CRITICAL, f"{text}; expected over 99 %: points and label map lie in different frames"
