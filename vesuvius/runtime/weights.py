"""Reads network weights from our checkpoints or the original's, never executing anything."""

import pickle
from pathlib import Path

import torch
from torch import Tensor, nn

from vesuvius.errors import CheckpointError
from vesuvius.models.dual_head_unet import DualHeadResUNet3D
from vesuvius.models.original_weights import load_original_weights


def read_checkpoint(path: str | Path) -> dict[str, object]:
    """Return a checkpoint's dictionary, read with `weights_only=True`.

    Raises:
        CheckpointError: missing, truncated, or holding anything but plain data.
    """
    if not Path(path).is_file():
        raise CheckpointError(
            f"Checkpoint not found: {path}. Look in <run_dir>/checkpoints for best.ckpt, last.ckpt."
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, KeyError, ValueError, pickle.UnpicklingError) as error:
        lines = str(error).strip().splitlines()
        # torch's long messages advise weights_only=False, which would run the file's code
        first_line = lines[0].split(". ")[0] if lines else "no message"
        raise CheckpointError(
            f"Cannot read checkpoint {path} ({type(error).__name__}: {first_line}). The file is "
            "truncated, not a torch checkpoint, or holds code, which is never executed."
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}; expected a checkpoint.")
    return content


def read_safetensors(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of an exported `model.safetensors`.

    Raises:
        CheckpointError: missing, truncated, or another format.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not Path(path).is_file():
        raise CheckpointError(f"Weights not found: {path}. `vesuvius export RUN_DIR` writes them.")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"Cannot read {path} ({error}). The file is truncated or no safetensors file; export "
            "the run again."
        ) from error


def load_network(model: nn.Module, path: str | Path) -> nn.Module:
    """Load the network's weights: a checkpoint of ours, `model.safetensors`, or an original's.

    Raises:
        CheckpointError: unreadable, or of another network (the differing tensors are named).
    """
    if Path(path).suffix == ".safetensors":
        weights = read_safetensors(path)
    else:
        state = read_checkpoint(path).get("state_dict")
        if not isinstance(state, dict):
            if isinstance(model, DualHeadResUNet3D):
                return load_original_weights(model, path)
            raise CheckpointError(
                f"{path} has no `state_dict`; it is no checkpoint of this framework."
            )
        prefix = "model."
        weights = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    differences = describe_differences(model.state_dict(), weights)
    if differences:
        raise CheckpointError(
            f"{path} belongs to another network than {type(model).__name__}: {differences}. "
            "Use the model options the checkpoint was trained with (infer.py takes them from "
            "the run folder)."
        )
    model.load_state_dict(weights)
    return model


def describe_differences(
    expected: dict[str, Tensor], found: dict[str, Tensor], *, num_named: int = 3
) -> str:
    """Return which tensors are missing, unexpected or of another shape; '' if none."""
    missing = [k for k in expected if k not in found]
    unexpected = [k for k in found if k not in expected]
    shapes = [
        f"{k} is {tuple(found[k].shape)}, expected {tuple(v.shape)}"
        for k, v in expected.items()
        if k in found and found[k].shape != v.shape
    ]
    parts = []
    for name, keys in (("missing", missing), ("unexpected", unexpected), ("shape", shapes)):
        if keys:
            rest = f" and {len(keys) - num_named} more" if len(keys) > num_named else ""
            parts.append(f"{name}: {', '.join(keys[:num_named])}{rest}")
    return "; ".join(parts)
