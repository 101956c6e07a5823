"""Export to nnU-Net's raw format: what its reader expects, on files."""

import json

import numpy as np
import pytest
import tifffile

from vesuvius.cli.main import main
from vesuvius.data.folds import Folds, VolumeFacts, save_folds
from vesuvius.data.nnunet_raw import export_raw
from vesuvius.data.store import PreparedVolume
from vesuvius.data.tiff import write_tiff
from vesuvius.errors import ConfigError, PairingError, ShapeMismatchError

IDS = ["v0", "v1", "v2", "v3", "v4"]


def folds() -> Folds:
    return Folds(
        by="volume",
        num_folds=2,
        seed=0,
        fold_of={name: i % 2 for i, name in enumerate(IDS)},
        facts={name: VolumeFacts(name) for name in IDS},
    )


def test_files_as_tiff3dio_reads_them(prepared, tmp_path):
    out = tmp_path / "nnUNet_raw" / "Dataset007_scroll"
    assert list(export_raw(prepared, out, folds=folds(), jobs=2)) == IDS
    for name in IDS:
        volume = PreparedVolume(prepared / f"{name}.zarr")
        for path, array in (
            (out / "imagesTr" / f"{name}_0000.tif", "image"),
            (out / "labelsTr" / f"{name}.tif", "label"),
        ):
            truth = volume.array(array).read((0, 0, 0), volume.shape_zyx)
            np.testing.assert_array_equal(tifffile.imread(path), truth)
            # nnU-Net looks for <id>.json beside either file
            spacing = json.loads((path.parent / f"{name}.json").read_text())
            assert spacing == {"spacing": [1.0, 1.0, 1.0]}
    dataset = json.loads((out / "dataset.json").read_text())
    assert dataset["labels"] == {"background": 0, "surface": 1, "ignore": 2}
    assert dataset["channel_names"] == {"0": "CT"}
    assert (dataset["numTraining"], dataset["file_ending"]) == (5, ".tif")
    splits = json.loads((out / "splits_final.json").read_text())
    assert splits[1] == {"train": ["v0", "v2", "v4"], "val": ["v1", "v3"]}


def test_an_interrupted_export_goes_on(prepared, tmp_path):
    out = tmp_path / "Dataset007_scroll"
    list(export_raw(prepared, out))
    kept = out / "imagesTr" / "v1_0000.tif"
    before = kept.stat().st_mtime_ns
    (out / "labelsTr" / "v1.tif").unlink()
    list(export_raw(prepared, out))
    assert (out / "labelsTr" / "v1.tif").is_file()
    assert kept.stat().st_mtime_ns == before
    write_tiff(kept, np.zeros((2, 3, 4), np.uint8))
    with pytest.raises(ShapeMismatchError, match="belongs to another export"):
        list(export_raw(prepared, out))


def test_what_cannot_be_exported(prepared, prepare_array, tmp_path):
    with pytest.raises(ConfigError, match="Dataset<three digits>_<name>"):
        list(export_raw(prepared, tmp_path / "Dataset1_x"))
    out = tmp_path / "Dataset001_x"
    with pytest.raises(ConfigError, match="--channel is 'MR'"):
        list(export_raw(prepared, out, channel="MR"))
    with pytest.raises(ConfigError, match=r"v0 is in .* and in .* \(--test\)"):
        list(export_raw(prepared, out, test=prepared))
    image = np.ones((8, 8, 8), np.uint8)
    alone = prepare_array(image, name="new").parent
    with pytest.raises(PairingError, match=r"1 of 1 volumes have no label, e\.g\. new"):
        list(export_raw(alone, out))
    label = np.zeros_like(image)
    label[3, 2] = 1
    prepare_array(image, label, name="new", overwrite=True)
    with pytest.raises(ConfigError, match=r"1 of 1 volumes are in no fold, e\.g\. new"):
        list(export_raw(alone, out, folds=folds()))
    assert not out.exists()


def test_command_line(prepared, tmp_path, capsys):
    save_folds(tmp_path / "splits.json", folds())
    out = tmp_path / "Dataset002_x"
    words = ["nnunet", "export-raw", str(prepared), "--out", str(out), "--channel", "zscore"]
    assert main([*words, "--splits", str(tmp_path / "splits.json")]) == 0
    assert "5 volumes" in (text := capsys.readouterr().out)
    assert "nnUNet_preprocessed/Dataset002_x/" in text
