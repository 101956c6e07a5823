"""The picture of all sheets: every sheet in its colour, the nearer ones cut lower."""

import matplotlib as mpl
import numpy as np
import pytest

from vesuvius.errors import ShapeMismatchError
from vesuvius.pictures.sheets import draw_sheets

from .png import read_rgb


@pytest.fixture
def planes():
    """Sheets 1, 2, 3 at y = 6, 16, 26 of a cube; the field rises along y."""
    field = np.broadcast_to(np.arange(32, dtype=np.float32)[:, None] / 10, (32, 32, 32)).copy()
    labels = np.zeros(field.shape, np.int32)
    for number in (1, 2, 3):
        labels[:, 10 * number - 5 : 10 * number - 2] = number
    return labels, field


def rows_of(rgb, number):
    """Rows of the pixels whose hue is the sheet's, however bright."""
    colour = np.asarray(mpl.colormaps["turbo"]((number - 1) / 2)[:3])
    hue = rgb / np.maximum(np.linalg.norm(rgb, axis=-1, keepdims=True), 1)
    seen = (hue @ (colour / np.linalg.norm(colour)) > 0.995) & (rgb.max(-1) > 25)
    return np.nonzero(seen[:, :740])[0]  # left of the colour bar


def test_nearer_sheets_are_cut_lower_and_all_are_seen(planes, tmp_path):
    labels, field = planes
    path = draw_sheets(tmp_path / "new" / "s.png", labels=labels, field=field, title="three")
    rows = [rows_of(read_rgb(path), number) for number in (1, 2, 3)]
    assert min(len(r) for r in rows) > 4000
    tops = [np.percentile(r, 2) for r in rows]
    assert tops[0] + 40 < tops[1]
    assert tops[1] + 40 < tops[2]


def test_a_volume_without_sheets_still_gives_a_picture(tmp_path):
    empty = np.zeros((16, 16, 16), np.int32)
    assert draw_sheets(tmp_path / "s.png", labels=empty, field=empty.astype(np.float32)).exists()


def test_shapes_that_disagree_are_refused(planes, tmp_path):
    with pytest.raises(ShapeMismatchError, match="'field' has shape"):
        draw_sheets(tmp_path / "s.png", labels=planes[0], field=planes[1][1:])
