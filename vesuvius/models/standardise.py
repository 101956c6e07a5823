"""Grey values to mean 0 and variance 1, by what training has seen."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

LEAST_SHARE = 0.01
"""Of a new batch in the averages, once a hundred have been seen: other data takes over in time."""
_EPS = 1e-6


class Standardise3D(nn.Module):
    """Subtracts the training data's mean from each image channel and divides by its deviation.

    Transformers are made for z-scores: tokens of grey values in [0, 1] are one constant with a
    ripple, which layer norms keep as they are, and hundreds of steps pass before anything is
    learned. The averages run along in training and are used there as at inference, so that a crop
    looks the same in any batch, window or precision, unlike z-scores of each crop.

    Buffers: mean and square (channels,), averages of the values and of their squares; count of
    batches. None of them is trained.
    """

    mean: Tensor
    square: Tensor
    count: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("square", torch.ones(channels))
        self.register_buffer("count", torch.zeros(()))

    def forward(self, image: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b c z y x"]:
        """Return the image in deviations from the mean."""
        if self.training:
            self._observe(image)
        shape = (1, -1, 1, 1, 1)
        variance = self.square - self.mean.square()
        scale = torch.rsqrt(variance.clamp(min=_EPS))
        return (image - self.mean.view(shape)) * scale.view(shape)

    @torch.no_grad()
    def _observe(self, image: Tensor) -> None:
        self.count += 1
        share = (1 / self.count).clamp(min=LEAST_SHARE)
        values = image.detach().to(self.mean.dtype)
        self.mean.lerp_(values.mean((0, 2, 3, 4)), share)
        self.square.lerp_(values.square().mean((0, 2, 3, 4)), share)
