"""The panel's content, read back from the PNG."""

import numpy as np
import pytest

from vesuvius.errors import ShapeMismatchError
from vesuvius.pictures import style
from vesuvius.pictures.comparison import best_slice, comparison_panel

from .png import count, read_rgb


def panel(tmp_path, crop, **changes):
    arguments = {
        "image": crop.image, "label": crop.label, "probability": crop.probability,
        "title": "epoch 3",
    }  # fmt: skip
    return comparison_panel(tmp_path / "sub" / "panel.png", **{**arguments, **changes})


def test_writes_a_png_of_readable_size_and_no_partial(tmp_path, crop):
    path = panel(tmp_path, crop)
    height, width, _ = read_rgb(path).shape
    assert 1200 <= width <= 1500
    assert 600 <= height <= 1300
    assert [p.name for p in path.parent.iterdir()] == ["panel.png"]


def test_title_holds_the_dice_of_the_whole_crop(tmp_path, crop, figures):
    panel(tmp_path, crop)
    texts = [text.get_text() for text in figures[0].texts]
    # labelled z < 12: surface 12 * 32, predicted 2 * 12 * 16, both 12 * 16 -> 2*192 / (384 + 384)
    assert texts[0] == "epoch 3   |   Dice 0.500"
    assert "crop 16 x 24 x 32" in texts[1]
    # both of the 12 labelled slices: 32 of 24 * 32 voxels, and 16 + 16
    assert "surface 4.2%, predicted 4.2% at threshold 0.5" in texts[1]


def test_three_rows_of_four_images_through_the_surface(tmp_path, crop, figures):
    panel(tmp_path, crop)
    images = [axes for axes in figures[0].axes if axes.images]
    assert len(images) == 12
    rows = [axes.get_ylabel() for axes in images[::4]]
    assert rows[1] == "coronal, y = 10", "the only plane with surface"
    assert [a.images[0].get_array().shape[:2] for a in images[::4]] == [
        (24, 32), (16, 32), (16, 24),
    ]  # fmt: skip
    assert [a.get_title() for a in images[:4]] == ["Input", "Label", "Probability", "Overlay"]


def test_overlay_shows_found_missed_false_and_unscored_where_they_are(tmp_path, crop, figures):
    panel(tmp_path, crop)
    axial = figures[0].axes[3].images[0].get_array()
    grey = style.grey_rgb(crop.image[5], style.grey_window(crop.image))
    for y, x, colour in [(10, 3, style.AGREE), (10, 20, style.MISSED), (18, 3, style.FALSE)]:
        expected = 0.15 * grey[y, x] + 0.85 * np.asarray(colour)
        np.testing.assert_allclose(axial[y, x], expected, atol=1)
    np.testing.assert_array_equal(axial[2, 2], grey[2, 2])
    coronal = figures[0].axes[7].images[0].get_array()
    dimmed = np.rint(0.55 * style.grey_rgb(crop.image[:, 10], style.grey_window(crop.image)))
    np.testing.assert_array_equal(coronal[14, 25], dimmed[14, 25])
    expected = 0.15 * dimmed[14, 3] + 0.85 * np.asarray(style.UNSCORED)
    np.testing.assert_allclose(coronal[14, 3], expected, atol=1)


def test_png_shows_the_label_colours(tmp_path, crop):
    rgb = read_rgb(panel(tmp_path, crop))
    # axial: one row of 24; coronal: 12 of 16 rows; sagittal: 12 of 16 rows by 1 of 24 columns
    gold, ignored = count(rgb, style.LABEL), count(rgb, style.LABEL_IGNORE)
    voxel_px = round(300 / 32) ** 2
    assert gold == pytest.approx((32 + 12 * 32 + 12) * voxel_px, rel=0.1)
    assert ignored == pytest.approx((4 * 32 + 4 * 24) * voxel_px, rel=0.15)


def test_normals_are_drawn_as_ticks_at_likely_voxels_only(tmp_path, crop, figures):
    panel(tmp_path, crop, normals=crop.normals)
    axial = figures[0].axes[2]
    (ticks,) = [c for c in axial.collections if hasattr(c, "U")]
    assert set(np.unique(ticks.Y)) == {10.0, 18.0}
    assert ticks.X.max() < 16
    np.testing.assert_array_equal(ticks.U, 0.0)  # normals point along y: no x part
    np.testing.assert_array_equal(ticks.V, 1.0)


def test_without_surface_the_score_is_not_a_number_and_the_likeliest_plane_is_shown(
    tmp_path, crop, figures
):
    label = np.zeros_like(crop.label)
    probability = np.zeros_like(crop.probability)
    probability[4] = 0.3
    panel(tmp_path, crop, label=label, probability=probability)
    assert figures[0].texts[0].get_text().endswith("Dice n/a (no surface)")
    assert figures[0].axes[0].get_ylabel() == "axial, z = 4"


def test_best_slice_prefers_surface_over_probability_and_the_middle_among_equals(crop):
    assert best_slice(crop.label, crop.probability, axis=0) == 7  # 0 to 11 tie; middle 7.5
    probability = np.zeros_like(crop.probability)
    probability[:, 3] = 1.0
    assert best_slice(crop.label, probability, axis=1) == 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(
            {"label": np.zeros((16, 24, 31))},
            r"'label' has shape \(16, 24, 31\), but 'image' has \(16, 24, 32\)",
            id="label",
        ),
        pytest.param(
            {"normals": np.zeros((16, 24, 32))},
            r"'normals' has shape \(16, 24, 32\); expected \(3, 16, 24, 32\)",
            id="normals",
        ),
    ],
)
def test_mismatch_says_which_argument(tmp_path, crop, changes, message):
    with pytest.raises(ShapeMismatchError, match=message):
        panel(tmp_path, crop, **changes)
    assert not (tmp_path / "sub").exists()
