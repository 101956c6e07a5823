"""The slice picture tells what is missing, too much, and of another class."""

import matplotlib.image
import numpy as np
import pytest

from vesuvius.errors import ConfigError, ShapeMismatchError
from vesuvius.pictures.heart_slices import BOTH, CLASS_ERROR, FOUND, TRUTH, draw_heart_slices


def count(path, colour):
    """Return the pixels of exactly that colour between titles and legend."""
    image = np.rint(matplotlib.image.imread(path)[..., :3] * 255).astype(int)
    height = image.shape[0]
    return int((image[height // 5 : -height // 5] == colour).all(-1).sum())


@pytest.fixture
def pair():
    truth = np.zeros((20, 20, 20), np.uint8)
    truth[4:12, 4:12, 10] = 1
    return truth, truth.copy()


def test_a_perfect_prediction_has_no_difference(tmp_path, pair):
    path = draw_heart_slices(*pair, tmp_path / "a.png", class_names=("a", "b"))
    assert count(path, BOTH) > 0
    assert [count(path, colour) for colour in (TRUTH, FOUND, CLASS_ERROR)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("box", "label", "colour"),
    [
        ((slice(4, 8), slice(4, 12)), 0, TRUTH),
        ((slice(12, 16), slice(4, 12)), 1, FOUND),
        ((slice(4, 8), slice(4, 12)), 2, CLASS_ERROR),
    ],
    ids=["missing", "too_much", "class"],
)
def test_errors_have_their_own_colour(tmp_path, pair, box, label, colour):
    truth, found = pair
    found[(*box, 10)] = label
    path = draw_heart_slices(truth, found, tmp_path / "a.png", class_names=("a", "b"))
    shown = {c: count(path, c) for c in (TRUTH, FOUND, CLASS_ERROR)}
    assert shown.pop(colour) > 1000
    assert set(shown.values()) == {0}


def test_other_shapes_and_axes_are_refused(tmp_path, pair):
    truth, found = pair
    with pytest.raises(ShapeMismatchError, match=r"\(5, 20, 20\)"):
        draw_heart_slices(truth, found[:5], tmp_path / "a.png", class_names=("a",))
    with pytest.raises(ConfigError, match="axis is 3"):
        draw_heart_slices(truth, found, tmp_path / "a.png", class_names=("a",), axis=3)
