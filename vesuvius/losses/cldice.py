"""Soft centre-line Dice: overlap of each mask's skeleton with the other mask."""

import weakref
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vesuvius.errors import ConfigError, ShapeMismatchError
from vesuvius.losses.composite import LossTerm
from vesuvius.losses.soft_skeleton import soft_skeleton


def surface_probability(logits: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b 1 z y x"]:
    """Return the probability of surface from 1 logit (sigmoid) or 2 (softmax, channel 1).

    Raises:
        ShapeMismatchError: neither 1 nor 2 channels.
    """
    if logits.dim() != 5 or logits.shape[1] not in (1, 2):
        raise ShapeMismatchError(
            f"surface logits have shape {tuple(logits.shape)}; expected (b, 1, z, y, x), or "
            "(b, 2, z, y, x) with background and surface."
        )
    return torch.sigmoid(logits if logits.shape[1] == 1 else logits[:, 1:] - logits[:, :1])


def soft_cldice_loss(
    probability: Float[Tensor, "b 1 z y x"],
    surface: Float[Tensor, "b 1 z y x"],
    *,
    iterations: int,
    ignored: Bool[Tensor, "b 1 z y x"] | None = None,
    surface_skeleton: Float[Tensor, "b 1 z y x"] | None = None,
    smooth: float = 1.0,
    tolerance: float = 0.0,
) -> Float[Tensor, " b"]:
    """Return 1 - 2 P S / (P + S) per sample, in [0, 1].

    P = (sum skeleton(p) t + s) / (sum skeleton(p) + s), how much of the predicted skeleton lies in
    the label; S = (sum skeleton(t) p + s) / (sum skeleton(t) + s), how much of the label's skeleton
    is found.

    Args:
        probability: p in [0, 1].
        surface: t in {0, 1}.
        iterations: erosions of the soft skeleton.
        ignored: voxels that take no part: they count as outside the volume.
        surface_skeleton: skeleton of `surface`, if it is known already.
        smooth: s.
        tolerance: see `soft_skeleton`.

    Source: Shit et al., clDice, CVPR 2021, equations 1 and 2, algorithm 2; there over the whole
    batch at once, here per sample, so that R processes of one sample equal one of R samples.
    """
    if surface_skeleton is None:
        surface_skeleton = soft_skeleton(
            surface, iterations=iterations, ignored=ignored, tolerance=tolerance
        )
    skeleton = soft_skeleton(
        probability, iterations=iterations, ignored=ignored, tolerance=tolerance
    )
    skeleton, target = skeleton.flatten(1), surface_skeleton.flatten(1)
    # skeletons are 0 where ignored: nothing else needs the mask
    inside = (skeleton * surface.flatten(1)).sum(1) + smooth
    found = (target * probability.flatten(1)).sum(1) + smooth
    precision = inside / (skeleton.sum(1) + smooth)
    recall = found / (target.sum(1) + smooth)
    return 1 - 2 * precision * recall / (precision + recall)


class CenterlineDiceLoss(LossTerm):
    """Soft clDice of `surface_logit`, mean over samples; ignored voxels take no part.

    Add it to Dice and cross-entropy, it does not replace them: it says nothing about thickness.

    Args:
        iterations: erosions of the soft skeleton. Half the thickest sheet in voxels is enough.
        smooth: added to numerators and denominators; also makes a crop without surface count.
        tolerance: further erosions are left out once they can change the skeleton's sum by no
            more than this share; with 0 only once nothing is left, which is soon for labels.

    The label's skeleton is kept as long as the same label tensor comes again: several outputs of
    one step, repeated batches.
    """

    def __init__(
        self, *, iterations: int = 10, smooth: float = 1.0, tolerance: float = 0.0
    ) -> None:
        super().__init__()
        if iterations < 1:
            raise ConfigError(f"CenterlineDiceLoss iterations={iterations}; expected >= 1.")
        if smooth <= 0:
            raise ConfigError(f"CenterlineDiceLoss smooth={smooth}; expected > 0.")
        if not 0 <= tolerance < 1:
            raise ConfigError(f"CenterlineDiceLoss tolerance={tolerance}; expected in [0, 1).")
        self.iterations = iterations
        self.smooth = smooth
        self.tolerance = tolerance
        self._known: tuple[weakref.ref[Tensor], int, Tensor] | None = None

    def label_skeleton(self, targets: Mapping[str, Tensor], ignored: Tensor | None) -> Tensor:
        """Return the skeleton of `targets["surface"]`, computed once for each label tensor."""
        label = targets["label"]
        if self._known is not None:
            reference, version, skeleton = self._known
            if reference() is label and version == label._version:
                return skeleton
        skeleton = soft_skeleton(
            targets["surface"],
            iterations=self.iterations,
            ignored=ignored,
            tolerance=self.tolerance,
        )
        self._known = (weakref.ref(label), label._version, skeleton)
        return skeleton

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """Return the mean loss in [0, 1] of `surface_logit` (1 or 2 channels)."""
        ignored = targets["valid"] == 0
        mask = ignored if bool(ignored.any()) else None
        loss = soft_cldice_loss(
            surface_probability(outputs["surface_logit"]),
            targets["surface"],
            iterations=self.iterations,
            ignored=mask,
            surface_skeleton=self.label_skeleton(targets, mask),
            smooth=self.smooth,
            tolerance=self.tolerance,
        )
        return loss.mean()
