"""Reads pictures back."""

import matplotlib.image
import numpy as np


def read_rgb(path):
    """(h, w, 3) int of a PNG."""
    return np.rint(matplotlib.image.imread(path)[..., :3] * 255).astype(int)


def count(rgb, colour, tolerance=6):
    """Pixels of a colour."""
    return int((np.abs(rgb - np.asarray(colour)).max(axis=-1) <= tolerance).sum())
