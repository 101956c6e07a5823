"""Layouts, pairing, patient-wise splits: every bad folder has its own clear error."""

import json
import shutil
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesuvius.data.petct.layout import Triple, check_leakage, find_triples
from vesuvius.data.petct.png import read_png, write_png
from vesuvius.data.petct.split import split_folder, split_patients
from vesuvius.errors import (
    ConfigError,
    PairingError,
    ShapeMismatchError,
    VolumeFormatError,
    VolumeNotFoundError,
)

FOLDERS = ("CT", "PET", "masks")


def grey(value=0, size=(16, 16)):
    return np.full(size, value, np.uint8)


def flat(root, patients=3, slices=2):
    for patient in range(patients):
        for number in range(slices):
            for folder in FOLDERS:
                path = root / folder / f"patient_{patient:03d}_slice_{number:04d}.png"
                write_png(path, grey(10 * patient + number))
    return root


def names(triples):
    return [t.name for t in triples]


def test_flat_layout(tmp_path):
    found = find_triples(flat(tmp_path))
    assert list(found) == ["all"]
    first = found["all"][0]
    assert (first.name, first.patient) == ("patient_000_slice_0000", "patient_000")
    assert first.pet == tmp_path / "PET" / "patient_000_slice_0000.png"
    assert len(found["all"]) == 6


def test_pclt20k_layout_with_and_without_lists(tmp_path):
    for patient, number in (("0001", "001"), ("0001", "002"), ("0002", "001")):
        for part in ("CT", "PET", "mask"):
            write_png(tmp_path / patient / f"{patient}_{number}_{part}.png", grey())
    found = find_triples(tmp_path)
    assert names(found["all"]) == ["0001_001", "0001_002", "0002_001"]
    assert found["all"][2].patient == "0002"
    (tmp_path / "train.txt").write_text("0001_001\n0001/0001_002_CT.png\n")
    (tmp_path / "test.txt").write_text("0002\n")
    sides = find_triples(tmp_path)
    assert {side: names(t) for side, t in sides.items()} == {
        "train": ["0001_001", "0001_002"],
        "test": ["0002_001"],
    }


def test_split_folder_keeps_patients_together_and_every_byte(tmp_path):
    root = flat(tmp_path / "flat", patients=5)
    split_folder(root, tmp_path / "out", val_ratio=0.2, test_ratio=0.2, seed=1)
    sides = find_triples(tmp_path / "out")
    patients = {side: {t.patient for t in triples} for side, triples in sides.items()}
    assert [len(p) for p in patients.values()] == [3, 1, 1]
    assert set.union(*patients.values()) == {f"patient_{i:03d}" for i in range(5)}
    linked = sides["val"][0]
    assert linked.ct.is_symlink()
    assert np.array_equal(read_png(linked.ct), read_png(root / "CT" / f"{linked.name}.png"))
    info = json.loads((tmp_path / "out" / "split_info.json").read_text())
    assert set(info["sides"]["test"]["patients"]) == patients["test"]
    assert info["seed"] == 1
    with pytest.raises(ConfigError, match="exists already"):
        split_folder(root, tmp_path / "out")
    split_folder(root, tmp_path / "copied", copy=True)
    shutil.rmtree(root)
    assert not any(t.ct.is_symlink() for t in find_triples(tmp_path / "copied")["train"])


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 5), min_size=3, max_size=12),
    val=st.floats(0.05, 0.4),
    test=st.floats(0, 0.3),
    seed=st.integers(0, 10),
)
def test_no_patient_is_ever_on_two_sides(counts, val, test, seed):
    path = Path("x.png")
    triples = [
        Triple(f"p{p}_slice_{n}", f"p{p}", path, path, path)
        for p, count in enumerate(counts)
        for n in range(count)
    ]
    try:
        sides = split_patients(triples, val_ratio=val, test_ratio=test, seed=seed)
    except ConfigError:
        assert len(counts) <= 3
        return
    check_leakage(sides)
    assert sorted(t.name for side in sides.values() for t in side) == sorted(names(triples))
    assert sides["val"]
    assert split_patients(triples[::-1], val_ratio=val, test_ratio=test, seed=seed) == sides


def write_raw(path, array):
    path.write_bytes(imagecodecs.png_encode(array))


def spoil_pair(root):
    (root / "PET" / "patient_001_slice_0001.png").unlink()


def spoil_folder(root):
    shutil.rmtree(root / "PET")


def spoil_size(root):
    write_png(root / "masks" / "patient_001_slice_0001.png", grey(size=(16, 20)))


def spoil_rgb(root):
    write_raw(root / "CT" / "patient_000_slice_0001.png", np.zeros((16, 16, 3), np.uint8))


def spoil_depth(root):
    write_raw(root / "PET" / "patient_000_slice_0001.png", np.zeros((16, 16), np.uint16))


def spoil_bytes(root):
    (root / "CT" / "patient_000_slice_0000.png").write_bytes(b"no picture")


def spoil_name(root):
    for folder in FOLDERS:
        write_png(root / folder / "slice7.png", grey())


@pytest.mark.parametrize(
    ("spoil", "error", "words"),
    [
        (
            spoil_pair,
            PairingError,
            r"1 of 6 slices have no PET file.*patient_001_slice_0001",
        ),
        (spoil_folder, PairingError, "has no folder PET"),
        (spoil_size, ShapeMismatchError, r"patient_001_slice_0001.*'mask': \(16, 20\)"),
        (spoil_rgb, VolumeFormatError, "8-bit RGB PNG; expected 8-bit grey"),
        (spoil_depth, VolumeFormatError, "16-bit grey PNG; expected 8-bit grey"),
        (spoil_bytes, VolumeFormatError, "is no PNG file"),
        (spoil_name, PairingError, "'slice7' names no patient"),
    ],
)
def test_bad_folders(tmp_path, spoil, error, words):
    root = flat(tmp_path)
    spoil(root)
    with pytest.raises(error, match=words):
        find_triples(root)


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(VolumeNotFoundError, match="is no folder"):
        find_triples(tmp_path / "nowhere")
    with pytest.raises(VolumeNotFoundError, match="no PNG slices in a known layout"):
        find_triples(tmp_path)


def test_a_patient_in_two_splits_is_refused(tmp_path):
    flat(tmp_path / "train", patients=2)
    flat(tmp_path / "val", patients=1)
    with pytest.raises(PairingError, match="patient_000 is on two sides, train and val"):
        find_triples(tmp_path)


def test_a_truncated_png_is_named(tmp_path):
    path = tmp_path / "cut.png"
    write_png(path, np.random.default_rng(0).integers(0, 255, (32, 32), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(VolumeFormatError, match=r"cut\.png is truncated or damaged"):
        read_png(path)


def test_too_few_patients_and_wrong_ratios():
    path = Path("x.png")
    one = [Triple("p_slice_1", "p", path, path, path)]
    with pytest.raises(ConfigError, match="1 patients cannot be split"):
        split_patients(one)
    with pytest.raises(ConfigError, match=r"val_ratio=1\.5"):
        split_patients(one, val_ratio=1.5)
