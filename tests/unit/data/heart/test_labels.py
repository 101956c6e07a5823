"""Reading label maps: orientation, spacing, and every bad file named."""

import nibabel as nib
import numpy as np
import pytest

from vesuvius.data.heart.labels import case_id, find_label_maps, read_label_map, write_label_map
from vesuvius.errors import (
    ConfigError,
    LabelValueError,
    VolumeFormatError,
    VolumeNotFoundError,
)

LABELS = np.zeros((4, 5, 6), np.uint8)
LABELS[1, 2, 3] = 7
LABELS[0, 0, 0] = 1
AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])


def save(path, values, affine=AFFINE, zooms=None):
    image = nib.Nifti1Image(values, affine)
    if zooms is not None:
        image.header.set_zooms(zooms)
        image.header["pixdim"][1:4] = zooms
    nib.save(image, path)
    return path


def test_a_written_map_comes_back(tmp_path):
    write_label_map(tmp_path / "sub" / "a.nii.gz", LABELS, AFFINE)
    back = read_label_map(tmp_path / "sub" / "a.nii.gz")
    assert (back.labels == LABELS).all()
    assert back.spacing.tolist() == [1, 2, 3]
    assert (back.affine == AFFINE).all()
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["a.nii.gz"]


@pytest.mark.parametrize("codes", ["LAS", "LPS", "SAR", "PIR"])
def test_flipped_and_swapped_axes_give_the_same_map(codes, tmp_path):
    image = nib.Nifti1Image(LABELS, AFFINE)
    turn = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(AFFINE), nib.orientations.axcodes2ornt(codes)
    )
    nib.save(image.as_reoriented(turn), tmp_path / "a.nii.gz")
    back = read_label_map(tmp_path / "a.nii.gz")
    assert (back.labels == LABELS).all()
    assert back.spacing.tolist() == [1, 2, 3]
    assert back.affine == pytest.approx(AFFINE)


def test_an_array_flipped_without_its_affine_is_another_heart(tmp_path):
    back = read_label_map(save(tmp_path / "a.nii.gz", LABELS[::-1]))
    assert back.labels[2, 2, 3] == 7


def test_floats_that_are_whole_numbers_are_labels(tmp_path):
    values = LABELS.astype(np.float32)
    values[1, 2, 3] = 6.9999
    assert (read_label_map(save(tmp_path / "a.nii.gz", values)).labels == LABELS).all()
    four = save(tmp_path / "b.nii.gz", LABELS[..., None])
    assert read_label_map(four).labels.shape == (4, 5, 6)


def changed(value, dtype=np.float32):
    values = LABELS.astype(dtype)
    values[2, 2, 2] = value
    return values


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (changed(2.5), r"1 voxels are no whole numbers, such as \[2\.5\].*Use nearest"),
        (changed(np.nan), "holds NaN or infinity"),
        (changed(11, np.int16), r"labels \[11\]; expected 0\.\.10 \(--classes"),
        (changed(-1, np.int16), r"labels \[-1\]; expected 0\.\.10"),
        (LABELS * 0, "every voxel is background"),
    ],
    ids=["half", "nan", "too large", "negative", "empty"],
)
def test_bad_labels_are_refused(values, text, tmp_path):
    with pytest.raises(LabelValueError, match=rf"a\.nii\.gz: {text}"):
        read_label_map(save(tmp_path / "a.nii.gz", values))


SHEARED = np.array([[1, 0.3, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


@pytest.mark.parametrize(
    ("affine", "zooms", "text"),
    [
        (SHEARED, None, "the affine is sheared"),
        (np.diag([1, 2, 1000.0, 1]), None, r"voxels of 1 x 2 x 1000 mm; expected 0\.01 to 50"),
        (AFFINE, (0.5, 0.5, 0.5), r"0\.5 x 0\.5 x 0\.5 mm \(pixdim\), the affine 1 x 2 x 3 mm"),
        (np.full((4, 4), np.nan), None, "the affine holds NaN"),
        (np.diag([1, 1, 0.0, 1]), None, "singular"),
    ],
    ids=["sheared", "huge", "contradicts", "nan", "singular"],
)
def test_wrong_affines_are_refused(affine, zooms, text, tmp_path):
    path = save(tmp_path / "a.nii.gz", LABELS)
    image = nib.load(path)
    image = nib.Nifti1Image(LABELS, AFFINE)
    image.header["sform_code"], image.header["qform_code"] = 1, 0
    for row, name in enumerate(("srow_x", "srow_y", "srow_z")):
        image.header[name] = affine[row]
    raw = image.header.copy()
    raw["pixdim"][1:4] = zooms or np.nan_to_num(np.linalg.norm(affine[:3, :3], axis=0), nan=1.0)
    with path.with_suffix("").open("wb") as file:
        raw["magic"], raw["vox_offset"] = b"n+1", 352
        raw.write_to(file)
        file.write(b"\0" * 4 + LABELS.tobytes(order="F"))
    with pytest.raises(VolumeFormatError, match=text):
        read_label_map(path.with_suffix(""))


def test_files_that_are_no_label_maps_are_refused(tmp_path):
    with pytest.raises(VolumeNotFoundError, match="no such file"):
        read_label_map(tmp_path / "x.nii.gz")
    (tmp_path / "text.nii.gz").write_text("no image")
    with pytest.raises(VolumeFormatError, match=r"text\.nii\.gz: not a readable NIfTI"):
        read_label_map(tmp_path / "text.nii.gz")
    whole = save(tmp_path / "cut.nii.gz", np.tile(LABELS, (8, 8, 8)) + RANDOM).read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VolumeFormatError, match=r"cut\.nii\.gz: not a readable NIfTI"):
        read_label_map(tmp_path / "cut.nii.gz")
    with pytest.raises(VolumeFormatError, match=r"shape \(4, 5, 6, 2\)"):
        read_label_map(save(tmp_path / "4d.nii.gz", np.stack([LABELS, LABELS], -1)))
    with pytest.raises(ConfigError, match="num_classes is 0"):
        read_label_map(tmp_path / "4d.nii.gz", num_classes=0)


RANDOM = np.random.default_rng(0).integers(0, 3, (32, 40, 48), dtype=np.uint8)


def test_folders_are_listed_by_name_and_bad_ones_named(tmp_path):
    for name in ("b.nii.gz", "a.nii.gz", ".a.1.partial.nii.gz"):
        save(tmp_path / name, LABELS)
    assert [p.name for p in find_label_maps(tmp_path)] == ["a.nii.gz", "b.nii.gz"]
    assert case_id(tmp_path / "1.img.nii.gz") == "1.img"
    with pytest.raises(VolumeNotFoundError, match="no file fits"):
        find_label_maps(tmp_path, "*.nii")
    with pytest.raises(VolumeNotFoundError, match="no such folder"):
        find_label_maps(tmp_path / "x")
    save(tmp_path / "a.nii", LABELS)
    with pytest.raises(ConfigError, match=r"several files of one name: \['a'\]"):
        find_label_maps(tmp_path, "*.nii*")
