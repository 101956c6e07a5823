"""Channel attention over several sources, and their fusion, in one pass."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

FOLD_FROM = 9
"""Folding costs 9 c^3 multiplications a source, mixing the map pixels * c^2."""


class ChannelAttention(nn.Module):
    """CAM: attention between the channels of a feature map.

    q, k, v are 3x3 convolutions; E = q k^T over pixels (c x c), A = softmax(max_row(E) - E),
    out = gamma A v + v, gamma starting at 0, so that the layer starts as its v convolution.

    Energies are sums over all pixels and overflow float16: they and the softmax are computed in
    float32 whatever the precision of the rest.

    Args:
        channels: c.
        scale_energy: divide E by sqrt(pixels); the original does not.

    Source: Fu et al. 2019 (DANet, channel attention); CoCoNet (Liu et al. 2023) with convolved
    q, k, v and the residual on v.
    """

    def __init__(self, channels: int, *, scale_energy: bool = False) -> None:
        super().__init__()
        self.scale_energy = scale_energy
        self.query = nn.Conv2d(channels, channels, 3, padding=1)
        self.key = nn.Conv2d(channels, channels, 3, padding=1)
        self.value = nn.Conv2d(channels, channels, 3, padding=1)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Float[Tensor, "b c y x"]) -> Float[Tensor, "b c y x"]:
        """Return gamma A v + v."""
        value, mixing = self.value_and_mixing(x)
        return torch.bmm(mixing.to(value.dtype), value.flatten(2)).view_as(value)

    def value_and_mixing(
        self, x: Float[Tensor, "b c y x"]
    ) -> tuple[Float[Tensor, "b c y x"], Float[Tensor, "b c c"]]:
        """Return v and gamma A + I, whose product is the output."""
        convs = (self.query, self.key, self.value)
        weight = torch.cat([conv.weight for conv in convs])
        bias = torch.cat([conv.bias for conv in convs if conv.bias is not None])
        query, key, value = F.conv2d(x, weight, bias, padding=1).chunk(3, dim=1)
        return value, self.mixing(query, key)

    def mixing(
        self, query: Float[Tensor, "b c y x"], key: Float[Tensor, "b c y x"]
    ) -> Float[Tensor, "b c c"]:
        """Return gamma A + I in float32."""
        with torch.autocast(query.device.type, enabled=False):
            q, k = query.flatten(2).float(), key.flatten(2).float()
            energy = torch.bmm(q, k.transpose(1, 2))
            if self.scale_energy:
                energy = energy / q.shape[2] ** 0.5
            attention = torch.softmax(energy.amax(-1, keepdim=True) - energy, dim=-1)
            return self.gamma.float() * attention + torch.eye(len(attention[0]), device=q.device)


class Fusion(nn.Module):
    """Attention on each source, concatenation, 3x3 convolution to c channels, activation, norm.

    One attention module serves all sources of a width, in one call. On large maps the mixing
    matrices are folded into the convolution that follows, per slice: conv(concat_s(M_s v_s)) =
    sum_s (W_s M_s) * v_s, so that A v is never computed.

    Args:
        channels: c of every source and of the result.
        num_sources: sources to fuse.
        attention: the shared attention; None concatenates the sources as they are.
        norm: what follows the activation.
    """

    def __init__(
        self,
        channels: int,
        num_sources: int,
        *,
        attention: ChannelAttention | None,
        norm: nn.Module,
    ) -> None:
        super().__init__()
        self.attention = attention
        self.conv = nn.Conv2d(num_sources * channels, channels, 3, padding=1)
        self.norm = norm

    def forward(self, sources: Sequence[Float[Tensor, "b c y x"]]) -> Float[Tensor, "b c y x"]:
        """Return the fused features."""
        fused: Tensor = self.norm(F.leaky_relu(self.fuse(sources), 0.2))
        return fused

    def fuse(self, sources: Sequence[Float[Tensor, "b c y x"]]) -> Float[Tensor, "b c y x"]:
        """Return the convolution of the attended sources."""
        if self.attention is None:
            return self._convolve(torch.cat(list(sources), dim=1))
        batch, c, height, width = sources[0].shape
        num = len(sources)
        value, mixing = self.attention.value_and_mixing(torch.cat(list(sources)))
        if height * width <= FOLD_FROM * c:
            mixed = torch.bmm(mixing.to(value.dtype), value.flatten(2))
            return self._convolve(_side_by_side(mixed, num, (batch, c, height, width)))
        weight = self.conv.weight.view(c, num, c, 9).float()  # out, source, channel, tap
        folded = torch.einsum("oscp,sbcd->bosdp", weight, mixing.view(num, batch, c, c))
        folded = folded.reshape(batch, c, num * c, 3, 3).to(value.dtype)
        bias = None if self.conv.bias is None else self.conv.bias.to(value.dtype)
        values = _side_by_side(value, num, (batch, c, height, width))
        return torch.cat(
            [
                F.conv2d(v, w, bias, padding=1)
                for v, w in zip(torch.split(values, 1), folded, strict=True)
            ]
        )

    def _convolve(self, x: Tensor) -> Tensor:
        fused: Tensor = self.conv(x)
        return fused


def _side_by_side(x: Tensor, num: int, shape: tuple[int, ...]) -> Tensor:
    """Return (b, s c, y, x) of maps ordered (s b): the sources of a slice one after another."""
    batch, c, height, width = shape
    return x.reshape(num, batch, c, height, width).transpose(0, 1).flatten(1, 2)
