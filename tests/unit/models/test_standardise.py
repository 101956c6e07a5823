"""Z-scores by what training has seen."""

import pytest
import torch

from vesuvius.models.primus import Primus3D
from vesuvius.models.segformer import SegFormer3D
from vesuvius.models.standardise import Standardise3D


def grey(seed, *, mean=0.4, deviation=0.1, shape=(2, 1, 8, 9, 10)):
    generator = torch.Generator().manual_seed(seed)
    return mean + deviation * torch.randn(shape, generator=generator)


def test_the_averages_are_those_of_all_batches():
    layer = Standardise3D(2)
    batches = [grey(seed, mean=0.2 + 0.1 * seed, shape=(2, 2, 4, 4, 4)) for seed in range(3)]
    for batch in batches:
        layer(batch)
    values = torch.cat(batches).movedim(1, 0).flatten(1)
    torch.testing.assert_close(layer.mean, values.mean(1))
    torch.testing.assert_close(layer.square, values.square().mean(1))
    scores = layer.eval()(torch.cat(batches)).movedim(1, 0).flatten(1)
    torch.testing.assert_close(scores.mean(1), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(scores.std(1, correction=0), torch.ones(2))


def test_a_window_looks_as_in_the_volume_and_inference_learns_nothing():
    layer = Standardise3D(1)
    layer(grey(0))
    layer.eval()
    volume = grey(1, mean=0.7)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    assert torch.equal(layer(volume)[:, :, 2:5], layer(volume[:, :, 2:5]))
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


def test_other_data_takes_over_after_some_hundred_batches():
    layer = Standardise3D(1)
    for _ in range(1000):
        layer(torch.full((1, 1, 2, 2, 2), 0.2))
    for _ in range(460):  # 0.99^460 = 0.01
        layer(torch.full((1, 1, 2, 2, 2), 0.8))
    assert float(layer.mean) == pytest.approx(0.794, abs=0.002)


def test_constant_images_stay_finite():
    layer = Standardise3D(1)
    assert torch.equal(layer(torch.full((1, 1, 2, 2, 2), 0.5)), torch.zeros(1, 1, 2, 2, 2))
    assert bool(layer(torch.rand(1, 1, 2, 2, 2)).isfinite().all())


@pytest.mark.parametrize(
    "make",
    [
        lambda: SegFormer3D(dims=[8, 16, 40, 64], depths=[1, 1, 1, 1], decoder_channels=8),
        lambda: Primus3D(embed_dim=36, num_layers=1, crop_zyx=(32, 32, 32)),
    ],
    ids=["segformer", "primus"],
)
def test_brightness_and_contrast_of_the_scan_do_not_matter(make):
    outputs = []
    for image in (grey(0, shape=(2, 1, 32, 32, 32)), 3 + 7 * grey(0, shape=(2, 1, 32, 32, 32))):
        torch.manual_seed(0)
        outputs.append(make()(image)["surface_logit"])
    torch.testing.assert_close(outputs[0], outputs[1], atol=1e-3, rtol=1e-3)
