"""Finds CT, PET and mask slices: three folder layouts, recognised by what is there."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vesuvius.data.petct.png import png_size
from vesuvius.data.splits import check_id
from vesuvius.errors import ConfigError, PairingError, ShapeMismatchError, VolumeNotFoundError

SIDES = ("train", "val", "test")
FOLDERS = {"ct": "CT", "pet": "PET", "mask": "masks"}
"""Part of a triple -> its folder in the flat and in the pre-split layout."""
_SUFFIXES = {"ct": "_CT.png", "pet": "_PET.png", "mask": "_mask.png"}
_LAYOUTS = (
    "<root>/{train,val,test}/{CT,PET,masks}/patient_XXX_slice_NNNN.png, "
    "<root>/{CT,PET,masks}/patient_XXX_slice_NNNN.png or "
    "<root>/<patient>/<patient>_<slice>_{CT,PET,mask}.png"
)


@dataclass(frozen=True, slots=True)
class Triple:
    """One slice.

    Attributes:
        name: file stem without modality, unique in the data set.
        patient: what a split must keep together.
        ct, pet, mask: 8-bit grey PNG files of one size.
    """

    name: str
    patient: str
    ct: Path
    pet: Path
    mask: Path


def find_triples(root: str | Path) -> dict[str, list[Triple]]:
    """Return side -> triples sorted by name; a root that is not split has the one side "all".

    PCLT20K's `train.txt` and `test.txt`, where both are there, give the sides "train" and "test".

    Raises:
        VolumeNotFoundError: no such folder, none of the three layouts, or no slices.
        PairingError: a file without its partners, a patient or a slice on two sides.
        ShapeMismatchError: the three files of a slice differ in size.
        VolumeFormatError: not 8-bit grey PNG.
    """
    root = Path(root)
    if not root.is_dir():
        raise VolumeNotFoundError(f"{root} is no folder; expected {_LAYOUTS} (data.root).")
    found = _find(root)
    if not found or not any(found.values()):
        raise VolumeNotFoundError(f"{root} holds no PNG slices in a known layout: {_LAYOUTS}.")
    check_leakage(found)
    for triples in found.values():
        for triple in triples:
            check_sizes(triple)
    return found


def _find(root: Path) -> dict[str, list[Triple]]:
    sides = [side for side in SIDES if (root / side).is_dir()]
    if sides:
        return {side: _three_folders(root / side) for side in sides}
    if any((root / folder).is_dir() for folder in FOLDERS.values()):
        return {"all": _three_folders(root)}
    return _patient_folders(root)


def _three_folders(root: Path) -> list[Triple]:
    files: dict[str, dict[str, Path]] = {}
    for part, folder in FOLDERS.items():
        if not (root / folder).is_dir():
            raise PairingError(
                f"{root} has no folder {folder}; expected CT, PET and masks side by side with the "
                "same file names."
            )
        files[part] = {p.stem: p for p in (root / folder).glob("*.png")}
    _check_pairs(files, root)
    return [
        Triple(name, patient_of(name), *(files[part][name] for part in FOLDERS))
        for name in sorted(files["ct"])
    ]


def _patient_folders(root: Path) -> dict[str, list[Triple]]:
    """Return the triples of PCLT20K's layout."""
    files: dict[str, dict[str, Path]] = {part: {} for part in _SUFFIXES}
    patients: dict[str, str] = {}
    for path in sorted(root.glob("*/*.png")):
        for part, suffix in _SUFFIXES.items():
            if path.name.endswith(suffix):
                name = path.name.removesuffix(suffix)
                files[part][name] = path
                patients[name] = path.parent.name
    _check_pairs(files, root)
    triples = {
        name: Triple(name, patients[name], *(files[part][name] for part in _SUFFIXES))
        for name in sorted(files["ct"])
    }
    lists = {side: root / f"{side}.txt" for side in ("train", "test")}
    if not all(path.is_file() for path in lists.values()):
        return {"all": list(triples.values())} if triples else {}
    return {side: _listed(path, triples) for side, path in lists.items()}


def _listed(path: Path, triples: dict[str, Triple]) -> list[Triple]:
    """Return the slices (or all slices of the patients) that a list names, one a line."""
    chosen: dict[str, Triple] = {}
    for line in path.read_text(encoding="utf-8").split():
        entry = Path(line).name.removesuffix(".png")
        for suffix in _SUFFIXES.values():
            entry = entry.removesuffix(suffix.removesuffix(".png"))
        matches = [t for t in triples.values() if entry in (t.name, t.patient)]
        if not matches:
            raise PairingError(f"{path} names {line!r}; no such slice or patient beside it.")
        chosen |= {t.name: t for t in matches}
    return [chosen[name] for name in sorted(chosen)]


def patient_of(name: str) -> str:
    """Return the patient of a slice: what stands before `_slice_`.

    Raises:
        PairingError: the name has no such part.
    """
    patient, sign, number = name.partition("_slice_")
    if not sign or not patient or not number:
        raise PairingError(
            f"slice name {name!r} names no patient; expected patient_XXX_slice_NNNN.png (a split "
            "must keep each patient on one side)."
        )
    return check_id(patient)


def _check_pairs(files: dict[str, dict[str, Path]], root: Path) -> None:
    names = {name for part in files.values() for name in part}
    for part, found in files.items():
        missing = sorted(names - set(found))
        if missing:
            where = FOLDERS[part]
            raise PairingError(
                f"{root}: {len(missing)} of {len(names)} slices have no {where} file, e.g. "
                f"{missing[0]}; every slice needs CT, PET and mask under the same name."
            )


def check_leakage(sides: dict[str, Sequence[Triple]] | dict[str, list[Triple]]) -> None:
    """Raise PairingError if a patient has slices on two sides of a split."""
    owner: dict[str, str] = {}
    for side, triples in sides.items():
        for patient in sorted({t.patient for t in triples}):
            if patient in owner:
                raise PairingError(
                    f"patient {patient} is on two sides, {owner[patient]} and {side}: neighbouring "
                    "slices would leak into the score. Split by patient, e.g. with "
                    "`vesuvius petct split`."
                )
            owner[patient] = side


def check_sizes(triple: Triple) -> tuple[int, int]:
    """Return (height, width) of a triple's three files.

    Raises:
        ShapeMismatchError: they differ.
        VolumeFormatError: not 8-bit grey PNG.
    """
    sizes = {part: png_size(getattr(triple, part)) for part in FOLDERS}
    if len(set(sizes.values())) > 1:
        raise ShapeMismatchError(
            f"slice {triple.name}: sizes (height, width) differ, {sizes}; CT, PET and mask must be "
            "resampled to one grid."
        )
    return sizes["ct"]


def merge(sides: dict[str, list[Triple]], names: Iterable[str] | None = None) -> list[Triple]:
    """Return the triples of all sides, or of the sides named.

    Raises:
        ConfigError: a side that is not there.
    """
    wanted = list(sides) if names is None else list(names)
    unknown = [name for name in wanted if name not in sides]
    if unknown:
        raise ConfigError(f"split {unknown[0]!r} is not there; found {sorted(sides)}.")
    return [triple for name in wanted for triple in sides[name]]
