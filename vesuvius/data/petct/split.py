"""Splits by patient, and writes a pre-split copy of a data set."""

import json
import shutil
from pathlib import Path

import numpy as np

from vesuvius.data.petct.layout import FOLDERS, SIDES, Triple, check_leakage, find_triples, merge
from vesuvius.errors import ConfigError, StorageError

Sides = dict[str, list[Triple]]


def split_patients(
    triples: list[Triple], *, val_ratio: float = 0.2, test_ratio: float = 0.0, seed: int = 42
) -> Sides:
    """Return train, val and test (without overlap of patients), each sorted by name.

    Patients are sorted, shuffled with the seed and cut; every side with a ratio above 0 gets at
    least one.

    Raises:
        ConfigError: ratios out of range, or fewer patients than sides.
    """
    if not (0 <= val_ratio < 1 and 0 <= test_ratio < 1 and val_ratio + test_ratio < 1):
        raise ConfigError(
            f"val_ratio={val_ratio}, test_ratio={test_ratio}; expected 0 to below 1, together "
            "below 1 (the rest trains)."
        )
    patients = sorted({t.patient for t in triples})
    ratios = {"val": val_ratio, "test": test_ratio}
    counts = {
        side: max(1, round(share * len(patients))) if share else 0 for side, share in ratios.items()
    }
    if sum(counts.values()) >= len(patients):
        raise ConfigError(
            f"{len(patients)} patients cannot be split: val and test would take "
            f"{sum(counts.values())} of them and leave none to train; add patients, or set "
            "val_ratio=0."
        )
    order = [patients[i] for i in np.random.default_rng(seed).permutation(len(patients))]
    bounds = np.cumsum([0, counts["val"], counts["test"]])
    side_of = dict.fromkeys(patients, "train")
    for side, begin, end in zip(ratios, bounds[:-1], bounds[1:], strict=True):
        side_of |= dict.fromkeys(order[begin:end], side)
    sides: Sides = {side: [] for side in SIDES}
    for triple in sorted(triples, key=lambda t: t.name):
        sides[side_of[triple.patient]].append(triple)
    return sides


def split_folder(
    root: Path,
    out: Path,
    *,
    val_ratio: float = 0.2,
    test_ratio: float = 0.0,
    seed: int = 42,
    copy: bool = False,
) -> Sides:
    """Write `out/{train,val,test}/{CT,PET,masks}` with links to (or copies of) the files of `root`.

    The folder appears whole, with `split_info.json` (arguments, patients and slices of each side).

    Raises:
        ConfigError: `out` exists, `root` is split already, or ratios out of range.
        StorageError: it cannot be written.
    """
    if out.exists():
        raise ConfigError(f"{out} exists already; choose a new folder, or delete it.")
    found = find_triples(root)
    if set(found) & {"train", "val"}:
        raise ConfigError(f"{root} is split already ({', '.join(found)}); nothing to do.")
    sides = split_patients(merge(found), val_ratio=val_ratio, test_ratio=test_ratio, seed=seed)
    check_leakage(sides)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for side, triples in sides.items():
            for triple in triples:
                _place(triple, partial / side, copy=copy)
        info = _info(sides, root, val_ratio=val_ratio, test_ratio=test_ratio, seed=seed, copy=copy)
        (partial / "split_info.json").write_text(json.dumps(info, indent=2) + "\n", "utf-8")
        partial.replace(out)
    except OSError as error:
        raise StorageError(f"{out} cannot be written ({error}).") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return sides


def _place(triple: Triple, folder: Path, *, copy: bool) -> None:
    for part, name in FOLDERS.items():
        target = folder / name / f"{slice_name(triple)}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        source: Path = getattr(triple, part)
        if copy:
            shutil.copyfile(source, target)
        else:
            target.symlink_to(source.resolve())


def slice_name(triple: Triple) -> str:
    """Return a name that carries the patient, whatever layout the slice came from."""
    if "_slice_" in triple.name:
        return triple.name
    return f"{triple.patient}_slice_{triple.name.removeprefix(triple.patient).strip('_')}"


def _info(sides: Sides, root: Path, **arguments: float | bool) -> dict[str, object]:
    return {
        "source": str(root),
        **arguments,
        "sides": {
            side: {
                "num_slices": len(triples),
                "patients": sorted({t.patient for t in triples}),
                "slices": [slice_name(t) for t in triples],
            }
            for side, triples in sides.items()
        },
    }
