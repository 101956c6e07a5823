"""The first eight convolutions of VGG19 as an auxiliary encoder of grey slices."""

import logging
from collections.abc import Callable
from pathlib import Path

import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

from vesuvius.errors import ConfigError
from vesuvius.models.petct.vgg_weights import GREY, read_vgg19

log = logging.getLogger(__name__)

FULL_WIDTH = 64
_LAYERS = (0, 2, 5, 7, 10, 12, 14, 16)
_MULTIPLES = (1, 1, 2, 2, 4, 4, 4, 4)
_STARTS_LEVEL = (2, 5, 10)
"""Convolutions that follow a max pooling. VGG19 itself has none before 2 (conv1_2)."""
_NORMS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""ImageNet's mean and standard deviation of R, G, B in [0, 1]."""

BranchFactory = Callable[..., "VGG19Branch | None"]


class VGG19Branch(nn.Module):
    """Grey slice to features of stride 2, 4 and 8 with width, 2 width and 4 width channels.

    A max pooling is inserted after conv1_1, so that the levels match those of a U-Net encoder:
    conv1_1, ReLU, pool, conv1_2, ReLU | pool, conv2_1, conv2_2 | pool, conv3_1 .. conv3_4.
    Parameters have torchvision's names (`features.0.weight` ...). `origin` says where the weights
    came from: "random", or the SHA-256 of a file.

    Args:
        width: channels of the first level; 64 is VGG19.
        imagenet_norm: shift and scale [-1, 1] to what ImageNet weights expect; CoCoNet did not.

    Source: Simonyan and Zisserman 2015; the extra pooling: CoCoNet (Liu et al. 2023).
    """

    def __init__(self, *, width: int = FULL_WIDTH, imagenet_norm: bool = False) -> None:
        super().__init__()
        self.origin = "random"
        self.imagenet_norm = imagenet_norm
        widths = [width * m for m in _MULTIPLES]
        self.features = nn.ModuleDict(
            {
                str(number): nn.Conv2d(i, o, 3, padding=1)
                for number, i, o in zip(_LAYERS, [1, *widths[:-1]], widths, strict=True)
            }
        )
        for conv in self.features.values():
            assert isinstance(conv, nn.Conv2d)
            assert conv.bias is not None
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(conv.bias)

    def forward(self, x: Float[Tensor, "b 1 y x"]) -> list[Float[Tensor, "b c sy sx"]]:
        """Return the three levels for a slice in [-1, 1] whose sides divide by 8."""
        if self.imagenet_norm:
            mean, std = (sum(g * v for g, v in zip(GREY, t, strict=True)) for t in _NORMS)
            x = ((x + 1) / 2 - mean) / std
        levels = []
        for number in _LAYERS:
            if number in _STARTS_LEVEL:
                if number != _STARTS_LEVEL[0]:
                    levels.append(x)
                x = F.max_pool2d(x, 2)
            x = F.relu(self.features[str(number)](x))
        return [*levels, x]


def vgg19_branch(
    *,
    weights: str = "random",
    trainable: bool | None = None,
    imagenet_norm: bool = False,
    width: int = FULL_WIDTH,
) -> VGG19Branch | None:
    """Return a branch, or None for weights "none".

    Args:
        weights: path of VGG19's weights (full `vgg19-dcbb9e9d.pth` or what `vesuvius petct
            strip-vgg` made of it, .pth or .safetensors); "random"; "none" = no branch;
            "checkpoint" = the structure alone, for weights that a checkpoint brings.
        trainable: None trains random weights (frozen random features help little) and freezes
            those of a file.
        imagenet_norm: see `VGG19Branch`.
        width: channels of the first level; weights of a file need 64.

    Raises:
        ConfigError: a width that the file does not have.
        CheckpointError: the file is missing, damaged, or not VGG19's.
    """
    if weights == "none":
        return None
    branch = VGG19Branch(width=width, imagenet_norm=imagenet_norm)
    if weights == "random":
        log.warning(
            "VGG branch with random weights%s: give model.vgg.weights=<file> for ImageNet's",
            ", trained" if trainable in (None, True) else ", frozen",
        )
    elif weights != "checkpoint":
        if width != FULL_WIDTH:
            raise ConfigError(
                f"model.vgg.weights={weights} needs branches of {FULL_WIDTH} channels, these have "
                f"{width}: set model.width={FULL_WIDTH // 2}, or model.vgg.weights=random."
            )
        tensors, digest = read_vgg19(Path(weights))
        branch.load_state_dict(tensors)
        branch.origin = f"sha256:{digest}"
        log.info("VGG branch from %s, sha256 %s", weights, digest)
    if trainable is False or (trainable is None and weights not in ("random", "checkpoint")):
        branch.requires_grad_(requires_grad=False)
    return branch
