"""torchmetrics classes of the heart's scores; states are sums over hearts."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from vesuvius.errors import ConfigError, ShapeMismatchError
from vesuvius.metrics.heart.labels import (
    background_accuracy,
    class_overlap,
    inside_overlap,
    inside_recall,
    predicted_label,
)


class _MeanOverHearts(Metric):
    """Means of named scores over hearts, each over the hearts where it is not NaN."""

    full_state_update = False

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        zeros = torch.zeros(len(self.names), dtype=torch.float64)
        self.add_state("total", default=zeros, dist_reduce_fx="sum")
        self.add_state("count", default=zeros.clone(), dist_reduce_fx="sum")
        self.total: Tensor
        self.count: Tensor

    def add(self, scores: Mapping[str, Tensor]) -> None:
        """Add (b,) values of every name."""
        rows = torch.stack([scores[name].double() for name in self.names]).to(self.total.device)
        known = ~rows.isnan()
        self.total += torch.where(known, rows, 0.0).sum(1)
        self.count += known.sum(1)

    def compute(self) -> dict[str, Tensor]:
        """Return name -> mean; NaN where no heart had a value."""
        return dict(zip(self.names, (self.total / self.count).float(), strict=True))


class HeartPointMetric(_MeanOverHearts):
    """Scores at the query points: of the shape, of the classes.

    `vol_iou`, `near_iou`, `vol_dice`, `near_dice`: inside (sdf < 0) against the true inside, per
    heart, then mean; `iou`, `dice`: means of vol and near. `acc`: argmax over [0, logits] is the
    label. `class_iou`, `class_dice`: means over the classes there are; `iou_class_<c>`,
    `dice_class_<c>`, `inside_recall_class_<c>` with `per_class`.

    Args:
        num_classes: K.
        per_class: also return the scores of every class.

    Raises:
        ConfigError: num_classes below 1.
    """

    def __init__(self, *, num_classes: int = 10, per_class: bool = True) -> None:
        _check_classes(num_classes)
        parts = [f"{p}_{s}" for s in ("iou", "dice") for p in ("vol", "near")]
        each = ("iou_class", "dice_class", "inside_recall_class") if per_class else ()
        classes = [f"{name}_{c}" for name in each for c in range(1, num_classes + 1)]
        super().__init__([*parts, "iou", "dice", "acc", "class_iou", "class_dice", *classes])
        self.num_classes = num_classes
        self.per_class = per_class

    def update(self, sdf: Tensor, class_logits: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            sdf: (b, Q) predicted signed distance at the queries [volume | near], where two thirds
                are volume points.
            class_logits: (b, Q, C >= K); in per-class models minus the distance to each class.
            target: (b, Q, 2) signed distance and label.

        Raises:
            ShapeMismatchError: shapes that do not belong together.
        """
        if sdf.shape != target.shape[:2] or class_logits.shape[:2] != sdf.shape:
            raise ShapeMismatchError(
                f"HeartPointMetric: sdf {tuple(sdf.shape)}, class_logits "
                f"{tuple(class_logits.shape)}, target {tuple(target.shape)}; expected (b, Q), "
                "(b, Q, C), (b, Q, 2)"
            )
        logits = class_logits[..., : self.num_classes]
        true_label = target[..., 1].long()
        num_volume = sdf.shape[1] * 2 // 3
        scores: dict[str, Tensor] = {}
        for part, where in (("vol", slice(None, num_volume)), ("near", slice(num_volume, None))):
            found = inside_overlap(sdf[:, where] < 0, target[:, where, 0] < 0)
            scores |= {f"{part}_iou": found.iou, f"{part}_dice": found.dice}
        for name in ("iou", "dice"):
            scores[name] = (scores[f"vol_{name}"] + scores[f"near_{name}"]) / 2
        scores["acc"] = background_accuracy(logits, true_label)
        classes = class_overlap(predicted_label(sdf, logits), true_label, self.num_classes)
        scores |= {"class_iou": classes.iou.nanmean(1), "class_dice": classes.dice.nanmean(1)}
        if self.per_class:
            recall = inside_recall(sdf, true_label, self.num_classes)
            scores |= _columns("iou_class", classes.iou)
            scores |= _columns("dice_class", classes.dice)
            scores |= _columns("inside_recall_class", recall)
        self.add(scores)


class HeartDenseMetric(_MeanOverHearts):
    """Scores of whole label maps: `union_iou`, `union_dice`, `class_iou`, `class_dice`.

    Point scores hid the failure of the original (point IoU 0.70 at a 3-D IoU of 0.10): these are
    the ones to report. With `per_class` also `iou_class_<c>` and `dice_class_<c>`.

    Args:
        num_classes: K.
        per_class: also return the scores of every class.

    Raises:
        ConfigError: num_classes below 1.
    """

    def __init__(self, *, num_classes: int = 10, per_class: bool = True) -> None:
        _check_classes(num_classes)
        each = ("iou_class", "dice_class") if per_class else ()
        classes = [f"{name}_{c}" for name in each for c in range(1, num_classes + 1)]
        super().__init__(["union_iou", "union_dice", "class_iou", "class_dice", *classes])
        self.num_classes = num_classes
        self.per_class = per_class

    def update(self, labels: Tensor, true_labels: Tensor) -> None:
        """Add label maps 0..K, (b, x, y, z) or one (x, y, z).

        Raises:
            ShapeMismatchError: the shapes differ.
        """
        if labels.dim() == 3:
            labels, true_labels = labels[None], true_labels[None]
        union = inside_overlap(labels > 0, true_labels > 0)
        classes = class_overlap(labels, true_labels, self.num_classes)
        scores = {
            "union_iou": union.iou,
            "union_dice": union.dice,
            "class_iou": classes.iou.nanmean(1),
            "class_dice": classes.dice.nanmean(1),
        }
        if self.per_class:
            scores |= _columns("iou_class", classes.iou) | _columns("dice_class", classes.dice)
        self.add(scores)


def _columns(name: str, table: Tensor) -> dict[str, Tensor]:
    return {f"{name}_{c}": table[:, c - 1] for c in range(1, table.shape[1] + 1)}


def _check_classes(num_classes: int) -> None:
    if num_classes < 1:
        raise ConfigError(f"num_classes is {num_classes}; expected 1 or more")
