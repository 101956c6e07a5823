"""Turns an nnU-Net v2 model folder into a folder that infer.py takes as `run_dir`."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from vesuvius import __version__
from vesuvius.errors import CheckpointError, ConfigError, RunFileError
from vesuvius.inference.nnunet import Normalisation
from vesuvius.inference.store import write_json
from vesuvius.models.nnunet import constants_of
from vesuvius.runtime.nnunet_checkpoint import Checkpoint, read_fold
from vesuvius.runtime.nnunet_plans import (
    configuration_of,
    grey_max_of,
    heads_of,
    network_config,
    normalisation_of,
)
from vesuvius.runtime.run_folder import EXPORTED_CONFIG, EXPORTED_WEIGHTS, file_hash
from vesuvius.runtime.versions import git_commit
from vesuvius.runtime.weights import describe_differences

SAME_SPACING = 0.01
"""Relative difference of voxel sizes that needs no resampling."""


def import_nnunet(
    folder: Path,
    out: Path,
    *,
    folds: Sequence[str] | None = None,
    checkpoint: str = "checkpoint_final.pth",
    label: str | None = None,
    spacing_zyx: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Write `config.yaml`, `model.safetensors` and `nnunet.json` to a new folder.

    Args:
        folder: holds plans.json, dataset.json and fold_<k>/<checkpoint>.
        out: folder that does not exist yet.
        folds: "0", "1", ..., "all"; their logits are averaged. None = all that are there.
        checkpoint: file name in each fold's folder.
        label: name of the surface's label in dataset.json.
        spacing_zyx: voxel size of the volumes to predict, in the unit of the training data; None
            = as in training. nnU-Net resamples others; this package refuses them.

    Returns:
        What `nnunet.json` says.

    Raises:
        RunFileError: a file is missing or is no JSON.
        ConfigError: `out` exists; a 2-D network, a cascade, several image channels, another
            spacing, no such label.
        CheckpointError: a checkpoint holds code, is truncated, or does not fit the plans.
    """
    if out.exists():
        raise ConfigError(f"{out} exists already; give --out a new folder, or remove it first.")
    plans, dataset = _read_json(folder / "plans.json"), _read_json(folder / "dataset.json")
    found = [read_fold(path) for path in fold_files(folder, folds, checkpoint)]
    names = sorted({c.configuration for c in found})
    if len(names) > 1:
        raise ConfigError(f"the folds were trained with different configurations: {names}")
    try:
        config, facts = describe(plans, dataset, found, label=label)
    except (KeyError, TypeError, IndexError) as error:
        raise CheckpointError(
            f"{folder}: plans.json or dataset.json is not as nnU-Net v2 writes it "
            f"({type(error).__name__}: {error})."
        ) from error
    _check_spacing(facts["spacing"], spacing_zyx)
    network = instantiate(config["model"], _convert_="all")
    load_folds_into(network, found)
    _write(out, config, facts, network)
    return facts


def fold_files(folder: Path, folds: Sequence[str] | None, checkpoint: str) -> list[Path]:
    """Return the folds' checkpoint files.

    Raises:
        RunFileError: none there, or one that was asked for is missing.
    """
    if folds is None:
        paths = sorted(folder.glob(f"fold_*/{checkpoint}"))
        if not paths:
            there = sorted(p.parent.name + "/" + p.name for p in folder.glob("fold_*/*.pth"))
            raise RunFileError(
                f"{folder}: no fold_<k>/{checkpoint}; it has {there or 'no checkpoint'}. Give the "
                "folder <trainer>__<plans>__<configuration>, or another --checkpoint."
            )
        return paths
    paths = [folder / f"fold_{fold}" / checkpoint for fold in folds]
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise RunFileError(f"{missing[0]}: no such file (--folds, --checkpoint)")
    return paths


def describe(
    plans: Mapping[str, Any],
    dataset: Mapping[str, Any],
    found: Sequence[Checkpoint],
    *,
    label: str | None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the content of `config.yaml` and of `nnunet.json`."""
    configuration = configuration_of(plans, found[0].configuration)
    channels = dataset["channel_names"] if "channel_names" in dataset else dataset["modality"]
    if len(channels) != 1:
        raise ConfigError(
            f"the model takes {len(channels)} image channels {list(channels.values())}; expected 1."
        )
    num_heads, head, softmax = heads_of(dataset, label)
    normalisation = normalisation_of(plans, configuration)
    figures = Normalisation(**normalisation)
    constants = constants_of(
        figures.scheme, mean=figures.mean, std=figures.std, low=figures.low, high=figures.high
    )
    transpose = [int(axis) for axis in plans["transpose_forward"]]
    network = network_config(configuration, in_channels=1, num_classes=num_heads)
    patch = [int(n) for n in configuration["patch_size"]]
    facts = {
        "dataset": plans.get("dataset_name"),
        "plans": plans.get("plans_name"),
        "configuration": found[0].configuration,
        "trainer": found[0].trainer,
        "folds": [c.fold for c in found],
        "checkpoints": {c.fold: file_hash(c.path) for c in found},
        "normalisation": normalisation,
        "grey_max": grey_max_of(plans),
        "head": head,
        "softmax": softmax,
        "patch_size": patch,
        "spacing": [float(n) for n in configuration["spacing"]],
        "transpose": transpose,
        "mirror_axes": list(found[0].mirror_axes),
        "vesuvius": __version__,
        "git_commit": git_commit(),
    }
    model = {
        "_target_": "vesuvius.models.nnunet.NnunetSurface",
        "networks": [network for _ in found],
        "head": head,
        "softmax": softmax,
        "grey_max": facts["grey_max"],
        "constants": None if constants is None else list(constants),
        "transpose": transpose,
    }
    patch_zyx = [patch[transpose.index(axis)] for axis in range(3)]
    return {"model": model, "data": {"patch_zyx": patch_zyx}}, facts


def load_folds_into(network: nn.Module, found: Sequence[Checkpoint]) -> None:
    """Load each fold's weights, all of them and no others.

    Raises:
        CheckpointError: they do not fit the network the plans describe.
    """
    networks = network.get_submodule("networks")
    assert isinstance(networks, nn.ModuleList)
    for part, checkpoint in zip(networks, found, strict=True):
        differences = describe_differences(part.state_dict(), checkpoint.weights)
        if differences:
            raise CheckpointError(
                f"{checkpoint.path} does not fit the network of plans.json: {differences}. Was it "
                f"trained by a trainer that changes the network ({checkpoint.trainer})?"
            )
        part.load_state_dict(checkpoint.weights)


def _check_spacing(trained: Sequence[float], given: Sequence[float] | None) -> None:
    if given is None:
        return
    if any(abs(a - b) > SAME_SPACING * a for a, b in zip(trained, given, strict=True)):
        raise ConfigError(
            f"--spacing is {list(given)}, but the model was trained at {list(trained)}. nnU-Net "
            "would resample; this package does not: bring the volumes to the model's voxel size "
            "first (an OME-Zarr level, or scipy.ndimage.zoom)."
        )


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise RunFileError(
            f"{path}: no such file. Give the folder that holds plans.json, dataset.json and "
            "fold_0, e.g. nnUNet_results/Dataset001_x/nnUNetTrainer__nnUNetPlans__3d_fullres."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunFileError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(content, dict):
        raise RunFileError(f"{path}: holds a {type(content).__name__}; expected an object")
    return content


def _write(
    out: Path, config: Mapping[str, Any], facts: Mapping[str, Any], network: nn.Module
) -> None:
    from safetensors.torch import save

    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        state = {name: value.contiguous() for name, value in network.state_dict().items()}
        (partial / EXPORTED_WEIGHTS).write_bytes(save(state, metadata={"format": "pt"}))
        OmegaConf.save(OmegaConf.create(dict(config)), partial / EXPORTED_CONFIG)
        write_json(partial / "nnunet.json", facts)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
