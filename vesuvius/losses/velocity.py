"""Smoothness of a velocity field that may point either way."""

from collections.abc import Mapping

import torch
from torch import Tensor

from vesuvius.errors import ConfigError
from vesuvius.losses.composite import LossTerm

_PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))


class VelocitySmoothnessLoss(LossTerm):
    """Mean squared change, from voxel to voxel, of v v^T / |v|.

    v and -v cost nothing side by side: to thicken a sheet the field points away from its middle on
    both sides, and a penalty on the change of v itself would forbid just that. What is penalised
    is a change of the field's line or of its speed. Where the field turns its sign its speed
    should pass 0; `speed` weighs the squared speed, so that it does not move without reason.

    Args:
        speed: weight of the mean squared speed (voxels^2) besides.

    Raises:
        ConfigError: a negative weight.

    Source: own, after the sign-free structure tensor.
    """

    heads = ("velocity",)

    def __init__(self, *, speed: float = 0.01) -> None:
        super().__init__()
        if speed < 0:
            raise ConfigError(f"loss.term velocity: speed={speed}; expected >= 0.")
        self.speed = speed

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """Return the scalar loss in voxels^2 of `velocity` (b, 3, z, y, x)."""
        del targets
        velocity = outputs["velocity"]
        square = velocity.square().sum(1, keepdim=True)
        length = torch.sqrt(square + 1e-6)
        parts = [velocity[:, i] * velocity[:, j] for i, j in _PAIRS]
        weights = velocity.new_tensor([1.0 if i == j else 2.0 for i, j in _PAIRS])
        tensor = torch.stack(parts, 1) / length
        change = velocity.new_zeros(())
        for axis in (2, 3, 4):
            squared = tensor.diff(dim=axis).square().flatten(2).mean(-1)
            change = change + (squared * weights).sum(1).mean()
        return change + self.speed * square.mean()
