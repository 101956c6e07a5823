"""Files of `vesuvius score` and its neighbours: masks and labels by name, tables as CSV."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_SUFFIXES = (".tif", ".tiff", ".npy", ".zarr")
_NAME_TAILS = {"prediction": ("_mask", "_prediction", "_pred"), "label": ("_label",)}
_ARRAYS = {"prediction": "mask", "label": "label"}


def find_volumes(path: Path, kind: str) -> dict[str, Path]:
    """Return {id: path} of the masks ("prediction") or labels ("label") in a folder, or of a file.

    Raises:
        VolumeNotFoundError: nothing there.
        PairingError: two files are of one id.
    """
    from vesuvius.errors import PairingError, VolumeNotFoundError

    if not path.exists():
        raise VolumeNotFoundError(f"{kind}s: '{path}' does not exist")
    single = path.suffix.lower() in _SUFFIXES
    files = [path] if single or not path.is_dir() else sorted(path.iterdir())
    found: dict[str, Path] = {}
    for file in files:
        if file.suffix.lower() not in _SUFFIXES or file.name.startswith("."):
            continue
        if not single and file.suffix == ".zarr" and not (file / _ARRAYS[kind]).is_dir():
            continue  # infer.py leaves probabilities beside the masks: no mask, no label
        name = file.stem
        for tail in _NAME_TAILS[kind]:
            name = name.removesuffix(tail)
        if name in found:
            raise PairingError(
                f"{kind}s: '{found[name].name}' and '{file.name}' are both of volume {name}; "
                "keep one of them"
            )
        found[name] = file
    if not found:
        raise VolumeNotFoundError(
            f"{kind}s: '{path}' holds no volume; expected <id>.tif, <id>.npy or <id>.zarr"
        )
    return found


def pair_up(
    predictions: Path, labels: Path, *, allow_missing: bool = False
) -> dict[str, tuple[Path, Path]]:
    """Return {id: (prediction, label)}.

    Raises:
        PairingError: names on one side have no partner on the other; all are listed.
    """
    from vesuvius.errors import PairingError

    masks, truths = find_volumes(predictions, "prediction"), find_volumes(labels, "label")
    if len(masks) == len(truths) == 1 and predictions in masks.values():
        return {next(iter(truths)): (next(iter(masks.values())), next(iter(truths.values())))}
    missing, extra = sorted(truths.keys() - masks.keys()), sorted(masks.keys() - truths.keys())
    problems = []
    if missing and not (allow_missing and len(missing) < len(truths)):
        problems.append(
            f"{len(missing)} of {len(truths)} labels have no prediction: {listed(missing)} "
            "(--allow-missing scores the others)"
        )
    if extra:
        problems.append(f"{len(extra)} of {len(masks)} predictions have no label: {listed(extra)}")
    if problems:
        raise PairingError(f"'{predictions}' and '{labels}' do not match: " + "; ".join(problems))
    return {name: (masks[name], truths[name]) for name in sorted(masks)}


def listed(names: list[str], most: int = 20) -> str:
    """Return names for a message, the first `most` of them."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def read_volume(path: Path, kind: str) -> "npt.NDArray[np.generic]":
    """Return the (z, y, x) array of a file.

    Raises:
        VolumeFormatError: not a readable 3-D volume, or a label with values beyond 0, 1, 2.
    """
    from vesuvius.data.volume import open_volume

    array = _ARRAYS[kind] if path.suffix.lower() == ".zarr" else None
    volume: npt.NDArray[np.generic] = open_volume(path, array=array).read_all()
    return volume


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the rows atomically.

    Raises:
        StorageError: the file cannot be written.
    """
    import csv
    import io

    from vesuvius.storage.files import write_text

    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), restval="")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
