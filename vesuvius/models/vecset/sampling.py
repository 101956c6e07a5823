"""Choice of the input points that become latent queries."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vesuvius.errors import ConfigError

Sampling = Literal["farthest", "random"]


@torch.no_grad()
def choose_points(
    xyz: Float[Tensor, "b n 3"], count: int, *, sampling: Sampling = "farthest"
) -> Int[Tensor, "b count"]:
    """Return indices of `count` points of each sample, in [0, n).

    Args:
        xyz: coordinates.
        count: how many, at most n.
        sampling: "farthest" starts at one point and adds the point farthest from those chosen:
            fpsample's k-d tree on the CPU (first point decided by its tree), elsewhere a loop over
            the batch from point 0; "random" takes any, the same for every sample of the batch.

    Source: Eldar et al. 1997 (farthest point strategy).

    Raises:
        ConfigError: more points wanted than there are, or an unknown sampling.
    """
    batch, num_points = xyz.shape[:2]
    if not 1 <= count <= num_points:
        raise ConfigError(
            f"{count} query points out of a cloud of {num_points}: lower model.num_latents or "
            "raise data.point_cloud_size."
        )
    if sampling == "random":
        chosen = torch.randperm(num_points, device=xyz.device)[:count]
        return chosen.expand(batch, -1)
    if sampling != "farthest":
        raise ConfigError(f"model.query_sampling={sampling!r}; expected farthest or random.")
    if xyz.device.type == "cpu":
        return _farthest_kdtree(xyz, count)
    return farthest_loop(xyz, count)


def _farthest_kdtree(xyz: Tensor, count: int) -> Tensor:
    import fpsample  # only for point queries

    height = max(1, min(7, int(xyz.shape[1]).bit_length() - 6))
    rows = [
        fpsample.bucket_fps_kdline_sampling(cloud, count, h=height, start_idx=0).astype("int64")
        for cloud in xyz.float().contiguous().numpy()
    ]
    return torch.stack([torch.from_numpy(row) for row in rows])


def farthest_loop(xyz: Float[Tensor, "b n 3"], count: int) -> Int[Tensor, "b count"]:
    """Return the farthest point sample of all clouds at once, in `count` steps on their device."""
    xyz = xyz.float()
    rows = torch.arange(len(xyz), device=xyz.device)
    last = torch.zeros(len(xyz), dtype=torch.long, device=xyz.device)
    nearest = torch.full(xyz.shape[:2], torch.inf, device=xyz.device)
    chosen = [last]
    for _ in range(count - 1):
        distance = (xyz - xyz[rows, last].unsqueeze(1)).square().sum(-1)
        nearest = torch.minimum(nearest, distance)
        last = nearest.argmax(1)
        chosen.append(last)
    return torch.stack(chosen, 1)
