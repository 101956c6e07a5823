"""Reads the checkpoints of nnU-Net v2, never executing anything in them."""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core.multiarray import scalar as numpy_scalar
from torch import Tensor

from vesuvius.errors import CheckpointError

TWICE = (".all_modules.", "decoder.encoder.")
"""Parts of names under which nnU-Net stores a tensor a second time."""
NUMBERS: list[Any] = [
    (numpy_scalar, "numpy._core.multiarray.scalar"),
    (numpy_scalar, "numpy.core.multiarray.scalar"),  # written with numpy 1
    np.dtype,
    *{type(np.dtype(name)) for name in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u8", "?")},
]
"""What nnU-Net's log holds beside plain data: numbers of NumPy. Nothing of it runs code."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What one fold's checkpoint says.

    Attributes:
        path: the file.
        fold: name of its fold, "0" or "all".
        configuration: name in plans.json.
        mirror_axes: axes nnU-Net mirrors at inference, () = none.
        weights: tensors without those stored twice.
        trainer: nnU-Net's class.
    """

    path: Path
    fold: str
    configuration: str
    mirror_axes: tuple[int, ...]
    weights: dict[str, Tensor]
    trainer: str


def read_fold(path: Path) -> Checkpoint:
    """Return one fold's checkpoint, read without running anything in it.

    Raises:
        CheckpointError: truncated, holds code, or is not nnU-Net's.
    """
    try:
        with torch.serialization.safe_globals(NUMBERS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, KeyError, ValueError, pickle.UnpicklingError) as error:
        text = str(error).strip()
        line = next((x for x in text.splitlines() if "GLOBAL" in x or "Unsupported" in x), text)
        raise CheckpointError(
            f"Cannot read {path} ({type(error).__name__}: {line.strip()[:300]}). The file is "
            "truncated, no torch checkpoint, or holds more than tensors, numbers and text, which "
            "is never executed."
        ) from error
    try:
        return Checkpoint(
            path=path,
            fold=path.parent.name.removeprefix("fold_"),
            configuration=str(content["init_args"]["configuration"]),
            mirror_axes=tuple(
                int(a) for a in content.get("inference_allowed_mirroring_axes") or ()
            ),
            weights=unique_weights(content["network_weights"], path),
            trainer=str(content["trainer_name"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is no checkpoint of nnU-Net v2 (no {error}); train.py's go to infer.py as "
            "they are."
        ) from error


def unique_weights(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return the tensors without second copies, which must equal the first.

    Raises:
        CheckpointError: a second copy differs.
    """
    names = {name: name.removeprefix("module.").removeprefix("_orig_mod.") for name in state}
    unique = {n: state[raw] for raw, n in names.items() if not any(part in n for part in TWICE)}
    for raw, name in names.items():
        first = name.replace("decoder.encoder.", "encoder.")
        if name != first and first in unique and not torch.equal(state[raw], unique[first]):
            raise CheckpointError(f"{path}: {raw} differs from {first}, of which it is a copy.")
    return unique
