"""Learning-rate schedules at hand-computed steps."""

import pytest
import torch

from vesuvius.errors import ConfigError
from vesuvius.modules.schedules import cosine, poly


def rates(make, num_steps, **options):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = make(optimizer, num_steps=num_steps, **options)
    found = []
    for _ in range(num_steps + 1):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_cosine_goes_from_lr_through_the_middle_to_the_final_share():
    found = rates(cosine, 10, final_share=0.01)
    assert found[0] == pytest.approx(2.0)
    assert found[5] == pytest.approx(2.0 * 0.505)
    assert found[10] == pytest.approx(2.0 * 0.01)


def test_warm_up_is_linear():
    found = rates(cosine, 10, warmup_share=0.4)
    assert found[:5] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0])


def test_poly_by_hand():
    found = rates(poly, 4, exponent=0.9)
    assert found == pytest.approx([2 * (1 - i / 4) ** 0.9 for i in range(5)])


def test_shares_out_of_range_are_named():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(ConfigError, match=r"scheduler\.warmup_share=1"):
        cosine(optimizer, num_steps=3, warmup_share=1)
