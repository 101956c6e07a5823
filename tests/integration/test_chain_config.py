"""Chains as configuration: presets build and run, steps change from the command line."""

import numpy as np
import pytest
from hydra.utils import instantiate

PRESETS = ("first", "second", "seventh", "eighth", "ninth", "twelfth")


def built(compose_config, tmp_path, *overrides):
    required = ["run_dir=run", "volume=volume"]
    cfg = compose_config("infer", [*required, *overrides], tmp_path)
    return instantiate(cfg.postprocess, _convert_="all")


def slabs():
    p = np.full((32, 32, 32), 0.05, np.float32)
    p[:, :, 8:11] = p[:, :, 20:23] = 0.95  # along z, as sheets of a scroll
    p[15, 15, 8:11] = 0.05
    p[2, 2, 2] = 0.95
    return p


@pytest.mark.parametrize("place", PRESETS)
def test_presets_find_two_slabs(place, compose_config, tmp_path):
    chain = built(
        compose_config,
        tmp_path,
        f"postprocess=chain_{place}_place",
        "postprocess.step.dust.min_size_voxels=50",
        "postprocess.threads=1",
    )
    mask = chain(slabs()).mask
    middle = mask[16, 20]
    assert middle[[9, 21]].all()
    assert not middle[[4, 15, 28]].any()
    assert mask[2, 2, 2] == 0


def test_steps_and_order_from_the_command_line(compose_config, tmp_path):
    chain = built(
        compose_config,
        tmp_path,
        "postprocess=chain",
        "postprocess/step=[hysteresis,closing,dust]",
        "postprocess.step.closing.radius=[1,2,2]",
        "postprocess.order=[hysteresis,dust,closing,dust]",
    )
    assert [name for name, _ in chain.steps] == ["hysteresis", "dust", "closing", "dust"]
    assert dict(chain.steps)["closing"].radius == (1, 2, 2)


def test_winding_runs_as_a_step(compose_config, tmp_path):
    chain = built(compose_config, tmp_path, "postprocess=chain_winding", "postprocess.threads=1")
    result = chain(slabs())
    assert result.labels is not None
    assert np.array_equal(result.labels > 0, result.mask > 0)
    assert result.mask[16, 20, 9] == 1


def test_a_light_gaussian_comes_before_the_winding_solver(compose_config, tmp_path):
    chain = built(compose_config, tmp_path, "postprocess=chain_smooth_winding")
    assert [name for name, _ in chain.steps] == ["gaussian", "winding"]
    assert dict(chain.steps)["gaussian"].sigma == (0.8, 0.8, 0.8)
