"""Overlap of labelled points or voxels: the true IoU and Dice of every class.

A class absent from prediction and truth has no score (NaN) and does not enter any mean. Source:
vecset-heart specification, 1.8; the IoU of the original counted only points whose true label was
the class, and no class mistake could lower it (kept as `inside_recall`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from vesuvius.errors import ShapeMismatchError


def predicted_label(sdf: Tensor, class_logits: Tensor) -> Tensor:
    """Return labels (...,) int64: the most likely class + 1 inside (sdf < 0), else 0.

    Args:
        sdf: (...,) signed distance, inside < 0.
        class_logits: (..., K).
    """
    return torch.where(sdf < 0, class_logits.argmax(-1) + 1, 0)


@dataclass(frozen=True, slots=True)
class Overlap:
    """Intersection over union and Dice; NaN where neither side has the class."""

    iou: Tensor
    dice: Tensor


def inside_overlap(inside: Tensor, true_inside: Tensor) -> Overlap:
    """Return the overlap (b,) of two sets of points or voxels, bool (b, n) each.

    Raises:
        ShapeMismatchError: the shapes differ.
    """
    _check(inside, true_inside)
    both = (inside & true_inside).flatten(1).sum(1).double()
    sizes = inside.flatten(1).sum(1).double() + true_inside.flatten(1).sum(1).double()
    return _overlap(both, sizes)


def class_overlap(label: Tensor, true_label: Tensor, num_classes: int) -> Overlap:
    """Return the overlap (b, K) of classes 1..K, from labels 0..K of any integer dtype.

    Args:
        label: (b, ...) prediction.
        true_label: of the same shape.
        num_classes: K; labels above it (padding channels) count as wrong, never as a class.

    Raises:
        ShapeMismatchError: the shapes differ.
    """
    _check(label, true_label)
    rows = zip(label.flatten(1).long(), true_label.flatten(1).long(), strict=True)
    counts = [_class_counts(a, b, num_classes) for a, b in rows]
    both, sizes = (torch.stack(part) for part in zip(*counts, strict=True))
    return _overlap(both, sizes)


def inside_recall(sdf: Tensor, true_label: Tensor, num_classes: int) -> Tensor:
    """Return (b, K): share of the points of class c that lie inside the predicted heart.

    The original called it `iou_class_c`; it says nothing about classes.
    """
    _check(sdf, true_label)
    truth = true_label.flatten(1).long()
    hit = (sdf.flatten(1) < 0).double()
    total = torch.zeros(len(truth), int(num_classes) + 1, dtype=torch.float64, device=truth.device)
    found = total.clone()
    total.scatter_add_(1, truth, torch.ones_like(hit))
    found.scatter_add_(1, truth, hit)
    return (found / total)[:, 1:]


def background_accuracy(class_logits: Tensor, true_label: Tensor) -> Tensor:
    """Return (b,): share of points whose argmax over [0, logits] is the label (background 0)."""
    zero = torch.zeros_like(class_logits[..., :1])
    chosen = torch.cat([zero, class_logits], -1).argmax(-1)
    return (chosen == true_label.long()).double().flatten(1).mean(1)


def _class_counts(label: Tensor, truth: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    size = max(int(label.max()), int(truth.max()), num_classes) + 1
    table = torch.bincount(label * size + truth, minlength=size * size).reshape(size, size).double()
    own = slice(1, num_classes + 1)
    return table.diagonal()[own], table.sum(0)[own] + table.sum(1)[own]


def _overlap(both: Tensor, sizes: Tensor) -> Overlap:
    return Overlap(both / (sizes - both), 2 * both / sizes)  # 0 / 0 is NaN: nothing to score


def _check(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape or a.dim() < 2:
        raise ShapeMismatchError(
            f"heart metric: prediction {tuple(a.shape)} and truth {tuple(b.shape)}; expected equal "
            "shapes (b, ...)"
        )
