"""Augmentation of whole CT-PET batches where they are: one geometry, grey values a modality."""

import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor

from vesuvius.data.transforms import check_shares
from vesuvius.errors import ConfigError

GRID = 512.0
"""Lengths of the elastic deformation are pixels of a slice of this edge; others scale them."""
Rng = np.random.Generator


class PETCTTransforms:
    """Affine and elastic deformation, brightness, contrast and noise of training batches.

    CT, PET and mask share the geometry (bilinear for the images, nearest for the mask); grey values
    change independently in each modality. Every slice draws from a generator of its own, seeded by
    (seed, epoch, name): a resumed run, or another number of processes, sees the same.

    Args:
        seed: of everything drawn.
        affine_share: share of slices that are rotated, shifted and scaled.
        max_degrees: of rotation.
        max_shift: of translation, share of the edge.
        max_scale: 0.1 scales by 0.9 to 1.1.
        elastic_share: share of slices that are deformed.
        elastic_alpha: strength of the deformation, pixels of a 512 slice.
        elastic_sigma: its smoothness, pixels of a 512 slice.
        intensity_share: share of modalities with changed brightness and contrast.
        intensity: greatest change of either, of grey values in [0, 1].
        noise_share: share of modalities with added noise.
        max_noise: greatest standard deviation of it.

    Source: the CoCoSeg project's augmentation; Simard et al. 2003 for the elastic part.

    Raises:
        ConfigError: a number out of range.
    """

    def __init__(
        self,
        *,
        seed: int,
        affine_share: float = 0.5,
        max_degrees: float = 15.0,
        max_shift: float = 0.05,
        max_scale: float = 0.1,
        elastic_share: float = 0.3,
        elastic_alpha: float = 120.0,
        elastic_sigma: float = 6.0,
        intensity_share: float = 0.3,
        intensity: float = 0.1,
        noise_share: float = 0.2,
        max_noise: float = 0.05,
    ) -> None:
        check_shares(affine_share=affine_share, elastic_share=elastic_share)
        check_shares(intensity_share=intensity_share, noise_share=noise_share)
        check_shares(max_shift=max_shift, intensity=intensity, max_noise=max_noise)
        if not 0 <= max_degrees <= 180 or not 0 <= max_scale < 1:
            raise ConfigError(
                f"transforms.max_degrees={max_degrees} must lie in [0, 180], transforms.max_scale="
                f"{max_scale} in [0, 1)."
            )
        if elastic_alpha < 0 or elastic_sigma <= 0:
            raise ConfigError(
                f"transforms.elastic_alpha={elastic_alpha} must be >= 0, transforms.elastic_sigma="
                f"{elastic_sigma} > 0."
            )
        self.seed = seed
        self.affine_share, self.max_degrees = affine_share, max_degrees
        self.max_shift, self.max_scale = max_shift, max_scale
        self.elastic_share = elastic_share
        self.elastic_alpha, self.elastic_sigma = elastic_alpha, elastic_sigma
        self.intensity_share, self.intensity = intensity_share, intensity
        self.noise_share, self.max_noise = noise_share, max_noise

    def __call__(self, batch: Mapping[str, Any], *, epoch: int) -> dict[str, Any]:
        """Return the batch with a float32 image in [0, 1] and a changed copy of the label.

        Args:
            batch: `image` (b, 2, y, x) uint8 or float in [0, 1], `label` (b, 1, y, x), `name`.
            epoch: of the training.
        """
        image, label = batch["image"], batch["label"].clone()
        image = image.float() / 255 if image.dtype == torch.uint8 else image.float().clone()
        for n, name in enumerate(batch["name"]):
            rng = np.random.default_rng([self.seed, epoch, zlib.crc32(name.encode())])
            grid = self._grid(rng, image[n])
            if grid is not None:
                image[n] = _sample(image[n], grid, "bilinear")
                label[n] = _sample(label[n].float(), grid, "nearest").to(label.dtype)
            for plane in image[n]:
                self._change_grey_values(plane, rng)
        return {**batch, "image": image, "label": label}

    def _grid(self, rng: Rng, image: Tensor) -> Float[Tensor, "1 y x 2"] | None:
        """Return where each pixel comes from, in [-1, 1], or None for where it is."""
        affine = rng.random() < self.affine_share
        elastic = rng.random() < self.elastic_share
        if not (affine or elastic):
            return None
        size = [1, 1, *image.shape[1:]]
        theta = self._affine(rng, size[2] / size[3]) if affine else np.eye(2, 3)
        matrix = torch.from_numpy(theta).to(image)[None]
        grid = F.affine_grid(matrix, size, align_corners=False)
        return grid + self._displacement(rng, image) if elastic else grid

    def _affine(self, rng: Rng, aspect: float) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return a (2, 3) matrix on x, y in [-1, 1]; `aspect` = height / width."""
        angle = math.radians(rng.uniform(-1, 1) * self.max_degrees)
        scale = 1 / (1 + rng.uniform(-1, 1) * self.max_scale)
        shift = rng.uniform(-2, 2, 2) * self.max_shift
        c, s = scale * math.cos(angle), scale * math.sin(angle)
        return np.array([[c, -s * aspect, shift[0]], [s / aspect, c, shift[1]]])

    def _displacement(self, rng: Rng, image: Tensor) -> Float[Tensor, "1 y x 2"]:
        """Return smoothed uniform noise times alpha, in units of half the edge."""
        height, width = image.shape[1:]
        sigma = self.elastic_sigma * max(height, width) / GRID
        radius = max(1, math.ceil(3 * sigma))
        offsets = torch.arange(-radius, radius + 1, device=image.device, dtype=torch.float32)
        kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
        kernel = kernel / kernel.sum()
        noise = rng.uniform(-1, 1, (2, 1, height, width)).astype(np.float32)
        field = torch.from_numpy(noise).to(image.device)
        field = F.conv2d(field, kernel.view(1, 1, 1, -1), padding=(0, radius))
        field = F.conv2d(field, kernel.view(1, 1, -1, 1), padding=(radius, 0))
        # On a slice s times as large sigma is s times as long, smoothing leaves 1/s of the noise,
        # and displacements must grow by s: alpha grows by s^2.
        pixels = self.elastic_alpha * (sigma / self.elastic_sigma) ** 2
        x, y = field[0, 0] * (2 * pixels / width), field[1, 0] * (2 * pixels / height)
        return torch.stack([x, y], dim=-1)[None]

    def _change_grey_values(self, plane: Tensor, rng: Rng) -> None:
        """Change brightness, contrast and noise of one modality (y, x) in place, within [0, 1]."""
        if rng.random() < self.intensity_share:
            stretch = 1 + float(rng.uniform(-1, 1)) * self.intensity
            shift = float(rng.uniform(-1, 1)) * self.intensity
            mean = plane.mean()
            plane.sub_(mean).mul_(stretch).add_(mean + shift).clamp_(0, 1)
        if rng.random() < self.noise_share:
            noise = rng.standard_normal(tuple(plane.shape), dtype=np.float32)
            amount = float(rng.uniform(0, self.max_noise))
            plane.add_(torch.from_numpy(noise).to(plane.device), alpha=amount).clamp_(0, 1)


def _sample(image: Tensor, grid: Tensor, mode: str) -> Tensor:
    """Return (c, y, x) values at the grid's points; 0 (air, no lesion) beyond the faces."""
    sampled = F.grid_sample(image[None], grid, mode=mode, padding_mode="zeros", align_corners=False)
    return sampled[0]
