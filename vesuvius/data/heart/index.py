"""Lists of prepared cases: CSV rows `subdir,stem,category` without a header.

`subdir/stem.npz` is meant relative to the CSV's own folder, wherever the program runs. Source:
vecset-heart specification, 1.6.
"""

import csv
import io
import os
import re
from collections.abc import Sequence
from pathlib import Path

from vesuvius.data.splits import Split, split_volumes
from vesuvius.errors import ConfigError, VolumeNotFoundError
from vesuvius.storage.files import write_text


def list_cases(root: Path) -> list[Path]:
    """Return the cases `<id>.npz` of a folder, sorted by name; half-written ones do not count.

    Raises:
        VolumeNotFoundError: no such folder, or no case in it.
    """
    if not root.is_dir():
        raise VolumeNotFoundError(f"{root}: no such folder (root)")
    found = sorted(p for p in root.glob("*.npz") if not p.name.startswith("."))
    if not found:
        raise VolumeNotFoundError(
            f"{root}: holds no <id>.npz (root). Run `vesuvius heart prepare LABELS OUT`, give OUT"
        )
    return found


def read_index(path: Path) -> list[Path]:
    """Return the cases that a CSV lists, in its order.

    Raises:
        VolumeNotFoundError: no such CSV, or a listed case does not exist.
        ConfigError: a row has no three columns, or nothing is listed.
    """
    if not path.is_file():
        raise VolumeNotFoundError(f"{path}: no such file; expected rows subdir,stem,category")
    cases: list[Path] = []
    with path.open(newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.reader(file), start=1):
            if not row:
                continue
            if len(row) != 3 or not row[1]:
                raise ConfigError(f"{path}, line {number}: {row}; expected subdir,stem,category")
            stem = row[1].removesuffix(".npz")
            cases.append(path.parent / row[0] / f"{stem}.npz")
    if not cases:
        raise ConfigError(f"{path}: lists no case")
    lost = [p for p in cases if not p.is_file()]
    if lost:
        raise VolumeNotFoundError(
            f"{path}: {len(lost)} of {len(cases)} cases do not exist, e.g. {lost[0]}; paths count "
            "from the CSV's folder"
        )
    return cases


def write_index(path: Path, cases: Sequence[Path], *, category: str = "heart") -> None:
    """Write the CSV, whole or not at all; paths are stored relative to its folder.

    Raises:
        StorageError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for case in cases:
        folder = os.path.relpath(case.parent, path.parent)
        writer.writerow(["" if folder == "." else folder, case.stem, category])
    write_text(path, text.getvalue())


def split_cases(
    cases: Sequence[Path],
    *,
    val_share: float,
    seed: int,
    patient_pattern: str | None = None,
    fold: int | None = None,
    num_folds: int = 5,
) -> Split:
    """Return {"train": ids, "val": ids}; the cases of a patient stay on one side.

    Args:
        cases: paths; their names without `.npz` are the ids.
        val_share: share of the patients that validate.
        seed: of the shuffle.
        patient_pattern: regular expression found in an id; its match (or first group) names the
            patient. None = every case is a patient of its own.
        fold: which of `num_folds` folds validates; None = by share.
        num_folds: number of folds.

    Raises:
        ConfigError: a pattern that is none or that an id does not hold; see `split_volumes`.
    """
    ids = [path.stem for path in cases]
    groups = None if patient_pattern is None else _patients(ids, patient_pattern)
    return split_volumes(
        ids, val_share=val_share, seed=seed, fold=fold, num_folds=num_folds, groups=groups
    )


def _patients(ids: Sequence[str], pattern: str) -> dict[str, str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(
            f"patient_pattern {pattern!r} is no regular expression ({error})"
        ) from error
    found = {name: compiled.search(name) for name in ids}
    without = [name for name, match in found.items() if match is None]
    if without:
        raise ConfigError(
            f"patient_pattern {pattern!r} is not in {len(without)} ids, e.g. {without[0]!r}"
        )
    return {
        name: match.group(1 if compiled.groups else 0) or name
        for name, match in found.items()
        if match is not None
    }
