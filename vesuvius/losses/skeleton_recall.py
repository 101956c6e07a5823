"""Skeleton recall: the label's thickened skeleton, taken slice by slice, has to be found."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from vesuvius.errors import ConfigError
from vesuvius.losses.cldice import surface_probability
from vesuvius.losses.composite import LossTerm
from vesuvius.losses.soft_skeleton import dilate


@torch.no_grad()
def slice_skeleton(
    surface: Float[Tensor, "b 1 z y x"], *, axes: Sequence[int], widen: int
) -> Float[Tensor, "b 1 z y x"]:
    """Return the skeletons of all slices across `axes`, joined and thickened within the mask.

    A 3-D thinning would leave curves of a sheet; the skeleton of its cuts is its middle line.
    The thinning is scikit-image's (Zhang and Suen 1984), on the host.
    """
    masks = (surface[:, 0] > 0).cpu().numpy()
    skeleton = np.zeros_like(masks)
    for mask, into in zip(masks, skeleton, strict=True):
        for axis in axes:
            _join_slices(np.moveaxis(mask, axis, 0), np.moveaxis(into, axis, 0))
    found = torch.from_numpy(skeleton)[:, None].to(surface)
    for _ in range(widen):
        found = dilate(found)
    return found * surface


def _join_slices(mask: npt.NDArray[np.bool_], into: npt.NDArray[np.bool_]) -> None:
    from skimage.morphology import skeletonize

    for index in np.flatnonzero(mask.any(axis=(1, 2))):
        into[index] |= skeletonize(mask[index])


class SkeletonRecallLoss(LossTerm):
    """1 - (sum p k + s) / (sum k + s) per sample, mean over samples; k the thickened skeleton.

    Like MedialRecallLoss it looks at the label's middle only and belongs beside Dice or
    cross-entropy. That one is computed on the device; this one thins on the host.

    Args:
        axes: slices across these axes (0 = z, 1 = y, 2 = x) are thinned. A sheet that lies flat
            in a slice has only a few lines there, so all three by default.
        widen: layers of 3^3 dilation about the skeleton, within the label (the paper: 2).
        smooth: s; a crop without surface costs nothing.

    Source: Kirchhoff et al., Skeleton Recall Loss, ECCV 2024, equation 2 and algorithm 1, with
    slices instead of a 3-D thinning.
    """

    def __init__(
        self, *, axes: Sequence[int] = (0, 1, 2), widen: int = 1, smooth: float = 1.0
    ) -> None:
        super().__init__()
        if not axes or any(axis not in (0, 1, 2) for axis in axes):
            raise ConfigError(
                f"SkeletonRecallLoss axes={list(axes)}; expected some of 0 (z), 1 (y), 2 (x)."
            )
        if widen < 0 or smooth <= 0:
            raise ConfigError(
                f"SkeletonRecallLoss widen={widen} must be >= 0, smooth={smooth} > 0."
            )
        self.axes = tuple(axes)
        self.widen = widen
        self.smooth = smooth

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """Return the mean loss in [0, 1] of `surface_logit` (1 or 2 channels)."""
        skeleton = slice_skeleton(targets["surface"], axes=self.axes, widen=self.widen).flatten(1)
        probability = surface_probability(outputs["surface_logit"]).flatten(1)
        found = (probability * skeleton).sum(1) + self.smooth
        return (1 - found / (skeleton.sum(1) + self.smooth)).mean()
