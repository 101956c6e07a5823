"""Settings of infer.py that are refused before anything is read."""

import pytest

from vesuvius.errors import ConfigError
from vesuvius.runtime.compose_config import compose_config
from vesuvius.runtime.infer_checks import check_settings


def composed(*overrides):
    return compose_config("infer", ["run_dir=r", "volume=v", *overrides])


def test_the_defaults_and_what_the_docs_name_pass():
    check_settings(composed())
    check_settings(composed("roi_zyx=[96,96,96]", "region_zyx=[[0,1],[0,2],[0,3]]"))
    check_settings(composed("air_max=0", "max_volumes=1", "threshold=1", "block_memory_gb=0.5"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("threshold=2", "threshold=2; expected a number of at least 0 and at most 1"),
        ("threshold=nan", "threshold=nan; expected a number"),
        ("threshold=x", "threshold=x; expected a number"),
        ("max_volumes=-1", "max_volumes=-1; expected a whole number of at least 1, or null"),
        ("max_volumes=1.5", "max_volumes=1.5; expected a whole number"),
        ("block_memory_gb=-1", "block_memory_gb=-1; expected a number above 0"),
        ("block_memory_gb=0", "block_memory_gb=0; expected a number above 0"),
        ("air_max=nan", "air_max=nan; expected a number of at least 0, or null"),
        ("level=-1", "level=-1; expected a whole number of at least 0"),
        ("level=true", "level=True; expected a whole number"),
        ("roi_zyx=64", "roi_zyx=64; expected three whole numbers"),
        ("region_zyx=banana", "region_zyx=banana; expected [[z0,z1],[y0,y1],[x0,x1]], or null"),
        ("region_zyx=[1,2,3]", "region_zyx=[1, 2, 3]; expected [[z0,z1],[y0,y1],[x0,x1]]"),
    ],
)
def test_nonsense_is_refused_with_its_key(override, message):
    with pytest.raises(ConfigError) as caught:
        check_settings(composed(override))
    assert message in str(caught.value)
