"""Reads weights of the original Chimera project into DualHeadResUNet3D."""

import re
from pathlib import Path

import torch
from torch import Tensor

from vesuvius.errors import CheckpointError
from vesuvius.models.dual_head_unet import DualHeadResUNet3D

_LEVELS = 4
# Inside a block of the original: `conv` is a Sequential (conv, bn, relu, conv, bn).
_BLOCK_PARTS = {
    "conv.0": "conv1",
    "conv.1": "norm1",
    "conv.3": "conv2",
    "conv.4": "norm2",
    "residual.0": "shortcut.0",
    "residual.1": "shortcut.1",
}
_PLACES = {
    "bottleneck": "bottleneck",
    "seg_head": "surface_head",
    "normal_head": "normals_head",
    **{f"enc{i}": f"encoder.{i - 1}" for i in range(1, _LEVELS + 1)},
    **{f"dec{i}": f"decoder.{_LEVELS - i}" for i in range(1, _LEVELS + 1)},
    **{f"up{i}": f"upsamplers.{_LEVELS - i}" for i in range(1, _LEVELS + 1)},
}
_KEY = re.compile(r"^(?P<place>[a-z_]+\d?)\.(?:(?P<part>(?:conv|residual)\.\d)\.)?(?P<leaf>\w+)$")


def _translate(key: str) -> str:
    """Return our parameter name for the original's, e.g. 'enc1.conv.0.weight'."""
    match = _KEY.match(key.removeprefix("model."))
    part = match["part"] if match else None
    if match is None or match["place"] not in _PLACES or (part and part not in _BLOCK_PARTS):
        raise CheckpointError(
            f"Parameter {key!r} is not one of the original Chimera network (enc1..4, bottleneck, "
            "up1..4, dec1..4, seg_head, normal_head); this file belongs to another network."
        )
    middle = f".{_BLOCK_PARTS[part]}" if part else ""
    return f"{_PLACES[match['place']]}{middle}.{match['leaf']}"


def read_original_weights(path: str | Path) -> dict[str, Tensor]:
    """Return a state dict for DualHeadResUNet3D from an original `best_model.pth`.

    Accepts a checkpoint with `model_state_dict` or a bare state dict, with or without the prefix
    `model.`. Read with `weights_only=True`: nothing in the file is executed.

    Raises:
        CheckpointError: unreadable file, or parameters of another network.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"Weights file not found: {path}") from None
    except Exception as error:
        raise CheckpointError(
            f"Cannot read weights from {path} ({type(error).__name__}: {error}). Expected a torch "
            "checkpoint of plain tensors that loads with weights_only=True."
        ) from error
    state = content.get("model_state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(
            f"{path} holds neither `model_state_dict` nor a plain state dict of tensors."
        )
    return {_translate(key): value for key, value in state.items()}


def load_original_weights(model: DualHeadResUNet3D, path: str | Path) -> DualHeadResUNet3D:
    """Load the original's weights into `model` in place and return it.

    Raises:
        CheckpointError: unreadable file, or another width or layout than `model`.
    """
    state = read_original_weights(path)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        width = state.get("surface_head.weight")
        found = f"n_filters={width.shape[1]}" if width is not None else "no surface head"
        raise CheckpointError(
            f"{path} does not fit the network: the file has {found}, the network "
            f"n_filters={model.n_filters} with strides {model.strides_zyx}. Set "
            f"model.n_filters to the file's value and keep the default strides. ({error})"
        ) from error
    return model
