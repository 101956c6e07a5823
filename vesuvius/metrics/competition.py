"""The score of the Kaggle competition "Vesuvius Challenge - Surface Detection".

score = 0.30 TopoScore + 0.35 surface Dice at 2 voxels + 0.35 VOI score. What it does not see, by
its definition: a whole missing sheet costs no VOI; a break exactly on a face between two blocks
costs no TopoScore; a bridge between blocks is seen by VOI alone; a predicted 2 is foreground; axis
flips can change the counts, because the order of cells decides ties.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy.typing as npt

from vesuvius.errors import ConfigError
from vesuvius.metrics.masks import foreground_pair
from vesuvius.metrics.surface_distance import masks_surface_dice
from vesuvius.metrics.topology import BlockCounts, Counts, match_blocks, score_counts, sum_counts
from vesuvius.metrics.voi import VOI_ALPHA, masks_voi


@dataclass(frozen=True, slots=True)
class CompetitionScore:
    """The score of one volume and its parts.

    Attributes:
        score: weighted mean of the three parts, in [0, 1].
        topo: TopoScore in [0, 1].
        surface_dice: surface Dice at the tolerance, in [0, 1].
        voi_score: 1 / (1 + 0.3 (voi_split + voi_merge)), in (0, 1].
        voi_split: H(prediction | label) in bits: label pieces that are cut.
        voi_merge: H(label | prediction) in bits: label pieces that are joined.
        counts: {k: (matched, prediction, label)}; k = 0 components, 1 tunnels, 2 cavities.
        blocks: the same counts for each of the (at most 8) blocks: where features are lost.
    """

    score: float
    topo: float
    surface_dice: float
    voi_score: float
    voi_split: float
    voi_merge: float
    counts: Counts
    blocks: tuple[BlockCounts, ...] = ()


def _shares(weights: Sequence[float]) -> list[float]:
    """Return the weights clamped at 0 and summing to 1."""
    kept = [max(float(weight), 0.0) for weight in weights]
    if not 0 < sum(kept) < float("inf"):
        raise ConfigError(
            "topo_weight, surface_weight and voi_weight: at least one must be positive and all "
            f"finite, got {tuple(weights)}"
        )
    return [weight / sum(kept) for weight in kept]


def competition_score(
    prediction: npt.ArrayLike,
    label: npt.ArrayLike,
    *,
    ignore_label: int | None = 2,
    ignore_mask: npt.ArrayLike | None = None,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    tolerance: float = 2.0,
    topo_weight: float = 0.30,
    surface_weight: float = 0.35,
    voi_weight: float = 0.35,
    threads: int | None = None,
) -> CompetitionScore:
    """Return the competition's score of one volume and all its parts.

    Args:
        prediction: (z, y, x) mask; non-zero is surface, NaN is background.
        label: (z, y, x); non-zero is surface.
        ignore_label: label value that becomes background in both; None for none.
        ignore_mask: (z, y, x), non-zero voxels are ignored as well; None for none.
        spacing: voxel size along z, y, x of the surface Dice; the competition uses 1.
        tolerance: of the surface Dice, in the unit of `spacing`.
        topo_weight: weight of the TopoScore; weights are clamped at 0 and renormalised.
        surface_weight: weight of the surface Dice.
        voi_weight: weight of the VOI score.
        threads: None takes the CPUs this process may use.

    Raises:
        ShapeMismatchError: if shapes differ.
        VolumeFormatError: if an array is not 3-D, is empty or holds no numbers.
        ConfigError: if spacing, tolerance or weights are out of range.
    """
    shares = _shares((topo_weight, surface_weight, voi_weight))
    pair = foreground_pair(prediction, label, ignore_label=ignore_label, ignore_mask=ignore_mask)
    surface = masks_surface_dice(*pair, spacing=spacing, tolerance=tolerance, threads=threads)
    voi = masks_voi(*pair, alpha=VOI_ALPHA, threads=threads)
    blocks = match_blocks(*pair, threads=threads)
    counts = sum_counts(blocks)
    topo = score_counts(counts)
    return CompetitionScore(
        score=min(shares[0] * topo + shares[1] * surface + shares[2] * voi.score, 1.0),
        topo=topo,
        surface_dice=surface,
        voi_score=voi.score,
        voi_split=voi.split,
        voi_merge=voi.merge,
        counts=counts,
        blocks=tuple(blocks),
    )
