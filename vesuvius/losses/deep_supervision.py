"""The composite loss at several scales."""

from collections.abc import Callable, Mapping, Sequence

import torch.nn.functional as F  # noqa: N812
from jaxtyping import UInt8
from torch import Tensor

from vesuvius.errors import ConfigError, ShapeMismatchError
from vesuvius.losses.composite import CompositeLoss, WeightedTerm, label_targets
from vesuvius.types import IGNORE, SURFACE

DEEP = "surface_logit_deep"
"""Followed by the level, from 1: what networks call the surface logits of coarser levels."""


def coarse_label(
    label: UInt8[Tensor, "b 1 z y x"], size_zyx: Sequence[int]
) -> UInt8[Tensor, "b 1 cz cy cx"]:
    """Return the label on a coarser grid: surface if any voxel of a cell is, else ignored if any.

    Nearest neighbours would lose sheets of 1 to 3 voxels.

    Raises:
        ShapeMismatchError: the cells do not tile the label.
    """
    if any(fine % coarse for fine, coarse in zip(label.shape[2:], size_zyx, strict=True)):
        raise ShapeMismatchError(
            f"a deep output of {tuple(size_zyx)} does not divide the label {tuple(label.shape)}; "
            "choose a data.patch_zyx that the network's strides divide."
        )
    cell = [fine // coarse for fine, coarse in zip(label.shape[2:], size_zyx, strict=True)]
    # 0 background < 1 ignored < 2 surface: a maximum decides
    rank = (label == IGNORE).float() + 2 * (label == SURFACE).float()
    rank = F.max_pool3d(rank, cell)
    coarse = (rank == 2) * SURFACE + (rank == 1) * IGNORE
    return coarse.to(label.dtype)


class DeepSupervisionLoss(CompositeLoss):
    """Composite loss of the finest outputs plus that of the deep surface logits.

    total = sum of level weight * composite total, over the sum of the weights of the levels that
    are there (in validation the finest alone). At coarser levels the terms that need nothing but
    `surface_logit` count, with their own weights. The terms reported are those of the finest.

    Args:
        term, labels: see CompositeLoss.
        level_weights: of the levels, finest first; as many coarser ones as
            model.deep_supervision.

    Raises:
        ConfigError: no coarser level, or a weight that is not positive.

    Source: Lee et al., Deeply-supervised nets, AISTATS 2015; weights halved from level to level as
    in Isensee et al. 2021 (nnU-Net).
    """

    def __init__(
        self,
        *,
        term: Mapping[str, WeightedTerm],
        level_weights: Sequence[float],
        labels: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(term=term, labels=labels)
        if len(level_weights) < 2 or min(level_weights) <= 0:
            raise ConfigError(
                f"loss.level_weights={list(level_weights)}; expected two or more positive weights, "
                "finest level first, for example [1, 0.5, 0.25]."
            )
        self.level_weights = [float(weight) for weight in level_weights]
        self.coarse_terms = [
            name
            for name, fn in self.terms.items()
            if getattr(fn, "heads", ()) == ("surface_logit",)
        ]
        if not self.coarse_terms:
            raise ConfigError(
                f"No term of loss.term ({sorted(self.terms)}) works on surface_logit alone, which "
                "deep supervision needs; add dice or bce, or use loss=surface."
            )

    def check_heads(self, heads: tuple[str, ...]) -> None:
        """Raise ConfigError unless network heads, loss terms and levels match."""
        super().check_heads(tuple(head for head in heads if not head.startswith(DEEP)))
        found = sum(head.startswith(DEEP) for head in heads)
        wanted = len(self.level_weights) - 1
        if found != wanted:
            raise ConfigError(
                f"loss.level_weights names {wanted} coarser levels, the network supervises "
                f"{found}; set model.deep_supervision={wanted} or shorten loss.level_weights."
            )

    def forward(
        self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return {"total", "<term>": unweighted at the finest level}."""
        finest = {name: out for name, out in outputs.items() if not name.startswith(DEEP)}
        label = batch["label"] if self.labels is None else self.labels(batch["label"])
        losses = self.sum_terms(finest, {**batch, "label": label})
        total, sum_of_weights = self.level_weights[0] * losses["total"], self.level_weights[0]
        for level, weight in enumerate(self.level_weights[1:], start=1):
            logit = outputs.get(f"{DEEP}{level}")
            if logit is None:
                continue
            targets = label_targets({"label": coarse_label(label, logit.shape[2:])})
            for name in self.coarse_terms:
                loss = self.terms[name]({"surface_logit": logit.float()}, targets)
                total = total + weight * self.weights[name] * loss
            sum_of_weights += weight
        return {**losses, "total": total / sum_of_weights}
