"""`vesuvius verify`: shares, verdicts, exit status, picture."""

import numpy as np
import pytest

from vesuvius.cli.main import main
from vesuvius.data.tiff import write_tiff
from vesuvius.data.verify import verdict

SHAPE = (10, 20, 20)


def _write(root, name, num_rows):
    """Write a volume with `num_rows` of 20 rows of surface: a share of num_rows / 20."""
    label = np.zeros(SHAPE, np.uint8)
    label[:, :num_rows] = 1
    image = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)
    write_tiff(root / "train_images" / f"{name}.tif", image)
    write_tiff(root / "train_labels" / f"{name}.tif", label)


def _verify(root, *more):
    picture = root / "picture.png"
    return main(["verify", str(root), "--picture", str(picture), *more]), picture


def test_usual_labels_pass_with_a_picture(tmp_path, capsys):
    _write(tmp_path, "a", 1)
    _write(tmp_path, "b", 2)
    status, picture = _verify(tmp_path)
    text = capsys.readouterr().out
    assert status == 0
    assert "ok: 2 of 2 volumes: 7.5% of the voxels are surface" in text
    assert "92.50%" in text
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_prepared_folder_gives_the_same_verdict(tmp_path, capsys):
    _write(tmp_path / "in", "a", 1)
    main(["prepare", str(tmp_path / "in"), str(tmp_path / "out"), "--jobs", "1"])
    capsys.readouterr()
    assert _verify(tmp_path / "out")[0] == 0
    assert "ok: 1 of 1 volumes: 5.0% of the voxels are surface" in capsys.readouterr().out


def test_thick_labels_warn_and_solid_ones_are_refused(tmp_path, capsys):
    _write(tmp_path, "a", 8)
    assert _verify(tmp_path)[0] == 0
    assert "warning: a: 40.0% of the voxels are surface" in capsys.readouterr().err
    _write(tmp_path, "b", 19)
    assert _verify(tmp_path)[0] == 1
    assert "error: b: 95.0% of the voxels are surface" in capsys.readouterr().err


def test_bad_values_are_named_and_the_others_shown(tmp_path, capsys):
    _write(tmp_path, "a", 1)
    _write(tmp_path, "b", 1)
    write_tiff(tmp_path / "train_labels" / "b.tif", np.full(SHAPE, 7, np.uint8))
    assert _verify(tmp_path)[0] == 1
    text = capsys.readouterr()
    assert "b.tif: label values [7]" in text.err
    assert "ok: 1 of 2 volumes" in text.out


def test_sample_is_seeded(tmp_path, capsys):
    for name in "abcdef":
        _write(tmp_path, name, 1)
    shown = []
    for _ in range(2):
        _verify(tmp_path, "--num", "2")
        shown.append([line for line in capsys.readouterr().out.splitlines() if "5.00%" in line])
    assert shown[0] == shown[1]
    assert len(shown[0]) == 3  # two volumes and their sum


def test_unlabelled_source(tmp_path, capsys):
    write_tiff(tmp_path / "v.tif", np.zeros(SHAPE, np.uint8))
    assert _verify(tmp_path)[0] == 2
    assert "holds volumes but no labels" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("counts", "level"),
    [
        ((95, 5, 0), "ok"),
        ((70, 30, 0), "ok"),
        ((69, 31, 0), "warn"),
        ((10, 90, 0), "warn"),
        ((9, 91, 0), "refuse"),
        ((0, 10, 90), "ok"),  # a partial label: what is not labelled counts as voxels
        ((50, 0, 50), "warn"),
    ],
)
def test_verdict_limits(counts, level):
    assert verdict(counts, "v")[0] == level
