"""Terms of the heart's point-set networks: signed distance, classes, code.

`outputs` holds `sdf` and its parts `sdf_vol`, `sdf_near`, `sdf_surface` (b, n, 1 or C),
`class_logits` (b, Q or more, C) of volume, near and perhaps surface points in that order, and what
the network adds (`sdf_gradient`, `kl`). `targets` is a batch of `vesuvius.types.HeartSample`.
"""

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from vesuvius.errors import ConfigError
from vesuvius.losses.composite import LossTerm


def class_mask(targets: Mapping[str, Tensor]) -> Tensor:
    """Return (b, 1, C): 1 where a class is one of the data and the heart has it."""
    return (targets["valid_class_mask"] * targets["present_class_mask"]).unsqueeze(1)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of values where the mask is 1; 0 if it is nowhere."""
    mask = mask.expand_as(values)
    return (values * mask).sum() / (mask.sum() + 1e-5)


class SdfLoss(LossTerm):
    """Mean |sdf - target| over the volume or the near queries.

    Networks with one distance per class learn those of the classes the heart has
    (`data.sdf_mode=per_class`).

    Args:
        part: "vol" or "near".
        truncation: clamp both to +-truncation first, in cube units: far from the surface only the
            sign counts. None = never.

    Source: VecSetX (L1); the truncation is DeepSDF's (Park et al. 2019, equation 4).

    Raises:
        ConfigError: another part, a truncation of 0, or distances per class that the batch lacks.
    """

    heads = ("sdf",)

    def __init__(self, *, part: Literal["vol", "near"], truncation: float | None = None) -> None:
        super().__init__()
        if part not in ("vol", "near"):
            raise ConfigError(f"SdfLoss part={part!r}; expected vol or near.")
        if truncation is not None and truncation <= 0:
            raise ConfigError(f"SdfLoss truncation={truncation}; expected > 0 or null.")
        self.part = part
        self.truncation = truncation

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """Return the mean over points (and classes)."""
        found = outputs[f"sdf_{self.part}"]
        num_volume = outputs["sdf_vol"].shape[1]
        where = slice(0, num_volume) if self.part == "vol" else slice(num_volume, None)
        wanted = distances(targets, num_fields=found.shape[-1])[:, where]
        if self.truncation is not None:
            found = found.clamp(-self.truncation, self.truncation)
            wanted = wanted.clamp(-self.truncation, self.truncation)
        error = (found - wanted).abs()
        return error.mean() if found.shape[-1] == 1 else masked_mean(error, class_mask(targets))


def distances(targets: Mapping[str, Tensor], *, num_fields: int) -> Tensor:
    """Return the true signed distances (b, Q, num_fields) of a batch's queries.

    Raises:
        ConfigError: distances per class are wanted and not in the batch.
    """
    if num_fields == 1:
        return targets["target"][..., :1]
    if "points_class_sdf" not in targets:
        raise ConfigError(
            "The network has a distance per class (model.field=per_class), the data has one in "
            "all. Prepare it with --sdf_mode per_class (data.sdf_mode=per_class for phantoms), or "
            "use model.field=union."
        )
    return targets["points_class_sdf"]


class SurfaceLoss(LossTerm):
    """Mean |sdf| on the surface points; of their own class where there is a distance per class.

    Not for `sdf_mode=union_mask`: there the distance on walls between classes is not 0.
    """

    heads = ("sdf",)

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """Return the mean over points; 0 with a gradient path if none were decoded."""
        found = outputs["sdf_surface"]
        if found.shape[1] == 0:
            return outputs["sdf"].sum() * 0.0
        if found.shape[-1] == 1:
            return found.abs().mean()
        own = targets["surface_target"][:, : found.shape[1], 3:]
        return masked_mean((found * own).sum(-1).abs(), own.amax(-1))


class EikonalLoss(LossTerm):
    """Mean (|gradient of sdf| - 1)^2 over the volume queries.

    Source: Gropp et al. 2020 (IGR), equation 2.
    """

    heads = ("sdf_gradient",)

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """Return the mean."""
        del targets
        length = torch.linalg.vector_norm(outputs["sdf_gradient"], dim=-1)
        loss: Tensor = (length - 1).square().mean()
        return loss


class ClassLoss(LossTerm):
    """Binary cross-entropy of every class at every decoded point; padded classes do not count.

    Background is 0 for every class. Surface points count for the class they belong to, unless the
    network has a distance per class, which is 0 there.

    Source: own formulation of the original project's joint training.
    """

    heads = ("class_logits",)

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """Return sum(bce * mask) / sum(mask)."""
        logits = outputs["class_logits"]
        label = targets["target"][..., 1].long()
        one_hot = F.one_hot(label, logits.shape[-1] + 1)[..., 1:].to(logits.dtype)
        mask = targets["valid_class_mask"].unsqueeze(1)
        if outputs["sdf"].shape[-1] > 1:
            logits = logits[:, : label.shape[1]]
            mask = class_mask(targets)
        else:
            num_surface = logits.shape[1] - label.shape[1]
            surface = targets["surface_target"][:, :num_surface, 3:]
            one_hot = torch.cat((one_hot, surface.to(logits.dtype)), 1)
        bce = F.binary_cross_entropy_with_logits(logits, one_hot, reduction="none")
        return masked_mean(bce, mask)


class CodeLoss(LossTerm):
    """Mean Kullback-Leibler divergence of the latent code from a standard normal.

    For `model.bottleneck=kl`.
    """

    heads = ("kl",)

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """Return the mean over the batch."""
        del targets
        return outputs["kl"].mean()
