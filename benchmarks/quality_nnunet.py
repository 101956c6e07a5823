"""Batches of nnU-Net's default trainer, from the transforms of batchgeneratorsv2.

Needs batchgenerators, batchgeneratorsv2, dynamic-network-architectures and pandas, installed with
`--no-deps` (their torchvision does not go with the CPU build of torch).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.quality_data import Truth


def nnunet_transforms(patch: tuple[int, int, int]) -> Any:
    """Return the default trainer's augmentation: the same transforms, ranges and shares."""
    from batchgeneratorsv2.helpers.scalar_type import RandomScalar  # noqa: F401 - fails early
    from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
    from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
    from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
    from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
    from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
    from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
    from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
    from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
    from batchgeneratorsv2.transforms.utils.random import RandomTransform

    angle = (-np.pi / 6, np.pi / 6)
    one = {"synchronize_channels": False, "p_per_channel": 1}
    gamma = {**one, "gamma": BGContrast((0.7, 1.5)), "p_retain_stats": 1}
    parts = [
        SpatialTransform(
            patch, patch_center_dist_from_border=0, random_crop=False, p_elastic_deform=0,
            p_rotation=0.2, rotation=angle, p_scaling=0.2, scaling=(0.7, 1.4),
            p_synchronize_scaling_across_axes=1, bg_style_seg_sampling=False,
            border_mode_seg="constant", padding_value_seg=2,
        ),
        RandomTransform(
            GaussianNoiseTransform((0, 0.1), p_per_channel=1, synchronize_channels=True), 0.1),
        RandomTransform(
            GaussianBlurTransform((0.5, 1.0), synchronize_channels=False, synchronize_axes=False,
                                  p_per_channel=0.5), 0.2),
        RandomTransform(
            MultiplicativeBrightnessTransform(multiplier_range=BGContrast((0.75, 1.25)), **one),
            0.15),
        RandomTransform(
            ContrastTransform(contrast_range=BGContrast((0.75, 1.25)), preserve_range=True, **one),
            0.15),
        RandomTransform(
            SimulateLowResolutionTransform((0.5, 1), synchronize_channels=False,
                                           synchronize_axes=True, ignore_axes=None,
                                           allowed_channels=None, p_per_channel=0.5), 0.25),
        RandomTransform(GammaTransform(p_invert_image=1, **gamma), 0.1),
        RandomTransform(GammaTransform(p_invert_image=0, **gamma), 0.3),
        MirrorTransform((0, 1, 2)),
    ]  # fmt: skip
    return ComposeTransforms(parts)


def nnunet_batches(
    volumes: Sequence[Truth],
    seed: int,
    *,
    patch: tuple[int, int, int],
    batch_size: int,
    normalise: Callable[[Tensor], Tensor],
) -> Iterator[dict[str, Tensor]]:
    """Yield batches as nnU-Net draws them: a third of the crops centred on surface.

    The crop that is rotated and scaled is larger than the patch, as in nnU-Net.
    """
    rng = np.random.default_rng(seed)
    np.random.seed(seed)  # noqa: NPY002 - batchgeneratorsv2 draws from it
    torch.manual_seed(seed)
    transforms = nnunet_transforms(patch)
    large = np.array([min(int(1.5 * p), n) for p, n in zip(patch, volumes[0].image.shape,
                                                            strict=True)])  # fmt: skip
    cached = [(normalise(torch.from_numpy(v.image)[None].float()), torch.from_numpy(v.label)[None],
               np.argwhere(v.label == 1)) for v in volumes]  # fmt: skip
    while True:
        images, labels = [], []
        for index in range(batch_size):
            image, label, surface = cached[rng.integers(len(cached))]
            room = np.array(image.shape[1:]) - large
            begin = rng.integers(0, room + 1)
            if index >= round(batch_size * 2 / 3) and len(surface):
                centre = surface[rng.integers(len(surface))]
                begin = np.clip(centre - large // 2, 0, room)
            box = tuple(slice(int(b), int(b + n)) for b, n in zip(begin, large, strict=True))
            box = (slice(None), *box)
            out = transforms(image=image[box].clone(), segmentation=label[box].to(torch.int16))
            images.append(out["image"])
            labels.append(out["segmentation"])
        yield {"image": torch.stack(images), "label": torch.stack(labels)}
