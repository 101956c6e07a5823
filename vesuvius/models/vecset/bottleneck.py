"""What lies between encoder and latent transformer: few channels per latent vector, or none."""

from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

from vesuvius.errors import ConfigError

Kind = Literal["normalised", "kl", "identity"]


class NormalisedBottleneck(nn.Module):
    """Linear to few channels, normalised over them; scale, shift and Linear back.

    Source: VecSetX ("nb"): a fixed scale of the codes without a variational loss.
    """

    def __init__(self, channels: int, code_channels: int) -> None:
        super().__init__()
        self.to_code = nn.Linear(channels, code_channels)
        self.scale = nn.Parameter(torch.ones(code_channels))
        self.shift = nn.Parameter(torch.zeros(code_channels))
        self.from_code = nn.Linear(code_channels, channels)

    def forward(self, x: Float[Tensor, "b l c"]) -> tuple[Tensor, Tensor | None]:
        """Return what the latent transformer starts from; no loss."""
        code = self.to_code(x)
        code = F.layer_norm(code, code.shape[-1:], eps=1e-6)
        return self.from_code(code * self.scale + self.shift), None


class KLBottleneck(nn.Module):
    """A Gaussian code of few channels; its mean where no noise is wanted.

    Source: Kingma and Welling 2014; the loss is 0.5 mean(mu^2 + sigma^2 - 1 - log sigma^2).
    """

    def __init__(self, channels: int, code_channels: int) -> None:
        super().__init__()
        self.to_moments = nn.Linear(channels, 2 * code_channels)
        self.from_code = nn.Linear(code_channels, channels)

    def forward(self, x: Float[Tensor, "b l c"]) -> tuple[Tensor, Tensor | None]:
        """Return what the latent transformer starts from, and the divergence (b,)."""
        mean, log_variance = self.to_moments(x).float().chunk(2, -1)
        log_variance = log_variance.clamp(-30.0, 20.0)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean((1, 2))
        code = mean
        if self.training:
            code = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        return self.from_code(code), divergence


class IdentityBottleneck(nn.Module):
    """Nothing: the latents keep their width."""

    def forward(self, x: Float[Tensor, "b l c"]) -> tuple[Tensor, Tensor | None]:
        """Return the latents as they are; no loss."""
        return x, None


def make_bottleneck(kind: Kind, *, channels: int, code_channels: int) -> nn.Module:
    """Return the bottleneck of that name.

    Raises:
        ConfigError: unknown name, or fewer than one channel.
    """
    if code_channels < 1:
        raise ConfigError(f"model.latent_dim={code_channels}; expected >= 1.")
    if kind == "normalised":
        return NormalisedBottleneck(channels, code_channels)
    if kind == "kl":
        return KLBottleneck(channels, code_channels)
    if kind == "identity":
        return IdentityBottleneck()
    raise ConfigError(f"model.bottleneck={kind!r}; expected normalised, kl or identity.")
