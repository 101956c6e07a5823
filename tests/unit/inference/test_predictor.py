"""Adapter of the heads and test-time augmentation."""

import pytest
import torch

from vesuvius.errors import CheckpointError, ConfigError
from vesuvius.inference import surface_predictor
from vesuvius.inference.predictor import tta_symmetries, turn, turn_back


def test_heads_become_probability_and_normals():
    def network(image):
        normals = torch.full((1, 3, 2, 2, 2), 0.25, dtype=torch.bfloat16)
        return {
            "surface_logit": torch.zeros(1, 1, 2, 2, 2, dtype=torch.bfloat16),
            "normals": normals,
        }

    result = surface_predictor(network)(torch.zeros(1, 1, 2, 2, 2))
    assert set(result) == {"probability", "normals"}
    torch.testing.assert_close(result["probability"], torch.full((1, 1, 2, 2, 2), 0.5))
    assert result["normals"].dtype == torch.float32


@pytest.mark.parametrize(("tta", "count"), [("none", 1), ("flips", 8), ("flips_rot90", 16)])
def test_symmetries_are_distinct_and_undone(tta, count):
    generator = torch.Generator().manual_seed(0)
    volume = torch.rand((1, 1, 2, 3, 3), generator=generator)
    symmetries = tta_symmetries(tta)
    turned = {tuple(turn(volume, symmetry).flatten().tolist()) for symmetry in symmetries}
    assert len(turned) == len(symmetries) == count
    assert symmetries[0] == (False, ())
    for symmetry in symmetries:
        assert torch.equal(turn_back(turn(volume, symmetry), symmetry, vectors=False), volume)


def gradient_network(image):
    """A network that respects every symmetry exactly: logit = image, normal = its gradient."""
    gradient = torch.gradient(image[:, 0], dim=(1, 2, 3))
    return {"surface_logit": image, "normals": torch.stack(gradient, dim=1)}


@pytest.mark.parametrize("tta", ["flips", "flips_rot90"])
@pytest.mark.parametrize("axial", [True, False])
def test_symmetric_network_is_unchanged_by_tta(tta, axial):
    """Gradients turn as vectors do: any slip in a sign or an axis changes the mean."""
    image = torch.rand((1, 1, 4, 6, 5), generator=torch.Generator().manual_seed(3))
    plain = surface_predictor(gradient_network)(image)
    mean = surface_predictor(gradient_network, tta=tta, axial_normals=axial)(image)
    for name in plain:
        torch.testing.assert_close(mean[name], plain[name])


def test_one_sided_normals_survive_flips():
    """A network that always answers +z: turned back, half the copies say -z."""

    def network(image):
        normals = torch.zeros(1, 3, *image.shape[2:])
        normals[:, 0] = 1
        return {"surface_logit": image, "normals": normals}

    image = torch.rand((1, 1, 2, 4, 4), generator=torch.Generator().manual_seed(0))
    axial = surface_predictor(network, tta="flips")(image)["normals"]
    signed = surface_predictor(network, tta="flips", axial_normals=False)(image)["normals"]
    assert float(axial[:, 0].min()) == 1
    assert float(signed.abs().max()) == 0


def test_mean_of_a_one_sided_network():
    """logit(p) = large in the first plane only; the mean of flips spreads it to both ends."""

    def network(image):
        logit = torch.full_like(image, -100)
        logit[:, :, 0] = 100
        return {"surface_logit": logit}

    result = surface_predictor(network, tta="flips")(torch.zeros(1, 1, 4, 2, 2))
    torch.testing.assert_close(result["probability"][0, 0, :, 0, 0], torch.tensor([0.5, 0, 0, 0.5]))


def test_errors():
    with pytest.raises(
        ConfigError, match="tta must be 'none', 'flips' or 'flips_rot90', got 'all'"
    ):
        surface_predictor(gradient_network, tta="all")
    with pytest.raises(CheckpointError, match="must return 'surface_logit', got \\['sdf'\\]"):
        surface_predictor(lambda image: {"sdf": image})(torch.zeros(1, 1, 2, 2, 2))
