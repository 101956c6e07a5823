"""What differs from scan to scan: grey values, sharpness, noise, rings, lost slices. Crop by crop.

Each step gets one image (c, z, y, x) in [0, 1], float32, on any device, and the crop's own
generator; it changes the first channel (the CT) and returns the result in [0, 1]. Second channels
(a former prediction) stay. The label is never touched.
"""

import math
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from vesuvius.errors import ConfigError

Rng = np.random.Generator


class IntensityStep(Protocol):
    """One random change of grey values."""

    share: float

    def __call__(self, image: Tensor, rng: Rng) -> Tensor:
        """Return the changed (c, z, y, x) image."""
        ...


def check_share(name: str, share: float) -> float:
    """Return the share.

    Raises:
        ConfigError: outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"transforms {name}: share={share}; expected a share in [0, 1].")
    return share


def check_least(name: str, **values: float) -> None:
    """Raise ConfigError naming the first negative value."""
    for key, value in values.items():
        if value < 0:
            raise ConfigError(f"transforms {name}: {key}={value}; expected >= 0.")


def normal_like(image: Tensor, rng: Rng) -> Tensor:
    """Return standard normal noise on the image's device, decided by the generator."""
    generator = torch.Generator(image.device).manual_seed(int(rng.integers(2**62)))
    return torch.randn(image.shape, generator=generator, device=image.device, dtype=image.dtype)


def _with_ct(image: Tensor, ct: Tensor) -> Tensor:
    """Return the image with its first channel replaced, clamped to [0, 1]."""
    ct = ct.clamp(0, 1)
    return ct if len(image) == 1 else torch.cat([ct, image[1:]])


class Contrast:
    """Stretches grey values about their mean and shifts them.

    Args:
        share: of the crops.
        contrast: greatest relative stretch.
        shift: greatest shift, of grey values in [0, 1].
    """

    def __init__(self, *, share: float = 0.5, contrast: float = 0.25, shift: float = 0.1) -> None:
        self.share = check_share("contrast", share)
        check_least("contrast", contrast=contrast, shift=shift)
        self.contrast, self.shift = contrast, shift

    def __call__(self, image: Tensor, rng: Rng) -> Tensor:
        """Return (image - mean) * stretch + mean + shift."""
        stretch = 1 + float(rng.uniform(-1, 1)) * self.contrast
        shift = float(rng.uniform(-1, 1)) * self.shift
        mean = image[:1].mean()
        return _with_ct(image, (image[:1] - mean) * stretch + mean + shift)


class Gamma:
    """Raises grey values, between the crop's least and greatest, to a power.

    Args:
        share: of the crops.
        spread: powers from 1 / (1 + spread) to 1 + spread, even in the logarithm.
    """

    def __init__(self, *, share: float = 0.3, spread: float = 0.5) -> None:
        self.share = check_share("gamma", share)
        check_least("gamma", spread=spread)
        self.spread = spread

    def __call__(self, image: Tensor, rng: Rng) -> Tensor:
        """Return low + (high - low) * ((image - low) / (high - low))^power."""
        power = (1 + self.spread) ** float(rng.uniform(-1, 1))
        low, high = image[:1].amin(), image[:1].amax()
        span = (high - low).clamp(min=1e-6)
        return _with_ct(image, low + span * ((image[:1] - low) / span) ** power)


class Blur:
    """Gaussian blur: another resolution or a badly aligned scan.

    Args:
        share: of the crops.
        sigma: greatest sigma in voxels; the least is a third of it.
    """

    def __init__(self, *, share: float = 0.2, sigma: float = 1.2) -> None:
        self.share = check_share("blur", share)
        check_least("blur", sigma=sigma)
        self.sigma = sigma

    def __call__(self, image: Tensor, rng: Rng) -> Tensor:
        """Return the image under a separable Gaussian, edges repeated."""
        sigma = float(rng.uniform(self.sigma / 3, self.sigma))
        return _with_ct(image, gaussian(image[:1], sigma))


class Noise:
    """Adds Gaussian noise, correlated over a voxel or two half of the time as after filtering.

    Args:
        share: of the crops.
        sigma: greatest standard deviation, of grey values in [0, 1].
    """

    def __init__(self, *, share: float = 0.3, sigma: float = 0.06) -> None:
        self.share = check_share("noise", share)
        check_least("noise", sigma=sigma)
        self.sigma = sigma

    def __call__(self, image: Tensor, rng: Rng) -> Tensor:
        """Return image + noise."""
        sigma, correlated = float(rng.uniform(0, self.sigma)), rng.random() < 0.5
        noise = normal_like(image[:1], rng)
        if correlated:
            noise = gaussian(noise, 0.7)
            noise = noise / noise.std().clamp(min=1e-6)
        return _with_ct(image, image[:1] + sigma * noise)


class LowResolution:
    """Shrinks the crop and enlarges it again: a coarser scan.

    Args:
        share: of the crops.
        factor: greatest shrinking, > 1 (2 halves every axis).
    """

    def __init__(self, *, share: float = 0.15, factor: float = 2.0) -> None:
        self.share = check_share("low_resolution", share)
        if factor <= 1:
            raise ConfigError(f"transforms low_resolution: factor={factor}; expected > 1.")
        self.factor = factor

    def __call__(self, image: Tensor, rng: Rng) -> Tensor:
        """Return the image at a lower resolution, on the same voxels."""
        factor = float(rng.uniform(1, self.factor))
        size = list(image.shape[1:])
        small = [max(2, round(n / factor)) for n in size]
        coarse = F.interpolate(image[None, :1], small, mode="area")
        back = F.interpolate(coarse, size, mode="trilinear", align_corners=False)
        return _with_ct(image, back[0])


class Rings:
    """Ring artefacts about an axis along z that lies anywhere around the crop.

    Args:
        share: of the crops.
        sigma: greatest standard deviation of the rings' grey values.
        distance: the axis is up to so many voxels away from the crop's centre.
    """

    def __init__(
        self, *, share: float = 0.1, sigma: float = 0.05, distance: float = 1000.0
    ) -> None:
        self.share = check_share("rings", share)
        check_least("rings", sigma=sigma, distance=distance)
        self.sigma, self.distance = sigma, distance

    def __call__(self, image: Tensor, rng: Rng) -> Tensor:
        """Return image + f(distance from the axis), the same in every slice."""
        sigma = float(rng.uniform(0, self.sigma))
        away, angle = float(rng.uniform(0, self.distance)), float(rng.uniform(0, 2 * math.pi))
        height, width = image.shape[-2:]
        y = torch.arange(height, device=image.device) - height / 2 - away * math.sin(angle)
        x = torch.arange(width, device=image.device) - width / 2 - away * math.cos(angle)
        radius = (y[:, None].square() + x[None, :].square()).sqrt()
        nearest = radius.floor().long()
        nearest = nearest - nearest.amin()
        rings = rng.normal(0, sigma, int(nearest.amax()) + 1).astype(np.float32)
        profile = torch.from_numpy(rings).to(image.device)
        return _with_ct(image, image[:1] + profile[nearest])


class MissingSlices:
    """Blanks whole slices of one axis, or repeats the one before: frames a detector lost.

    Args:
        share: of the crops.
        num: greatest number of neighbouring slices.
    """

    def __init__(self, *, share: float = 0.1, num: int = 3) -> None:
        self.share = check_share("missing_slices", share)
        if num < 1:
            raise ConfigError(f"transforms missing_slices: num={num}; expected >= 1.")
        self.num = num

    def __call__(self, image: Tensor, rng: Rng) -> Tensor:
        """Return the image without up to `num` slices."""
        axis = 1 + int(rng.integers(3))
        size = image.shape[axis]
        num = min(int(rng.integers(1, self.num + 1)), size - 1)
        begin = int(rng.integers(1, size - num + 1))
        ct = image[:1].clone()
        lost = ct.narrow(axis, begin, num)
        if rng.random() < 0.5:
            lost.zero_()
        else:
            lost.copy_(image[:1].narrow(axis, begin - 1, 1).expand_as(lost))
        return _with_ct(image, ct)


class CutOut:
    """Blanks boxes of the image; the label stays, so the network must bridge them.

    Args:
        share: of the crops.
        num: boxes.
        size: edge of a box relative to the patch, in (0, 1].
    """

    def __init__(self, *, share: float = 0.3, num: int = 4, size: float = 0.2) -> None:
        self.share = check_share("cut_out", share)
        check_boxes("cut_out", num, size)
        self.num, self.size = num, size

    def __call__(self, image: Tensor, rng: Rng) -> Tensor:
        """Return the image with boxes set to 0."""
        ct = image[:1].clone()
        for box in random_boxes(ct.shape[1:], self.num, self.size, rng):
            ct[(slice(None), *box)] = 0
        return _with_ct(image, ct)


class PriorMask:
    """Turns the second channel, a former prediction, into a mask at a random threshold.

    Args:
        share: of the crops; the others keep the probability, which the network thresholds itself.
        low: least threshold.
        high: greatest threshold.

    Source: the learned stacks of the Vesuvius Surface Detection winners (10th place, 2026).
    """

    def __init__(self, *, share: float = 0.9, low: float = 0.1, high: float = 0.7) -> None:
        self.share = check_share("prior_mask", share)
        if not 0 < low <= high < 1:
            raise ConfigError(
                f"transforms prior_mask: low={low}, high={high}; expected 0 < low <= high < 1."
            )
        self.low, self.high = low, high

    def __call__(self, image: Tensor, rng: Rng) -> Tensor:
        """Return the image, its later channels in {0, 1}."""
        check_prior_channel(image)
        threshold = float(rng.uniform(self.low, self.high))
        return torch.cat([image[:1], (image[1:] > threshold).to(image.dtype)])


class PriorDropOut:
    """Blanks boxes of the second channel, so that the network must look at the image.

    Args:
        share: of the crops.
        num: boxes.
        size: edge of a box relative to the patch, in (0, 1].
    """

    def __init__(self, *, share: float = 0.5, num: int = 6, size: float = 0.25) -> None:
        self.share = check_share("prior_drop_out", share)
        check_boxes("prior_drop_out", num, size)
        self.num, self.size = num, size

    def __call__(self, image: Tensor, rng: Rng) -> Tensor:
        """Return the image with boxes of its later channels set to 0."""
        check_prior_channel(image)
        changed = image.clone()
        for box in random_boxes(image.shape[1:], self.num, self.size, rng):
            changed[(slice(1, None), *box)] = 0
        return changed


def check_prior_channel(image: Tensor) -> None:
    """Raise ConfigError unless the image brings a former prediction."""
    if len(image) < 2:
        raise ConfigError(
            "transforms: prior_mask and prior_drop_out change the second channel, but images have "
            "one; set data.prior_root (experiment=refine), or leave these steps out."
        )


def check_boxes(name: str, num: int, size: float) -> None:
    """Raise ConfigError unless `random_boxes` can draw `num` boxes of relative edge `size`."""
    if num < 0 or not 0 < size <= 1:
        raise ConfigError(f"transforms {name}: num={num} must be >= 0, size={size} lie in (0, 1].")


def random_boxes(
    shape_zyx: torch.Size | tuple[int, ...], num: int, size: float, rng: Rng
) -> list[tuple[slice, slice, slice]]:
    """Return boxes inside a patch, each edge `size` of the patch's, anywhere."""
    edges = [max(1, round(size * n)) for n in shape_zyx]
    boxes = []
    for _ in range(num):
        begin = [int(rng.integers(0, n - e + 1)) for n, e in zip(shape_zyx, edges, strict=True)]
        z, y, x = (slice(b, b + e) for b, e in zip(begin, edges, strict=True))
        boxes.append((z, y, x))
    return boxes


def gaussian(image: Tensor, sigma: float) -> Tensor:
    """Return (1, z, y, x) under a separable Gaussian cut at 3 sigma, edges repeated."""
    reach = max(1, math.ceil(3 * sigma))
    places = torch.arange(-reach, reach + 1, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (places / max(sigma, 1e-6)).square())
    kernel = kernel / kernel.sum()
    out = image[None]
    for axis in range(3):
        shape, pad = [1, 1, 1, 1, 1], [0] * 6
        shape[2 + axis] = len(kernel)
        pad[2 * (2 - axis)] = pad[2 * (2 - axis) + 1] = reach
        out = F.conv3d(F.pad(out, pad, mode="replicate"), kernel.view(shape))
    return out[0]
