"""Colours and checks that every picture shares."""

import numpy as np
import pytest

from vesuvius.errors import ShapeMismatchError
from vesuvius.pictures import style


def test_every_verdict_has_its_colour_by_hand():
    label = np.array([[1, 1, 0, 0, 2, 2]])
    predicted = np.array([[True, False, True, False, True, False]])
    grey = np.full((1, 6, 3), 100, dtype=np.uint8)
    out = style.verdict_rgb(grey, label, predicted)

    def mixed(colour, base=100):
        return [round(0.15 * base + 0.85 * c) for c in colour]

    expected = [
        mixed(style.AGREE), mixed(style.MISSED), mixed(style.FALSE), [100] * 3,
        mixed(style.UNSCORED, base=55), [55] * 3,
    ]  # fmt: skip
    np.testing.assert_allclose(out[0], expected, atol=1)
    assert (grey == 100).all(), "the input is left alone"


def test_label_values_have_three_colours():
    rgb = style.label_rgb(np.array([[0, 1, 2]]))
    assert [tuple(c) for c in rgb[0]] == [
        style.LABEL_BACKGROUND, style.LABEL, style.LABEL_IGNORE,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("label", "predicted", "expected"),
    [
        pytest.param([1, 1, 0, 0], [1, 0, 1, 0], 0.5, id="half"),  # 2 * 1 / (2 + 2)
        pytest.param([1, 0, 2, 2], [1, 0, 1, 1], 1.0, id="ignore is not counted"),
        pytest.param([1, 2], [0, 1], 0.0, id="missed"),
        pytest.param([0, 2], [0, 1], float("nan"), id="no surface anywhere"),
    ],
)
def test_dice_by_hand(label, predicted, expected):
    score = style.dice(np.array(label), np.array(predicted, dtype=bool))
    assert score == pytest.approx(expected, nan_ok=True)


def test_grey_window_clips_outliers_and_survives_a_constant():
    image = np.arange(1000.0)
    image[-1] = 1e6
    low, high = style.grey_window(image)
    assert 0 < low < 10
    assert 990 < high < 1000
    low, high = style.grey_window(np.full((2, 2, 2), 7, dtype=np.uint8))
    rgb = style.grey_rgb(np.full((2, 2), 7), (low, high))
    assert rgb.max() == 0


def test_shape_mismatch_names_argument_and_shapes():
    with pytest.raises(ShapeMismatchError) as caught:
        style.check_same_shape("image", image=np.zeros((4, 5, 6)), label=np.zeros((4, 5, 7)))
    assert "'label' has shape (4, 5, 7), but 'image' has (4, 5, 6)" in str(caught.value)


def test_batch_instead_of_volume_is_explained():
    with pytest.raises(ShapeMismatchError, match=r"shape \(1, 4, 5, 6\); expected a volume"):
        style.check_same_shape("image", image=np.zeros((1, 4, 5, 6)))
