"""What a folder lacks: classes missing from cases or label maps, label maps without a case.

Source: vecset-heart specification, 1.10 (`analyze_missing_classes`, `process_missing`,
`check_source_classes`).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vesuvius.data.heart.format import load_case, read_fingerprint
from vesuvius.data.heart.labels import case_id, read_label_map
from vesuvius.errors import StorageError, VesuviusError


@dataclass(frozen=True, slots=True)
class Inventory:
    """Which classes a set of hearts has.

    Attributes:
        class_names: of classes 1..K.
        present: file -> its classes.
        broken: file -> why it cannot be read.
    """

    class_names: tuple[str, ...]
    present: Mapping[Path, tuple[int, ...]]
    broken: Mapping[Path, str]

    @property
    def missing(self) -> dict[int, list[Path]]:
        """Return class -> files without it."""
        numbers = range(1, len(self.class_names) + 1)
        return {c: [p for p, have in self.present.items() if c not in have] for c in numbers}

    @property
    def by_number(self) -> dict[int, int]:
        """Return number of classes -> number of files, most classes first."""
        return dict(sorted(Counter(map(len, self.present.values())).items(), reverse=True))

    @property
    def lone_gaps(self) -> dict[int, int]:
        """Return class -> files that lack this class alone."""
        full = set(range(1, len(self.class_names) + 1))
        gaps = [full - set(have) for have in self.present.values()]
        return dict(Counter(gap.pop() for gap in gaps if len(gap) == 1))


def mark(share: float) -> str:
    """Return "!!" above 50 % of the files, "!" above 20 %, else ""."""
    return "!!" if share > 0.5 else "!" if share > 0.2 else ""


def case_inventory(paths: Sequence[Path], class_names: Sequence[str]) -> Inventory:
    """Return which classes prepared cases have."""
    return _inventory(paths, class_names, lambda path: load_case(path).present_classes)


def source_inventory(paths: Sequence[Path], class_names: Sequence[str]) -> Inventory:
    """Return which classes label maps have."""
    return _inventory(paths, class_names, lambda path: _labels_in(path, len(class_names)))


def unprepared(sources: Iterable[Path], out: Path) -> list[Path]:
    """Return the label maps without a readable case in `out`."""
    return [p for p in sources if not read_fingerprint(out / f"{case_id(p)}.npz")]


def link_all(paths: Sequence[Path], folder: Path) -> None:
    """Fill a folder with symbolic links to the files; links already there are kept.

    Raises:
        StorageError: a link cannot be made, or another file has its name.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in paths:
            link = folder / path.name
            if link.is_symlink() and link.resolve() == path.resolve():
                continue
            link.symlink_to(path.resolve())
    except OSError as error:
        raise StorageError(f"{folder}: cannot be filled with links ({error})") from error


def _inventory(
    paths: Sequence[Path], class_names: Sequence[str], classes_of: Callable[[Path], tuple[int, ...]]
) -> Inventory:
    present: dict[Path, tuple[int, ...]] = {}
    broken: dict[Path, str] = {}
    for path in paths:
        try:
            present[path] = classes_of(path)
        except VesuviusError as error:
            broken[path] = str(error)
    return Inventory(tuple(class_names), present, broken)


def _labels_in(path: Path, num_classes: int) -> tuple[int, ...]:
    labels = read_label_map(path, num_classes=num_classes).labels
    return tuple(int(c) for c in np.flatnonzero(np.bincount(labels.ravel())) if c)
