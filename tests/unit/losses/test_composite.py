"""The weighted sum, its report and its check of heads."""

import pytest
import torch

from vesuvius.errors import ConfigError
from vesuvius.losses.composite import CompositeLoss
from vesuvius.losses.normals import NormalLoss
from vesuvius.losses.overlap import BCELoss, DiceLoss


def composite(**weights):
    terms = {"dice": DiceLoss(), "bce": BCELoss(), "normal": NormalLoss()}
    return CompositeLoss(term={k: {"weight": w, "fn": terms[k]} for k, w in weights.items()})


def batch_and_outputs():
    torch.manual_seed(0)
    label = torch.zeros(1, 1, 8, 8, 8, dtype=torch.uint8)
    label[:, :, 3:5] = 1
    label[..., -2:] = 2
    logit = torch.randn(1, 1, 8, 8, 8)
    return {"label": label}, {"surface_logit": logit, "normals": torch.randn(1, 3, 8, 8, 8)}


def test_total_is_the_weighted_sum_and_terms_are_unweighted():
    batch, outputs = batch_and_outputs()
    one = composite(dice=1, bce=1, normal=1)(outputs, batch)
    two = composite(dice=1, bce=0.25, normal=3)(outputs, batch)
    for name in ("dice", "bce", "normal"):
        assert one[name] == two[name]
    expected = one["dice"] + 0.25 * one["bce"] + 3 * one["normal"]
    assert two["total"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_bfloat16_outputs_are_summed_in_float32():
    batch, outputs = batch_and_outputs()
    half = {name: value.bfloat16() for name, value in outputs.items()}
    exact = {name: value.float() for name, value in half.items()}
    loss = composite(dice=1, bce=1)
    assert loss(half, batch)["total"].dtype == torch.float32
    assert loss(half, batch)["total"] == loss(exact, batch)["total"]


def test_a_head_without_a_term_is_refused_with_the_cure():
    loss = composite(dice=1, bce=1)
    with pytest.raises(ConfigError, match=r"head 'normals' has no loss term.*normals_head=false"):
        loss.check_heads(("surface_logit", "normals"))


def test_a_term_without_its_head_is_refused():
    loss = composite(dice=1, normal=1)
    with pytest.raises(ConfigError, match="needs the head 'normals', the network has"):
        loss.check_heads(("surface_logit",))


def test_empty_and_negative_terms_are_refused():
    with pytest.raises(ConfigError, match=r"loss\.term is empty"):
        CompositeLoss(term={})
    with pytest.raises(ConfigError, match=r"weights must be >= 0, got \{'dice': -1\}"):
        composite(dice=-1)
