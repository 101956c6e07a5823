"""Binary terms of lesion segmentation: sums run over the whole batch, so empty slices count too.

With p = sigmoid(logit), t in {0, 1} and e the smoothing, after the CoCoSeg project.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from vesuvius.errors import ConfigError
from vesuvius.losses.composite import LossTerm

HEAD = "lesion_logit"


class LesionTerm(LossTerm):
    """A term over `lesion_logit` (b, 1, y, x) and `label` (b, 1, y, x) in {0, 1}."""

    heads = (HEAD,)

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """Return the scalar loss of the batch."""
        return self.loss(outputs[HEAD].float(), targets["label"].float())

    def loss(self, logit: Tensor, target: Tensor) -> Tensor:
        """Return the scalar loss of logits and targets of one shape."""
        raise NotImplementedError


class LesionDice(LesionTerm):
    """1 - (2 sum pt + e) / (sum p + sum t + e).

    Args:
        smooth: e.
    """

    def __init__(self, *, smooth: float = 1e-6) -> None:
        super().__init__()
        self.smooth = _positive("LesionDice smooth", smooth)

    def loss(self, logit: Tensor, target: Tensor) -> Tensor:
        """Return the loss in [0, 1]."""
        p = torch.sigmoid(logit)
        overlap, size = (p * target).sum(), p.sum() + target.sum()
        return 1 - (2 * overlap + self.smooth) / (size + self.smooth)


class LesionIoU(LesionTerm):
    """1 - (sum pt + e) / (sum p + sum t - sum pt + e).

    Args:
        smooth: e.
    """

    def __init__(self, *, smooth: float = 1e-6) -> None:
        super().__init__()
        self.smooth = _positive("LesionIoU smooth", smooth)

    def loss(self, logit: Tensor, target: Tensor) -> Tensor:
        """Return the loss in [0, 1]."""
        p = torch.sigmoid(logit)
        overlap = (p * target).sum()
        return 1 - (overlap + self.smooth) / (p.sum() + target.sum() - overlap + self.smooth)


class LesionTversky(LesionTerm):
    """1 - (TP + e) / (TP + fp_weight FP + fn_weight FN + e), of soft counts.

    Args:
        fp_weight: of false positives; raise it where they are worse.
        fn_weight: of false negatives. 0.5 and 0.5 give Dice.
        smooth: e.

    Source: Salehi et al. 2017.
    """

    def __init__(
        self, *, fp_weight: float = 0.6, fn_weight: float = 0.4, smooth: float = 1e-6
    ) -> None:
        super().__init__()
        if min(fp_weight, fn_weight) < 0 or fp_weight + fn_weight <= 0:
            raise ConfigError(
                f"LesionTversky fp_weight={fp_weight}, fn_weight={fn_weight}; expected both >= 0 "
                "and not both 0."
            )
        self.fp_weight, self.fn_weight = fp_weight, fn_weight
        self.smooth = _positive("LesionTversky smooth", smooth)

    def loss(self, logit: Tensor, target: Tensor) -> Tensor:
        """Return the loss in [0, 1]."""
        p = torch.sigmoid(logit)
        hit = (p * target).sum()
        false_alarm, missed = p.sum() - hit, target.sum() - hit
        size = hit + self.fp_weight * false_alarm + self.fn_weight * missed
        return 1 - (hit + self.smooth) / (size + self.smooth)


class LesionCE(LesionTerm):
    """Binary cross-entropy with logits, mean over all pixels.

    Args:
        pos_weight: weight of lesion pixels; the later CoCoSeg code used 5.
    """

    def __init__(self, *, pos_weight: float = 1.0) -> None:
        super().__init__()
        self.pos_weight = _positive("LesionCE pos_weight", pos_weight)

    def loss(self, logit: Tensor, target: Tensor) -> Tensor:
        """Return the mean cross-entropy."""
        weight = logit.new_tensor(self.pos_weight)
        return F.binary_cross_entropy_with_logits(logit, target, pos_weight=weight)


class LesionFocal(LesionTerm):
    """mean(alpha (1 - p_t)^gamma CE), p_t the probability of the true class.

    Args:
        alpha: factor of all pixels.
        gamma: how much well-classified pixels are discounted; 0 gives cross-entropy.

    Source: Lin et al. 2017.
    """

    def __init__(self, *, alpha: float = 1.0, gamma: float = 2.0) -> None:
        super().__init__()
        self.alpha = _positive("LesionFocal alpha", alpha)
        if gamma < 0:
            raise ConfigError(f"LesionFocal gamma={gamma}; expected >= 0.")
        self.gamma = gamma

    def loss(self, logit: Tensor, target: Tensor) -> Tensor:
        """Return the mean focal loss."""
        ce = F.binary_cross_entropy_with_logits(logit, target, reduction="none")
        wrong = torch.sigmoid(torch.where(target > 0.5, -logit, logit))  # 1 - p_t
        return (self.alpha * wrong**self.gamma * ce).mean()


def _positive(name: str, value: float) -> float:
    if value <= 0:
        raise ConfigError(f"{name}={value}; expected > 0.")
    return value
