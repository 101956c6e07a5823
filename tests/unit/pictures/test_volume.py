"""Slices of a volume."""

import matplotlib.image
import numpy as np
import pytest

from vesuvius.errors import ConfigError, ShapeMismatchError
from vesuvius.pictures import style
from vesuvius.pictures.volume import label_panel, slice_panel

from .png import count, read_rgb


def test_slice_panel_rows_columns_and_mask_colour(tmp_path, crop, figures):
    mask = (crop.probability > 0.5).astype(np.uint8)
    path = slice_panel(tmp_path / "s.png", crop.image, crop.probability, mask, title="real")
    assert matplotlib.image.imread(path).shape[1] > 1000
    images = [axes for axes in figures[0].axes if axes.images]
    assert [a.get_ylabel() for a in images[::3]] == ["z = 4", "z = 8", "z = 12"]
    painted = images[2].images[0].get_array()
    grey = style.grey_rgb(crop.image[4], style.grey_window(crop.image))
    expected = 0.45 * grey[10, 3] + 0.55 * np.asarray(style.LABEL)
    np.testing.assert_allclose(painted[10, 3], expected, atol=1)
    np.testing.assert_array_equal(painted[10, 20], grey[10, 20])
    assert "mask 4.2% of voxels" in figures[0].texts[1].get_text()  # 2 rows of 24, half of each


def test_byte_probability_is_scaled_by_its_dtype(tmp_path, crop, figures):
    stored = np.rint(crop.probability * 255).astype(np.uint8)
    slice_panel(tmp_path / "s.png", crop.image, stored, stored > 127, indices=[4])
    heat = figures[0].axes[1].images[0].get_array()
    np.testing.assert_allclose(heat, crop.probability[4], atol=1 / 255)


def test_with_a_label_the_mask_is_painted_by_verdict(tmp_path, crop, figures):
    mask = crop.probability > 0.5
    slice_panel(
        tmp_path / "s.png", crop.image, crop.probability, mask, crop.label, indices=[10], axis=1
    )
    grey = style.grey_rgb(crop.image[:, 10], style.grey_window(crop.image))
    expected = style.verdict_rgb(grey, crop.label[:, 10], mask[:, 10])
    np.testing.assert_array_equal(figures[0].axes[2].images[0].get_array(), expected)
    assert figures[0].axes[0].get_ylabel() == "y = 10"


def test_slice_outside_the_volume_is_refused(tmp_path, crop):
    with pytest.raises(ConfigError, match="slice 16 is outside the volume; expected 0 to 15"):
        slice_panel(tmp_path / "s.png", crop.image, crop.probability, crop.label == 1, indices=[16])


def test_slice_panel_shape_mismatch_names_the_mask(tmp_path, crop):
    with pytest.raises(ShapeMismatchError, match="'mask' has shape"):
        slice_panel(tmp_path / "s.png", crop.image, crop.probability, np.zeros((2, 2, 2)))


def test_label_panel_separates_surface_and_ignore(tmp_path, crop, figures):
    label = crop.label.copy()
    label[8, :, 30:] = 2
    path = label_panel(tmp_path / "l.png", label, image=crop.image, title="0007")
    images = [axes.images[0].get_array() for axes in figures[0].axes]
    titles = [axes.get_title() for axes in figures[0].axes]
    assert titles == ["Image", "Labels", "Surface", "Ignore"]
    assert tuple(images[1][10, 5]) == style.LABEL
    assert tuple(images[1][10, 31]) == style.LABEL_IGNORE
    assert tuple(images[2][10, 31]) == style.LABEL_BACKGROUND
    assert tuple(images[2][10, 5]) == style.LABEL
    assert tuple(images[3][10, 5]) == style.LABEL_BACKGROUND
    assert tuple(images[3][10, 31]) == style.LABEL_IGNORE
    assert "ignore 25.4%" in figures[0].texts[1].get_text()  # 4/16 + 2*24/12288
    assert count(read_rgb(path), style.LABEL) > 1000


def test_large_planes_are_shrunk_and_narrow_ones_keep_room_for_the_legend(tmp_path):
    image = np.zeros((3, 2000, 40), dtype=np.uint8)
    path = slice_panel(tmp_path / "s.png", image, image, image, indices=[1])
    height, width, _ = read_rgb(path).shape
    assert height < 1000
    assert width >= 1000
