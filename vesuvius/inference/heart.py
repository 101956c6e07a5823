"""Dense labels and class surfaces of one heart from a network that decodes points."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vesuvius.errors import ConfigError

Points = npt.NDArray[np.float32]
Decode = Callable[[Tensor], Mapping[str, Tensor]]
"""(1, n, 3) points in the cube to {"inside" (1, n), below 0 inside, "class_logits" (1, n, K)}."""

BALL_MARGIN = 1.02
"""Nothing of a heart lies outside the unit ball (see the data's normalisation); 2 % to spare."""
_LOGIT_PER_UNIT = 50.0
"""Scale between a logit and a distance in a class field; its zero does not depend on it."""


@dataclass(frozen=True, slots=True)
class HeartPrediction:
    """What a network says at points.

    Attributes:
        labels: (...) uint8, 0 = background, 1..K.
        fields: (K, ...) float32, below 0 exactly where a class is predicted; None if not wanted.
    """

    labels: npt.NDArray[np.uint8]
    fields: npt.NDArray[np.float32] | None


def cube_points(resolution: int) -> Points:
    """Return the centres of resolution^3 cells of [-1, 1]^3 as (r, r, r, 3), x first.

    Raises:
        ConfigError: fewer than two cells an axis.
    """
    if resolution < 2:
        raise ConfigError(f"resolution={resolution}; expected at least 2 cells an axis.")
    axis = (np.arange(resolution, dtype=np.float32) + 0.5) * np.float32(2 / resolution) - 1
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1)


def class_fields(heads: Mapping[str, Tensor]) -> Tensor:
    """Return (..., K) numbers, below 0 for at most one class: the one predicted there.

    A class is predicted where `inside` is below 0 and it is the most likely one. The number is the
    larger of `inside` and by how much another class is more likely.

    Args:
        heads: "inside" (...), "class_logits" (..., K).
    """
    inside, logits = heads["inside"].float().unsqueeze(-1), heads["class_logits"].float()
    if logits.shape[-1] == 1:
        return inside
    best = logits.topk(2, dim=-1)
    first, second = best.values[..., :1], best.values[..., 1:]
    own = torch.arange(logits.shape[-1], device=logits.device) == best.indices[..., :1]
    behind = (torch.where(own, second, first) - logits) / _LOGIT_PER_UNIT
    behind = torch.where(own, behind.clamp(max=-1e-6), behind)  # one of equals wins
    return torch.maximum(inside, behind)


def labels_of(fields: Tensor) -> Tensor:
    """Return (...) labels of class fields (..., K): the class below 0 plus one, else 0."""
    least = fields.min(-1)
    return torch.where(least.values < 0, least.indices + 1, 0)


@torch.inference_mode()
def predict_points(
    decode: Decode,
    points: Points,
    *,
    num_classes: int,
    device: torch.device,
    with_fields: bool = False,
    block: int = 100_000,
) -> HeartPrediction:
    """Return labels at points of the cube; those outside the unit ball are background, undecoded.

    Args:
        decode: the network with its latents.
        points: (..., 3) in the cube.
        num_classes: K.
        device: where the network is.
        with_fields: return the class fields too.
        block: points decoded at a time.
    """
    flat = np.ascontiguousarray(points.reshape(-1, 3), np.float32)
    radius = np.sqrt(np.einsum("ij,ij->i", flat, flat))
    inside = np.flatnonzero(radius <= BALL_MARGIN)
    labels = np.zeros(len(flat), np.uint8)
    fields = None
    if with_fields:
        fields = np.empty((num_classes, len(flat)), np.float32)
        fields[:] = np.maximum(radius - 1, 1e-3)
    for start in range(0, len(inside), block):
        part = inside[start : start + block]
        heads = decode(torch.from_numpy(flat[part]).unsqueeze(0).to(device))
        found = class_fields(heads)[0]
        labels[part] = labels_of(found).to(torch.uint8).cpu().numpy()
        if fields is not None:
            fields[:, part] = found.T.cpu().numpy()
    shape = points.shape[:-1]
    if fields is not None:
        fields = fields.reshape(num_classes, *shape)
    return HeartPrediction(labels.reshape(shape), fields)
