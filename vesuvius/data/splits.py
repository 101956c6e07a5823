"""Which volumes train and which validate: always whole volumes (or whole scrolls), never crops."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from vesuvius.errors import ConfigError, VolumeNotFoundError
from vesuvius.storage.files import write_text

Split = dict[str, list[str]]


def split_volumes(
    volume_ids: Sequence[str],
    *,
    val_share: float = 0.2,
    seed: int = 42,
    fold: int | None = None,
    num_folds: int = 5,
    groups: Mapping[str, str] | None = None,
) -> Split:
    """Return {"train": ids, "val": ids}, disjoint, both sorted.

    Args:
        volume_ids: all volumes; their order does not matter.
        val_share: share of volumes (or groups) that validate, 0 = none, else at least one.
        seed: of the shuffle.
        fold: which of `num_folds` parts validates instead of a share; None = by share.
        num_folds: number of folds.
        groups: volume id -> scroll id; volumes of one group stay on one side.

    Raises:
        ConfigError: a share outside [0, 1), a fold out of range, too few volumes.
    """
    if not 0 <= val_share < 1:
        raise ConfigError(f"val_share is {val_share}; expected 0 to below 1")
    by_group: dict[str, list[str]] = {}
    for volume_id in sorted(volume_ids):
        by_group.setdefault(groups[volume_id] if groups else volume_id, []).append(volume_id)
    names = sorted(by_group)
    order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    val = _val_groups(order, val_share, fold, num_folds)
    chosen = [v for name in val for v in by_group[name]]
    return {"train": sorted(set(volume_ids) - set(chosen)), "val": sorted(chosen)}


def _val_groups(order: list[str], val_share: float, fold: int | None, num_folds: int) -> list[str]:
    if fold is not None:
        if not 2 <= num_folds <= len(order):
            raise ConfigError(
                f"num_folds is {num_folds}; expected 2 to {len(order)} (the number of volumes or "
                "scrolls)"
            )
        if not 0 <= fold < num_folds:
            raise ConfigError(f"fold is {fold}; expected 0 to {num_folds - 1} (num_folds - 1)")
        return order[fold::num_folds]
    if val_share == 0:
        return []
    if len(order) < 2:
        raise ConfigError(
            f"{len(order)} volume (or scroll) cannot be split into training and validation; give "
            "val_share=0, or a split_file"
        )
    return order[: min(max(1, round(val_share * len(order))), len(order) - 1)]


def save_split(path: Path, split: Split) -> None:
    """Write the split as JSON, whole or not at all.

    Raises:
        StorageError: the file cannot be written.
    """
    write_text(path, json.dumps(split, indent=2) + "\n")


def load_split(path: Path, volume_ids: Sequence[str]) -> Split:
    """Return the split saved at `path`, checked against the volumes that exist.

    Raises:
        VolumeNotFoundError: no such file.
        ConfigError: malformed, a volume on both sides, or a volume that does not exist.
    """
    if not path.is_file():
        raise VolumeNotFoundError(f"{path}: no such file (split_file)")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        split = {side: [check_id(str(v)) for v in found[side]] for side in ("train", "val")}
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f'{path}: not a split ({error}); expected {{"train": [ids], "val": [ids]}} (split_file)'
        ) from error
    both = sorted(set(split["train"]) & set(split["val"]))
    if both:
        raise ConfigError(f"{path}: lists {both[:5]} for training and for validation (split_file)")
    missing = sorted({*split["train"], *split["val"]} - set(volume_ids))
    if missing:
        raise ConfigError(
            f"{path}: lists {len(missing)} volumes that are not there: {missing[:5]} (split_file)"
        )
    return split


def check_id(volume_id: str) -> str:
    """Return the id if it is a plain file name part.

    Raises:
        ConfigError: it could leave its folder ("../x", "a/b") or is empty.
    """
    if not re.fullmatch(r"[\w\-+=@. ]+", volume_id) or volume_id.startswith("."):
        raise ConfigError(
            f"volume id {volume_id!r} is not a plain name; expected letters, digits, '_', '-', '.'"
        )
    return volume_id
