"""A prediction written block by block into `<id>.zarr`."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vesuvius.inference.accumulate import NORMALS, PROBABILITY, STORED_MAX
from vesuvius.inference.store import block_arrays, group_attributes, output_names, prediction_path
from vesuvius.storage.block_store import BlockStore
from vesuvius.types import Report


class PredictionBlocks(BlockStore):
    """One volume's prediction in the making; see `BlockStore`.

    Args:
        folder: made if missing.
        volume_id: file stem.
        shape_zyx: volume in voxels.
        outputs: names of what to store: "probability", "normals", "density".
        settings: what decides the result; an unfinished store of other settings is refused.
        provenance: facts for the reader; the same in every run of the same work.
        block: edge of a block in voxels, a multiple of 64.
        voxel_size_zyx_um: edge lengths of a voxel in micrometres, None if unknown.
        origin_zyx: first voxel of the region in its volume: becomes the OME translation.

    Raises:
        ConfigError: unknown output, wrong block edge, or unfinished work with other settings.
        StorageError: the folder cannot be written.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        volume_id: str,
        *,
        shape_zyx: Sequence[int],
        outputs: Sequence[str] = (PROBABILITY, NORMALS),
        settings: Mapping[str, Any] | None = None,
        provenance: Mapping[str, Any] | None = None,
        block: int = 256,
        voxel_size_zyx_um: Sequence[float] | None = None,
        origin_zyx: Sequence[int] = (0, 0, 0),
    ) -> None:
        names = output_names(outputs)
        super().__init__(
            prediction_path(folder, volume_id),
            block_arrays(names),
            shape_zyx=shape_zyx,
            attributes=group_attributes(names, settings or {}, provenance or {}),
            block=block,
            voxel_size_zyx_um=voxel_size_zyx_um,
            origin_zyx=origin_zyx,
            name=volume_id,
        )

    def figures(self, values: Mapping[str, npt.NDArray[Any]]) -> Report:
        """Return sums over the probability of one block."""
        probability = values[PROBABILITY]
        total = int(probability.sum(dtype=np.int64))
        return {
            "voxels": probability.size,
            "sum": total,
            "above_half": int((probability >= STORED_MAX[PROBABILITY] / 2).sum()),
            "blocks_empty": int(total == 0),
        }

    def report(self, total: Mapping[str, int]) -> Report:
        """Return figures of the whole prediction, also of former runs."""
        return {
            "blocks": total["blocks"],
            "blocks_empty": total["blocks_empty"],
            "mask_share_at_half": total["above_half"] / total["voxels"],
            "probability_mean": total["sum"] / total["voxels"] / STORED_MAX[PROBABILITY],
        }
