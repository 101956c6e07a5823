"""Any surface network at reduced resolution: the first stage of a cascade."""

import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

from vesuvius.errors import ConfigError


class LowResolution(nn.Module):
    """Runs a network on the image averaged over cells of `factor`^3 voxels; enlarges its outputs.

    At factor 2 the same memory holds eight times the volume: a sheet is followed through far more
    context, at the price of its exact faces, which a second stage draws (experiment=refine).

    Args:
        network: takes (b, c, z, y, x) of any size, returns a mapping of heads; its own `heads` and
            `in_channels` become this module's.
        factor: side of a cell in voxels.

    Source: the cascade of Isensee et al. 2021 (nnU-Net), with the resampling inside the network,
    so that crops, labels and windows stay at full resolution.

    Raises:
        ConfigError: a factor below 2.
    """

    def __init__(self, *, network: nn.Module, factor: int = 2) -> None:
        super().__init__()
        if factor < 2:
            raise ConfigError(f"model.factor={factor}; expected 2 or more.")
        self.network = network
        self.factor = factor

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the outputs, the network's own."""
        heads: tuple[str, ...] = self.network.heads  # type: ignore[assignment]
        return heads

    @property
    def in_channels(self) -> int:
        """Image channels."""
        channels = self.network.in_channels
        assert isinstance(channels, int)
        return channels

    def forward(self, image: Float[Tensor, "b c z y x"]) -> dict[str, Tensor]:
        """Return the heads at the image's size; deep ones stay at their own."""
        small = F.avg_pool3d(image, self.factor, ceil_mode=True)
        outputs: dict[str, Tensor] = self.network(small)
        size = [side * self.factor for side in small.shape[2:]]
        z, y, x = image.shape[2:]
        return {
            name: value
            if "_deep" in name
            else F.interpolate(value, size=size, mode="trilinear")[:, :, :z, :y, :x]
            for name, value in outputs.items()
        }
