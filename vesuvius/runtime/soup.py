"""Averages the weights of several checkpoints into one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vesuvius.errors import CheckpointError, ConfigError
from vesuvius.runtime.checkpoint_io import AtomicCheckpointIO
from vesuvius.runtime.run_folder import file_hash
from vesuvius.runtime.weights import describe_differences, read_checkpoint


def make_soup(
    checkpoints: Sequence[Path], out: Path, *, weights: Sequence[float] | None = None
) -> Path:
    """Write the weighted mean of the checkpoints' `state_dict`s to `out` and return it.

    Only one checkpoint is held in memory beside the sum. Means are taken in float64; integers
    (counters) come from the first checkpoint. Norm statistics are averaged too, which suits
    checkpoints of one run or fine-tunings of one network. Networks trained from different random
    weights do not average: make an ensemble of them (`infer.py run_dir=[a,b]`).

    Args:
        checkpoints: at least two, of networks of the same shape.
        out: a checkpoint for `infer.py checkpoint=` and `train.py weights=`.
        weights: positive, one each; None = equal.

    Raises:
        ConfigError: fewer than two, one named twice, weights that do not fit, `out` is a source.
        CheckpointError: unreadable, without weights, of another network, or not finite.
        StorageError: `out` cannot be written.

    Source: Wortsman et al. 2022 (uniform soup); Izmailov et al. 2018 (checkpoints of one run).
    """
    shares = _check(checkpoints, out, weights)
    total: dict[str, Tensor] = {}
    first: dict[str, Tensor] = {}
    for path, share in zip(checkpoints, shares, strict=True):
        state = _state(path)
        if not first:
            first = state
            total = {
                name: value.double() * share
                for name, value in state.items()
                if value.is_floating_point()
            }
            continue
        differences = describe_differences(first, state)
        if differences:
            raise CheckpointError(
                f"{path} belongs to another network than {checkpoints[0]}: {differences}."
            )
        for name, sums in total.items():
            sums.add_(state[name].double(), alpha=share)
    bad = [name for name, value in total.items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise CheckpointError(f"the mean of {bad[0]} is not finite: one of the runs diverged.")
    merged = {
        name: total[name].to(value.dtype) if name in total else value
        for name, value in first.items()
    }
    sources = [{"path": str(path), "hash": file_hash(path)} for path in checkpoints]
    content: dict[str, Any] = {"state_dict": merged, "soup": {"of": sources, "weights": shares}}
    AtomicCheckpointIO().save_checkpoint(content, out)
    return out


def _check(checkpoints: Sequence[Path], out: Path, weights: Sequence[float] | None) -> list[float]:
    """Return the shares of the checkpoints, which add up to 1."""
    paths = [path.resolve() for path in checkpoints]
    if len(paths) < 2 or len(set(paths)) < len(paths):
        raise ConfigError(f"a soup takes two or more different checkpoints, got {len(set(paths))}")
    if out.resolve() in paths:
        raise ConfigError(f"{out} is one of the sources; give another --out")
    given = [1.0] * len(paths) if weights is None else [float(w) for w in weights]
    if len(given) != len(paths) or min(given) <= 0:
        raise ConfigError(
            f"weights {given} for {len(paths)} checkpoints; expected one positive number for each"
        )
    return [weight / sum(given) for weight in given]


def _state(path: Path) -> dict[str, Tensor]:
    state = read_checkpoint(path).get("state_dict")
    if not isinstance(state, dict) or not state:
        raise CheckpointError(f"{path} has no `state_dict`; it is no checkpoint of this framework.")
    return state
