"""Heart label maps: reading and checking NIfTI, writing it."""

import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from vesuvius.errors import (
    ConfigError,
    LabelValueError,
    VolumeFormatError,
    VolumeNotFoundError,
)
from vesuvius.storage.files import drop, storage_errors

Affine = npt.NDArray[np.float64]

_ROUNDING = 1e-2  # files scaled by a slope hold 2.9999
_SHEAR = 1e-3
_SPACING_MM = (0.01, 50.0)


@dataclass(frozen=True, slots=True)
class LabelMap:
    """A checked label map in RAS+ order.

    Attributes:
        labels: (x, y, z) uint8, 0..K.
        spacing: (3,) mm along x, y, z.
        affine: (4, 4), RAS+ index to world mm.
    """

    labels: npt.NDArray[np.uint8]
    spacing: npt.NDArray[np.float64]
    affine: Affine


def read_label_map(path: Path, *, num_classes: int = 10) -> LabelMap:
    """Return the label map turned to RAS+ (axes flipped and swapped, never interpolated).

    Args:
        path: `.nii` or `.nii.gz`.
        num_classes: K, the largest label.

    Raises:
        VolumeNotFoundError: no such file.
        VolumeFormatError: not readable, not 3-D, no usable affine.
        LabelValueError: labels that are no whole numbers or outside 0..K, or only background.
    """
    if not 1 <= num_classes <= 127:
        raise ConfigError(f"num_classes is {num_classes}; expected 1 to 127 (--classes)")
    if not path.is_file():
        raise VolumeNotFoundError(f"{path}: no such file; expected a label map (.nii.gz)")
    image, values = _open(path)
    spacing = _check_affine(image, path)
    labels = _whole_numbers(values, num_classes, path)
    ornt = nib.orientations.io_orientation(image.affine)
    turned = np.ascontiguousarray(nib.orientations.apply_orientation(labels, ornt))
    affine = image.affine @ nib.orientations.inv_ornt_aff(ornt, labels.shape)
    order = np.argsort(ornt[:, 0])
    return LabelMap(turned, spacing[order], np.asarray(affine, np.float64))


def write_label_map(path: Path, labels: npt.NDArray[np.uint8], affine: Affine) -> None:
    """Write (x, y, z) uint8 labels as NIfTI, whole or not at all.

    Raises:
        StorageError: the file cannot be written.
    """
    suffix = ".nii.gz" if path.name.endswith(".gz") else ".nii"
    # no `whole_file`: nibabel insists on the suffix, and a hidden name is no label map
    partial = path.with_name(f".{path.name.removesuffix(suffix)}.{os.getpid()}.partial{suffix}")
    image = nib.Nifti1Image(labels, affine)
    image.header.set_xyzt_units("mm")
    with storage_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(image, partial)
            partial.replace(path)
        finally:
            drop(partial)


def find_label_maps(folder: Path, pattern: str = "*.nii.gz") -> list[Path]:
    """Return the label maps of a folder, sorted by name.

    Raises:
        VolumeNotFoundError: no such folder, or nothing in it fits the pattern.
        ConfigError: two files would give one case (a.nii and a.nii.gz).
    """
    if not folder.is_dir():
        raise VolumeNotFoundError(f"{folder}: no such folder (input_dir)")
    paths = sorted(p for p in folder.glob(pattern) if p.is_file() and not p.name.startswith("."))
    if not paths:
        raise VolumeNotFoundError(f"{folder}: no file fits {pattern!r} (--pattern)")
    names = [case_id(p) for p in paths]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ConfigError(f"{folder}: several files of one name: {twice[:5]}; keep one of each")
    return paths


def case_id(path: Path) -> str:
    """Return the name of a label map or case without `.nii.gz`, `.nii` or `.npz`."""
    for suffix in (".nii.gz", ".nii", ".npz"):
        if path.name.endswith(suffix):
            return path.name.removesuffix(suffix)
    return path.stem


def _open(path: Path) -> tuple[Any, npt.NDArray[Any]]:
    try:
        image = nib.load(path)
        values = np.asanyarray(getattr(image, "dataobj", np.empty(0)))  # surfaces have no voxels
    except (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error) as error:
        raise VolumeFormatError(
            f"{path}: not a readable NIfTI file ({error}); expected a label map (.nii.gz)"
        ) from error
    if values.ndim == 4 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 3 or 0 in values.shape:
        raise VolumeFormatError(f"{path}: shape {values.shape}; expected a 3-D label map")
    if values.dtype.kind not in "iufb":
        raise VolumeFormatError(f"{path}: dtype {values.dtype}; expected whole numbers")
    return image, values


def _check_affine(image: Any, path: Path) -> npt.NDArray[np.float64]:
    """Return the voxel's edge lengths in mm, in the file's axis order."""
    affine = image.affine
    if affine is None or affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise VolumeFormatError(f"{path}: the affine holds NaN; expected finite numbers: {affine}")
    columns = np.asarray(affine[:3, :3], np.float64)
    spacing = np.linalg.norm(columns, axis=0)
    low, high = _SPACING_MM
    if not (spacing.min() >= low and spacing.max() <= high):
        raise VolumeFormatError(
            f"{path}: the affine gives voxels of {_mm(spacing)} mm; expected {low} to {high} mm. "
            "Is the header in metres or micrometres, or the affine singular?"
        )
    unit = columns / spacing
    cosines = np.abs(unit.T @ unit - np.eye(3)).max()
    if cosines > _SHEAR:
        raise VolumeFormatError(
            f"{path}: the affine is sheared (cosine {cosines:.3f} between two axes); expected axes "
            "at right angles: resample the label map"
        )
    zooms = np.asarray(image.header.get_zooms()[:3], np.float64)
    if not np.allclose(zooms, spacing, rtol=0.01):
        raise VolumeFormatError(
            f"{path}: the header says voxels of {_mm(zooms)} mm (pixdim), the affine "
            f"{_mm(spacing)} mm; expected the same: correct the header before preparing"
        )
    return np.asarray(spacing, np.float64)


def _mm(lengths: npt.NDArray[np.float64]) -> str:
    return " x ".join(f"{length:.4g}" for length in lengths)


def _whole_numbers(values: npt.NDArray[Any], num_classes: int, path: Path) -> npt.NDArray[np.uint8]:
    rounded = values
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise LabelValueError(
                f"{path}: holds NaN or infinity; expected labels 0..{num_classes}"
            )
        rounded = np.rint(values)
        off = np.abs(values - rounded) > _ROUNDING
        if off.any():
            examples = np.unique(values[off])[:5].tolist()
            raise LabelValueError(
                f"{path}: {int(off.sum())} voxels are no whole numbers, such as {examples}; "
                f"expected labels 0..{num_classes}. Was it resampled linearly? Use nearest"
            )
    low, high = int(rounded.min()), int(rounded.max())
    if low < 0 or high > num_classes:
        odd = [int(v) for v in np.unique(rounded) if not 0 <= v <= num_classes]
        raise LabelValueError(
            f"{path}: labels {odd[:8]}; expected 0..{num_classes} (--classes, class_names)"
        )
    if high == 0:
        raise LabelValueError(
            f"{path}: every voxel is background; expected labels 1..{num_classes} somewhere"
        )
    return np.asarray(rounded, np.uint8)
