"""Convolutions in bf16 on the CPU: right gradients everywhere, speed on slender maps."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

SHORT_ROW = 8
"""Voxels along x up to which oneDNN's kernels, which go along x, are worth feeding with z."""


class CPUConv3d(nn.Conv3d):
    """Conv3d that goes round two weaknesses of oneDNN's bf16 kernels (torch 2.13, CPUs with AMX).

    Shallow maps: the weight gradient of an input shallower than its kernel along z is garbage or
    NaN (2 voxels under a 3^3 kernel, up to 4 under 5^3, up to 6 under 7^3). Networks of stride 32
    meet that at crops of 64^3. Such maps are tiny, so float32 costs nothing there.

    Slender maps: kernels go along x, and poolings of (1, 2, 2) leave 32 x 4 x 4 voxels of a crop
    of 64^3. With z and x exchanged, which copies the map and exchanges the axes of the weights, the
    same convolution takes half the time and its weight gradient a third.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the convolution in the precision that autocast or the weights ask for."""
        if input.device.type != "cpu" or not self._reduced():
            return super().forward(input)
        if input.shape[-3] < self.kernel_size[0] and torch.is_grad_enabled():
            return self._in_float32(input)
        if self._is_slender(input):
            return self._with_z_along_rows(input)
        return super().forward(input)

    def _reduced(self) -> bool:
        if torch.is_autocast_enabled("cpu"):
            return torch.get_autocast_dtype("cpu") is torch.bfloat16
        return self.weight.dtype is torch.bfloat16

    def _is_slender(self, input: Tensor) -> bool:
        if self.padding_mode != "zeros" or isinstance(self.padding, str):
            return False  # not worth turning
        depth, _, width = input.shape[-3:]
        return self.kernel_size[2] <= width <= SHORT_ROW and depth >= 2 * width

    def _in_float32(self, input: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            bias = None if self.bias is None else self.bias.float()
            out: Tensor = self._conv_forward(input.float(), self.weight.float(), bias)
        return out.bfloat16()

    def _with_z_along_rows(self, input: Tensor) -> Tensor:
        assert not isinstance(self.padding, str)
        last = torch.channels_last_3d
        out = F.conv3d(
            input.transpose(-1, -3).contiguous(memory_format=last),
            self.weight.bfloat16().transpose(-1, -3).contiguous(memory_format=last),
            self.bias,
            self.stride[::-1],
            self.padding[::-1],
            self.dilation[::-1],
            self.groups,
        )
        return out.transpose(-1, -3).contiguous(memory_format=last)


def mend_cpu_convolutions(network: nn.Module) -> int:
    """Make every plain Conv3d of a network a CPUConv3d, in place; return how many there are.

    Parameters, their names and the results stay; only bf16 on the CPU computes another way.
    """
    plain = [module for module in network.modules() if type(module) is nn.Conv3d]
    for module in plain:
        module.__class__ = CPUConv3d
    return len(plain)
