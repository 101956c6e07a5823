"""The picture of a badly scored volume shows the planes where it goes wrong."""

import numpy as np
import pytest

from vesuvius.errors import ShapeMismatchError
from vesuvius.pictures import style
from vesuvius.pictures.worst import worst_panel

from .png import count, read_rgb


def volumes():
    label = np.zeros((16, 16, 16), np.uint8)
    label[4:6] = 1
    label[:, :, 14:] = 2
    mask = (label == 1).astype(np.float32)
    return mask, label


def test_disagreement_has_the_colours_of_the_verdicts(tmp_path):
    mask, label = volumes()
    clean = read_rgb(worst_panel(tmp_path / "clean.png", mask, label))
    mask[4:6, 3:9, 3:9] = 0
    mask[10, 2:8, 2:8] = 1
    mask[11] = np.nan
    wrong = read_rgb(worst_panel(tmp_path / "wrong.png", mask, label, title="Volume 7"))
    blend = [style.paint(np.full((1, 1, 3), 48, np.uint8), np.ones((1, 1), bool), c)[0, 0]
             for c in (style.MISSED, style.FALSE)]  # fmt: skip
    for colour in blend:
        assert count(clean, colour) == 0
        assert count(wrong, colour) > 100


def test_volumes_of_two_shapes_are_refused(tmp_path):
    mask, label = volumes()
    with pytest.raises(ShapeMismatchError, match="'mask'"):
        worst_panel(tmp_path / "x.png", mask[1:], label)
