"""Label beside prediction: what is drawn, and what happens without a renderer."""

import logging
import subprocess
import sys

import numpy as np
import pytest

from vesuvius.errors import ConfigError, ShapeMismatchError
from vesuvius.pictures import pyvista_process, style
from vesuvius.pictures import view3d as view3d_module
from vesuvius.pictures.view3d import _near, _prediction_colours, _shrink, view3d

from .png import read_rgb


@pytest.fixture(autouse=True)
def no_memory_of_failures(monkeypatch):
    monkeypatch.setattr(pyvista_process, "_refused", [])


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(view3d_module, "_PICTURE_PX", 250)


@pytest.fixture
def plates():
    """Two plates labelled, one of them predicted, and one false; 24^3."""
    label = np.zeros((24, 24, 24), dtype=np.uint8)
    label[2:22, 4:6, 2:22] = 1
    label[2:22, 12:14, 2:22] = 1
    probability = np.zeros(label.shape, dtype=np.float32)
    probability[2:22, 4:6, 2:22] = 0.9
    probability[2:22, 19:21, 2:22] = 0.9
    return label, probability


def hue_pixels(rgb, colour):
    """Pixels of a colour at any brightness."""
    length = np.linalg.norm(rgb, axis=-1) + 1e-9
    cosine = rgb @ np.asarray(colour) / length / np.linalg.norm(colour)
    return (cosine > 0.995) & (length > 40)


def test_left_shows_found_and_missed_right_shows_found_and_false(tmp_path, plates):
    label, probability = plates
    path = view3d(
        tmp_path / "v.png", label=label, probability=probability, title="t", renderer="numpy"
    )
    assert path == tmp_path / "v.png"
    rgb = read_rgb(path)[60:-60]  # without heading and legend
    half = rgb.shape[1] // 2
    assert rgb.shape[1] == pytest.approx(1170, abs=10)
    left, right = rgb[:, :half], rgb[:, half:]
    assert hue_pixels(left, style.AGREE).sum() > 3000
    assert hue_pixels(left, style.MISSED).sum() > 3000
    assert hue_pixels(left, style.FALSE).sum() < 50
    assert hue_pixels(right, style.AGREE).sum() > 3000
    assert hue_pixels(right, style.FALSE).sum() > 3000
    assert hue_pixels(right, style.MISSED).sum() < 50


def test_tolerance_is_two_voxels():
    truth = np.zeros((9, 9, 9), dtype=bool)
    truth[4, 4, 4] = True
    near = _near(truth)
    assert near[4, 4, 6]
    assert not near[4, 4, 7]
    assert not near[4, 6, 6]  # sqrt(8)
    assert near.sum() == 33  # lattice points in a ball of radius 2
    assert not _near(np.zeros_like(truth)).any()


def test_predictions_in_ignored_space_are_neither_right_nor_false():
    truth, ignore = np.zeros((2, 8, 8, 8), dtype=bool)
    truth[:, 2] = True
    ignore[:, :, 5:] = True
    colours = _prediction_colours(truth, truth, ignore)
    assert tuple(colours[0, 2, 0]) == style.AGREE
    assert tuple(colours[0, 2, 6]) == style.UNSCORED
    assert tuple(colours[0, 7, 0]) == style.FALSE


def test_large_volumes_shrink_by_whole_factors_and_keep_thin_surface():
    mask = np.zeros((10, 400, 30), dtype=bool)
    mask[:, 399] = True
    (small,) = _shrink(mask)
    assert small.shape == (4, 134, 10)  # 400 / 192 -> 3
    assert small[:, 133].all()
    assert not small[:, :133].any()


def test_pyvista_missing_skips_with_one_line(tmp_path, plates, monkeypatch, caplog):
    monkeypatch.setattr(pyvista_process, "find_spec", lambda _: None)
    label, probability = plates
    with caplog.at_level(logging.WARNING):
        path = view3d(tmp_path / "v.png", label=label, probability=probability, renderer="pyvista")
    assert path is None
    assert not list(tmp_path.iterdir())
    (record,) = caplog.records
    assert record.getMessage().startswith("3-D picture skipped: PyVista is not installed. Install")


def test_auto_without_pyvista_uses_the_ray_caster_silently(
    tmp_path, plates, small, monkeypatch, caplog
):
    monkeypatch.setattr(pyvista_process, "find_spec", lambda _: None)
    label, probability = plates
    with caplog.at_level(logging.INFO):
        path = view3d(tmp_path / "v.png", label=label, probability=probability)
    assert path.exists()
    assert not [r for r in caplog.records if r.name.startswith("vesuvius")]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        pytest.param("import os; os.kill(os.getpid(), 11)", "crashed (signal 11)", id="segfault"),
        pytest.param("import time; time.sleep(60)", "drew nothing in 0.5 s", id="hang"),
        pytest.param("raise RuntimeError('no EGL')", "failed (RuntimeError: no EGL)", id="error"),
        pytest.param("pass", "wrote no picture", id="nothing written"),
    ],
)
def test_a_broken_driver_costs_a_picture_and_is_not_asked_again(
    tmp_path, plates, monkeypatch, caplog, code, reason
):
    calls = []
    original = subprocess.run

    def broken(command, **options):
        calls.append(command)
        return original([sys.executable, "-c", code], **options)

    monkeypatch.setattr(subprocess, "run", broken)
    monkeypatch.setattr(pyvista_process, "find_spec", lambda _: object())
    if "sleep" in code:
        monkeypatch.setattr(pyvista_process, "TIME_LIMIT_S", 0.5)
    label, probability = plates
    for _ in range(2):
        path = view3d(tmp_path / "v.png", label=label, probability=probability, renderer="pyvista")
        assert path is None
    assert len(calls) == 1
    assert all(reason in record.getMessage() for record in caplog.records)
    assert len(caplog.records) == 2


def test_pyvista_and_ray_caster_agree(tmp_path, plates, small):
    pytest.importorskip("pyvista", reason="the extra 'viz' is not installed")
    label, probability = plates
    pictures = {}
    for renderer in ("numpy", "pyvista"):
        path = view3d(
            tmp_path / f"{renderer}.png", label=label, probability=probability, renderer=renderer
        )
        if path is None:
            pytest.skip(pyvista_process._refused[0])
        pictures[renderer] = read_rgb(path)
    for colour in (style.AGREE, style.MISSED, style.FALSE):
        ours, theirs = (hue_pixels(pictures[name], colour) for name in ("numpy", "pyvista"))
        overlap = 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum())
        assert overlap > 0.9


def test_empty_label_and_prediction_still_make_a_picture(tmp_path, small):
    nothing = np.zeros((8, 8, 8), dtype=np.uint8)
    path = view3d(
        tmp_path / "v.png", label=nothing, probability=nothing.astype(float), renderer="numpy"
    )
    assert path.exists()


def test_bad_arguments_say_what_was_expected(tmp_path):
    label = np.zeros((8, 8, 8), dtype=np.uint8)
    with pytest.raises(ConfigError, match="renderer is 'vtk'; expected one of"):
        view3d(tmp_path / "v.png", label=label, probability=label * 1.0, renderer="vtk")
    with pytest.raises(ShapeMismatchError, match=r"'probability' has shape \(8, 8, 7\)"):
        view3d(tmp_path / "v.png", label=label, probability=np.zeros((8, 8, 7)))
