"""Whole-number offsets between independently numbered blocks."""

import heapq
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vesuvius.postprocess.winding.numbering import NO_LEVEL


@dataclass(frozen=True, slots=True)
class Link:
    """What the overlap of two blocks says: level_b = sign * level_a + offset (sign -1: see below).

    Attributes:
        a, b: block numbers.
        sign: 1, or -1 where the two fields rise in opposite directions.
        offset: most frequent whole offset of b's levels after a's were turned by `sign`.
        votes: voxels that agree with it.
        total: voxels that were compared.
    """

    a: int
    b: int
    sign: int
    offset: int
    votes: int
    total: int


def turned(level: npt.NDArray[np.int32], sign: int) -> npt.NDArray[np.int32]:
    """Return the levels of the field times `sign`: floor(-w) = -floor(w) - 1."""
    return level if sign > 0 else -level - 1


def vote(
    a: int, b: int, level_a: npt.NDArray[np.int32], level_b: npt.NDArray[np.int32]
) -> Link | None:
    """Return the link of two blocks from their levels on the common voxels, None without any."""
    both = (level_a != NO_LEVEL) & (level_b != NO_LEVEL)
    if not both.any():
        return None
    best = Link(a, b, 1, 0, 0, int(both.sum()))
    for sign in (1, -1):
        offsets, counts = np.unique(level_b[both] - turned(level_a[both], sign), return_counts=True)
        top = int(counts.argmax())
        if counts[top] > best.votes:
            best = Link(a, b, sign, int(offsets[top]), int(counts[top]), best.total)
    return best


def synchronise(count: int, links: list[Link]) -> tuple[list[tuple[int, int]], list[Link]]:
    """Return (sign, offset) per block, and the links that the result contradicts.

    Maximum spanning tree over the votes, grown from block to block (Prim), of equal links the
    first; global level = sign * level + offset (turned as in `turned`). Blocks without links to
    block 0 hang on the first block of their part, which keeps (1, 0).
    """
    touching: list[list[int]] = [[] for _ in range(count)]
    for number, link in enumerate(links):
        touching[link.a].append(number)
        touching[link.b].append(number)
    place: dict[int, tuple[int, int]] = {}
    for root in range(count):
        if root in place:
            continue
        place[root] = (1, 0)
        leaving = [(-links[n].votes, n) for n in touching[root]]
        heapq.heapify(leaving)
        while leaving:
            link = links[heapq.heappop(leaving)[1]]
            if link.a in place and link.b in place:
                continue
            known, new = (link.a, link.b) if link.a in place else (link.b, link.a)
            place[new] = _follow(place[known], link, forward=new == link.b)
            for n in touching[new]:
                heapq.heappush(leaving, (-links[n].votes, n))
    broken = [link for link in links if place[link.b] != _follow(place[link.a], link)]
    return [place[i] for i in range(count)], broken


def _follow(known: tuple[int, int], link: Link, *, forward: bool = True) -> tuple[int, int]:
    """Return the (sign, offset) of the block at the other end of a link.

    With T(l) = turned(l, link.sign): level_b = T(level_a) + offset on the overlap. Levels turned
    twice are themselves, and turned(l + c, -1) = turned(l, -1) - c.
    """
    sign, offset = known
    if forward:  # global = known(a), a = T(b - link.offset)
        inner = -link.offset if link.sign > 0 else link.offset
        return sign * link.sign, offset + sign * inner
    return sign * link.sign, offset + sign * link.offset  # global = known(b), b = T(a) + offset
