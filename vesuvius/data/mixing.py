"""Mixing of two crops of a batch. Unlike all else, the result depends on who shares a batch."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vesuvius.data.intensity import check_share, random_boxes
from vesuvius.errors import ConfigError


class MixCrops:
    """Takes a box from the next crop of the batch (CutMix) or adds a faint copy of it (MixUp).

    CutMix moves image and label; the seam runs through a rim that is ignored. MixUp keeps the
    label of the stronger crop: the other is texture to be told apart, like a sheet shining through.

    Args:
        cutmix_share: share of the crops that get a box of another.
        size: edge of the box relative to the patch, in (0, 1).
        mixup_share: share of the crops that get a faint copy of another.
        strength: greatest weight of the copy, in [0, 0.5).
        ignored_rim: thickness of the rim inside the box's faces that is ignored, voxels.

    Raises:
        ConfigError: a number out of range.

    Source: Yun et al. 2019 (CutMix), Zhang et al. 2018 (MixUp), for dense labels: own.
    """

    def __init__(
        self,
        *,
        cutmix_share: float = 0.2,
        size: float = 0.5,
        mixup_share: float = 0.0,
        strength: float = 0.3,
        ignored_rim: int = 2,
    ) -> None:
        self.cutmix_share = check_share("mix cutmix_share", cutmix_share)
        self.mixup_share = check_share("mix mixup_share", mixup_share)
        if not 0 < size < 1 or not 0 <= strength < 0.5 or ignored_rim < 0:
            raise ConfigError(
                f"transforms mix: size={size} must lie in (0, 1), strength={strength} in [0, 0.5), "
                f"ignored_rim={ignored_rim} be >= 0."
            )
        self.size, self.strength, self.ignored_rim = size, strength, ignored_rim

    def __call__(
        self, batch: Mapping[str, Any], rngs: Sequence[np.random.Generator], *, ignore: int
    ) -> dict[str, Any]:
        """Return the mixed batch; every crop takes from the unmixed one that follows it."""
        changed = dict(batch)
        if len(rngs) < 2:
            return changed
        dense = [n for n in ("image", "label", "wrap") if n in batch]
        changed |= {name: batch[name].clone() for name in dense}
        for n, rng in enumerate(rngs):
            other = (n + 1) % len(rngs)
            if rng.random() < self.mixup_share:
                weight = float(rng.uniform(0, self.strength))
                changed["image"][n].lerp_(batch["image"][other], weight)
            if rng.random() < self.cutmix_share:
                box = random_boxes(batch["image"].shape[2:], 1, self.size, rng)[0]
                for name in dense:
                    changed[name][(n, slice(None), *box)] = batch[name][(other, slice(None), *box)]
                self._ignore_rim(changed["label"][n], box, ignore)
        return changed

    def _ignore_rim(self, label: Tensor, box: tuple[slice, ...], ignore: int) -> None:
        """Set the outermost layers of the box to `ignore`, but not where the box ends the patch."""
        inside = label[(slice(None), *box)]
        kept = torch.zeros(inside.shape, dtype=torch.bool, device=label.device)
        core = []
        for part, size in zip(box, label.shape[1:], strict=True):
            low = 0 if part.start == 0 else self.ignored_rim
            high = 0 if part.stop == size else self.ignored_rim
            core.append(slice(low, part.stop - part.start - high))
        kept[(slice(None), *core)] = True
        inside.masked_fill_(~kept, ignore)
