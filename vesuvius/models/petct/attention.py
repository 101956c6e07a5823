"""Channel attention over several sources, and their fusion."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

from vesuvius.models.petct import winograd

_FAST_FROM = (64, 32 * 32)
"""Channels and pixels from which the inference path is faster than convolutions."""


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
        """Return gamma A v + v = (gamma A + I) v."""
        query, key, value = self.query(x), self.key(x), self.value(x)
        with torch.autocast(x.device.type, enabled=False):
            q, k = query.flatten(2).float(), key.flatten(2).float()
            mixing = self.mixing(torch.bmm(q, k.transpose(1, 2)), q.shape[2])
        out: Tensor = torch.bmm(mixing.to(value.dtype), value.flatten(2)).view_as(value)
        return out

    def mixing(self, energy: Float[Tensor, "b c c"], num_pixels: int) -> Float[Tensor, "b c c"]:
        """Return gamma A + I for float32 energies."""
        if self.scale_energy:
            energy = energy / num_pixels**0.5
        attention = torch.softmax(energy.amax(-1, keepdim=True) - energy, dim=-1)
        identity = torch.eye(energy.shape[-1], device=energy.device)
        return self.gamma.float() * attention + identity


class Fusion(nn.Module):
    """Attention on each source, concatenation, 3x3 convolution to c channels, activation, norm.

    One attention module serves all sources of a width.

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
        fused: Tensor
        if self.attention is None:
            fused = self.conv(torch.cat(list(sources), dim=1))
        elif _fast(sources[0]):
            fused = fuse_fast(self.attention, self.conv, sources)
        else:
            attended = self.attention(torch.cat(list(sources)))  # sources share one call
            fused = self.conv(torch.cat(attended.chunk(len(sources)), dim=1))
        return fused


def _fast(x: Tensor) -> bool:
    """Return whether the inference path can be taken and pays."""
    return (
        not torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.dtype is torch.float32
        and not torch.is_autocast_enabled("cpu")
        and x.shape[2] % winograd.TILE == 0
        and x.shape[3] % winograd.TILE == 0
        and x.shape[1] >= _FAST_FROM[0]
        and x.shape[2] * x.shape[3] >= _FAST_FROM[1]
    )


def fuse_fast(
    attention: ChannelAttention, conv: nn.Conv2d, sources: Sequence[Float[Tensor, "b c y x"]]
) -> Float[Tensor, "b c y x"]:
    """Return conv(concat(attention(source))) for inference in float32 on a CPU.

    All convolutions are Winograd's; q and k exist only band by band, as their energies add up; and
    (gamma A + I) is folded into the kernel that follows: conv(concat_s(M_s v_s)) =
    sum_s (W_s M_s) * v_s, so that A v is never computed.
    """
    batch, c, height, width = sources[0].shape
    convs = (attention.query, attention.key, attention.value)
    kernel = winograd.transform_kernel(torch.cat([part.weight for part in convs]))
    bias = torch.cat([part.bias for part in convs if part.bias is not None])
    assert conv.bias is not None
    weights = conv.weight.view(c, len(sources), c, 9)  # out, source, channel, tap
    fused = sources[0].new_empty(batch, c, height, width)
    values = sources[0].new_empty(len(sources), c, height, width)
    for n in range(batch):
        folded = torch.empty_like(weights)
        for s, source in enumerate(sources):
            energy = source.new_zeros(c, c)
            for row, out in winograd.products(source[n], kernel, bias):
                query, key, value = out.split(c, dim=1)  # type: ignore[no-untyped-call]
                energy += torch.bmm(query, key.transpose(1, 2)).sum(0)
                rows = winograd.as_rows(value, width)
                values[s, :, row : row + rows.shape[1]] = rows
            mixing = attention.mixing(energy[None], height * width)[0]
            folded[:, s] = torch.einsum("ocp,cd->odp", weights[:, s], mixing)
        last = winograd.transform_kernel(folded.view(c, -1, 3, 3))
        for row, out in winograd.products(values.view(-1, height, width), last, conv.bias):
            rows = winograd.as_rows(out, width)
            fused[n, :, row : row + rows.shape[1]] = rows
    return fused
