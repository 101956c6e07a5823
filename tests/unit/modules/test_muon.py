"""Muon against torch's on matrices, AdamW against torch's, kernels, states."""

import copy

import pytest
import torch
from torch import nn

from vesuvius.errors import ConfigError
from vesuvius.modules.muon import MuonAdamW, orthogonalise


def quadratic_steps(parameters, optimizer, num_steps=6):
    generator = torch.Generator().manual_seed(1)
    for _ in range(num_steps):
        for parameter in parameters:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.grad = parameter.detach() - 1 + 0.3 * noise
        optimizer.step()


def pair(*shapes):
    torch.manual_seed(0)
    values = [torch.randn(shape) for shape in shapes]
    return [[nn.Parameter(v.clone()) for v in values] for _ in range(2)]


@pytest.mark.parametrize("shape", [(12, 30), (30, 12), (16, 16)], ids=str)
def test_singular_values_come_near_one(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    found = orthogonalise(matrix, 5)
    values = torch.linalg.svdvals(found)
    assert 0.6 < values.min() <= values.max() < 1.3
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    cosine = (found * (u @ v)).sum() / (found.norm() * (u @ v).norm())
    assert cosine > 0.98


def test_matrices_are_stepped_as_by_torch():
    mine, theirs = pair((12, 30), (24, 16))
    quadratic_steps(mine, MuonAdamW(mine, lr=0.02, weight_decay=0.1))
    other = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    quadratic_steps(theirs, other)
    for a, b in zip(mine, theirs, strict=True):  # theirs orthogonalises in bfloat16
        torch.testing.assert_close(a, b, atol=4e-3, rtol=0)


def test_the_rest_is_stepped_as_by_adamw():
    mine, theirs = pair((30,), (3, 40), (1, 16, 1, 1, 1))
    options = {"lr": 0.02, "weight_decay": 0.1, "betas": (0.8, 0.95)}
    quadratic_steps(mine, MuonAdamW(mine, **options))
    quadratic_steps(theirs, torch.optim.AdamW(theirs, **options))
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_a_kernel_is_the_matrix_of_its_rows_in_any_layout():
    kernel, matrix = pair((16, 4, 3, 3, 3))
    matrix = [nn.Parameter(matrix[0].detach().flatten(1))]
    kernel[0].data = kernel[0].data.contiguous(memory_format=torch.channels_last_3d)
    gradient = torch.randn(16, 108)
    kernel[0].grad, matrix[0].grad = gradient.view(16, 4, 3, 3, 3), gradient
    MuonAdamW(kernel).step()
    MuonAdamW(matrix).step()
    torch.testing.assert_close(kernel[0].flatten(1), matrix[0])


def test_biases_and_heads_get_adamw():
    model = nn.Sequential(nn.Conv3d(4, 16, 3), nn.BatchNorm3d(16), nn.Conv3d(16, 1, 1))
    groups = MuonAdamW(model.parameters()).param_groups
    assert [(g["muon"], len(g["params"])) for g in groups] == [(True, 1), (False, 5)]


def test_a_restored_state_goes_on_alike():
    first, second = pair((12, 30), (30,))
    one = MuonAdamW(first)
    quadratic_steps(first, one)
    two = MuonAdamW(second)
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    for a, b in zip(first, second, strict=True):
        b.data.copy_(a.data)
    quadratic_steps(first, one)
    quadratic_steps(second, two)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


def test_bad_arguments_are_named():
    parameters = [nn.Parameter(torch.zeros(9, 9))]
    with pytest.raises(ConfigError, match=r"optimizer\.lr=0 must be > 0"):
        MuonAdamW(parameters, lr=0)
    with pytest.raises(ConfigError, match=r"optimizer\.momentum=1 in \[0, 1\)"):
        MuonAdamW(parameters, momentum=1)
    with pytest.raises(ConfigError, match=r"optimizer\.num_steps=0"):
        MuonAdamW(parameters, num_steps=0)
