"""Label processing by hand."""

import pytest
import torch

from vesuvius.errors import ConfigError
from vesuvius.losses.composite import CompositeLoss
from vesuvius.losses.deep_supervision import DeepSupervisionLoss
from vesuvius.losses.labels import LabelProcessing
from vesuvius.losses.overlap import DiceLoss

SHAPE = (1, 1, 16, 9, 9)


def sheet(begin, end):
    label = torch.zeros(SHAPE, dtype=torch.uint8)
    label[:, :, begin:end] = 1
    return label


def test_pinholes_close_and_sheets_apart_stay_apart():
    label = sheet(2, 4)
    label[:, :, 7:9] = 1  # 3 voxels of gap
    whole = label.clone()
    label[0, 0, 2:4, 4, 3:5] = 0  # a hole of 2 voxels
    process = LabelProcessing(close=1, half_thickness=None)
    assert torch.equal(process(label), whole)
    assert torch.equal(process(whole), whole)


def test_closing_bridges_what_is_nearer_than_twice_its_size():
    label = sheet(2, 4)
    label[:, :, 6:8] = 1  # 2 voxels of gap
    assert torch.equal(LabelProcessing(close=1, half_thickness=None)(label), sheet(2, 8))


def test_thick_sheets_become_thin_and_the_rest_is_ignored():
    found = LabelProcessing(close=0, half_thickness=1)(sheet(4, 11))
    expected = sheet(6, 9)
    expected[:, :, 4:6] = 2
    expected[:, :, 9:11] = 2
    assert torch.equal(found, expected)


def test_thin_sheets_become_thick():
    assert torch.equal(LabelProcessing(close=0, half_thickness=1)(sheet(7, 8)), sheet(6, 9))


def test_ignored_voxels_stay_ignored():
    label = sheet(7, 8)
    label[..., 5:] = 2
    label[:, :, 7, :, 7:] = 1
    found = LabelProcessing(close=2, half_thickness=2)(label)
    assert torch.equal(found == 2, label == 2)
    assert (found[:, :, 5:10, :, :5] == 1).all()


def test_dust_is_ignored_with_what_it_would_have_grown_to():
    label = sheet(7, 8)
    label[0, 0, 2, 4, 4] = 1
    found = LabelProcessing(close=0, half_thickness=0, min_voxels=5)(label)
    assert found[0, 0, 2, 4, 4] == 2
    assert torch.equal(found == 1, sheet(7, 8) == 1)


@pytest.mark.parametrize("deep", [False, True])
def test_the_loss_sees_the_processed_label(deep):
    term = {"dice": {"weight": 1.0, "fn": DiceLoss()}}
    process = LabelProcessing(close=0, half_thickness=1)
    more = {"level_weights": [1, 1]} if deep else {}
    build = DeepSupervisionLoss if deep else CompositeLoss
    torch.manual_seed(0)
    outputs = {"surface_logit": torch.randn(SHAPE)}
    if deep:
        outputs["surface_logit_deep1"] = torch.randn(1, 1, 8, 3, 3)
    with_labels = build(term=term, labels=process, **more)(outputs, {"label": sheet(7, 8)})
    by_hand = build(term=term, **more)(outputs, {"label": sheet(6, 9)})
    assert with_labels["total"] == by_hand["total"]
    assert with_labels["dice"] == by_hand["dice"]


def test_bad_arguments_are_named():
    with pytest.raises(ConfigError, match="close=-1"):
        LabelProcessing(close=-1)
    with pytest.raises(ConfigError, match=r"nothing to do; set loss\.labels=null"):
        LabelProcessing(close=0, half_thickness=None)
