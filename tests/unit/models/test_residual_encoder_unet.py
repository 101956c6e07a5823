"""U-Nets of nnU-Net plans: structure, sizes, errors. Equality with nnU-Net: test_nnunet.py."""

import pytest
import torch
from torch import nn

from vesuvius.errors import ConfigError, ShapeMismatchError
from vesuvius.models.residual_encoder_unet import PlainConvUNet3D, ResidualEncoderUNet3D

SHAPE = {
    "features_per_stage": [4, 6, 8],
    "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
    "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
    "n_conv_per_stage_decoder": [1, 2],
}


def residual(**changes) -> ResidualEncoderUNet3D:
    return ResidualEncoderUNet3D(**{**SHAPE, "n_blocks_per_stage": [1, 3, 2], **changes})


def plain(**changes) -> PlainConvUNet3D:
    return PlainConvUNet3D(**{**SHAPE, "n_conv_per_stage": [2, 1, 2], **changes})


def conv(i: int, o: int, kernel: int, *, bias: bool = True) -> int:
    """Parameters of a convolution and the instance norm after it."""
    return i * o * kernel + o * bias + 2 * o


def test_parameters_of_the_residual_network_counted_by_hand():
    encoder = conv(1, 4, 9)  # stem
    encoder += 2 * conv(4, 4, 9)  # stage 0: one block, no shortcut
    encoder += conv(4, 6, 27) + 5 * conv(6, 6, 27) + conv(4, 6, 1, bias=False)
    encoder += conv(6, 8, 27) + 3 * conv(8, 8, 27) + conv(6, 8, 1, bias=False)
    decoder = (8 * 6 * 8 + 6) + conv(12, 6, 27) + (6 * 2 + 2)
    decoder += (6 * 4 * 4 + 4) + conv(8, 4, 9) + conv(4, 4, 9) + (4 * 2 + 2)
    assert sum(p.numel() for p in residual().parameters()) == encoder + decoder


def test_parameters_of_the_plain_network_counted_by_hand():
    encoder = conv(1, 4, 9) + conv(4, 4, 9) + conv(4, 6, 27) + conv(6, 8, 27) + conv(8, 8, 27)
    decoder = (8 * 6 * 8 + 6) + conv(12, 6, 27) + (6 * 2 + 2)
    decoder += (6 * 4 * 4 + 4) + conv(8, 4, 9) + conv(4, 4, 9) + (4 * 2 + 2)
    assert sum(p.numel() for p in plain().parameters()) == encoder + decoder


@pytest.mark.parametrize("make", [residual, plain])
def test_deep_supervision_gives_one_map_a_decoder_level(make):
    network = make(deep_supervision=True, in_channels=2, num_classes=3)
    assert network.divisor_zyx == (2, 4, 4)
    maps = network(torch.zeros(1, 2, 4, 8, 8))
    assert [tuple(m.shape) for m in maps] == [(1, 3, 4, 8, 8), (1, 3, 4, 4, 4)]
    network.deep_supervision = False
    assert torch.equal(network(torch.zeros(1, 2, 4, 8, 8)), maps[0])


def test_residual_blocks_start_as_their_shortcut():
    block = residual().encoder.stages[0].blocks[0]
    image = torch.rand(1, 4, 4, 8, 8)  # positive: the activation passes it
    assert torch.equal(block(image), image)


def test_every_parameter_gets_a_gradient():
    torch.manual_seed(0)
    network = residual(deep_supervision=True)
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0, 0.3)
    sum((m**2).sum() for m in network(torch.rand(1, 1, 4, 8, 8))).backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"kernel_sizes": [[2, 3, 3]] * 3}, "kernel_sizes is .* odd numbers"),
        ({"strides": [[1, 1, 1]]}, r"strides is \[\[1, 1, 1\]\]; expected 3"),
        ({"n_blocks_per_stage": [1, 0, 1]}, "n_blocks_per_stage is .*expected 3 numbers"),
        ({"features_per_stage": [4]}, "two stages or more"),
        ({"norm": "layer"}, "norm is 'layer'; expected 'instance' or 'batch'"),
        ({"activation": "gelu"}, "activation is 'gelu'"),
        ({"num_classes": 0}, "num_classes=0"),
    ],
)
def test_errors_name_the_argument(changes, text):
    with pytest.raises(ConfigError, match=text):
        residual(**changes)


def test_images_that_do_not_divide_are_refused():
    with pytest.raises(ShapeMismatchError, match=r"multiples of \(2, 4, 4\)"):
        plain()(torch.zeros(1, 1, 4, 8, 9))
