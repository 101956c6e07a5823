"""From a network's raw heads to probability and normals, with mirrored copies if wanted."""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Literal

import torch
from torch import Tensor

from vesuvius.errors import CheckpointError, ConfigError
from vesuvius.inference.accumulate import DENSITY, NORMALS, PROBABILITY
from vesuvius.inference.sliding_window import Predict
from vesuvius.structure_tensor import normal_field

Tta = Literal["none", "flips", "flips_rot90"]
NormalsFrom = Literal["head", "structure_tensor"]
TENSOR_BLOCKS = 5
"""Side of the structure tensor's average in blocks of 2 voxels (docs/recipe.md has the figures)."""

Symmetry = tuple[bool, tuple[int, ...]]
"""Whether y and x are swapped first, and which of the axes 0, 1, 2 (z, y, x) are then mirrored."""


def surface_predictor(
    network: Callable[[Tensor], Mapping[str, Tensor]],
    *,
    tta: Tta = "none",
    axial_normals: bool = True,
) -> Predict:
    """Return the predictor of a network with the heads of `DualHeadResUNet3D`.

    Args:
        network: (b, 1, z, y, x) in [0, 1] -> "surface_logit" (b, 1, z, y, x) and optionally
            "normals" (b, 3, z, y, x) in [-1, 1] ordered nz, ny, nx, and "density"
            (b, 1, z, y, x) windings per voxel; for example from `prepare_network`.
        tta: test-time augmentation: "none"; "flips", the mean of the 8 mirror images; or
            "flips_rot90", of 16 (y and x swapped as well). Normals are turned back with the image.
        axial_normals: n and -n mean the same; copies are averaged with signs that agree.

    Returns:
        Callable for `predict_volume`; probability = sigmoid of the logit (their mean under tta).

    Raises:
        ConfigError: unknown tta.
        CheckpointError: the network has no "surface_logit" (raised when called).
    """
    symmetries = tta_symmetries(tta)

    def predict(image: Tensor) -> Mapping[str, Tensor]:
        total: dict[str, Tensor] = {}
        for symmetry in symmetries:
            heads = _heads(network(turn(image, symmetry)))
            back = {
                name: turn_back(value, symmetry, vectors=name == NORMALS)
                for name, value in heads.items()
            }
            _add(total, back, axial_normals=axial_normals)
        return {name: value / len(symmetries) for name, value in total.items()}

    return predict


def ensemble_predictor(
    predictors: Sequence[Predict],
    *,
    weights: Sequence[float] | None = None,
    axial_normals: bool = True,
) -> Predict:
    """Return the weighted mean of several predictors, one after the other on every batch.

    Besides all the networks' weights it needs no more memory than one of them: only one network's
    activations and one sum exist at a time.

    Args:
        predictors: from `surface_predictor`; heads that one of them lacks are left out.
        weights: of each, positive; None = equal.
        axial_normals: n and -n mean the same; networks are averaged with signs that agree.

    Raises:
        ConfigError: no predictor, or weights that do not fit.
    """
    shares = [1.0] * len(predictors) if weights is None else [float(w) for w in weights]
    if not predictors or len(shares) != len(predictors) or min(shares) <= 0:
        raise ConfigError(
            f"ensemble of {len(predictors)} networks with weights {shares}; expected one positive "
            "weight for each (weights=[...], or null for equal ones)"
        )
    if len(predictors) == 1:
        return predictors[0]

    def predict(image: Tensor) -> Mapping[str, Tensor]:
        total: dict[str, Tensor] = {}
        for number, (predictor, share) in enumerate(zip(predictors, shares, strict=True)):
            scale = share / sum(shares)
            heads = {name: value * scale for name, value in predictor(image).items()}
            if number:
                total = {name: value for name, value in total.items() if name in heads}
                heads = {name: value for name, value in heads.items() if name in total}
            _add(total, heads, axial_normals=axial_normals)
        return total

    return predict


def with_normals_from(predict: Predict, source: NormalsFrom) -> Predict:
    """Return a predictor whose normals come from elsewhere than a head.

    Args:
        predict: from `surface_predictor` or `ensemble_predictor`; its probability is final.
        source: "head" leaves it as it is; "structure_tensor" takes the normals of the probability
            itself, for networks without that head too.

    Raises:
        ConfigError: unknown source.
    """
    if source not in ("head", "structure_tensor"):
        raise ConfigError(f"normals must be 'head' or 'structure_tensor', got {source!r}")
    if source == "head":
        return predict

    def with_tensor(image: Tensor) -> Mapping[str, Tensor]:
        heads = predict(image)
        normals = normal_field(heads[PROBABILITY], window_blocks=TENSOR_BLOCKS)
        return {**heads, NORMALS: normals}

    return with_tensor


def _add(total: dict[str, Tensor], heads: Mapping[str, Tensor], *, axial_normals: bool) -> None:
    """Add heads to their sums; axial normals with the sign that agrees with the sum."""
    for name, value in heads.items():
        if name not in total:
            total[name] = value
        elif name == NORMALS and axial_normals:
            agreement = (total[name] * value).sum(1, keepdim=True)
            total[name] = total[name] + torch.where(agreement < 0, -value, value)
        else:
            total[name] = total[name] + value


def tta_symmetries(tta: Tta) -> list[Symmetry]:
    """Return the symmetries of a tta name, the identity first."""
    if tta not in ("none", "flips", "flips_rot90"):
        raise ConfigError(f"tta must be 'none', 'flips' or 'flips_rot90', got {tta!r}")
    if tta == "none":
        return [(False, ())]
    flips = [
        tuple(axis for axis in range(3) if chosen[axis])
        for chosen in product((False, True), repeat=3)
    ]
    return [
        (swap, axes)
        for swap in ((False, True) if tta == "flips_rot90" else (False,))
        for axes in flips
    ]


def turn(volume: Tensor, symmetry: Symmetry) -> Tensor:
    """Return a (..., z, y, x) tensor swapped and mirrored."""
    swap, axes = symmetry
    turned = volume.transpose(-1, -2) if swap else volume
    return turned.flip([axis - 3 for axis in axes]) if axes else turned


def turn_back(value: Tensor, symmetry: Symmetry, *, vectors: bool) -> Tensor:
    """Undo `turn`; with `vectors` the components of (b, 3, z, y, x) turn as well."""
    swap, axes = symmetry
    back = value.flip([axis - 3 for axis in axes]) if axes else value
    if vectors and axes:
        sign = torch.ones(3, device=value.device, dtype=value.dtype)
        sign[list(axes)] = -1
        back = back * sign[:, None, None, None]
    if swap:
        back = back.transpose(-1, -2)
        if vectors:
            back = back[:, [0, 2, 1]]
    return back


def _heads(raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if "surface_logit" not in raw:
        msg = (
            f"the network must return 'surface_logit', got {sorted(raw)}; this checkpoint belongs "
            "to another system"
        )
        raise CheckpointError(msg)
    heads = {PROBABILITY: torch.sigmoid(raw["surface_logit"].float())}
    if NORMALS in raw:
        heads[NORMALS] = raw[NORMALS].float()
    if DENSITY in raw:
        heads[DENSITY] = raw[DENSITY].float()
    return heads
