"""Distances of a batch of masks on the device they lie on, exact up to a bound."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@torch.no_grad()
def truncated_distance(
    mask: Float[Tensor, "b 1 z y x"], max_distance: int
) -> Float[Tensor, "b 1 z y x"]:
    """Return the Euclidean distance to the nearest voxel of `mask` in voxels, at most the bound.

    Squared distances are minima over one axis after the other (Felzenszwalb and Huttenlocher 2012,
    section 2), here over shifts up to `max_distance` (at most 100): exact below the bound.
    """
    # int16 halves the memory traffic, which is all the cost
    squared = torch.where(mask > 0, 0, max_distance**2).to(torch.int16)
    for axis in (2, 3, 4):
        nearest = squared.clone()
        length, largest = squared.shape[axis], int(squared.max())
        for shift in range(1, min(max_distance, length - 1) + 1):
            if shift**2 >= largest:
                break
            farther = squared + shift**2
            for start, other in ((0, shift), (shift, 0)):
                into = nearest.narrow(axis, start, length - shift)
                torch.minimum(into, farther.narrow(axis, other, length - shift), out=into)
        squared = nearest
    return squared.to(mask.dtype).sqrt_()


@torch.no_grad()
def signed_distance(
    surface: Float[Tensor, "b 1 z y x"], valid: Float[Tensor, "b 1 z y x"], max_distance: int
) -> tuple[Float[Tensor, "b 1 z y x"], Bool[Tensor, "b 1 z y x"]]:
    """Return the signed distance to the sheets' faces in voxels and where it is known.

    Negative inside sheets, 0 on the faces between voxels (a surface voxel beside background has
    -0.5), bounded by +-(max_distance - 0.5). It is known at valid voxels that have no ignored
    voxel nearer than what they are measured to: there may be surface among the ignored ones.
    """
    to_surface = truncated_distance(surface, max_distance)
    to_background = truncated_distance(valid - surface, max_distance)
    known = valid > 0
    if not bool(known.all()):
        to_ignored = truncated_distance(1 - valid, max_distance)
        known = known & (torch.maximum(to_surface, to_background) <= to_ignored)
    distance = torch.where(surface > 0, 0.5 - to_background, to_surface - 0.5)
    return distance, known


def mean_where(
    values: Float[Tensor, "b 1 z y x"], where: Bool[Tensor, "b 1 z y x"]
) -> Float[Tensor, ""]:
    """Return the mean over a sample's chosen voxels (0 without any), then over samples."""
    chosen = where.flatten(1)
    return ((values.flatten(1) * chosen).sum(1) / chosen.sum(1).clamp(min=1)).mean()
