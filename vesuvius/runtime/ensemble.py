"""Several trained networks as one predictor: `infer.py run_dir=[a,b,c]`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from vesuvius.errors import ConfigError
from vesuvius.inference import (
    InferenceNetwork,
    Predict,
    ensemble_predictor,
    prepare_network,
    surface_predictor,
    with_normals_from,
)
from vesuvius.inference.network import Precision
from vesuvius.inference.predictor import NormalsFrom, Tta
from vesuvius.runtime.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class Member:
    """One checkpoint of one run."""

    run: RunFolder
    checkpoint: Path


def as_list(value: str | Path | Sequence[str]) -> list[str]:
    """Return one name, or several, as a list."""
    return [str(value)] if isinstance(value, (str, Path)) else [str(item) for item in value]


def find_members(run_dir: str | Sequence[str], checkpoint: str | Sequence[str]) -> list[Member]:
    """Pair runs and checkpoints: several runs, several checkpoints of one run, or one for one.

    Args:
        run_dir: one folder or several.
        checkpoint: 'best', 'last' or a path, or several.

    Raises:
        ConfigError: nothing, the same checkpoint twice, or lists of different lengths.
        CheckpointError: a checkpoint does not exist.
    """
    runs, names = as_list(run_dir), as_list(checkpoint)
    if not runs or not names or (len(runs) > 1 and len(names) not in (1, len(runs))):
        raise ConfigError(
            f"run_dir names {len(runs)} runs and checkpoint {len(names)}: give one checkpoint "
            "name for all runs, one for each, or several of one run."
        )
    if len(names) == 1 < len(runs) and names[0] not in ("best", "last"):
        raise ConfigError(
            f"checkpoint={names[0]} is one file, but run_dir names {len(runs)} runs; use best or "
            "last, or one path for each run."
        )
    count = max(len(runs), len(names))
    folders = [RunFolder(path) for path in (runs if len(runs) > 1 else runs * count)]
    names = names if len(names) > 1 else names * count
    members = [Member(run, run.checkpoint(name)) for run, name in zip(folders, names, strict=True)]
    paths = [member.checkpoint.resolve() for member in members]
    if len(set(paths)) < len(paths):
        raise ConfigError("the same checkpoint is named twice (run_dir, checkpoint); name it once.")
    return members


def common_patch(members: Sequence[Member]) -> list[int]:
    """Return the largest crop the members were trained on, axis by axis."""
    patches = [member.run.patch_zyx() for member in members]
    return [max(sizes) for sizes in zip(*patches, strict=True)]


def common_volume_ids(members: Sequence[Member], side: str) -> list[str]:
    """Return the volumes that are on one side of every member's split.

    Raises:
        ConfigError: there is none.
    """
    sides = [member.run.volume_ids(side) for member in members]
    common = [name for name in sides[0] if all(name in other for other in sides)]
    if not common:
        raise ConfigError(
            f"split={side}: no volume is on that side of all {len(members)} runs; leave split=null "
            "or use `vesuvius oof` for the runs of a cross-validation."
        )
    return common


def build_ensemble(
    trained: Sequence[nn.Module],
    *,
    weights: Sequence[float] | None,
    device: str,
    precision: Precision,
    tta: Tta,
    normals: NormalsFrom = "head",
) -> tuple[Predict, InferenceNetwork]:
    """Return the predictor of the networks' mean, and the first of them.

    Raises:
        ConfigError: networks that read different images, weights that do not fit, or an unknown
            source of normals.
    """
    networks = [prepare_network(net, device=device, precision=precision) for net in trained]
    channels = sorted({network.in_channels for network in networks})
    if len(channels) > 1:
        raise ConfigError(
            f"the networks of run_dir read {channels} channels: first and second stages cannot "
            "share an ensemble; predict with the first ones, then give prior=<that folder>."
        )
    predictors = [surface_predictor(network, tta=tta) for network in networks]
    mean = ensemble_predictor(predictors, weights=weights)
    return with_normals_from(mean, normals), networks[0]
