"""Predictions and masks on disk: all or nothing, resumable."""

import errno
import json
import resource

import numpy as np
import pytest
import tifffile
import zarr

from vesuvius.errors import ConfigError, StorageError, VolumeFormatError
from vesuvius.inference import (
    PredictionWriter,
    RunReport,
    finished_prediction,
    predict_volume,
    write_mask,
)
from vesuvius.inference.store import read_prediction, write_json

SETTINGS = {"overlap": 0.5, "roi_zyx": (4, 4, 4), "weights": "abc"}


def write(folder, settings=SETTINGS, outputs=("probability",)):
    image = np.arange(120, dtype=np.uint8).reshape(4, 5, 6)
    writer = PredictionWriter(
        folder,
        "vol1",
        shape_zyx=image.shape,
        outputs=outputs,
        settings=settings,
        provenance={"created": "today"},
    )
    with writer:
        result = predict_volume(
            lambda t: {"probability": t, "normals": t.expand(-1, 3, -1, -1, -1)},
            image,
            roi_zyx=(4, 4, 4),
            out=writer.arrays,
            device="cpu",
        )
        writer.finish(result.report)
    return image, writer.path


def test_prediction_reads_back(tmp_path):
    image, path = write(tmp_path / "new", outputs=("probability", "normals"))
    assert path == tmp_path / "new" / "vol1.zarr"
    group = zarr.open_group(path, mode="r")
    assert group.metadata.zarr_format == 3
    np.testing.assert_array_equal(group["probability"][:], image)
    assert group["normals"].shape == (3, 4, 5, 6)
    assert group["normals"].dtype == np.int8
    arrays, attributes = read_prediction(path)
    assert set(arrays) == {"probability", "normals"}
    assert attributes["stored_max"] == {"probability": 255, "normals": 127}
    assert attributes["settings"] == {"overlap": 0.5, "roi_zyx": [4, 4, 4], "weights": "abc"}
    assert attributes["provenance"] == {"created": "today"}
    assert attributes["report"]["windows"] == 4
    assert [entry.name for entry in path.parent.iterdir()] == ["vol1.zarr"]


def test_resume_needs_equal_settings(tmp_path):
    assert not finished_prediction(tmp_path, "vol1", SETTINGS)
    write(tmp_path)
    assert finished_prediction(tmp_path, "vol1", SETTINGS)
    other = {**SETTINGS, "overlap": 0.25}
    assert not finished_prediction(tmp_path, "vol1", other)
    write(tmp_path, settings=other)  # replaces the older one
    assert finished_prediction(tmp_path, "vol1", other)
    assert [entry.name for entry in tmp_path.iterdir()] == ["vol1.zarr"]


def test_failure_keeps_the_old_prediction_and_leaves_nothing_new(tmp_path):
    write(tmp_path)

    def boom():
        with PredictionWriter(tmp_path, "vol1", shape_zyx=(4, 4, 4)) as writer:
            assert (tmp_path / "vol1.zarr.partial").exists()
            writer.arrays["probability"][:2] = 1
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        boom()
    assert [entry.name for entry in tmp_path.iterdir()] == ["vol1.zarr"]
    assert finished_prediction(tmp_path, "vol1", SETTINGS)


def test_killed_run_is_not_finished(tmp_path):
    writer = PredictionWriter(tmp_path, "vol1", shape_zyx=(4, 4, 4), settings=SETTINGS)
    writer.__enter__()  # the process dies here
    assert not finished_prediction(tmp_path, "vol1", SETTINGS)
    write(tmp_path)
    assert finished_prediction(tmp_path, "vol1", SETTINGS)
    assert [entry.name for entry in tmp_path.iterdir()] == ["vol1.zarr"]


def test_broken_folder_is_not_finished(tmp_path, caplog):
    (tmp_path / "vol1.zarr").mkdir()
    (tmp_path / "vol1.zarr" / "zarr.json").write_text("{")
    assert not finished_prediction(tmp_path, "vol1", SETTINGS)
    assert "not a readable prediction" in caplog.text


def test_full_disk_is_a_storage_error(tmp_path):
    with (
        pytest.raises(StorageError, match=r"cannot write .*vol1.zarr: No space left on device"),
        PredictionWriter(tmp_path, "vol1", shape_zyx=(4, 4, 4)),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_disk():
    """Files over 4 KiB fail to write, as on a full disk, but for real (EFBIG)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_write_that_fails_midway_leaves_nothing(tmp_path, rng, small_disk):
    image = rng.integers(0, 256, (40, 40, 40), dtype=np.uint8)
    with pytest.raises(StorageError, match=r"cannot write .*_mask.tif: File too large; free disk"):
        write_mask(tmp_path / "vol1_mask.tif", image > 127)

    def fill():
        with PredictionWriter(
            tmp_path, "vol1", shape_zyx=image.shape, outputs=("probability",)
        ) as writer:
            predict_volume(
                lambda t: {"probability": t},
                image,
                roi_zyx=(16, 16, 16),
                out=writer.arrays,
                device="cpu",
            )

    with pytest.raises(StorageError, match=r"cannot write .*vol1.zarr: File too large"):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_mask_is_lzw_uint8(tmp_path, rng):
    mask = rng.random((5, 6, 7)) > 0.5
    path = write_mask(tmp_path / "out" / "vol1_mask.tif", mask)
    with tifffile.TiffFile(path) as tiff:
        assert tiff.pages[0].compression.name == "LZW"
        assert len(tiff.pages) == 5
        stored = tiff.asarray()
    assert stored.dtype == np.uint8
    np.testing.assert_array_equal(stored, mask)
    assert [entry.name for entry in path.parent.iterdir()] == ["vol1_mask.tif"]


def test_one_slice_and_bad_masks(tmp_path):
    write_mask(tmp_path / "a.tif", np.ones((1, 3, 4), np.uint8))
    assert tifffile.imread(tmp_path / "a.tif").size == 12
    with pytest.raises(VolumeFormatError, match=r"3-D volume .* got shape \(3, 4\)"):
        write_mask(tmp_path / "b.tif", np.ones((3, 4), np.uint8))
    with pytest.raises(VolumeFormatError, match="integers 0 and 1, got uint8 from 0 to 255"):
        write_mask(tmp_path / "b.tif", np.array([[[0, 255]]], np.uint8))
    with pytest.raises(VolumeFormatError, match="integers 0 and 1, got float32"):
        write_mask(tmp_path / "b.tif", np.array([[[0, 0.5]]], np.float32))
    assert not (tmp_path / "b.tif").exists()


def test_unwritable_folder_is_said(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StorageError, match=r"cannot write .*m\.tif: .*; choose another output"):
        write_mask(tmp_path / "file" / "m.tif", np.ones((1, 3, 4), np.uint8))


def test_names_are_checked(tmp_path):
    with pytest.raises(ConfigError, match=r"plain file stem, got '../x'"):
        PredictionWriter(tmp_path, "../x", shape_zyx=(4, 4, 4))
    with pytest.raises(ConfigError, match="outputs must hold 'probability'"):
        PredictionWriter(tmp_path, "x", shape_zyx=(4, 4, 4), outputs=("normals",))


def test_run_report_projects(tmp_path):
    run = RunReport(total_volumes=10)
    run.add("a", {"seconds": 2.0, "rss_peak_mb": 100.0, "mask_share": float("nan")})
    run.add("b", {"seconds": 4.0, "rss_peak_mb": 300.0})
    run.add_skipped("c")
    run.add_failed("d", ValueError("broken"))
    assert run.seconds_per_volume == 3
    assert run.projected_seconds == 30
    assert run.remaining_seconds == 18
    stored = json.loads(run.write(tmp_path / "report.json").read_text())
    assert stored["failed"] == {"d": "ValueError: broken"}
    assert stored["rss_peak_mb"] == 300
    assert stored["volumes"]["a"]["mask_share"] is None
    assert RunReport(total_volumes=3).projected_seconds == 0


def test_json_is_atomic(tmp_path):
    path = write_json(tmp_path / "a.json", {"x": np.float32(1.5), "y": (1, np.int64(2))})
    assert json.loads(path.read_text()) == {"x": 1.5, "y": [1, 2]}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]
