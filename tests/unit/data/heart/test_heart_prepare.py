"""Folders of label maps to cases: resumed, alike for any number of processes, failures named."""

import dataclasses

import nibabel as nib
import numpy as np
import pytest
from unit.data.heart.hearts import SMALL

from vesuvius.data.heart.format import load_case, read_fingerprint
from vesuvius.data.heart.labels import find_label_maps, write_label_map
from vesuvius.data.heart.prepare import heart_fingerprint, prepare_hearts
from vesuvius.data.heart.sampler import SamplerOptions
from vesuvius.errors import ConfigError

OPTIONS = SamplerOptions(**SMALL, class_names=("one", "two", "three"))


@pytest.fixture
def folder(tmp_path):
    """Three label maps: two balls in a shell, one without class 3, one empty."""
    index = np.indices((20, 20, 20)) - 9.5
    radius = np.sqrt((index**2).sum(0))
    labels = np.where(radius < 8, 1, 0) + np.where(radius < 4, 1, 0)
    labels[2:4, 2:4, 2:4] = 3
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    write_label_map(tmp_path / "in" / "a.nii.gz", labels.astype(np.uint8), affine)
    labels[labels == 3] = 0
    write_label_map(tmp_path / "in" / "b.nii.gz", labels.astype(np.uint8), affine)
    write_label_map(tmp_path / "in" / "c.nii.gz", np.zeros((20, 20, 20), np.uint8), affine)
    return tmp_path


def run(folder, out, options=OPTIONS, **kwargs):
    sources = find_label_maps(folder / "in")
    found = prepare_hearts(sources, folder / out, options, **kwargs)
    return {outcome.source.name[0]: outcome for outcome in found}


def test_one_process_or_two_give_the_same_bytes_and_failures_stop_nothing(folder):
    one, two = run(folder, "one"), run(folder, "two", file_workers=2)
    for found in (one, two):
        assert [found[name].status for name in "abc"] == ["done", "done", "failed"]
        assert found["b"].missing == ("three",)
        assert "c.nii.gz: every voxel is background" in found["c"].error
    for name in ("a.npz", "b.npz"):
        assert (folder / "one" / name).read_bytes() == (folder / "two" / name).read_bytes()
    assert sorted(p.name for p in (folder / "two").iterdir()) == ["a.npz", "b.npz"]
    a, b = (load_case(folder / "one" / f"{n}.npz") for n in "ab")
    assert (a.vol_points != b.vol_points).any()  # no two cases draw alike


def test_finished_cases_are_left_alone_until_something_changes(folder):
    run(folder, "out")
    time = (folder / "out" / "a.npz").stat().st_mtime_ns
    assert run(folder, "out")["a"].status == "skipped"
    assert (folder / "out" / "a.npz").stat().st_mtime_ns == time
    assert run(folder, "out", overwrite=True)["a"].status == "done"
    other = dataclasses.replace(OPTIONS, near_std=0.02)
    assert run(folder, "out", other)["a"].status == "done"
    blocks = dataclasses.replace(other, block=100)
    assert run(folder, "out", blocks)["a"].status == "skipped"  # changes no value
    (folder / "out" / "a.npz").write_bytes(b"half")
    assert run(folder, "out", other)["a"].status == "done"
    labels = nib.load(folder / "in" / "a.nii.gz")
    write_label_map(
        folder / "in" / "a.nii.gz", np.asarray(labels.dataobj)[::-1].copy(), labels.affine
    )
    assert run(folder, "out", other)["a"].status == "done"


def test_the_fingerprint_is_of_content_not_of_place(folder):
    source = folder / "in" / "a.nii.gz"
    run(folder, "out")
    copy = folder / "a.nii.gz"
    copy.write_bytes(source.read_bytes())
    assert heart_fingerprint(copy, OPTIONS) == read_fingerprint(folder / "out" / "a.npz")


def test_a_full_disk_stops_the_work(folder, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    found = list(prepare_hearts(find_label_maps(folder / "in"), folder / "out", OPTIONS))
    assert len(found) == 1
    assert found[0].fatal
    assert "No space left on device" in found[0].error
    assert list((folder / "out").iterdir()) == []


def test_numbers_out_of_range_are_refused(folder):
    with pytest.raises(ConfigError, match="file_workers is 0"):
        run(folder, "out", file_workers=0)
