"""Cross-validation folds of whole volumes or whole scrolls, in one file that all steps share."""

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vesuvius.data.splits import Split, check_id, load_split
from vesuvius.errors import ConfigError, VolumeNotFoundError
from vesuvius.storage.files import write_text

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
UNITS = ("volume", "scroll")


@dataclass(frozen=True, slots=True)
class VolumeFacts:
    """What decides where a volume goes.

    Attributes:
        volume_id: its name.
        scroll: scroll id, "" if unknown.
        density: surface voxels over labelled voxels, 0 without a label.
        content: hash of shape and central voxels; volumes that agree stay on one side.
    """

    volume_id: str
    scroll: str = ""
    density: float = 0.0
    content: str = ""


@dataclass(frozen=True, slots=True)
class Folds:
    """Which fold validates each volume.

    Attributes:
        by: "volume" or "scroll".
        num_folds: number of folds.
        seed: of the ties.
        fold_of: volume id -> fold, from 0.
        facts: volume id -> what was known of it.
    """

    by: str
    num_folds: int
    seed: int
    fold_of: Mapping[str, int]
    facts: Mapping[str, VolumeFacts]

    def __post_init__(self) -> None:
        """Check for leaks.

        Raises:
            ConfigError: a fold out of range or empty, a scroll (by scroll) or the same voxels in
                two folds.
        """
        wrong = [v for v, k in self.fold_of.items() if not 0 <= k < self.num_folds]
        if wrong:
            raise ConfigError(
                f"volume {wrong[0]} is in fold {self.fold_of[wrong[0]]}; expected 0 to "
                f"{self.num_folds - 1}"
            )
        empty = sorted(set(range(self.num_folds)) - set(self.fold_of.values()))
        if empty:
            raise ConfigError(f"fold {empty[0]} of {self.num_folds} holds no volume")
        self._check_leak("content", "hold the same voxels")
        if self.by == "scroll":
            self._check_leak("scroll", "are of one scroll")

    def _check_leak(self, name: str, text: str) -> None:
        first: dict[str, str] = {}
        for volume_id, facts in self.facts.items():
            key = getattr(facts, name)
            other = first.setdefault(key, volume_id) if key else volume_id
            if self.fold_of[other] != self.fold_of[volume_id]:
                raise ConfigError(
                    f"leak: volumes {other} (fold {self.fold_of[other]}) and {volume_id} (fold "
                    f"{self.fold_of[volume_id]}) {text}; make the folds again with "
                    "`vesuvius splits`"
                )

    def split(self, fold: int) -> Split:
        """Return {"train": ids, "val": ids} of one fold.

        Raises:
            ConfigError: no such fold.
        """
        if not 0 <= fold < self.num_folds:
            raise ConfigError(f"fold is {fold}; expected 0 to {self.num_folds - 1} (data.fold)")
        val = sorted(v for v, k in self.fold_of.items() if k == fold)
        return {"train": sorted(set(self.fold_of) - set(val)), "val": val}

    def check_covers(self, volume_ids: Sequence[str]) -> None:
        """Raise ConfigError unless exactly these volumes are in the folds."""
        missing = sorted(set(volume_ids) - set(self.fold_of))
        extra = sorted(set(self.fold_of) - set(volume_ids))
        if missing:
            raise ConfigError(
                f"{len(missing)} of {len(volume_ids)} volumes are in no fold, e.g. {missing[0]}; "
                "make the folds again with `vesuvius splits`"
            )
        if extra:
            raise ConfigError(
                f"the folds list {len(extra)} volumes that are not there, e.g. {extra[0]}"
            )


def summary(folds: Folds) -> list[dict[str, Any]]:
    """Return one row a fold: volumes, mean density, volumes of each scroll."""
    rows: list[dict[str, Any]] = []
    for fold in range(folds.num_folds):
        members = [folds.facts[v] for v in folds.split(fold)["val"]]
        rows.append(
            {
                "fold": fold,
                "volumes": len(members),
                "density": sum(f.density for f in members) / len(members),
                "scrolls": dict(sorted(Counter(f.scroll or "unknown" for f in members).items())),
            }
        )
    return rows


def save_folds(path: Path, folds: Folds) -> None:
    """Write the folds as JSON, whole or not at all.

    Raises:
        StorageError: the file cannot be written.
    """
    volumes = {
        name: {
            "fold": fold,
            "scroll": folds.facts[name].scroll,
            "density": round(folds.facts[name].density, 6),
            "content": folds.facts[name].content,
        }
        for name, fold in folds.fold_of.items()
    }
    content = {
        "format_version": FORMAT_VERSION,
        "by": folds.by,
        "num_folds": folds.num_folds,
        "seed": folds.seed,
        "volumes": volumes,
    }
    write_text(path, json.dumps(content, indent=1) + "\n")


def load_folds(path: Path) -> Folds:
    """Return the folds saved at `path`, checked for leaks.

    Raises:
        VolumeNotFoundError: no such file.
        ConfigError: malformed, another version, a leak.
    """
    if not path.is_file():
        raise VolumeNotFoundError(f"{path}: no such file; make it with `vesuvius splits DATA`")
    try:
        return parse_folds(json.loads(path.read_text(encoding="utf-8")))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path}: not a file of folds ({type(error).__name__}: {error}); make it with "
            "`vesuvius splits DATA --out FILE`"
        ) from error


def parse_folds(content: Mapping[str, Any]) -> Folds:
    """Return the folds of a file's content; errors as the built-ins raise them."""
    if content["format_version"] != FORMAT_VERSION or content["by"] not in UNITS:
        raise ConfigError(
            f"format version {content['format_version']}, by {content['by']!r}; this program reads "
            f"version {FORMAT_VERSION}, by volume or scroll"
        )
    volumes = {check_id(str(name)): entry for name, entry in content["volumes"].items()}
    return Folds(
        by=content["by"],
        num_folds=int(content["num_folds"]),
        seed=int(content["seed"]),
        fold_of={name: int(entry["fold"]) for name, entry in volumes.items()},
        facts={
            name: VolumeFacts(
                volume_id=name,
                scroll=str(entry.get("scroll", "")),
                density=float(entry.get("density", 0.0)),
                content=str(entry.get("content", "")),
            )
            for name, entry in volumes.items()
        },
    )


def read_split(path: Path, volume_ids: Sequence[str], fold: int | None) -> Split:
    """Return the split of a file: {"train": ..., "val": ...}, or one fold of a file of folds.

    Args:
        path: the file.
        volume_ids: the volumes that exist; those in no fold are left out with a warning.
        fold: which fold validates.

    Raises:
        VolumeNotFoundError: no such file.
        ConfigError: malformed, a leak, a volume that does not exist, `fold` not given.
    """
    if not holds_folds(path):
        return load_split(path, volume_ids)
    folds = load_folds(path)
    if fold is None:
        raise ConfigError(
            f"{path} holds {folds.num_folds} folds; say which one validates: data.fold=0 to "
            f"{folds.num_folds - 1}, or all of them: python train.py -m data.fold="
            + ",".join(map(str, range(folds.num_folds)))
        )
    missing = sorted(set(folds.fold_of) - set(volume_ids))
    if missing:
        raise ConfigError(
            f"{path}: lists {len(missing)} volumes that are not there, e.g. {missing[0]} "
            "(split_file)"
        )
    unlisted = sorted(set(volume_ids) - set(folds.fold_of))
    if unlisted:
        logger.warning(
            "%d volumes are in no fold of %s and are not used, e.g. %s",
            *(len(unlisted), path, unlisted[0]),
        )
    return folds.split(fold)


def holds_folds(path: Path) -> bool:
    """Tell whether a file is one of folds; False for anything else, readable or not."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "volumes" in content
