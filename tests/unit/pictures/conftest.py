"""A crop whose right answers are known: a plane of surface, part of it found."""

from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure


@pytest.fixture
def crop():
    """Image, label and prediction of 16 x 24 x 32 voxels; surface is the plane y = 10.

    The left half (x < 16) of the surface is predicted, the right half missed; a false plane lies at
    y = 18, x < 16; z >= 12 is ignored.
    """
    shape = (16, 24, 32)
    image = np.full(shape, 90, dtype=np.uint8)
    image[:, 8:14] = 200
    label = np.zeros(shape, dtype=np.uint8)
    label[:, 10] = 1
    label[12:] = 2
    probability = np.full(shape, 0.1, dtype=np.float32)
    probability[:, 10, :16] = 0.9
    probability[:, 18, :16] = 0.8
    normals = np.zeros((3, *shape), dtype=np.float32)
    normals[1] = 1.0
    return SimpleNamespace(image=image, label=label, probability=probability, normals=normals)


@pytest.fixture
def figures(monkeypatch):
    """Figures as they are saved."""
    saved = []
    original = Figure.savefig

    def keep(self, *args, **kwargs):
        saved.append(self)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return saved
