"""One small heart, prepared once."""

import pytest
from unit.data.heart.hearts import SMALL, label_map

from vesuvius.data.heart.phantom import HeartPhantomSettings, make_heart
from vesuvius.data.heart.sampler import SamplerOptions, sample_case


@pytest.fixture(scope="session")
def heart_map():
    """One heart of 48^3, 2.5 mm."""
    settings = HeartPhantomSettings(shape=(48, 48, 48), spacing=(2.5, 2.5, 2.5))
    return label_map(make_heart(3, settings), settings.spacing)


@pytest.fixture(scope="session")
def heart_case(heart_map):
    """The same, prepared with the distance to every class."""
    options = SamplerOptions(**SMALL, sdf_mode="per_class")
    return sample_case(heart_map, options, case_id="heart")
