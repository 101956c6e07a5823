"""Augmentation of whole batches where they are (GPU or CPU): rotation, grey values, cut-outs.

The 48 symmetries are drawn when a crop is read (`augment.py`, uint8, nearly free). What needs
floats or interpolation is here, after the batch has reached the device. Training only.
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor

from vesuvius.errors import ConfigError
from vesuvius.types import IGNORE

FULL_SCALE = {torch.uint8: 255.0, torch.uint16: 65535.0}
OUTSIDE = {"label": IGNORE, "wrap": 0}


class SurfaceTransforms:
    """Random small rotation, grey-value shift and contrast, and cut-outs of training batches.

    Every sample draws from a generator of its own, seeded by (seed, epoch, volume, origin): what a
    crop looks like depends neither on the batch it is in nor on the number of processes, and a
    resumed run sees the same.

    Args:
        seed: of everything drawn.
        max_degrees: rotation about each of the axes z, y, x by up to so much; 0 = none.
        rotate_share: share of samples that are rotated.
        shift: greatest change of all grey values of a sample, which lie in [0, 1]; 0 = none.
        contrast: greatest relative change of the distances from the mean; 0 = none.
        intensity_share: share of samples whose grey values are changed.
        num_cuts: boxes blanked in a sample; the label stays, so the network must bridge them.
        cut_share: edge of a box relative to the patch, in (0, 1].
        cutout_share: share of samples with cut-outs.

    Grey values are not normalised by the crop's own mean: the network gets [0, 1] by the dtype in
    training and inference alike.

    Raises:
        ConfigError: a number out of range.
    """

    def __init__(
        self,
        *,
        seed: int,
        max_degrees: float = 15.0,
        rotate_share: float = 0.7,
        shift: float = 0.1,
        contrast: float = 0.1,
        intensity_share: float = 0.5,
        num_cuts: int = 5,
        cut_share: float = 0.25,
        cutout_share: float = 0.8,
    ) -> None:
        check_shares(
            rotate_share=rotate_share, intensity_share=intensity_share, cutout_share=cutout_share
        )
        if not 0 <= max_degrees <= 180 or not 0 <= shift <= 1 or not 0 <= contrast < 1:
            raise ConfigError(
                f"transforms.max_degrees={max_degrees} must lie in [0, 180], transforms.shift="
                f"{shift} in [0, 1], transforms.contrast={contrast} in [0, 1)."
            )
        if num_cuts < 0 or not 0 < cut_share <= 1:
            raise ConfigError(
                f"transforms.num_cuts={num_cuts} must be >= 0, transforms.cut_share={cut_share} "
                "lie in (0, 1]."
            )
        self.seed = seed
        self.max_degrees, self.rotate_share = max_degrees, rotate_share
        self.shift, self.contrast, self.intensity_share = shift, contrast, intensity_share
        self.num_cuts, self.cut_share, self.cutout_share = num_cuts, cut_share, cutout_share

    def __call__(self, batch: Mapping[str, Any], *, epoch: int) -> dict[str, Any]:
        """Return the batch with a float32 image in [0, 1] and changed copies of what turns.

        Args:
            batch: `image` (b, 1, z, y, x) uint8, uint16 or float in [0, 1], `label` (b, 1, z, y,
                x) uint8, `volume_id`, `origin_zyx`, perhaps `wrap`.
            epoch: of the training.
        """
        changed = dict(batch)
        image = batch["image"]
        image = image.to(torch.float32) / FULL_SCALE.get(image.dtype, 1.0)
        rngs = sample_generators(batch, self.seed, epoch)
        turned = [n for n, rng in enumerate(rngs) if rng.random() < self.rotate_share]
        if turned and self.max_degrees > 0:
            angles = np.array([rngs[n].uniform(-1, 1, 3) * self.max_degrees for n in turned])
            grid = rotation_grid(image.shape[2:], angles, image.device)
            image[turned] = sample_linear(image[turned], grid)
            for name, outside in OUTSIDE.items():
                if name in batch:
                    changed[name] = batch[name].clone()
                    changed[name][turned] = sample_nearest(batch[name][turned], grid, outside)
        for sample, rng in zip(image, rngs, strict=True):
            if rng.random() < self.intensity_share:
                self._change_grey_values(sample, rng)
            if rng.random() < self.cutout_share:
                self._cut_out(sample, rng)
        changed["image"] = image
        return changed

    def _change_grey_values(self, sample: Tensor, rng: np.random.Generator) -> None:
        """Stretch about the mean and shift, in place; the result stays in [0, 1]."""
        stretch = 1 + float(rng.uniform(-1, 1)) * self.contrast
        shift = float(rng.uniform(-1, 1)) * self.shift
        mean = sample.mean()
        sample.sub_(mean).mul_(stretch).add_(mean + shift).clamp_(0, 1)

    def _cut_out(self, sample: Tensor, rng: np.random.Generator) -> None:
        """Set boxes of (1, z, y, x) to 0, in place."""
        sizes = [max(1, round(self.cut_share * n)) for n in sample.shape[1:]]
        for _ in range(self.num_cuts):
            begin = [
                int(rng.integers(0, n - s + 1))
                for n, s in zip(sample.shape[1:], sizes, strict=True)
            ]
            z, y, x = (slice(b, b + s) for b, s in zip(begin, sizes, strict=True))
            sample[:, z, y, x] = 0


def check_shares(**shares: float) -> None:
    """Raise ConfigError naming the first argument of the transforms outside [0, 1]."""
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise ConfigError(f"transforms.{name}={share}; expected a share in [0, 1].")


def sample_generators(batch: Mapping[str, Any], seed: int, epoch: int) -> list[np.random.Generator]:
    """Return a generator for each crop of a batch, seeded by (seed, epoch, volume, origin)."""
    return [
        np.random.default_rng([seed, epoch, zlib.crc32(volume_id.encode()), *origin])
        for volume_id, origin in zip(batch["volume_id"], batch["origin_zyx"].tolist(), strict=True)
    ]


def rotation_matrix(degrees_zyx: Sequence[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the 3 x 3 rotation of (z, y, x) vectors about z, then y, then x."""
    matrix = np.eye(3)
    for axis, angle in enumerate(degrees_zyx):
        c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        one = np.eye(3)
        i, j = [a for a in range(3) if a != axis]
        one[i, i] = one[j, j] = c
        one[i, j], one[j, i] = -s, s
        matrix = one @ matrix
    return matrix


def rotation_grid(
    shape_zyx: Sequence[int],
    degrees_zyx: np.ndarray[Any, np.dtype[np.float64]],
    device: torch.device,
) -> Float[Tensor, "b z y x 3"]:
    """Return where each voxel of the rotated patch lies in the old one, about its centre.

    Args:
        shape_zyx: voxels of the patch; it keeps its shape, corners come from outside.
        degrees_zyx: (b, 3) angles about z, y, x.
        device: of the result.

    Returns:
        Coordinates for `grid_sample` (align_corners=False), ordered x, y, z in [-1, 1].
    """
    half = np.array(shape_zyx, dtype=np.float64)[::-1] / 2  # x, y, z
    theta = np.zeros((len(degrees_zyx), 3, 4))
    for n, degrees in enumerate(degrees_zyx):
        matrix = rotation_matrix(degrees)[::-1, ::-1]  # of (x, y, z) vectors
        theta[n, :, :3] = matrix * half[None, :] / half[:, None]
    affine = torch.from_numpy(theta).to(device=device, dtype=torch.float32)
    size = [len(degrees_zyx), 1, *shape_zyx]
    return F.affine_grid(affine, size, align_corners=False)


def sample_linear(image: Tensor, grid: Tensor) -> Tensor:
    """Return the image at the grid's points, trilinear; beyond the faces the nearest voxel."""
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)


def sample_nearest(values: Tensor, grid: Tensor, outside: int) -> Tensor:
    """Return the nearest value at the points of the grid, `outside` beyond the faces."""
    as_float = values.float()  # exact: labels and wrap numbers are small integers
    taken = F.grid_sample(
        as_float, grid, mode="nearest", padding_mode="border", align_corners=False
    ).to(values.dtype)
    beyond = (grid.abs() > 1).any(-1).unsqueeze(1)
    return taken.masked_fill_(beyond, outside)
