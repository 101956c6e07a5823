"""Convolutions whose bf16 weight gradient is right on the CPU."""

import torch
from torch import Tensor, nn


class ShallowSafeConv3d(nn.Conv3d):
    """Conv3d that computes in float32 where the CPU's bf16 weight gradient is wrong.

    oneDNN (torch 2.13, CPUs with AMX) returns garbage or NaN for the weight gradient of a bf16
    conv3d whose input is shallower than its kernel along z: 2 voxels under a 3^3 kernel, up to 4
    under 5^3, up to 6 under 7^3. Networks of stride 32 meet that at crops of 64^3. Such maps are
    tiny, so float32 costs nothing there.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the convolution in the precision that autocast or the weights ask for."""
        reduced = torch.is_autocast_enabled("cpu") or self.weight.dtype is torch.bfloat16
        if (
            input.device.type != "cpu"
            or not reduced
            or not torch.is_grad_enabled()
            or input.shape[-3] >= self.kernel_size[0]
        ):
            return super().forward(input)
        dtype = torch.get_autocast_dtype("cpu") if self.weight.dtype is torch.float32 else None
        with torch.autocast("cpu", enabled=False):
            bias = None if self.bias is None else self.bias.float()
            out: Tensor = self._conv_forward(input.float(), self.weight.float(), bias)
        return out.to(dtype or self.weight.dtype)


def guard_shallow_convolutions(network: nn.Module) -> int:
    """Make every plain Conv3d of a network safe, in place; return how many there are.

    Parameters, their names and the results stay; only training in bf16 on the CPU computes another
    way.
    """
    plain = [module for module in network.modules() if type(module) is nn.Conv3d]
    for module in plain:
        module.__class__ = ShallowSafeConv3d
    return len(plain)
