"""The picture of hearts shows every class where and as it is."""

import matplotlib.image
import numpy as np
import pytest

from vesuvius.errors import ShapeMismatchError
from vesuvius.pictures.hearts import COLOURS, draw_hearts


def grid(*boxes):
    labels = np.zeros((24, 24, 24), np.uint8)
    for number, box in boxes:
        labels[box] = number
    return labels


LEFT = (slice(2, 8), slice(9, 15), slice(9, 15))
RIGHT = (slice(16, 22), slice(9, 15), slice(9, 15))


def panels(path, *, rows, columns, size):
    """Return (rows, columns) pictures without their titles."""
    image = (matplotlib.image.imread(path)[..., :3] * 255).astype(int)
    step_y, step_x = image.shape[0] / rows, size
    return [
        [
            image[int(r * step_y) + 55 : int((r + 1) * step_y), int(c * step_x) + 5 :][:, :size]
            for c in range(columns)
        ]
        for r in range(rows)
    ]


def is_close(picture, colour):
    """Return the pixels whose hue is that of the colour, in whatever light."""
    unit = np.array(colour) / np.linalg.norm(colour)
    length = np.linalg.norm(picture, axis=-1)
    return (picture @ unit > 0.99 * length) & (length < 420) & (length > 20)


def test_each_class_has_its_panel_and_colour_and_the_right_side_is_on_the_left(tmp_path):
    found = grid((1, LEFT), (2, RIGHT))
    path = draw_hearts([("heart", found)], ("a", "b"), tmp_path / "hearts.png", size=160)
    both, first, second = panels(path, rows=1, columns=3, size=160)[0]
    for number, picture in ((0, first), (1, second)):
        own, other = (is_close(picture, COLOURS[n]).sum() for n in (number, 1 - number))
        assert own > 200
        assert other < own / 20
    at = [np.argwhere(is_close(both, COLOURS[n])).mean(0)[1] for n in (0, 1)]
    assert at[1] < at[0]  # seen from the front: x to the patient's right is on the left


def test_a_heart_without_a_class_leaves_its_panel_empty(tmp_path):
    rows = [("truth", grid((1, LEFT), (2, RIGHT))), ("prediction", grid((1, LEFT)))]
    path = draw_hearts(rows, ("a", "b"), tmp_path / "hearts.png", size=120)
    below = panels(path, rows=2, columns=3, size=120)[1]
    assert (below[2] == 255).all()
    assert not (below[1] == 255).all()


def test_empty_hearts_can_be_drawn(tmp_path):
    assert draw_hearts([("none", grid())], ("a",), tmp_path / "none.png", size=60).is_file()


def test_grids_of_different_shapes_are_refused(tmp_path):
    rows = [("a", grid()), ("b", grid()[:5])]
    with pytest.raises(ShapeMismatchError, match=r"\(5, 24, 24\)"):
        draw_hearts(rows, ("a",), tmp_path / "x.png")
