"""What surface and lesion modules refuse, and what they make of one logit."""

from functools import partial

import pytest
import torch
from torch import nn

from vesuvius.errors import ConfigError
from vesuvius.modules.petct import PETCTModule
from vesuvius.modules.surface import SurfaceModule


class Network(nn.Module):
    """Has no `heads`: the module's own logit is taken to be the only one."""


class Loss(nn.Module):
    """Keeps the heads that it was asked about."""

    def check_heads(self, heads):
        self.heads = heads


def make(module_type, **more):
    return module_type(model=Network(), loss=Loss(), optimizer=torch.optim.AdamW, **more)


@pytest.mark.parametrize("module_type", [SurfaceModule, PETCTModule])
@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.1, float("nan")])
def test_a_threshold_beyond_0_and_1_is_refused(module_type, threshold):
    with pytest.raises(ConfigError, match=r"module\.threshold=.* between 0 and 1"):
        make(module_type, threshold=threshold)


@pytest.mark.parametrize(
    ("module_type", "head"), [(SurfaceModule, "surface_logit"), (PETCTModule, "lesion_logit")]
)
def test_the_loss_sees_the_heads_and_the_logit_becomes_a_probability(module_type, head):
    module = make(module_type)
    assert module.loss.heads == (head,)
    found = module.probability({head: torch.tensor([0.0, 100.0], dtype=torch.bfloat16)})
    assert found.dtype == torch.float32
    assert found.tolist() == [0.5, 1.0]


def test_a_value_that_the_optimizer_refuses_is_a_setting_to_change():
    module = make(SurfaceModule)
    module.model.layer = nn.Linear(1, 1)
    module.make_optimizer = partial(torch.optim.AdamW, lr=-1.0)
    with pytest.raises(ConfigError, match=r"Invalid learning rate: -1\.0; look at .* optimizer\."):
        module.configure_optimizers()
