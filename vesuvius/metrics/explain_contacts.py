"""Where pieces meet: merges, splits and neighbouring sheets, by growing pieces until they touch."""

from dataclasses import dataclass
from typing import Literal

import cc3d
import numpy as np
import numpy.typing as npt

from vesuvius.metrics.compiled import compiled
from vesuvius.metrics.explain_events import Event, Side, grouped, make_event
from vesuvius.metrics.masks import Mask
from vesuvius.metrics.runs import Bytes
from vesuvius.metrics.topology import block_slices

Labels = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Neighbouring label pieces.

    Attributes:
        pairs: ((piece, piece, contacts), ...) of pieces that grow into each other.
        fused: the pairs (piece, piece) that one piece of the prediction holds.
    """

    pairs: tuple[tuple[int, int, int], ...]
    fused: tuple[tuple[int, int], ...]

    @property
    def rate(self) -> float:
        """Share of neighbouring pairs that are fused; 0 without neighbours."""
        return len(self.fused) / len(self.pairs) if self.pairs else 0.0


@compiled
def _grow(labels: Labels, inside: Bytes, rounds: int) -> None:
    """Grow labels by 6 neighbours within `inside`, all at one pace, at most `rounds` voxels."""
    depth, height, width = labels.shape
    front = np.flatnonzero(labels)
    for _ in range(rounds):
        if len(front) == 0:
            return
        grown = np.empty(6 * len(front), np.int64)
        count = 0
        for at in front:
            z, y, x = at // (height * width), at // width % height, at % width
            for step in range(6):
                d = 2 * (step % 2) - 1
                v = z + d if step < 2 else z
                w = y + d if 2 <= step < 4 else y
                u = x + d if step >= 4 else x
                if v < 0 or w < 0 or u < 0 or v >= depth or w >= height or u >= width:
                    continue
                if inside[v, w, u] and labels[v, w, u] == 0:
                    labels[v, w, u] = labels[z, y, x]
                    grown[count] = (v * height + w) * width + u
                    count += 1
        front = grown[:count]


def touching(labels: Labels) -> dict[tuple[int, int], npt.NDArray[np.int64]]:
    """Return {(a, b): (n, 3) voxels of a with a face neighbour of b}, a < b."""
    found: dict[tuple[int, int], list[npt.NDArray[np.int64]]] = {}
    for axis in range(3):
        lines = np.moveaxis(labels, axis, 0)
        one, other = lines[:-1], lines[1:]
        places = np.argwhere((one != other) & (one > 0) & (other > 0))
        if not len(places):
            continue
        a, b = one[tuple(places.T)], other[tuple(places.T)]
        voxels = np.insert(places[:, 1:], axis, places[:, 0], axis=1)
        keys = np.stack([np.minimum(a, b), np.maximum(a, b)], 1)
        names, at = np.unique(keys, axis=0, return_inverse=True)
        for number, (first, second) in enumerate(names.tolist()):
            found.setdefault((first, second), []).append(voxels[at.ravel() == number])
    return {pair: np.concatenate(parts) for pair, parts in found.items()}


def pieces(mask: Mask) -> Labels:
    """Return the 26-connected pieces of a mask, numbered from 1, as in the VOI score."""
    out: Labels = cc3d.connected_components(mask, connectivity=26).astype(np.int32)
    return out


def shared(one: Labels, other: Labels) -> npt.NDArray[np.int64]:
    """Return (n, 3) rows (piece of one, piece of other, voxels) over their union, 0 background."""
    union = (one > 0) | (other > 0)
    size = int(other.max()) + 1
    table = np.bincount(one[union].astype(np.int64) * size + other[union])
    keys = np.flatnonzero(table)
    return np.stack([keys // size, keys % size, table[keys]], 1)


def piece_bits(prediction: Mask, label: Mask) -> tuple[dict[int, float], dict[int, float]]:
    """Return the bits each piece (0: background) adds to voi_merge and to voi_split.

    {piece of the prediction: bits of H(label | prediction)}, {piece of the label: bits of
    H(prediction | label)}; they sum to the VOI's merge and split.
    """
    own, true = pieces(prediction), pieces(label)
    return _bits(shared(own, true)), _bits(shared(true, own))


def _bits(rows: npt.NDArray[np.int64]) -> dict[int, float]:
    total = int(rows[:, 2].sum())
    if total == 0:
        return {}
    size = np.bincount(rows[:, 0], rows[:, 2])
    cost = rows[:, 2] / total * np.log2(size[rows[:, 0]] / rows[:, 2])
    sums = np.bincount(rows[:, 0], cost)
    return {int(piece): float(sums[piece]) for piece in np.unique(rows[:, 0])}


def contacts(
    kind: Literal["merge", "split"],
    whole: Mask,
    parts: Mask,
    bits: dict[int, float],
    *,
    min_shared: int,
) -> list[Event]:
    """Return where pieces of `parts` meet inside one piece of `whole`.

    A merge: label pieces (parts) inside one predicted piece (whole). A split is the same with the
    sides exchanged: the place of the break. Parts grow inside the whole until they touch; each
    26-connected contact is one event.
    """
    held, inner = pieces(whole), pieces(parts)
    rows = shared(held, inner)
    rows = rows[(rows[:, 0] > 0) & (rows[:, 1] > 0) & (rows[:, 2] >= min_shared)]
    count = np.bincount(rows[:, 0], minlength=int(held.max(initial=0)) + 1)
    rows = rows[count[rows[:, 0]] > 1]
    if not len(rows):
        return []
    known = np.zeros(int(inner.max()) + 1, np.bool_)
    known[rows[:, 1]] = True
    several = np.zeros(len(count), np.bool_)
    several[rows[:, 0]] = True
    inside = several[held]
    grown = np.where(inside & known[inner], inner, 0).astype(np.int32)
    _grow(grown, inside.view(np.uint8), sum(whole.shape))
    side: Side = "prediction" if kind == "merge" else "label"
    blocks = block_slices(whole.shape)
    events = []
    for (a, b), voxels in touching(grown).items():
        number = int(held[tuple(voxels[0])])
        text = f"piece {number}: {'label' if kind == 'merge' else 'predicted'} pieces {a} and {b}"
        for part in _connected(voxels):
            block = _block_of(part[len(part) // 2], blocks)
            cost = bits.get(number, 0.0)
            events.append(make_event(kind, side, block, part, text, bits=cost))
    return events


def _connected(voxels: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Return the 26-connected groups of (n, 3) voxels."""
    low = voxels.min(0)
    box = np.zeros(voxels.max(0) - low + 1, np.bool_)
    box[tuple((voxels - low).T)] = True
    groups = grouped(cc3d.connected_components(box, connectivity=26))
    return [part + low for part in groups.values()]


def _block_of(voxel: npt.NDArray[np.int64], blocks: list[tuple[slice, ...]]) -> int:
    """Return the number of the block that holds a voxel."""
    for number, box in enumerate(blocks):
        if all(part.start <= v < part.stop for part, v in zip(box, voxel.tolist(), strict=True)):
            return number
    raise AssertionError("blocks cover the volume")


def neighbours(prediction: Mask, label: Mask, *, reach: int, min_shared: int) -> Neighbours:
    """Return which label pieces are neighbours and which of these the prediction fuses."""
    true = pieces(label)
    grown = true.copy()
    _grow(grown, np.ones(label.shape, np.uint8), reach)
    near = {pair: len(v) for pair, v in touching(grown).items() if len(v) >= min_shared}
    rows = shared(pieces(prediction), true)
    rows = rows[(rows[:, 0] > 0) & (rows[:, 1] > 0) & (rows[:, 2] >= min_shared)]
    members: dict[int, set[int]] = {}
    for own, piece, _ in rows.tolist():
        members.setdefault(piece, set()).add(own)
    fused = [(a, b) for a, b in near if members.get(a, set()) & members.get(b, set())]
    pairs = tuple(sorted((a, b, count) for (a, b), count in near.items()))
    return Neighbours(pairs, tuple(sorted(fused)))
