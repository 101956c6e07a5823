"""One prepared heart per `<id>.npz`: keys, dtypes, reading, checking, writing.

Coordinates. The label map is turned to RAS+ (nibabel's closest canonical orientation); voxel
(i, j, k) has its centre at `index * spacing` mm. All points are (x, y, z) in the cube [-1, 1]^3:

    point = (index * spacing - shift) * scale        signed distances carry the same scale

Signed distance: inside < 0, surface = 0, outside > 0; the threshold is exactly 0.

| key | shape, dtype | meaning |
|---|---|---|
| `surface_points` | (Ns, 3) float32 | samples of all class surfaces |
| `surface_labels` | (Ns, K) float32 | one-hot class of each; (Ns,) numbers 1..K are read as well |
| `surface_normals` | (Ns, 3) float32 | unit normals, outward |
| `vol_points`, `near_points` | (N, 3) float32 | half inside half uniform; beside the surfaces |
| `vol_sdf`, `near_sdf` | (N,) float32 | signed distance, scaled; (N, 1) is read as well |
| `vol_labels`, `near_labels` | (N,) int8 | 0 = background, 1..K; > 0 exactly where the sdf is < 0 |
| `<part>_class_sdf` of surface, vol, near | (N, K) float32 | only if `sdf_mode` is per_class: \
distance to each class; `ABSENT_SDF` for a class that is not there |
| `shift` (3,), `scale` () | float64 | mm, 1 / mm |
| `spacing` (3,), `affine` (4, 4) | float64 | mm; RAS+ index -> world mm |
| `grid_shape` (3,) | int32 | of the RAS+ label map |
| `label_map` (x, y, z) | uint8 | its foreground and one voxel around it: the truth, dense |
| `crop_origin` (3,) | int32 | RAS+ index of `label_map[0, 0, 0]`; may be -1 |
| `class_names` (K,), `present_classes` (n,) | str, int8 | names of 1..K; classes with voxels |
| `sdf_mode` (), `format_version` () | str, int32 | |
| `fingerprint` () | str | hash of the label map's file and the options it was prepared with |

Files of the original project hold the first nine keys but the normals; they are read with
`geometry = None`. Source: vecset-heart specification, section 1.3.
"""

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vesuvius.errors import CaseFormatError, VolumeNotFoundError
from vesuvius.storage.files import whole_file
from vesuvius.types import HEART_CLASSES

FORMAT_VERSION = 1
ABSENT_SDF = 4.0
"""Distance to a class the heart does not have: beyond the diagonal of the cube (3.46)."""
SDF_MODES = ("min_of_classes", "union_mask", "per_class")
PARTS = ("surface", "vol", "near")

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int8]

_GEOMETRY = ("shift", "scale", "spacing", "affine", "grid_shape", "label_map", "crop_origin")


@dataclass(frozen=True, slots=True)
class HeartGeometry:
    """Where the cube lies in the patient, and the dense truth.

    Attributes:
        shift: (3,) mm, centre of the cube in the RAS+ grid (index * spacing).
        scale: cube units per mm.
        spacing: (3,) mm.
        affine: (4, 4), RAS+ index to world mm.
        grid_shape: voxels of the RAS+ label map.
        label_map: (x, y, z) uint8, crop of it around the foreground.
        crop_origin: RAS+ index of the crop's first voxel.
    """

    shift: Doubles
    scale: float
    spacing: Doubles
    affine: Doubles
    grid_shape: tuple[int, int, int]
    label_map: npt.NDArray[np.uint8]
    crop_origin: npt.NDArray[np.int32]

    def to_cube(self, index: npt.ArrayLike) -> Doubles:
        """Return cube coordinates (..., 3) of RAS+ voxel indices (..., 3)."""
        return np.asarray(
            (np.asarray(index, np.float64) * self.spacing - self.shift) * self.scale, np.float64
        )

    def to_index(self, points: npt.ArrayLike) -> Doubles:
        """Return RAS+ voxel indices (..., 3), not rounded, of cube coordinates (..., 3)."""
        mm = np.asarray(points, np.float64) / self.scale + self.shift
        return np.asarray(mm / self.spacing, np.float64)

    def to_world(self, points: npt.ArrayLike) -> Doubles:
        """Return scanner coordinates (..., 3) in mm of cube coordinates (..., 3)."""
        return np.asarray(self.to_index(points) @ self.affine[:3, :3].T + self.affine[:3, 3])


@dataclass(frozen=True, slots=True)
class HeartCase:
    """One prepared heart; see the module for units.

    Attributes:
        case_id: file name without `.npz`.
        surface_points, surface_labels, surface_normals: (Ns, 3), (Ns,) 1..K, (Ns, 3) or None.
        vol_points, vol_sdf, vol_labels: (Nv, 3), (Nv,), (Nv,) 0..K.
        near_points, near_sdf, near_labels: (Nn, 3), (Nn,), (Nn,) 0..K.
        class_names: of classes 1..K.
        present_classes: numbers of the classes the heart has, ascending.
        sdf_mode: one of `SDF_MODES`.
        class_sdf: part ("surface", "vol", "near") -> (N, K); empty unless per_class.
        geometry: None in files of the original project.
        fingerprint: of source and options, "" if the file does not tell.
    """

    case_id: str
    surface_points: Floats
    surface_labels: Labels
    surface_normals: Floats | None
    vol_points: Floats
    vol_sdf: Floats
    vol_labels: Labels
    near_points: Floats
    near_sdf: Floats
    near_labels: Labels
    class_names: tuple[str, ...]
    present_classes: tuple[int, ...]
    sdf_mode: str
    class_sdf: Mapping[str, Floats]
    geometry: HeartGeometry | None
    fingerprint: str = ""

    @property
    def num_classes(self) -> int:
        """Return K, the number of classes without the background."""
        return len(self.class_names)


def save_case(path: Path, case: HeartCase) -> None:
    """Write the case, whole or not at all; equal cases give equal bytes.

    Raises:
        StorageError: the file cannot be written.
        CaseFormatError: the case contradicts the format.
    """
    check_case(case, str(path))
    with whole_file(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **_arrays(case))  # type: ignore[arg-type]


def load_case(path: Path) -> HeartCase:
    """Return a checked case.

    Raises:
        VolumeNotFoundError: no such file.
        CaseFormatError: no npz, truncated, a key missing, wrong shapes or values.
    """
    if not path.is_file():
        raise VolumeNotFoundError(
            f"{path}: no such file; expected a case of `vesuvius heart prepare`"
        )
    arrays = _read(path)
    missing = [k for k in _required() if k not in arrays]
    if missing:
        raise CaseFormatError(
            f"{path}: holds no {', '.join(missing)}; expected a case of `vesuvius heart prepare`"
        )
    try:
        case = _case(path.stem, arrays)
    except (ValueError, IndexError, TypeError) as error:
        raise CaseFormatError(f"{path}: {error}; prepare it again (--overwrite)") from error
    check_case(case, str(path))
    return case


def read_fingerprint(path: Path) -> str:
    """Return the fingerprint of a finished case; "" if there is none or it cannot be read."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return str(arrays["fingerprint"])
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        ValueError,
        OSError,
        KeyError,
        AttributeError,
    ):
        return ""


def check_case(case: HeartCase, where: str) -> None:
    """Raise `CaseFormatError` if a case contradicts the format.

    Args:
        case: what to check.
        where: file named in the message.
    """
    for part in PARTS:
        _check_part(case, part, where)
    if case.sdf_mode not in SDF_MODES:
        _fail(where, f"sdf_mode is {case.sdf_mode!r}; expected one of {', '.join(SDF_MODES)}")
    if case.sdf_mode == "per_class" and set(case.class_sdf) != set(PARTS):
        _fail(where, "sdf_mode is per_class, but <part>_class_sdf is not there for all parts")
    if case.geometry is not None:
        _check_geometry(case.geometry, where)


def _check_part(case: HeartCase, part: str, where: str) -> None:
    points, labels = getattr(case, f"{part}_points"), getattr(case, f"{part}_labels")
    low = 1 if part == "surface" else 0
    if points.ndim != 2 or points.shape[1] != 3 or len(points) == 0:
        _fail(where, f"{part}_points has shape {points.shape}; expected (N, 3) with N > 0")
    if not np.isfinite(points).all():
        _fail(where, f"{part}_points holds NaN or infinity")
    if labels.shape != (len(points),):
        _fail(where, f"{part}_labels has shape {labels.shape}; expected ({len(points)},)")
    if int(labels.min()) < low or int(labels.max()) > case.num_classes:
        _fail(
            where,
            f"{part}_labels spans {labels.min()}..{labels.max()}; expected "
            f"{low}..{case.num_classes} (num_classes)",
        )
    if part != "surface":
        _check_sdf(getattr(case, f"{part}_sdf"), (len(points),), f"{part}_sdf", where)
    if part in case.class_sdf:
        shape = (len(points), case.num_classes)
        _check_sdf(case.class_sdf[part], shape, f"{part}_class_sdf", where)


def _check_sdf(sdf: Floats, shape: tuple[int, ...], key: str, where: str) -> None:
    if sdf.shape != shape:
        _fail(where, f"{key} has shape {sdf.shape}; expected {shape}")
    if not np.isfinite(sdf).all():
        _fail(where, f"{key} holds NaN or infinity")


def _check_geometry(geometry: HeartGeometry, where: str) -> None:
    for name, shape in (("shift", (3,)), ("spacing", (3,)), ("affine", (4, 4))):
        array = getattr(geometry, name)
        if array.shape != shape or not np.isfinite(array).all():
            _fail(where, f"{name} is {array.tolist()}; expected finite numbers of shape {shape}")
    if not (np.isfinite(geometry.scale) and geometry.scale > 0 and (geometry.spacing > 0).all()):
        _fail(
            where,
            f"scale {geometry.scale}, spacing {geometry.spacing.tolist()}; expected above 0",
        )
    if geometry.label_map.ndim != 3:
        _fail(where, f"label_map has shape {geometry.label_map.shape}; expected three axes")


def _fail(where: str, message: str) -> None:
    raise CaseFormatError(f"{where}: {message}; prepare it again (--overwrite)")


def _required() -> list[str]:
    return [
        *(f"{part}_{what}" for part in PARTS for what in ("points", "labels")),
        *("vol_sdf", "near_sdf"),
    ]


def _read(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError, AttributeError) as error:
        raise CaseFormatError(
            f"{path}: not a readable npz ({error}); delete it and prepare it again"
        ) from error


def _case(case_id: str, arrays: dict[str, npt.NDArray[Any]]) -> HeartCase:
    surface_labels = _surface_labels(arrays["surface_labels"])
    names = _class_names(arrays)
    present = arrays.get("present_classes")
    if present is None:
        present = np.unique(surface_labels)
    normals = arrays.get("surface_normals")
    return HeartCase(
        case_id=case_id,
        surface_points=_floats(arrays["surface_points"]),
        surface_labels=surface_labels,
        surface_normals=None if normals is None else _floats(normals),
        vol_points=_floats(arrays["vol_points"]),
        vol_sdf=_floats(arrays["vol_sdf"]).reshape(-1),
        vol_labels=_labels(arrays["vol_labels"]),
        near_points=_floats(arrays["near_points"]),
        near_sdf=_floats(arrays["near_sdf"]).reshape(-1),
        near_labels=_labels(arrays["near_labels"]),
        class_names=names,
        present_classes=tuple(int(c) for c in present),
        sdf_mode=str(arrays.get("sdf_mode", "min_of_classes")),
        class_sdf={
            part: _floats(arrays[f"{part}_class_sdf"])
            for part in PARTS
            if f"{part}_class_sdf" in arrays
        },
        geometry=_geometry(arrays),
        fingerprint=str(arrays.get("fingerprint", "")),
    )


def _surface_labels(array: npt.NDArray[Any]) -> Labels:
    if array.ndim == 2 and array.shape[1] > 1:
        if not np.array_equal(array.sum(1), np.ones(len(array))):
            raise ValueError("surface_labels is not one-hot: a row does not sum to 1")
        return np.asarray(array.argmax(1) + 1, np.int8)
    return _labels(array)


def _class_names(arrays: dict[str, npt.NDArray[Any]]) -> tuple[str, ...]:
    if "class_names" in arrays:
        return tuple(str(name) for name in arrays["class_names"])
    labels = arrays["surface_labels"]
    if labels.ndim == 2 and labels.shape[1] not in (1, len(HEART_CLASSES)):
        return tuple(f"class_{c + 1}" for c in range(labels.shape[1]))
    return HEART_CLASSES


def _geometry(arrays: dict[str, npt.NDArray[Any]]) -> HeartGeometry | None:
    there = [key for key in _GEOMETRY if key in arrays]
    if not there:
        return None
    if len(there) < len(_GEOMETRY):
        raise ValueError(f"holds {', '.join(there)} but not all of {', '.join(_GEOMETRY)}")
    x, y, z = (int(n) for n in arrays["grid_shape"])
    return HeartGeometry(
        shift=np.asarray(arrays["shift"], np.float64),
        scale=float(arrays["scale"]),
        spacing=np.asarray(arrays["spacing"], np.float64),
        affine=np.asarray(arrays["affine"], np.float64),
        grid_shape=(x, y, z),
        label_map=np.asarray(arrays["label_map"], np.uint8),
        crop_origin=np.asarray(arrays["crop_origin"], np.int32),
    )


def _arrays(case: HeartCase) -> dict[str, npt.NDArray[Any]]:
    one_hot = np.eye(case.num_classes, dtype=np.float32)[case.surface_labels.astype(int) - 1]
    arrays: dict[str, npt.NDArray[Any]] = {
        "surface_points": case.surface_points,
        "surface_labels": one_hot,
        "vol_points": case.vol_points,
        "vol_sdf": case.vol_sdf,
        "vol_labels": case.vol_labels,
        "near_points": case.near_points,
        "near_sdf": case.near_sdf,
        "near_labels": case.near_labels,
        "class_names": np.array(case.class_names),
        "present_classes": np.array(case.present_classes, np.int8),
        "sdf_mode": np.array(case.sdf_mode),
        "fingerprint": np.array(case.fingerprint),
        "format_version": np.array(FORMAT_VERSION, np.int32),
    }
    if case.surface_normals is not None:
        arrays["surface_normals"] = case.surface_normals
    arrays |= {f"{part}_class_sdf": sdf for part, sdf in case.class_sdf.items()}
    if case.geometry is not None:
        arrays |= {name: np.asarray(getattr(case.geometry, name)) for name in _GEOMETRY}
        arrays["grid_shape"] = arrays["grid_shape"].astype(np.int32)
    return arrays


def _floats(array: npt.NDArray[Any]) -> Floats:
    return np.ascontiguousarray(array, np.float32)


def _labels(array: npt.NDArray[Any]) -> Labels:
    flat = np.asarray(array).reshape(-1)
    if not np.array_equal(flat, flat.astype(np.int8)):
        raise ValueError(
            f"labels hold {np.unique(flat)[:8].tolist()}; expected small whole numbers"
        )
    return flat.astype(np.int8)
