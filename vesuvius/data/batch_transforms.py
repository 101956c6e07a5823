"""Named augmentation steps of whole training batches, on the device."""

from collections.abc import Mapping
from typing import Any

import torch

from vesuvius.data.intensity import IntensityStep
from vesuvius.data.mixing import MixCrops
from vesuvius.data.spatial import SpatialTransform
from vesuvius.data.transforms import FULL_SCALE, sample_generators
from vesuvius.types import IGNORE


class BatchTransforms:
    """Moves, mixes, then changes grey values step by step.

    Every crop draws from a generator of its own, seeded by (seed, epoch, volume, origin), so that
    nothing but `mix` depends on the batch a crop is in or on the number of processes.

    Args:
        seed: of everything drawn.
        spatial: turns, zoom, elastic deformation; None = none.
        mix: CutMix and MixUp; None = none.
        intensity: name -> step, in this order; None entries are left out.
    """

    def __init__(
        self,
        *,
        seed: int,
        spatial: SpatialTransform | None = None,
        mix: MixCrops | None = None,
        intensity: Mapping[str, IntensityStep | None] | None = None,
    ) -> None:
        self.seed = seed
        self.spatial = spatial
        self.mix = mix
        self.intensity = [step for step in (intensity or {}).values() if step is not None]

    def __call__(self, batch: Mapping[str, Any], *, epoch: int) -> dict[str, Any]:
        """Return the batch with a float32 image in [0, 1].

        Args:
            batch: `image` (b, c, z, y, x) uint8, uint16 or float in [0, 1], `label` (b, 1, z, y,
                x) uint8, `volume_id`, `origin_zyx`, perhaps `wrap`.
            epoch: of the training.
        """
        changed = dict(batch)
        image = batch["image"]
        changed["image"] = image.to(torch.float32) / FULL_SCALE.get(image.dtype, 1.0)
        rngs = sample_generators(batch, self.seed, epoch)
        if self.spatial is not None:
            changed = self.spatial(changed, rngs)
        if self.mix is not None:
            changed = self.mix(changed, rngs, ignore=IGNORE)
        if self.intensity:
            changed["image"] = torch.stack(
                [self._grey(crop, rng) for crop, rng in zip(changed["image"], rngs, strict=True)]
            )
        return changed

    def _grey(self, crop: torch.Tensor, rng: Any) -> torch.Tensor:
        for step in self.intensity:
            if rng.random() < step.share:
                crop = step(crop, rng)
        return crop
