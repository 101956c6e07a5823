"""What all point-set networks share: encode once, decode anywhere, with or without gradient."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vesuvius.errors import ConfigError, ShapeMismatchError
from vesuvius.models.vecset.attention import autocast_off
from vesuvius.models.vecset.decoder import QueryDecoder, decode_in_blocks, decode_with_gradient

KeysValues = tuple[Tensor, Tensor]


class FieldNetwork(nn.Module):
    """Surface points of a labelled heart to signed distance and class logits at query points.

    A subclass builds `decoder` and gives `encode`; `heads` names what `forward` returns.

    Args:
        num_classes: K.
        field: "union" (one signed distance, K class logits) or "per_class" (K distances; their
            negative over `sharpness` are the logits).
        sharpness: cube units of distance that make one logit, for "per_class".
        gap: cube units, for "per_class": see `inside`.
        decoder_float32: decode in float32 under mixed precision, as the original does.
        block: query points decoded at a time outside training.

    Raises:
        ConfigError: an argument out of range.
    """

    decoder: QueryDecoder

    def __init__(
        self,
        *,
        num_classes: int,
        field: str,
        sharpness: float,
        gap: float,
        decoder_float32: bool,
        block: int,
    ) -> None:
        super().__init__()
        if field not in ("union", "per_class"):
            raise ConfigError(f"model.field={field!r}; expected union or per_class.")
        if num_classes < 1 or block < 1 or sharpness <= 0 or gap < 0:
            raise ConfigError(
                f"model.num_classes={num_classes} and model.block={block} must be >= 1, "
                f"model.sharpness={sharpness} > 0, model.gap={gap} >= 0."
            )
        self.num_classes = num_classes
        self.num_fields = 1 if field == "union" else num_classes
        self.sharpness = sharpness
        self.gap = gap
        self.decoder_float32 = decoder_float32
        self.block = block
        self.heads: tuple[str, ...] = ("sdf", "class_logits")

    def encode(self, surface: Float[Tensor, "b n f"]) -> tuple[Tensor, Float[Tensor, " b"] | None]:
        """Return the latent set of a point cloud (xyz, one-hot), and the KL divergence or None."""
        raise NotImplementedError

    def keys_values(self, latents: Tensor) -> KeysValues:
        """Return what the decoder looks up, from the latents."""
        return self.decoder.attention.keys_values(latents)

    def values(
        self, points: Float[Tensor, "b m 3"], keys_values: KeysValues
    ) -> Float[Tensor, "b m o"]:
        """Return the decoder's numbers at points."""
        out: Tensor = self.decoder(points, *keys_values)
        return out

    def decode(self, latents: Tensor, points: Float[Tensor, "b m 3"]) -> dict[str, Tensor]:
        """Return {"sdf" (b, m, 1 or K), "class_logits" (b, m, K)} at points.

        Outside training `block` points at a time.
        """
        check_points(points, 3, "points")
        with self._decoder_precision(points):
            prepared = self.keys_values(latents)
            out = decode_in_blocks(
                lambda part: self.values(part, prepared),
                points,
                block=points.shape[1] if torch.is_grad_enabled() else self.block,
            )
        return self.split(out)

    def inside(
        self, sdf: Float[Tensor, "b m f"], classes: Float[Tensor, "*b k"] | None = None
    ) -> Float[Tensor, "b m"]:
        """Return a distance that is below 0 inside the heart, from the head `sdf`.

        With a distance per class that is the least one, or, where that is not below 0, half of
        what the least two sum up to beyond `gap`: on a wall between two classes they are opposite,
        and small errors of both must not open a gap of background there (own). Outside the heart
        the second is large.

        Args:
            sdf: (b, m, 1 or K).
            classes: (..., K) 1 for classes that count, broadcast over points; None = all.
        """
        if sdf.shape[-1] == 1:
            return sdf.squeeze(-1)
        if classes is not None:
            sdf = sdf.masked_fill(classes.unsqueeze(-2) == 0, 1e3)
        least = sdf.topk(2, dim=-1, largest=False).values
        between = (least.sum(-1) - self.gap) / 2
        return torch.minimum(least[..., 0], between) if self.gap > 0 else least[..., 0]

    def predict(
        self,
        latents: Tensor,
        points: Float[Tensor, "b m 3"],
        classes: Float[Tensor, " k"] | None = None,
    ) -> dict[str, Tensor]:
        """Return {"inside" (b, m), "class_logits" (b, m, K)} in float32 for prediction.

        Args:
            latents: from `encode`.
            points: anywhere in the cube.
            classes: (K,) 1 for classes that may be predicted; None = all.
        """
        heads = self.decode(latents, points)
        logits = heads["class_logits"].float()
        if classes is not None:
            logits = logits.masked_fill(classes == 0, -1e4)
        return {"inside": self.inside(heads["sdf"].float(), classes), "class_logits": logits}

    def forward(
        self,
        surface: Float[Tensor, "b n f"],
        points: Float[Tensor, "b m 3"],
        *,
        num_gradients: int = 0,
    ) -> dict[str, Tensor]:
        """Return the heads at points: signed distance (inside < 0) and class logits.

        Args:
            surface: input cloud: xyz in [-1, 1], one-hot class.
            points: query points.
            num_gradients: also "sdf_gradient" (b, num_gradients, 3) of the first so many points
                (of the least distance, if there are several).

        Returns:
            "sdf" (b, m, 1 or K), "class_logits" (b, m, K), with a KL bottleneck "kl" (b,).
        """
        check_points(surface, 3 + self.num_classes, "surface")
        latents, divergence = self.encode(surface)
        if num_gradients == 0:
            heads = self.decode(latents, points)
        else:
            check_points(points, 3, "points")
            heads = self._decode_with_gradient(latents, points, num_gradients)
        if divergence is not None:
            heads["kl"] = divergence
        return heads

    def _decode_with_gradient(
        self, latents: Tensor, points: Tensor, count: int
    ) -> dict[str, Tensor]:
        train = torch.is_grad_enabled()
        with torch.inference_mode(mode=False), torch.set_grad_enabled(train):
            if not train:  # tensors made in inference mode cannot be differentiated
                latents, points = latents.clone(), points.clone()
            with autocast_off(points.device):
                prepared = self.keys_values(latents.float())
            first, gradient = decode_with_gradient(
                lambda part: self.values(part, prepared),
                lambda out: self.split(out)["sdf"].amin(-1),
                points[:, :count],
            )
            if count >= points.shape[1]:
                return self.split(first) | {"sdf_gradient": gradient}
            with self._decoder_precision(points):
                rest = self.values(points[:, count:], prepared)
        heads = self.split(torch.cat((first, rest.to(first.dtype)), 1))
        return heads | {"sdf_gradient": gradient}

    def _decoder_precision(self, like: Tensor) -> torch.autocast:
        if self.decoder_float32:
            return autocast_off(like.device)
        return torch.autocast(like.device.type, enabled=torch.is_autocast_enabled(like.device.type))

    def split(self, out: Float[Tensor, "b m o"]) -> dict[str, Tensor]:
        """Return the decoder's numbers as heads."""
        if self.num_fields == 1:
            return {"sdf": out[..., :1], "class_logits": out[..., 1:]}
        return {"sdf": out, "class_logits": out / -self.sharpness}


def check_points(points: Tensor, num_features: int, name: str) -> None:
    """Raise ShapeMismatchError unless points are (b, n > 0, num_features)."""
    if points.ndim != 3 or points.shape[1] < 1 or points.shape[2] != num_features:
        raise ShapeMismatchError(
            f"{name} has shape {tuple(points.shape)}; expected (batch, points, {num_features})"
            + (": xyz and one number per class (model.num_classes)." if num_features > 3 else ".")
        )
