"""Norm layers: the layout changes speed, never numbers."""

import pytest
import torch

from vesuvius.models.blocks import MaxPool3d, SampleNorm3d, make_norm


@pytest.mark.parametrize("num_samples", [1, 3])
def test_instance_norm_on_channels_last_is_pytorchs(num_samples):
    torch.manual_seed(0)
    reference = torch.nn.InstanceNorm3d(4, affine=True)
    torch.nn.init.normal_(reference.weight)
    torch.nn.init.normal_(reference.bias)
    norm = make_norm("instance", 4)
    norm.load_state_dict(reference.state_dict())
    plain = (3 * torch.randn(num_samples, 4, 3, 4, 5) + 1).requires_grad_()
    last = plain.detach().contiguous(memory_format=torch.channels_last_3d).requires_grad_()
    weight = torch.randn(num_samples, 4, 3, 4, 5)
    for module, x in ((reference, plain), (norm, last)):
        (module(x) * weight).sum().backward()
    torch.testing.assert_close(norm(last), reference(plain))
    torch.testing.assert_close(last.grad, plain.grad, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(norm.weight.grad, reference.weight.grad, atol=1e-5, rtol=1e-4)
    assert norm(last).is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(norm.eval()(last), reference.eval()(plain))


def test_instance_norm_keeps_pytorchs_path_elsewhere():
    torch.manual_seed(0)
    x = torch.randn(2, 4, 3, 4, 5)
    assert torch.equal(SampleNorm3d(4)(x), torch.nn.InstanceNorm3d(4)(x))


def test_max_pooling_stays_in_bf16_under_autocast():
    torch.manual_seed(0)
    image = torch.randn(2, 4, 4, 6, 8).bfloat16()
    ours, plain = image.clone().requires_grad_(), image.clone().requires_grad_()
    weight = torch.randn(2, 4, 2, 3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        pooled, expected = MaxPool3d(2, 2)(ours), torch.nn.MaxPool3d(2, 2)(plain)
    assert pooled.dtype is torch.bfloat16
    assert torch.equal(pooled.float(), expected.float())
    for out in (pooled, expected):
        (out * weight.to(out.dtype)).float().sum().backward()
    torch.testing.assert_close(ours.grad, plain.grad)
