"""Where the blocks of a large volume lie, and which of them meet."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from vesuvius.errors import ConfigError

Zyx = tuple[int, int, int]
Box = tuple[slice, slice, slice]
SMALLEST_OVERLAP = 16


@dataclass(frozen=True, slots=True)
class Block:
    """One block: where it is solved and which part of it is kept; half-open voxel ranges.

    Attributes:
        number: in the order z, y, x, x fastest.
        index_zyx: place in the grid of blocks.
        start_zyx, stop_zyx: voxels that are solved.
        core_start_zyx, core_stop_zyx: voxels that are kept; the cores tile the volume.
    """

    number: int
    index_zyx: Zyx
    start_zyx: Zyx
    stop_zyx: Zyx
    core_start_zyx: Zyx
    core_stop_zyx: Zyx

    def box(self) -> Box:
        """Return the solved part as slices of the volume."""
        return slices(self.start_zyx, self.stop_zyx)

    def core(self) -> Box:
        """Return the kept part as slices of the volume."""
        return slices(self.core_start_zyx, self.core_stop_zyx)


def slices(start: Sequence[int], stop: Sequence[int]) -> Box:
    """Return a box as slices."""
    z, y, x = (slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
    return z, y, x


def moved(box: Box, start: Sequence[int]) -> Box:
    """Return a box in the coordinates of something that begins at `start`."""
    z, y, x = (slice(p.start - s, p.stop - s) for p, s in zip(box, start, strict=True))
    return z, y, x


def common(a: Box, b: Box) -> Box | None:
    """Return the voxels of both boxes, None without any."""
    z, y, x = (slice(max(p.start, q.start), min(p.stop, q.stop)) for p, q in zip(a, b, strict=True))
    return (z, y, x) if all(p.start < p.stop for p in (z, y, x)) else None


def _ranges(length: int, block: int, overlap: int) -> list[tuple[int, int, int, int]]:
    """Return (start, stop, core start, core stop) along one axis: equal blocks, shared evenly."""
    if length <= block:
        return [(0, length, 0, length)]
    number = -(-(length - overlap) // (block - overlap))
    starts = [round(i * (length - block) / (number - 1)) for i in range(number)]
    middles = [(a + b + block) // 2 for a, b in zip(starts[1:], starts[:-1], strict=True)]
    edges = [0, *middles, length]
    return [(s, s + block, edges[i], edges[i + 1]) for i, s in enumerate(starts)]


def plan_blocks(shape_zyx: tuple[int, ...], *, block: int, overlap: int) -> list[Block]:
    """Return blocks that cover a volume; the cores tile it, neighbours share `overlap` or more.

    Raises:
        ConfigError: the block is too small, or the overlap does not fit into it.
    """
    if block < 2 * SMALLEST_OVERLAP:
        raise ConfigError(
            f"block is {block} voxels; expected {2 * SMALLEST_OVERLAP} or more (--block)"
        )
    if not SMALLEST_OVERLAP <= overlap <= block // 2:
        raise ConfigError(
            f"overlap is {overlap} at block {block}; expected {SMALLEST_OVERLAP} to {block // 2}: "
            "the numbers are agreed upon in the overlap (--overlap)"
        )
    axes = [list(enumerate(_ranges(n, block, overlap))) for n in shape_zyx]
    blocks = []
    for number, ((i, z), (j, y), (k, x)) in enumerate(product(*axes)):
        corners = [(z[c], y[c], x[c]) for c in range(4)]
        blocks.append(Block(number, (i, j, k), *corners))
    return blocks


def later_neighbours(blocks: Sequence[Block]) -> list[list[Block]]:
    """Return for every block those behind it along one axis that share voxels with it.

    These are its neighbours, and where blocks share more than half of them, the next ones too.
    """
    at = {block.index_zyx: block for block in blocks}
    return [_later(block, at) for block in blocks]


def _later(block: Block, at: dict[Zyx, Block]) -> list[Block]:
    found = []
    for axis in range(3):
        step = 1
        while True:
            z, y, x = (n + step * (axis == i) for i, n in enumerate(block.index_zyx))
            other = at.get((z, y, x))
            if other is None or common(block.box(), other.box()) is None:
                break
            found.append(other)
            step += 1
    return sorted(found, key=lambda other: other.number)


class CoreIndex:
    """Finds the blocks whose cores meet a box; the cores are a grid."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self._at = {block.index_zyx: block for block in blocks}
        self._axes = [
            {
                block.index_zyx[axis]: (block.core_start_zyx[axis], block.core_stop_zyx[axis])
                for block in blocks
            }
            for axis in range(3)
        ]

    def meeting(self, box: Box) -> list[Block]:
        """Return the blocks whose cores share voxels with a box."""
        hits = [
            [i for i, (low, high) in axis.items() if low < part.stop and high > part.start]
            for axis, part in zip(self._axes, box, strict=True)
        ]
        return [self._at[z, y, x] for z, y, x in product(*hits)]
