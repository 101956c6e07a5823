"""Cosine loss on sheet normals, computed at surface voxels only."""

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int
from torch import Tensor

from vesuvius.errors import ConfigError
from vesuvius.layout import is_channels_last
from vesuvius.losses.composite import LossTerm
from vesuvius.structure_tensor import BLOCK, mask_gradient, principal_axis, structure_tensor

NormalTarget = Literal["structure_tensor", "mask_gradient"]
_EPS = 1e-6


def gather_voxels(
    field: Float[Tensor, "b c z y x"], where: Int[Tensor, "n 4"]
) -> Float[Tensor, "n c"]:
    """Return the channel vectors of `field` at (b, z, y, x) rows of `where`."""
    b, z, y, x = where.unbind(1)
    if not is_channels_last(field):
        return field[b, :, z, y, x]
    _, c, depth, height, width = field.shape  # rows of a matrix: a third of the time
    row = ((b * depth + z) * height + y) * width + x
    return field.movedim(1, -1).reshape(-1, c).index_select(0, row)


def structure_tensor_normals(
    surface: Float[Tensor, "b 1 z y x"],
    valid: Float[Tensor, "b 1 z y x"],
    where: Int[Tensor, "n 4"],
    *,
    window_blocks: int,
) -> Float[Tensor, "n 3"]:
    """Return sign-free unit normals at `where`, 0 where they are undefined."""
    blocks = structure_tensor(surface, valid, window_blocks=window_blocks)
    b, z, y, x = (where // where.new_tensor([1, BLOCK, BLOCK, BLOCK])).unbind(1)
    # a sheet has about three voxels in a block, which share its axis
    occupied = where.new_zeros(len(blocks), *blocks.shape[2:], dtype=torch.bool)
    occupied[b, z, y, x] = True
    axes = principal_axis(gather_voxels(blocks, occupied.nonzero()).T)
    number = occupied.flatten().cumsum(0).view_as(occupied) - 1
    return axes[number[b, z, y, x]]


class NormalLoss(LossTerm):
    """1 - mean cos between predicted and target normals over surface voxels with a target.

    The mean is taken per sample, then over samples (0 for one without a target), so that R
    processes with one sample each equal one process with R samples.

    Args:
        target: 'structure_tensor' (sign-free, 1 - |cos|; default) or 'mask_gradient' (signed,
            1 - cos, the original's formula: vanishes in the middle of a sheet, see docs/recipe.md).
        window_blocks: side of the structure tensor's average in blocks of 2 voxels, odd.
        max_voxels: at most so many surface voxels, evenly strided, bound the cost of dense crops.

    Targets come from the label alone. 0 with a gradient path where no voxel has a target.
    """

    heads = ("normals",)

    def __init__(
        self,
        *,
        target: NormalTarget = "structure_tensor",
        window_blocks: int = 3,
        max_voxels: int = 100_000,
    ) -> None:
        super().__init__()
        if target not in ("structure_tensor", "mask_gradient"):
            raise ConfigError(
                f"NormalLoss target={target!r}; expected 'structure_tensor' or 'mask_gradient'."
            )
        if window_blocks < 1 or window_blocks % 2 == 0:
            raise ConfigError(
                f"NormalLoss window_blocks={window_blocks}; expected an odd number >= 1."
            )
        self.target = target
        self.window_blocks = window_blocks
        self.max_voxels = max_voxels

    @torch.no_grad()
    def target_normals(
        self, surface: Float[Tensor, "b 1 z y x"], valid: Float[Tensor, "b 1 z y x"]
    ) -> tuple[Int[Tensor, "n 4"], Float[Tensor, "n 3"]]:
        """Return (b, z, y, x) of surface voxels and their unit normals (0 where undefined)."""
        where = surface[:, 0].nonzero()
        where = where[:: max(1, -(-len(where) // self.max_voxels))]
        if self.target == "mask_gradient":
            normals = F.normalize(gather_voxels(mask_gradient(surface, valid), where), dim=1)
        else:
            normals = structure_tensor_normals(
                surface, valid, where, window_blocks=self.window_blocks
            )
        return where, normals

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """Return the scalar loss in [0, 2] (signed) or [0, 1] (sign-free)."""
        predicted = outputs["normals"]
        where, normals = self.target_normals(targets["surface"], targets["valid"])
        known = normals.square().sum(1) > 0.5
        if not bool(known.any()):
            return predicted.sum() * 0.0
        where, normals = where[known], normals[known]
        cosine = (F.normalize(gather_voxels(predicted, where), dim=1, eps=_EPS) * normals).sum(1)
        loss = 1 - (cosine if self.target == "mask_gradient" else cosine.abs())
        num_samples = len(predicted)
        sums = loss.new_zeros(num_samples).index_add(0, where[:, 0], loss)
        return (sums / where[:, 0].bincount(minlength=num_samples).clamp(min=1)).mean()
