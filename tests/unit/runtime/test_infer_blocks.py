"""Which process does what, and what a mask lets through."""

import numpy as np
import pytest
import tifffile
from omegaconf import OmegaConf

from vesuvius.data.region import RegionView
from vesuvius.data.volume import Volume
from vesuvius.errors import ConfigError, ShapeMismatchError
from vesuvius.runtime.infer_blocks import occupied_by, use_blocks, which_rank


def _cfg(**values):
    base = {"rank": None, "world_size": None, "blocks": "auto", "whole_voxels": 1000}
    return OmegaConf.create({**base, **values})


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (0, 1)),
        ({"RANK": "2", "WORLD_SIZE": "4"}, (2, 4)),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, (1, 2)),
        (
            {
                "SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "5",
                "SLURM_ARRAY_TASK_MIN": "5", "SLURM_PROCID": "0", "SLURM_NTASKS": "1",
            },
            (2, 5),
        ),
    ],
)  # fmt: skip
def test_rank_of_every_scheduler(environment, expected):
    assert which_rank(_cfg(), environment) == expected
    assert which_rank(_cfg(rank=3, world_size=9), environment) == (3, 9)


def test_ranks_that_cannot_be():
    with pytest.raises(ConfigError, match="given together"):
        which_rank(_cfg(rank=1), {})
    with pytest.raises(ConfigError, match="rank=5 of world_size=5; expected ranks 0 to 4"):
        which_rank(_cfg(rank=5, world_size=5), {})


def test_blocks_are_for_large_volumes_and_several_ranks(tmp_path):
    tifffile.imwrite(tmp_path / "v.tif", np.zeros((10, 10, 10), np.uint8))
    image = RegionView(Volume(tmp_path / "v.tif"))
    assert not use_blocks(_cfg(), image)
    assert use_blocks(_cfg(whole_voxels=999), image)
    assert use_blocks(_cfg(rank=0, world_size=2), image)
    assert not use_blocks(_cfg(blocks=False, whole_voxels=9), image)
    with pytest.raises(ConfigError, match="blocks=maybe; expected true, false or auto"):
        use_blocks(_cfg(blocks="maybe"), image)


def test_a_coarse_mask_in_the_coordinates_of_the_region(tmp_path):
    np.save(tmp_path / "v.npy", np.zeros((20, 20, 22), np.uint8))
    mask = np.zeros((5, 5, 6), np.uint8)
    mask[4, 0, 5] = 3  # voxels 16..19, 0..3, 20..21
    np.save(tmp_path / "m.npy", mask)
    image = RegionView(Volume(tmp_path / "v.npy"), [[10, 20], [0, 20], [6, 22]])
    occupied = occupied_by(tmp_path / "m.npy", image)
    assert occupied((6, 0, 14), (10, 4, 16))
    assert occupied((0, 0, 0), (10, 20, 16))
    assert not occupied((0, 0, 0), (6, 20, 16))
    assert not occupied((0, 4, 0), (10, 20, 16))
    np.save(tmp_path / "odd.npy", np.zeros((5, 5, 7), np.uint8))
    with pytest.raises(ShapeMismatchError, match=r"shape \(5, 5, 7\); expected \(20, 20, 22\)"):
        occupied_by(tmp_path / "odd.npy", image)


@pytest.mark.parametrize(
    "region",
    [
        [[0, 5], [0, 5]],
        [[5, 5], [0, 5], [0, 5]],
        [[0, 21]] * 3,
        [1, 2, 3],
        [[0, 2.5]] * 3,
        [["0", "5"]] * 3,
        7,
    ],
)
def test_a_region_that_is_none(tmp_path, region):
    np.save(tmp_path / "v.npy", np.zeros((20, 20, 22), np.uint8))
    message = r" is no box of .*v\.npy.*; expected \[\[z0,z1\]"
    with pytest.raises(ConfigError, match=message) as caught:
        RegionView(Volume(tmp_path / "v.npy"), region)
    assert str(caught.value).startswith(f"region_zyx={region} is")
