"""RefineNetwork: a second stage that corrects a first stage's mask."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vesuvius.errors import ConfigError, ShapeMismatchError


def check_second_stage(name: str, backbone: nn.Module) -> None:
    """Raise ConfigError unless the backbone reads two channels: image and former prediction."""
    channels = getattr(backbone, "in_channels", None)
    if channels != 2:
        raise ConfigError(
            f"{name}: model.backbone.in_channels={channels}; expected 2, the image and the former "
            "prediction."
        )


def check_two_channels(image: Tensor) -> None:
    """Raise ShapeMismatchError unless the image is (b, 2, z, y, x)."""
    if image.dim() != 5 or image.shape[1] != 2:
        raise ShapeMismatchError(
            f"image has shape {tuple(image.shape)}; a second-stage network expects (b, 2, z, y, x):"
            " the CT and a former prediction (data.prior_root in training, prior of infer.py)."
        )


class RefineNetwork(nn.Module):
    """Reads the image and a former mask and predicts what the mask should have been.

    The mask is the second channel above `threshold`, so that a probability (inference) and a mask
    made at a random threshold (training, `transforms=refine`) look alike. The surface logit starts
    as trust * (2 mask - 1): the network learns corrections, and where it says nothing the mask
    stays.

    Args:
        backbone: surface network with two input channels.
        threshold: of the second channel.
        trust: first weight of the former mask in the logit; learned.

    Raises:
        ConfigError: a threshold outside (0, 1), or a backbone of another number of channels.

    Source: the learned stacks and refinement networks of the Vesuvius Surface Detection winners
    (10th place, 2026), simplified; the residual mask: own.
    """

    in_channels = 2

    def __init__(self, *, backbone: nn.Module, threshold: float = 0.4, trust: float = 2.0) -> None:
        super().__init__()
        check_second_stage("RefineNetwork", backbone)
        if not 0 < threshold < 1:
            raise ConfigError(f"model.threshold={threshold}; expected a value between 0 and 1.")
        self.backbone = backbone
        self.threshold = threshold
        self.trust = nn.Parameter(torch.tensor(float(trust)))

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the outputs: the backbone's."""
        names: Sequence[str] = getattr(self.backbone, "heads", ("surface_logit",))
        return tuple(names)

    def forward(self, image: Float[Tensor, "b 2 z y x"]) -> dict[str, Tensor]:
        """Return the backbone's heads, the surface logit corrected by the former mask.

        Raises:
            ShapeMismatchError: not two channels.
        """
        check_two_channels(image)
        mask = (image[:, 1:] > self.threshold).to(image.dtype)
        outputs: dict[str, Tensor] = dict(self.backbone(torch.cat([image[:, :1], mask], dim=1)))
        outputs["surface_logit"] = outputs["surface_logit"] + self.trust * (2 * mask - 1)
        return outputs
