"""Components, tunnels and cavities of each block that have no partner on the other side."""

from collections.abc import Sequence

import cc3d
import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from vesuvius.metrics.cell_counts import count_cells
from vesuvius.metrics.explain_events import Event, Side, grouped, make_event
from vesuvius.metrics.masks import Mask
from vesuvius.metrics.runs import Bytes, Ints
from vesuvius.metrics.topology import BlockCounts
from vesuvius.metrics.topology_components import cavity_voxels
from vesuvius.metrics.topology_tunnels import tunnel_squares

SIDES: tuple[Side, Side] = ("prediction", "label")
_NEAR = 3
"""A tunnel is looked for so many voxels around its closing square."""


def unmatched_features(prediction: Mask, label: Mask, blocks: Sequence[BlockCounts]) -> list[Event]:
    """Return the unmatched features of both sides, block by block.

    Args:
        prediction: (z, y, x) bool.
        label: (z, y, x) bool.
        blocks: counts of each block, as the score gives them.
    """
    events: list[Event] = []
    for number, block in enumerate(blocks):
        origin = np.array(block.origin_zyx)
        box = tuple(slice(o, o + n) for o, n in zip(block.origin_zyx, block.shape_zyx, strict=True))
        pair = (np.ascontiguousarray(prediction[box]), np.ascontiguousarray(label[box]))
        events += _components(pair, number, origin, block)
        events += _tunnels(pair, number, origin, block)
        events += _cavities(pair, number, origin, block)
    return events


def _block_code(prediction: Mask, label: Mask) -> Bytes:
    code = np.array(prediction, np.uint8, order="C")
    code += label * np.uint8(2)
    code += (code != 0) * np.uint8(4)
    return code


def _components(
    pair: tuple[Mask, Mask], number: int, origin: Ints, block: BlockCounts
) -> list[Event]:
    """Return the pieces that are nobody's partner.

    In each piece of the union the largest piece of either side is the partner of the other's.
    """
    union = cc3d.connected_components(pair[0] | pair[1], connectivity=6)
    pieces = [grouped(cc3d.connected_components(mask, connectivity=6)) for mask in pair]
    held: list[dict[int, list[Ints]]] = [{}, {}]
    for side in (0, 1):
        for voxels in pieces[side].values():
            held[side].setdefault(int(union[tuple(voxels[0])]), []).append(voxels)
    events = []
    for side, name in enumerate(SIDES):
        lonely: list[tuple[bool, Ints, str]] = []
        for place, own in held[side].items():
            others = held[1 - side].get(place, [])
            own.sort(key=len, reverse=True)
            text = _piece_text(side, len(own), len(others))
            lonely += [(bool(others), voxels, text) for voxels in own[bool(others) :]]
        wanted = block.counts[0][1 + side] - block.counts[0][0]
        # One piece of each mask is essential and never counts; it may have no partner.
        lonely.sort(key=lambda one: (one[0], tuple(one[1][0])))
        lonely = lonely[len(lonely) - wanted :]
        events += [
            make_event("component", name, number, voxels + origin, text)
            for _, voxels, text in lonely
        ]
    return events


def _piece_text(side: int, own: int, others: int) -> str:
    """Return what is wrong with a piece of one side of a union's piece."""
    if others == 0:
        return "false piece" if side == 0 else "missed piece"
    if side == 0:
        return f"cut off: {others} label piece(s) predicted as {own}"
    return f"joined: {own} label pieces predicted as {others}"


def _tunnels(pair: tuple[Mask, Mask], number: int, origin: Ints, block: BlockCounts) -> list[Event]:
    """Return the tunnels that are left when those nearest to the matched ones are taken away."""
    matched, *counts = block.counts[1]
    if counts == [matched, matched]:
        return []
    union = np.empty((0, 3))
    if matched:
        code = _block_code(*pair)
        squares, flags = tunnel_squares(code, count_cells(code))
        union = squares[flags][:, :3].astype(np.float64)
    events = []
    for side, name in enumerate(SIDES):
        if counts[side] == matched:
            continue
        code = _block_code(pair[side], pair[side])
        squares = tunnel_squares(code, count_cells(code))[0]
        left = np.ones(len(squares), np.bool_)
        if len(union):
            far = np.abs(squares[:, None, :3] - union[None]).sum(-1)
            left[linear_sum_assignment(far)[0]] = False
        text = "hole that the label does not have" if side == 0 else "hole that was filled"
        for square in squares[left]:
            voxels = _hole_voxels(pair[side], square)
            events.append(make_event("tunnel", name, number, voxels + origin, text))
    return events


def _hole_voxels(mask: Mask, square: Ints) -> Ints:
    """Return the background voxels near a tunnel's closing square that lie deepest in the mask.

    The square closes the tunnel last in scan order, often just outside the sheet. Of the
    background within `_NEAR` voxels those with the most foreground neighbours (of 26) count, and
    of these the ones in one piece with the nearest to the square.
    """
    low = np.maximum(square[:3] - _NEAR, 0)
    box = tuple(slice(a, b) for a, b in zip(low, square[:3] + _NEAR + 1, strict=True))
    part = np.pad(mask[box], 1)
    around: Ints = np.zeros(mask[box].shape, np.int64)
    for step in np.ndindex(3, 3, 3):
        inner = tuple(slice(s, s + n) for s, n in zip(step, around.shape, strict=True))
        around += part[inner]
    around[mask[box]] = -1
    deepest = np.ascontiguousarray(around == around.max())
    labels = cc3d.connected_components(deepest, connectivity=26)
    places = np.argwhere(deepest)
    nearest = places[np.abs(places + low - square[:3]).sum(1).argmin()]
    voxels: Ints = np.argwhere(labels == labels[tuple(nearest)]) + low
    return voxels


def _cavities(
    pair: tuple[Mask, Mask], number: int, origin: Ints, block: BlockCounts
) -> list[Event]:
    """Return the cavities without a partner; exactly those that the TopoScore does not match."""
    if block.counts[2][1] + block.counts[2][2] == 0:
        return []
    matched = cavity_voxels(_block_code(*pair))[0]
    events = []
    for side, name in enumerate(SIDES):
        labels = cc3d.connected_components(~pair[side], connectivity=26)
        text = "cavity that the label does not have" if side == 0 else "cavity that was filled"
        taken = set(labels[tuple(matched.T)].tolist()) | set(_outside(labels))
        events += [
            make_event("cavity", name, number, voxels + origin, text)
            for piece, voxels in grouped(labels).items()
            if piece not in taken
        ]
    return events


def _outside(labels: npt.NDArray[np.integer]) -> list[int]:
    """Return the numbers that touch a face of the block."""
    faces = [np.take(labels, side, axis=axis).ravel() for axis in range(3) for side in (0, -1)]
    return [int(name) for name in np.unique(np.concatenate(faces))]
