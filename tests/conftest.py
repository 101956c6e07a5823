"""Shared fixtures: seeded generators and one torch thread (two spin against each other)."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch start their pools

import numpy as np
import pytest


@pytest.fixture
def rng() -> np.random.Generator:
    """Seeded generator."""
    return np.random.default_rng(0)
