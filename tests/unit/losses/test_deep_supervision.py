"""Several scales by hand: coarse labels, weights of levels, checks."""

import pytest
import torch

from vesuvius.errors import ConfigError, ShapeMismatchError
from vesuvius.losses.composite import CompositeLoss
from vesuvius.losses.deep_supervision import DeepSupervisionLoss, coarse_label
from vesuvius.losses.normals import NormalLoss
from vesuvius.losses.overlap import BCELoss, DiceLoss


def terms():
    return {
        "dice": {"weight": 1.0, "fn": DiceLoss()},
        "bce": {"weight": 0.5, "fn": BCELoss(pos_weight=2)},
        "normal": {"weight": 3.0, "fn": NormalLoss()},
    }


def crop():
    torch.manual_seed(0)
    label = torch.zeros(2, 1, 8, 8, 8, dtype=torch.uint8)
    label[:, :, 3] = 1
    label[..., 7] = 2
    outputs = {
        "surface_logit": torch.randn(2, 1, 8, 8, 8),
        "normals": torch.randn(2, 3, 8, 8, 8),
        "surface_logit_deep1": torch.randn(2, 1, 8, 4, 4),
        "surface_logit_deep2": torch.randn(2, 1, 4, 2, 2),
    }
    return {"label": label}, outputs


def test_coarse_label_by_hand():
    label = torch.tensor([0, 0, 0, 1, 0, 2, 2, 2, 1, 2], dtype=torch.uint8).view(1, 1, 1, 1, 10)
    coarse = coarse_label(label, (1, 1, 5))
    assert coarse.flatten().tolist() == [0, 1, 2, 2, 1]
    assert coarse.dtype == torch.uint8
    with pytest.raises(ShapeMismatchError, match=r"deep output of \(1, 1, 4\) does not divide"):
        coarse_label(label, (1, 1, 4))


def test_total_by_hand():
    batch, outputs = crop()
    loss = DeepSupervisionLoss(term=terms(), level_weights=[1.0, 0.5, 0.25])
    found = loss(outputs, batch)
    plain = CompositeLoss(term=terms())
    finest = plain({k: outputs[k] for k in ("surface_logit", "normals")}, batch)
    surface = CompositeLoss(term={k: t for k, t in terms().items() if k != "normal"})
    coarse = []
    for name, size in (("surface_logit_deep1", (8, 4, 4)), ("surface_logit_deep2", (4, 2, 2))):
        small = {"label": coarse_label(batch["label"], size)}
        coarse.append(surface({"surface_logit": outputs[name]}, small)["total"])
    expected = (finest["total"] + 0.5 * coarse[0] + 0.25 * coarse[1]) / 1.75
    torch.testing.assert_close(found["total"], expected)
    assert {k: v for k, v in found.items() if k != "total"} == {
        k: v for k, v in finest.items() if k != "total"
    }


def test_validation_has_the_finest_level_alone():
    batch, outputs = crop()
    outputs = {k: outputs[k] for k in ("surface_logit", "normals")}
    found = DeepSupervisionLoss(term=terms(), level_weights=[2.0, 0.5])(outputs, batch)
    assert found["total"] == CompositeLoss(term=terms())(outputs, batch)["total"]


def test_every_level_gets_a_gradient():
    batch, outputs = crop()
    outputs = {name: value.requires_grad_() for name, value in outputs.items()}
    DeepSupervisionLoss(term=terms(), level_weights=[1, 1, 1])(outputs, batch)["total"].backward()
    assert all(value.grad.any() for value in outputs.values())


def test_levels_of_loss_and_network_are_compared():
    heads = ("surface_logit", "normals", "surface_logit_deep1")
    DeepSupervisionLoss(term=terms(), level_weights=[1, 1]).check_heads(heads)
    with pytest.raises(ConfigError, match=r"names 2 coarser levels, the network supervises 1; set"):
        DeepSupervisionLoss(term=terms(), level_weights=[1, 1, 1]).check_heads(heads)
    with pytest.raises(ConfigError, match=r"model\.deep_supervision, which needs loss=surface_dee"):
        CompositeLoss(term=terms()).check_heads(heads)


def test_bad_arguments_are_named():
    with pytest.raises(ConfigError, match=r"level_weights=\[1\]; expected two or more"):
        DeepSupervisionLoss(term=terms(), level_weights=[1])
    normal = {"normal": {"weight": 1.0, "fn": NormalLoss()}}
    with pytest.raises(ConfigError, match="works on surface_logit alone"):
        DeepSupervisionLoss(term=normal, level_weights=[1, 1])
