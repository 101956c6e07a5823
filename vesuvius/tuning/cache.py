"""States between steps on disk, found again by the hash of everything that made them."""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vesuvius.storage.files import whole_file

Arrays = dict[str, npt.NDArray[Any]]

_CURE = "free space, lower --cache-gb or choose another --cache"


def key_of(*parts: str) -> str:
    """Return the hash of texts, each with its length."""
    digest = hashlib.blake2b(digest_size=20)
    for part in parts:
        digest.update(f"{len(part)}:{part}".encode())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class StepCache:
    """A folder of arrays and scores by key, bounded in size: what was used longest ago goes.

    Several processes may share it; every file is renamed into place. A file that cannot be read
    counts as missing.

    Attributes:
        folder: made when something is stored.
        max_bytes: of all array files; 0 stores no arrays.
    """

    folder: Path
    max_bytes: int

    def read_arrays(self, key: str) -> Arrays | None:
        """Return the stored arrays, or None."""
        path = self.folder / f"{key}.npz"
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            os.utime(path)
        except (OSError, ValueError, KeyError, EOFError):
            return None
        return arrays

    def write_arrays(self, key: str, arrays: Arrays) -> None:
        """Store arrays unless they alone exceed the bound.

        Raises:
            StorageError: the folder cannot be written.
        """
        if sum(array.nbytes for array in arrays.values()) > self.max_bytes:
            return
        whole = whole_file(self.folder / f"{key}.npz", cure=_CURE)
        with whole as partial, partial.open("wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]
        self._evict()

    def read_json(self, key: str) -> dict[str, Any] | None:
        """Return the stored figures, or None."""
        try:
            content = json.loads((self.folder / f"{key}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return content if isinstance(content, dict) else None

    def write_json(self, key: str, content: Mapping[str, Any]) -> None:
        """Store figures (some hundred bytes, not counted in the bound).

        Raises:
            StorageError: the folder cannot be written.
        """
        with whole_file(self.folder / f"{key}.json", cure=_CURE) as partial:
            partial.write_text(json.dumps(content), encoding="utf-8")

    def _evict(self) -> None:
        """Delete the files used longest ago until the bound holds."""
        files = []
        for path in self.folder.glob("*.npz"):
            with contextlib.suppress(OSError):  # another process was faster
                facts = path.stat()
                files.append((facts.st_mtime, facts.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self.max_bytes:
                return
            with contextlib.suppress(OSError):
                path.unlink()
            total -= size
