"""Small label maps and options that the heart's tests share."""

import numpy as np

from vesuvius.data.heart.labels import LabelMap

SMALL = {
    "num_surface_points": 6000,
    "num_vol_points": 8000,
    "min_surface_per_class": 300,
    "vol_per_class": 300,
    "min_class_voxels": 1,
}


def label_map(labels, spacing=(1.0, 1.0, 1.0)):
    spacing = np.asarray(spacing, np.float64)
    return LabelMap(np.asarray(labels, np.uint8), spacing, np.diag([*spacing, 1.0]))
