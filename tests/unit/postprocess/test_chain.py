"""A chain runs named steps in order, checks their order and keeps sheet numbers on the mask."""

import numpy as np
import pytest

from vesuvius.errors import ConfigError, SolverError
from vesuvius.postprocess.chain import ChainPostprocess, fitted_labels
from vesuvius.postprocess.steps.dust import RemoveDust
from vesuvius.postprocess.steps.morphology import Morphology
from vesuvius.postprocess.steps.nested import Nested
from vesuvius.postprocess.steps.smoothing import GaussianProbability
from vesuvius.postprocess.steps.thresholds import Threshold
from vesuvius.types import PostprocessResult


def two_pieces():
    p = np.zeros((8, 8, 8), np.float32)
    p[1, 1, 1:4] = 0.9  # 3 voxels
    p[6, 1:7, 1:7] = 0.8  # 36 voxels
    return p


def test_steps_run_in_order_and_report_voxels_and_seconds():
    chain = ChainPostprocess(
        step={"cut": Threshold(threshold=0.5), "dust": RemoveDust(min_size_voxels=4)}, threads=1
    )
    result = chain(two_pieces())
    assert result.mask.dtype == np.uint8
    assert int(result.mask.sum()) == 36
    assert result.labels is None
    assert result.report["01_cut/voxels"] == 39
    assert result.report["02_dust/components_removed"] == 1
    assert result.report["02_dust/seconds"] >= 0
    assert result.report["mask_share"] == pytest.approx(36 / 512)


def test_order_repeats_and_leaves_out():
    steps = {
        "dust": RemoveDust(min_size_voxels=4),
        "cut": Threshold(threshold=0.5),
        "close": Morphology(radius=1),
    }
    chain = ChainPostprocess(step=steps, order=["cut", "dust", "cut"], threads=1)
    assert [name for name, _ in chain.steps] == ["cut", "dust", "cut"]
    assert int(chain(two_pieces()).mask.sum()) == 39  # the second cut starts afresh


@pytest.mark.parametrize(
    ("step", "order", "message"),
    [
        ({}, None, "no step"),
        ({"cut": Threshold()}, ["dust"], "order names"),
        ({"dust": RemoveDust(), "cut": Threshold()}, None, "'dust' needs a mask"),
        ({"blur": GaussianProbability()}, None, "no step of"),
        ({"cut": "threshold"}, None, "is a str"),
    ],
)
def test_impossible_chains_are_refused_at_construction(step, order, message):
    with pytest.raises(ConfigError, match=message):
        ChainPostprocess(step=step, order=order)


def test_bad_probability_is_refused():
    chain = ChainPostprocess(step={"cut": Threshold()})
    with pytest.raises(SolverError, match="holds NaN"):
        chain(np.full((2, 2, 2), np.nan, np.float32))


class Halves:
    """A post-processing that numbers the lower half of p > 0.5 1 and the upper half 2."""

    def __call__(self, probability, normals=None):
        labels = np.where(probability > 0.5, 1, 0).astype(np.int32)
        labels[len(labels) // 2 :] *= 2
        return PostprocessResult((labels > 0).astype(np.uint8), labels, {"sheets": 2})


def test_sheet_numbers_follow_the_mask():
    step = {"solve": Nested(postprocess=Halves()), "close": Morphology(radius=[0, 1, 1])}
    p = two_pieces()
    p[6, 3, 3] = 0  # a hole that the closing fills
    result = ChainPostprocess(step=step, threads=1)(p)
    assert result.mask[6, 3, 3] == 1
    assert np.array_equal(result.labels > 0, result.mask > 0)
    assert result.labels[6, 3, 3] == 2
    assert result.labels[1, 1, 2] == 1
    assert result.report["01_solve/sheets"] == 2


def test_nested_sees_only_the_mask_before_it():
    step = {
        "cut": Threshold(),
        "dust": RemoveDust(min_size_voxels=4),
        "solve": Nested(postprocess=Halves(), within_mask=True),
    }
    result = ChainPostprocess(step=step, threads=1)(two_pieces())
    assert set(np.unique(result.labels)) == {0, 2}


def test_new_voxels_take_their_neighbours_number_and_new_pieces_new_ones():
    labels = np.zeros((1, 1, 12), np.int32)
    labels[0, 0, 1], labels[0, 0, 4], labels[0, 0, 5] = 3, 7, 7
    mask = np.array([1, 1, 0, 0, 0, 1, 1, 1, 0, 0, 1, 1], bool).reshape(1, 1, 12)
    assert fitted_labels(labels, mask).ravel().tolist() == [3, 3, 0, 0, 0, 7, 7, 7, 0, 0, 8, 8]
