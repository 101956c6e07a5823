"""Where a volume loses score: every unmatched feature, every merge and every split, by place."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy.typing as npt

from vesuvius.errors import ConfigError
from vesuvius.metrics.competition import CompetitionScore, competition_score
from vesuvius.metrics.explain_contacts import Neighbours, contacts, neighbours, piece_bits
from vesuvius.metrics.explain_events import Event
from vesuvius.metrics.explain_features import unmatched_features
from vesuvius.metrics.masks import Mask, foreground_pair


@dataclass(frozen=True, slots=True)
class Explanation:
    """The score of one volume and what it lost.

    Attributes:
        score: the official score and its parts.
        events: unmatched features, merges and splits; the costliest of each kind first.
        neighbours: pairs of neighbouring label pieces and which of them the prediction fuses.
        merge_bits: {piece of the prediction: bits it adds to voi_merge}.
        split_bits: {piece of the label: bits it adds to voi_split}.
        prediction: (z, y, x) bool, what was scored: ignored voxels are background.
        label: the same of the label.
    """

    score: CompetitionScore
    events: tuple[Event, ...]
    neighbours: Neighbours
    merge_bits: dict[int, float]
    split_bits: dict[int, float]
    prediction: Mask
    label: Mask

    def counted(self) -> dict[str, int]:
        """Return the number of events by kind and side, e.g. {"tunnel of the prediction": 7}."""
        counts: dict[str, int] = {}
        for event in self.events:
            name = f"{event.kind} of the {event.side}"
            counts[name] = counts.get(name, 0) + 1
        return counts


def explain(
    prediction: npt.ArrayLike,
    label: npt.ArrayLike,
    *,
    ignore_label: int | None = 2,
    ignore_mask: npt.ArrayLike | None = None,
    reach: int = 4,
    min_shared: int = 30,
    threads: int | None = None,
) -> Explanation:
    """Return where a volume loses its score.

    The numbers of unmatched components, tunnels and cavities are those of the TopoScore, exactly:
    of the prediction, predicted minus matched; of the label, label minus matched. Which of several
    candidates is the unmatched one is exact for cavities; of components in one piece of the union
    the largest counts as matched, of tunnels those nearest to the matched ones.

    Args:
        prediction: (z, y, x); non-zero is surface, NaN is background.
        label: (z, y, x); non-zero is surface.
        ignore_label: label value to ignore; None for none.
        ignore_mask: (z, y, x) further voxels to ignore, or None.
        reach: two label pieces are neighbours if they grow into each other within so many voxels
            each, over `min_shared` contacts.
        min_shared: a piece holds another if they share so many voxels.
        threads: of the score; None takes the CPUs this process may use.

    Raises:
        ShapeMismatchError: shapes differ.
        VolumeFormatError: an array is not 3-D or is empty.
        ConfigError: reach or min_shared below 1.
    """
    if reach < 1 or min_shared < 1:
        raise ConfigError(
            f"reach and min_shared must be at least 1, got reach={reach}, min_shared={min_shared}"
        )
    pair = foreground_pair(prediction, label, ignore_label=ignore_label, ignore_mask=ignore_mask)
    score = competition_score(pair[0], pair[1], ignore_label=None, threads=threads)
    events: list[Event] = unmatched_features(*pair, score.blocks)
    merge_bits, split_bits = piece_bits(*pair)
    events += contacts("merge", pair[0], pair[1], merge_bits, min_shared=min_shared)
    events += contacts("split", pair[1], pair[0], split_bits, min_shared=min_shared)
    near = neighbours(*pair, reach=reach, min_shared=min_shared)
    return Explanation(
        score, tuple(sorted_events(events)), near, merge_bits, split_bits, pair[0], pair[1]
    )


def sorted_events(events: Sequence[Event]) -> list[Event]:
    """Return the events by kind, the costliest (bits, then voxels) first."""
    return sorted(events, key=lambda event: (event.kind, event.side, -event.bits, -event.voxels))
