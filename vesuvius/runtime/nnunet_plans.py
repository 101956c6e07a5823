"""What nnU-Net's plans.json and dataset.json say, as arguments of our classes."""

from collections.abc import Mapping, Sequence
from typing import Any

from vesuvius.errors import CheckpointError, ConfigError

NETWORKS = {
    "PlainConvUNet": ("vesuvius.models.residual_encoder_unet.PlainConvUNet3D", "n_conv_per_stage"),
    "ResidualEncoderUNet": (
        "vesuvius.models.residual_encoder_unet.ResidualEncoderUNet3D",
        "n_blocks_per_stage",
    ),
}
"""nnU-Net's class name -> (our class, the argument that counts blocks)."""
NORMS = {"InstanceNorm3d": "instance", "BatchNorm3d": "batch"}
ACTIVATIONS = {"LeakyReLU": "leaky_relu", "ReLU": "relu"}


def configuration_of(plans: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a configuration with what it inherits.

    Raises:
        ConfigError: not there, 2-D, or the second stage of a cascade.
    """
    configurations = plans["configurations"]
    if name not in configurations:
        raise ConfigError(
            f"plans.json has no configuration {name!r}; it has {sorted(configurations)}"
        )
    own = dict(configurations[name])
    parent = own.pop("inherits_from", None)
    merged = {**configuration_of(plans, parent), **own} if parent else own
    if merged.get("previous_stage"):
        raise ConfigError(
            f"configuration {name!r} is the second stage of a cascade: it needs the masks of "
            f"{merged['previous_stage']!r} as input. Import 3d_fullres or 3d_lowres."
        )
    if len(merged["patch_size"]) != 3:
        raise ConfigError(f"configuration {name!r} is 2-D; only 3-D networks can be imported.")
    return merged


def network_config(
    configuration: Mapping[str, Any], *, in_channels: int, num_classes: int
) -> dict[str, Any]:
    """Return `_target_` and arguments of the network.

    Raises:
        CheckpointError: an architecture or layer this package has no counterpart of.
    """
    name, arguments = _architecture(configuration)
    if name not in NETWORKS:
        raise CheckpointError(
            f"the plans ask for the network {name}; this package knows {', '.join(NETWORKS)}."
        )
    target, per_stage = NETWORKS[name]
    _check_layers(arguments)
    num_stages = int(arguments["n_stages"])
    return {
        "_target_": target,
        "features_per_stage": _per_stage(arguments["features_per_stage"], num_stages),
        per_stage: _per_stage(arguments[per_stage], num_stages),
        "kernel_sizes": _triples(arguments["kernel_sizes"], num_stages),
        "strides": _triples(arguments["strides"], num_stages),
        "n_conv_per_stage_decoder": _per_stage(
            arguments["n_conv_per_stage_decoder"], num_stages - 1
        ),
        "in_channels": in_channels,
        "num_classes": num_classes,
        "conv_bias": bool(arguments["conv_bias"]),
        "norm": NORMS[_last(arguments["norm_op"])],
        "activation": ACTIVATIONS[_last(arguments["nonlin"])],
    }


def _architecture(configuration: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return class name and arguments; plans before nnU-Net 2.4 hold numbers instead."""
    if "architecture" in configuration:
        architecture = configuration["architecture"]
        return _last(architecture["network_class_name"]), architecture["arch_kwargs"]
    name = str(configuration["UNet_class_name"])
    counts = configuration["n_conv_per_stage_encoder"]
    base, most = configuration["UNet_base_num_features"], configuration["unet_max_num_features"]
    return name, {
        "n_stages": len(counts),
        "features_per_stage": [min(base * 2**stage, most) for stage in range(len(counts))],
        "kernel_sizes": configuration["conv_kernel_sizes"],
        "strides": configuration["pool_op_kernel_sizes"],
        "n_conv_per_stage": counts,
        "n_blocks_per_stage": counts,
        "n_conv_per_stage_decoder": configuration["n_conv_per_stage_decoder"],
        "conv_bias": True,
        "norm_op": "InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "nonlin": "LeakyReLU",
    }


def _check_layers(arguments: Mapping[str, Any]) -> None:
    """Raise CheckpointError for a layer or option that would be computed otherwise."""
    norm = dict(arguments.get("norm_op_kwargs") or {})
    activation = {**(arguments.get("nonlin_kwargs") or {})}
    activation.pop("inplace", None)
    problems = {
        "norm_op": _last(arguments["norm_op"]) not in NORMS,
        "norm_op_kwargs": norm.get("eps", 1e-5) != 1e-5 or not norm.get("affine", False),
        "nonlin": _last(arguments["nonlin"]) not in ACTIVATIONS,
        "nonlin_kwargs": activation not in ({}, {"negative_slope": 0.01}),
        "nonlin_first": bool(arguments.get("nonlin_first")),
        "squeeze_excitation": bool(arguments.get("squeeze_excitation")),
        "bottleneck_channels": bool(arguments.get("bottleneck_channels")),
        "stem_channels": arguments.get("stem_channels") not in (None, _first(arguments)),
        "block": _last(arguments.get("block") or "BasicBlockD") != "BasicBlockD",
    }
    found = [f"{key}={arguments[key]!r}" for key, wrong in problems.items() if wrong]
    if found:
        raise CheckpointError(
            f"the plans' architecture has {', '.join(found)}, which this package does not compute."
        )


def _first(arguments: Mapping[str, Any]) -> int:
    features = arguments["features_per_stage"]
    return int(features if isinstance(features, int) else features[0])


def _last(dotted: Any) -> str:
    return str(dotted).rsplit(".", 1)[-1]


def _per_stage(value: int | Sequence[int], count: int) -> list[int]:
    return [value] * count if isinstance(value, int) else [int(v) for v in value]


def _triples(value: int | Sequence[Any], count: int) -> list[list[int]]:
    stages = [value] * count if isinstance(value, int) else list(value)
    return [[int(v)] * 3 if isinstance(v, int) else [int(n) for n in v] for v in stages]


def heads_of(dataset: Mapping[str, Any], label: str | None) -> tuple[int, int, bool]:
    """Return (number of heads, the surface's head, softmax) of a data set.

    Classes share a softmax with the background; regions (labels that are lists) have a sigmoid
    each, in the order listed. An ignore label has no head.

    Args:
        dataset: content of dataset.json.
        label: name of the surface's label; None = "surface", or the only one there is.

    Raises:
        ConfigError: no such label, or several and none called "surface".
    """
    labels = {name: value for name, value in dataset["labels"].items() if name != "ignore"}
    regions = any(isinstance(value, (list, tuple)) and len(value) > 1 for value in labels.values())
    names = [name for name, value in labels.items() if value not in (0, [0])]
    if label is None:
        label = "surface" if "surface" in names else names[0] if len(names) == 1 else None
    if label not in names:
        raise ConfigError(
            f"dataset.json has the labels {names}; say which one is the surface with --label NAME"
        )
    if regions:
        return len(names), names.index(label), False
    return len(labels), int(_scalar(labels[label])), True


def _scalar(value: Any) -> int:
    return int(value[0] if isinstance(value, (list, tuple)) else value)


def normalisation_of(plans: Mapping[str, Any], configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `Normalisation` for the one image channel."""
    scheme = configuration["normalization_schemes"][0]
    found: dict[str, Any] = {
        "scheme": scheme,
        "mask_only": bool(configuration["use_mask_for_norm"][0]),
    }
    if scheme == "CTNormalization":
        figures = plans["foreground_intensity_properties_per_channel"]["0"]
        found |= {
            "mean": float(figures["mean"]),
            "std": float(figures["std"]),
            "low": float(figures["percentile_00_5"]),
            "high": float(figures["percentile_99_5"]),
        }
    return found


def grey_max_of(plans: Mapping[str, Any]) -> float:
    """Return the grey value of full scale in training: 1, 255 or 65535, from the greatest seen."""
    greatest = float(plans["foreground_intensity_properties_per_channel"]["0"]["max"])
    return next((limit for limit in (1.0, 255.0) if greatest <= limit), 65535.0)
