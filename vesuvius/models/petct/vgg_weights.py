"""Reads and strips VGG19 weight files, never executing anything in them."""

import hashlib
import pickle
import re
from pathlib import Path

import torch
from torch import Tensor

from vesuvius.errors import CheckpointError
from vesuvius.storage.files import whole_file

GREY = (0.299, 0.587, 0.114)
"""Weights of R, G, B in grey (ITU-R BT.601)."""
_IN_OUT = {
    0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128),
    10: (128, 256), 12: (256, 256), 14: (256, 256), 16: (256, 256),
}  # fmt: skip
SHAPES: dict[str, tuple[int, ...]] = {}
"""Tensors that are used, with the shapes of torchvision's file."""
for _number, (_in, _out) in _IN_OUT.items():
    SHAPES[f"features.{_number}.weight"] = (_out, _in, 3, 3)
    SHAPES[f"features.{_number}.bias"] = (_out,)


def read_vgg19(path: Path) -> tuple[dict[str, Tensor], str]:
    """Return (tensors for `VGG19Branch`, SHA-256 of the file); RGB is folded into grey.

    Raises:
        CheckpointError: missing, damaged, another hash than its name says, or not VGG19's.
    """
    tensors, digest = read_rgb(path)
    first = tensors["features.0.weight"]
    tensors["features.0.weight"] = grey_weight(first)
    return tensors, digest


def grey_weight(rgb: Tensor) -> Tensor:
    """Return an (o, 1, y, x) kernel for grey input from an (o, 3, y, x) one for R, G, B."""
    return (rgb * torch.tensor(GREY, dtype=rgb.dtype).view(1, 3, 1, 1)).sum(1, keepdim=True)


def read_rgb(path: Path) -> tuple[dict[str, Tensor], str]:
    """Return (the eight convolutions as stored, SHA-256 of the file).

    Raises:
        CheckpointError: see `read_vgg19`.
    """
    if not path.is_file():
        raise CheckpointError(
            f"model.vgg.weights={path}: no such file. Nothing is downloaded: fetch torchvision's "
            "vgg19-dcbb9e9d.pth yourself, or set random or none."
        )
    digest = file_sha256(path)
    named = re.search(r"-([0-9a-f]{8})$", path.stem)
    if named and not digest.startswith(named[1]):
        raise CheckpointError(
            f"{path}: its SHA-256 begins with {digest[:8]}, its name says {named[1]}; the file is "
            "damaged or incomplete, fetch it again."
        )
    content = _load(path)
    wrong = [
        f"{name} is {tuple(content[name].shape) if name in content else 'missing'}, expected {size}"
        for name, size in SHAPES.items()
        if name not in content or tuple(content[name].shape) != size
    ]
    if wrong:
        raise CheckpointError(f"{path} does not hold VGG19's weights: {'; '.join(wrong[:3])}.")
    return {name: content[name].float() for name in SHAPES}, digest


def _load(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
        lines = str(error).strip().splitlines() or ["no message"]
        raise CheckpointError(
            f"Cannot read {path} ({type(error).__name__}: {lines[0]}); expected a state dict of "
            "tensors, .pth or .safetensors."
        ) from error
    except Exception as error:  # safetensors' own class is imported only where it is used
        raise CheckpointError(f"Cannot read {path} ({error}).") from error
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise CheckpointError(f"{path} holds no plain state dict of tensors.")
    return content


def strip_vgg19(source: Path, target: Path) -> str:
    """Write the eight convolutions of a full file (9.3 MB, R, G, B kept); return its SHA-256.

    Args:
        source: see `read_rgb`.
        target: .safetensors or .pth file to write.

    Raises:
        CheckpointError: the source is unreadable or not VGG19's.
        StorageError: the target cannot be written.
    """
    tensors, _ = read_rgb(source)
    with whole_file(target, also=RuntimeError) as partial:  # of torch, on a full disk
        if target.suffix == ".safetensors":
            from safetensors.torch import save_file

            save_file({k: v.contiguous() for k, v in tensors.items()}, partial)
        else:
            torch.save({k: v.clone() for k, v in tensors.items()}, partial)
    return file_sha256(target)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
