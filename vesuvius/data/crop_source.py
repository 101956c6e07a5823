"""What a data set needs of a volume, and chunks that are fetched while others are worked on."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vesuvius.data.chunk_cache import ChunkCache

Array = npt.NDArray[Any]
Zyx = tuple[int, int, int]
Fill = Callable[[str, Array], None]
"""fill(name, out): copies the box that was requested into `out`, any (flipped, transposed) view."""
Wanted = Array | Future[Array] | Callable[[], Array]
"""A chunk that is there, on its way, or to be read when it is taken."""


class CropReader(Protocol):
    """An open volume with its labels; boxes are in voxels of the volume, or of its region."""

    @property
    def volume_id(self) -> str:
        """Name, unique in its data set."""

    @property
    def shape_zyx(self) -> Zyx:
        """Voxels along z, y, x."""

    @property
    def positive(self) -> Array:
        """(n, 3) surface voxels z, y, x, one for each block that has any."""

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the data type of `image`, `label` or another array."""

    def request(self, names: Sequence[str], start: Zyx, stop: Zyx) -> Fill:
        """Start fetching a box of some arrays; the returned function waits for it and copies it."""


class CropSource(Protocol):
    """What is opened in each process for itself; pickles."""

    @property
    def volume_id(self) -> str:
        """Name, unique in its data set."""

    def open(self, loader: "ChunkLoader") -> CropReader:
        """Return the open volume; its chunks go through `loader`."""


class ChunkLoader:
    """Chunks in memory and on their way; for one thread that asks and takes.

    Args:
        max_bytes: decoded chunks kept; 0 keeps none.
        num_threads: chunks fetched at a time.
    """

    def __init__(self, max_bytes: int, num_threads: int = 16) -> None:
        self.cache = ChunkCache(max_bytes)
        self._num_threads = num_threads
        self._pool: ThreadPoolExecutor | None = None
        self._running: dict[tuple[Any, ...], Future[Array]] = {}

    def want(self, key: tuple[Any, ...], read: Callable[[], Array], *, ahead: bool) -> Wanted:
        """Return what `take` turns into the chunk.

        Args:
            key: of the chunk, unique among all volumes.
            read: fetches and decodes it; called in another thread if `ahead`.
            ahead: start now: worth it where reading means waiting for a network.
        """
        chunk = self.cache.get(key)
        if chunk is not None:
            return chunk
        if not ahead:
            return read
        if key not in self._running:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._num_threads, "chunk")
            self._running[key] = self._pool.submit(read)
        return self._running[key]

    def take(self, key: tuple[Any, ...], wanted: Wanted) -> Array:
        """Return the decoded chunk; errors of its reading are raised here."""
        if isinstance(wanted, np.ndarray):
            return wanted
        if not isinstance(wanted, Future):
            known = self.cache.get(key)  # another crop of the batch may have read it since
            if known is None:
                known = wanted()
                self.cache.put(key, known)
            return known
        try:
            chunk: Array = wanted.result()
        except BaseException:
            self._give_up()
            raise
        if self._running.pop(key, None) is not None:
            self.cache.put(key, chunk)
        return chunk

    def _give_up(self) -> None:
        """Forget what is on its way; what has not started never will."""
        for future in self._running.values():
            future.cancel()
        self._running.clear()


class CropView:
    """One array of an open volume that is sliced like a (z, y, x) array.

    Args:
        reader: the open volume.
        name: of the array.
    """

    def __init__(self, reader: CropReader, name: str) -> None:
        self._reader = reader
        self._name = name
        self.shape = reader.shape_zyx
        self.dtype = reader.dtype(name)

    def __getitem__(self, key: tuple[slice, slice, slice]) -> Array:
        """Return the box of three slices with step 1."""
        bounds = [part.indices(n)[:2] for part, n in zip(key, self.shape, strict=True)]
        (z0, z1), (y0, y1), (x0, x1) = bounds
        out = np.empty((z1 - z0, y1 - y0, x1 - x0), self.dtype)
        self._reader.request([self._name], (z0, y0, x0), (z1, y1, x1))(self._name, out)
        return out
