"""Where a label volume of any size holds surface: built once, streamed, kept on the local disk.

Only chunk files that exist are read: where the store can be listed (local, S3, Google, Azure) the
others are never asked for; over HTTP each absent one costs a request. A killed build goes on where
it was. One voxel is kept for each block of `block_edge` voxels that holds surface, as in
`positive_index`; the edge grows with the region, so that the index of a whole scroll fits.
"""

import hashlib
import json
import logging
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vesuvius.data.chunk_cache import chunks_over
from vesuvius.data.chunk_listing import digest, identity, list_chunk_files
from vesuvius.data.exclusive import exclusive
from vesuvius.data.labelled_volume import as_label
from vesuvius.data.positive_index import BLOCK, one_per_block, positive_voxels
from vesuvius.data.store import remove_tree
from vesuvius.data.volume import Volume
from vesuvius.storage.files import whole_file, write_text

log = logging.getLogger(__name__)

Voxels = npt.NDArray[np.int32]
Zyx = tuple[int, int, int]

_MAX_BLOCKS = 2**26
"""Blocks of a region at most: with one in ten holding surface its index has 80 MB."""
_PIECE = 256
"""Edge of what is read at a time, unless a chunk is larger: 16 MiB."""
_GROUP = 64
"""Pieces between two files of an unfinished index."""
_SAY_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class IndexedRegion:
    """A region in voxels of the image, and the labels that cover it.

    Attributes:
        label: unopened.
        origin_zyx: first voxel of the region in the image.
        shape_zyx: voxels of the region.
        factor: image voxels along an edge of one label voxel.
    """

    label: Volume
    origin_zyx: Zyx
    shape_zyx: Zyx
    factor: int

    @property
    def label_box(self) -> tuple[Zyx, Zyx]:
        """Return the box of label voxels that cover the region."""
        f = self.factor
        z0, y0, x0 = (o // f for o in self.origin_zyx)
        z1, y1, x1 = (
            -(-(o + n) // f) for o, n in zip(self.origin_zyx, self.shape_zyx, strict=True)
        )
        return (z0, y0, x0), (z1, y1, x1)


@dataclass(frozen=True, slots=True)
class LabelIndex:
    """A finished index.

    Attributes:
        path: .npy of (n, 3) int32 voxels z, y, x of the region.
        version: changes when a chunk of the labels does, where that can be listed.
    """

    path: Path
    version: str


def build_index(region: IndexedRegion, folder: Path, name: str, *, check: bool) -> LabelIndex:
    """Return the index of a region, from `folder` if it is there, else made.

    Args:
        region: what is indexed.
        folder: where indexes lie.
        name: of the volume, for file names and messages.
        check: make it again if chunks of the labels have changed since.

    Raises:
        LabelValueError: labels other than 0, 1, 2.
        RemoteReadError: a chunk cannot be read; what was done is kept.
    """
    facts = f"{identity(region.label)} {region.origin_zyx} {region.shape_zyx} {region.factor}"
    facts += f" {region.label.options.fill}"
    stem = f"{name}_{hashlib.sha256(facts.encode()).hexdigest()[:16]}"
    path = folder / f"{stem}.npy"
    note = folder / f"{stem}.json"
    if not check and path.is_file() and note.is_file():
        return LabelIndex(path, _version(note))
    with exclusive(folder / stem):
        files = list_chunk_files(region.label)
        version = digest(files)
        if not (path.is_file() and note.is_file() and _version(note) == version):
            _build(region, files, path, folder / f"{stem}_{version}.unfinished", name)
            write_text(note, json.dumps({"label": str(region.label.source), "version": version}))
    return LabelIndex(path, version)


def _version(note: Path) -> str:
    return str(json.loads(note.read_text(encoding="utf-8"))["version"])


def _build(
    region: IndexedRegion, files: dict[str, str] | None, path: Path, parts: Path, name: str
) -> None:
    pieces = _pieces(region, files)
    edge = block_edge(region.shape_zyx)
    block = max(1, edge // region.factor)  # of label voxels
    groups = [pieces[i : i + _GROUP] for i in range(0, len(pieces), _GROUP)]
    log.info(
        "labels of %s: looking for surface in %d pieces%s, once; kept as %s",
        *(name, len(pieces), "" if files is None else " that exist", path),
    )
    parts.mkdir(parents=True, exist_ok=True)
    remote = isinstance(region.label.source, str)
    voxels: list[Voxels] = []
    with ThreadPoolExecutor(16 if remote else 1) as pool:
        started = last = time.monotonic()
        for i, group in enumerate(groups):
            voxels.append(_group(region, group, parts / f"{i:06d}.npy", block, pool))
            if time.monotonic() - last > _SAY_EVERY_S:
                last = time.monotonic()
                left = (last - started) / (i + 1) * (len(groups) - i - 1)
                log.info(
                    "labels of %s: %d of %d pieces, about %.0f s left",
                    *(name, min((i + 1) * _GROUP, len(pieces)), len(pieces), left),
                )
    found = one_per_block(np.concatenate([np.empty((0, 3), np.int32), *voxels]), block)
    _save(path, _in_region(found, region))
    for old in path.parent.glob(f"{path.stem}_*.unfinished"):  # this one, and of older labels
        remove_tree(old)
    log.info("labels of %s: %d blocks of %d^3 voxels hold surface", name, len(found), edge)


def _group(
    region: IndexedRegion,
    pieces: Sequence[tuple[Zyx, Zyx]],
    path: Path,
    block: int,
    pool: ThreadPoolExecutor,
) -> Voxels:
    """Return the label voxels of some pieces, from an earlier, killed build if it has them."""
    if path.is_file():
        kept: Voxels = np.load(path, allow_pickle=False)
        return kept

    def search(piece: tuple[Zyx, Zyx]) -> Voxels:
        start, stop = piece
        data = region.label.read(start, stop)
        label = as_label(data, f"{region.label.source}: box {start} to {stop}")
        return positive_voxels(label, offset_zyx=start, block=block)

    found = np.concatenate(list(pool.map(search, pieces)))
    _save(path, found)
    return found


def block_edge(shape_zyx: Zyx) -> int:
    """Return the edge of an index block in image voxels: 8, doubled while there are too many."""
    edge = BLOCK
    while math.prod(-(-n // edge) for n in shape_zyx) > _MAX_BLOCKS:
        edge *= 2
    return edge


def _pieces(region: IndexedRegion, files: dict[str, str] | None) -> list[tuple[Zyx, Zyx]]:
    """Return the boxes of label voxels to read: whole chunks in files that may exist."""
    start, stop = region.label_box
    chunked = region.label.chunked
    pieces: list[tuple[Zyx, Zyx]] = []
    for cell in chunks_over(start, stop, chunked.file_zyx):
        if files is not None and chunked.file_key((cell[0], cell[1], cell[2])) not in files:
            continue
        low, high = _cut(cell, chunked.file_zyx, start, stop)
        size = tuple(max(c, _PIECE // c * c) for c in chunked.chunk_zyx)
        pieces.extend(_boxes(low, high, (size[0], size[1], size[2])))
    return pieces


def _boxes(low: Zyx, high: Zyx, size: Zyx) -> Iterator[tuple[Zyx, Zyx]]:
    for cell in chunks_over(low, high, size):
        yield _cut(cell, size, low, high)


def _cut(cell: tuple[int, ...], size: Zyx, start: Zyx, stop: Zyx) -> tuple[Zyx, Zyx]:
    """Return the part of a grid cell inside the box [start, stop)."""
    z0, y0, x0 = (max(i * s, a) for i, s, a in zip(cell, size, start, strict=True))
    z1, y1, x1 = (min((i + 1) * s, b) for i, s, b in zip(cell, size, stop, strict=True))
    return (z0, y0, x0), (z1, y1, x1)


def _in_region(voxels: Voxels, region: IndexedRegion) -> Voxels:
    """Return label voxels as voxels of the region: the middle of what each covers of it."""
    middle = voxels * region.factor + region.factor // 2 - np.asarray(region.origin_zyx)
    last = np.asarray(region.shape_zyx) - 1
    inside: Voxels = np.clip(middle, 0, last).astype(np.int32)
    return inside


def _save(path: Path, voxels: Voxels) -> None:
    with whole_file(path, alone=True) as partial, partial.open("wb") as file:
        np.save(file, voxels, allow_pickle=False)
