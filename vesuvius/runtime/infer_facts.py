"""Where a prediction comes from: written into stores, TIFFs and JSON files, read by `info`."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from vesuvius import __version__
from vesuvius.data.region import RegionView
from vesuvius.runtime.ensemble import Member
from vesuvius.runtime.versions import git_commit, package_versions

_DECISIVE = (
    *("run_dir", "volume", "checkpoint", "weights", "prior", "level", "region_zyx", "roi_zyx"),
    *("overlap", "batch_size", "tta", "precision", "device", "threshold", "air_max", "mask"),
)

_NOT_THE_WORK = ("out_dir", "rank", "world_size")
"""Keys that differ between processes or calls which make the same bytes."""


def model_facts(members: Sequence[Member], hashes: Sequence[str]) -> list[dict[str, str]]:
    """Return run folder, checkpoint, its hash and the network's class of every member."""
    return [
        {
            "run_dir": str(member.run.path),
            "checkpoint": str(member.checkpoint),
            "checkpoint_hash": digest,
            "model": str(OmegaConf.select(member.run.config, "model._target_", default="")),
        }
        for member, digest in zip(members, hashes, strict=True)
    ]


def provenance(
    cfg: DictConfig,
    *,
    models: Sequence[Mapping[str, str]],
    settings: Mapping[str, Any],
    image: RegionView,
) -> dict[str, Any]:
    """Return what made one prediction; the same for every run of the same work, so no date.

    Args:
        cfg: of infer.py.
        models: from `model_facts`.
        settings: what decides the result, as compared on resume.
        image: the volume, or the region of it.
    """
    volume = image.volume
    size = volume.voxel_size_zyx_um
    return {
        "command": command(cfg),
        "vesuvius": __version__,
        "git_commit": git_commit(),
        "packages": package_versions(),
        "models": [dict(model) for model in models],
        "settings": {**settings, "batch_size": cfg.batch_size, "threshold": cfg.threshold},
        "input": {
            "source": str(volume.source),
            "level": volume.level,
            "region_zyx": [[o, o + n] for o, n in zip(image.origin_zyx, image.shape, strict=True)],
            "shape_zyx": list(volume.shape_zyx),
            "dtype": str(volume.dtype),
            "voxel_size_zyx_um": None if size is None else list(size),
        },
    }


def command(cfg: DictConfig) -> str:
    """Return the command line of this call, as it was typed if Hydra knows, else as it decides."""
    if HydraConfig.initialized():
        typed = HydraConfig.get().overrides.task
        words = [text for text in typed if text.split("=")[0].lstrip("+") not in _NOT_THE_WORK]
    else:
        words = []
        for key in _DECISIVE:  # not all at once: paths.output_dir exists in Hydra's jobs alone
            node = OmegaConf.select(cfg, key)
            value = OmegaConf.to_container(node) if OmegaConf.is_config(node) else node
            if value is not None:
                words.append(f"{key}={_hydra_text(value)}")
    return shlex.join(["python", "infer.py", *words])


def _hydra_text(value: Any) -> str:
    """Return a value as Hydra's command line takes it: lists without quotes and blanks."""
    if isinstance(value, list):
        return f"[{','.join(map(_hydra_text, value))}]"
    return str(value)
