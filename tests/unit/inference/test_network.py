"""prepare_network: same numbers, faster form; the given network is left alone."""

import copy

import pytest
import torch
from torch import nn

from vesuvius.errors import ConfigError, DeviceError
from vesuvius.inference import prepare_network
from vesuvius.inference.device import select_device
from vesuvius.inference.network import cpu_has_bf16, fold_batch_norms, resolve_precision


class Tiny(nn.Module):
    """conv-norm declared in the wrong order, and a norm that must not be folded."""

    def __init__(self):
        super().__init__()
        self.norm_first = nn.BatchNorm3d(1)
        self.norm_b = nn.BatchNorm3d(4)
        self.conv_a = nn.Conv3d(1, 4, 3, padding=1, bias=False)
        self.norm_a = nn.BatchNorm3d(4)
        self.conv_b = nn.Conv3d(4, 4, 3, padding=1)
        self.head = nn.Conv3d(4, 1, 1)

    def forward(self, image):
        hidden = torch.relu(self.norm_a(self.conv_a(self.norm_first(image))))
        hidden = torch.relu(self.norm_b(self.conv_b(hidden)) + hidden)
        return {"surface_logit": self.head(hidden)}


class Shared(Tiny):
    """The output of conv_a is used before its norm too: folding would change the result."""

    def forward(self, image):
        raw = self.conv_a(image)
        return {"surface_logit": self.head(self.norm_a(raw) + raw)}


def trained(network):
    generator = torch.Generator().manual_seed(5)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.running_mean.copy_(torch.rand(module.num_features, generator=generator) - 0.5)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
    for parameter in network.parameters():
        parameter.data.copy_(torch.rand(parameter.shape, generator=generator) - 0.4)
    return network.eval()


def image():
    return torch.rand((2, 1, 6, 8, 10), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("channels_last", [None, True, False])
def test_folding_keeps_the_result(channels_last):
    network = trained(Tiny())
    before = copy.deepcopy(network.state_dict())
    fast = prepare_network(network, device="cpu", precision="fp32", channels_last=channels_last)
    assert fast.folded == 2
    with torch.no_grad():
        expected = network(image())["surface_logit"]
    torch.testing.assert_close(fast(image())["surface_logit"], expected, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_training_mode_of_the_given_network_stays():
    network = trained(Tiny()).train()
    with torch.no_grad():
        expected = copy.deepcopy(network).eval()(image())["surface_logit"]
    fast = prepare_network(network, device="cpu", precision="fp32")
    torch.testing.assert_close(fast(image())["surface_logit"], expected, rtol=1e-5, atol=1e-5)
    assert network.training


def test_unsafe_folding_is_not_done():
    network = trained(Shared())
    fast = prepare_network(network, device="cpu", precision="fp32", channels_last=False)
    assert fast.folded == 0
    with torch.no_grad():
        assert torch.equal(fast(image())["surface_logit"], network(image())["surface_logit"])
        assert fold_batch_norms(copy.deepcopy(network)) is None


def test_other_norms_are_left():
    network = nn.Sequential(nn.Conv3d(1, 4, 3), nn.InstanceNorm3d(4))

    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = network

        def forward(self, image):
            return {"surface_logit": self.body(image)}

    assert prepare_network(Heads(), device="cpu", precision="fp32").folded == 0


def test_bf16_is_close_and_comes_back_as_float32():
    network = trained(Tiny())
    exact = prepare_network(network, device="cpu", precision="fp32")(image())["surface_logit"]
    low = prepare_network(network, device="cpu", precision="bf16")(image())["surface_logit"]
    assert low.dtype == torch.float32
    error = (low - exact).abs().max() / exact.abs().max()
    assert 0 < error < 0.03


def test_precision_names():
    cpu = torch.device("cpu")
    assert resolve_precision("auto", cpu) == ("bf16" if cpu_has_bf16() else "fp32")
    assert resolve_precision("fp32", cpu) == "fp32"
    with pytest.raises(ConfigError, match="fp16' needs a GPU"):
        resolve_precision("fp16", cpu)
    with pytest.raises(ConfigError, match="'bf16' or 'fp16', got 'half'"):
        resolve_precision("half", cpu)


@pytest.mark.skipif(torch.cuda.is_available(), reason="tests the message without a GPU")
def test_missing_gpu_is_said():
    assert select_device("auto").type == "cpu"
    with pytest.raises(DeviceError, match="'cuda' was asked for, but this machine has 0 usable"):
        prepare_network(trained(Tiny()), device="cuda")
    with pytest.raises(DeviceError, match="device 'gpuu' is unknown"):
        select_device("gpuu")
