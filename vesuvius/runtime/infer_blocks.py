"""Block inference behind infer.py: when it is used, which rank this is, what is masked."""

import math
import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from vesuvius.data.region import RegionView
from vesuvius.data.volume import Volume
from vesuvius.errors import ConfigError, ShapeMismatchError
from vesuvius.inference.blocks import predict_blocks
from vesuvius.inference.prediction_blocks import PredictionBlocks
from vesuvius.types import Report

Zyx = tuple[int, int, int]

_RANKS = (
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"),
    ("RANK", "WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
)
"""Variables of a SLURM array, of torchrun and of srun, in the order in which they are asked."""


def which_rank(cfg: DictConfig, environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Return (rank, world size): the configured ones, else those of the scheduler, else (0, 1).

    Raises:
        ConfigError: only one of rank and world_size is given, or rank is out of range.
    """
    if (cfg.rank is None) != (cfg.world_size is None):
        raise ConfigError(
            f"rank={cfg.rank} and world_size={cfg.world_size} are given together or not at all"
        )
    rank, world = 0, 1
    if cfg.rank is not None:
        rank, world = int(cfg.rank), int(cfg.world_size)
    else:
        for name, count in _RANKS:
            if name in environment and count in environment:
                first = int(environment.get("SLURM_ARRAY_TASK_MIN", 0)) if "ARRAY" in name else 0
                rank, world = int(environment[name]) - first, int(environment[count])
                break
    if not 0 <= rank < world:
        raise ConfigError(
            f"rank={rank} of world_size={world}; expected ranks 0 to {world - 1}; a SLURM array "
            "needs consecutive indices"
        )
    return rank, world


def rank_suffix(cfg: DictConfig) -> str:
    """Return what keeps the reports of several processes apart: "", or "_rank<number>"."""
    rank, world = which_rank(cfg)
    return "" if world == 1 else f"_rank{rank}"


def winding_command(prediction: Path) -> str:
    """Return the command that numbers the sheets of a prediction too large for a mask."""
    out = prediction.with_name(f"{prediction.stem}_sheets.zarr")
    return shlex.join(["vesuvius", "winding", str(prediction), "--out", str(out)])


def use_blocks(cfg: DictConfig, image: RegionView) -> bool:
    """Tell whether a volume is predicted in blocks.

    Raises:
        ConfigError: `blocks` is none of true, false, auto.
    """
    if cfg.blocks not in (True, False, "auto"):
        raise ConfigError(f"blocks={cfg.blocks}; expected true, false or auto")
    if cfg.blocks == "auto":
        return is_large(cfg, image) or which_rank(cfg)[1] > 1
    return bool(cfg.blocks)


def is_large(cfg: DictConfig, image: RegionView) -> bool:
    """Tell whether a volume is too large to hold its prediction in memory."""
    return math.prod(image.shape) > int(cfg.whole_voxels)


def predict_in_blocks(
    cfg: DictConfig,
    predict: Any,
    volume_id: str,
    image: RegionView,
    *,
    roi_zyx: list[int],
    outputs: tuple[str, ...],
    settings: Mapping[str, Any],
    provenance: Mapping[str, Any],
    show: Any,
) -> Report:
    """Predict what is missing of one volume's blocks.

    The report's `finished` is true for one process: the one that ended the volume.

    Raises:
        VesuviusError: as in `predict_blocks`.
    """
    rank, world = which_rank(cfg)
    store = PredictionBlocks(
        cfg.out_dir,
        volume_id,
        shape_zyx=image.shape,
        outputs=outputs,
        settings=settings,
        provenance=provenance,
        block=cfg.block_edge,
        voxel_size_zyx_um=image.volume.voxel_size_zyx_um,
        origin_zyx=image.origin_zyx,
    )
    return predict_blocks(
        predict,
        image,
        store,
        roi_zyx=roi_zyx,
        overlap=cfg.overlap,
        batch_size=cfg.batch_size,
        device=cfg.device,
        empty_max=cfg.air_max,
        occupied=None if cfg.mask is None else occupied_by(cfg.mask, image),
        max_bytes=int(cfg.block_memory_gb * 2**30),
        rank=rank,
        world_size=world,
        progress=show,
    )


def occupied_by(mask: str | Path, image: RegionView) -> Callable[[Zyx, Zyx], bool]:
    """Return a function that tells whether a box of the region meets a mask.

    Args:
        mask: volume of the same shape as the whole image, or smaller by one whole factor
            (a coarse level); values above 0 are wanted.
        image: the region; boxes are in its coordinates.

    Raises:
        ShapeMismatchError: the mask has no such shape.
    """
    coarse = Volume(mask)
    whole = image.volume.shape_zyx
    factor = max(1, round(max(whole) / max(coarse.shape_zyx)))
    if tuple(-(-n // factor) for n in whole) != coarse.shape_zyx:
        raise ShapeMismatchError(
            f"mask={mask} has shape {coarse.shape_zyx}; expected {whole}, the image's, or that "
            "divided by a whole number and rounded up"
        )

    def occupied(start: Zyx, stop: Zyx) -> bool:
        low = [(a + o) // factor for a, o in zip(start, image.origin_zyx, strict=True)]
        high = [-(-(b + o) // factor) for b, o in zip(stop, image.origin_zyx, strict=True)]
        box = coarse.read((low[0], low[1], low[2]), (high[0], high[1], high[2]))
        return bool((box > 0).any())

    return occupied
