"""Point-set networks: sizes, symmetries, attention written out, gradients of gradients."""

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from vesuvius.errors import ConfigError, ShapeMismatchError
from vesuvius.models.vecset import VecSet, VecSetPerClass
from vesuvius.models.vecset.attention import Attention, attention_kernel
from vesuvius.models.vecset.embedding import PointEmbedding
from vesuvius.models.vecset.per_class import group_by_class

TINY = {"num_classes": 4, "dim": 32, "depth": 2, "num_latents": 8, "dim_head": 8}


def make(kind, **options):
    torch.manual_seed(0)
    options = {**TINY, **options}
    if kind == "parts":
        net = VecSetPerClass(points_per_class=16, **options)
    else:
        net = VecSet(latent_dim=4, field="per_class" if kind == "multi" else "union", **options)
    torch.nn.init.normal_(net.decoder.head.weight, std=0.2)
    return net


def cloud(batch=2, count=60, *, classes=(0, 1, 2, 3), seed=0):
    generator = torch.Generator().manual_seed(seed)
    xyz = torch.rand(batch, count, 3, generator=generator) * 2 - 1
    label = torch.tensor(classes)[torch.arange(count) % len(classes)].expand(batch, -1)
    return torch.cat((xyz, F.one_hot(label, 4).float()), -1)


def queries(batch=2, count=20):
    return torch.rand(batch, count, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_the_full_network_has_425_million_parameters():
    with torch.device("meta"):
        net = VecSet(num_classes=10, dim=1024, depth=24, num_latents=1024, latent_dim=16)
    assert sum(p.numel() for p in net.parameters()) == 425_198_651


@pytest.mark.parametrize(
    ("dim", "depth", "latents", "code", "millions"),
    [
        (512, 24, 512, 16, 106.4),
        (256, 8, 128, 16, 9.8),
        (128, 4, 64, 16, 1.41),
        (64, 2, 32, 8, 0.227),
    ],
)
def test_sizes_of_the_smaller_networks(dim, depth, latents, code, millions):
    with torch.device("meta"):
        net = VecSet(dim=dim, depth=depth, num_latents=latents, latent_dim=code)
    count = sum(p.numel() for p in net.parameters()) / 1e6
    assert count == pytest.approx(millions, rel=5e-3)


@pytest.mark.parametrize("net", [VecSet(**TINY), VecSetPerClass(**TINY, points_per_class=16)])
def test_an_untrained_network_answers_zero(net):
    heads = net(cloud(), queries())
    assert all(bool((value == 0).all()) for value in heads.values())


def test_frequencies_are_octaves_of_pi_on_each_coordinate():
    embedding = PointEmbedding(3, 15, num_frequencies=2)
    with torch.no_grad():
        embedding.linear.weight.copy_(torch.eye(15))
        embedding.linear.bias.zero_()
    x = 0.25
    found = embedding(torch.tensor([[[x, 0.0, -x]]]))[0, 0].tolist()
    sines = [math.sin(math.pi * x), math.sin(2 * math.pi * x), 0, 0]
    sines += [-math.sin(math.pi * x), -math.sin(2 * math.pi * x)]
    assert found[:6] == pytest.approx(sines, abs=1e-6)
    assert found[6:8] == pytest.approx([math.cos(math.pi * x), math.cos(2 * math.pi * x)], abs=1e-6)
    assert found[12:] == [x, 0.0, -x]


@pytest.mark.parametrize("math_kernel", [False, True])
def test_attention_is_the_written_out_one(math_kernel):
    torch.manual_seed(0)
    attention = Attention(12, dim_head=4)
    x, context = torch.randn(2, 5, 12), torch.randn(2, 7, 12)
    q = attention.to_q(x).view(2, 5, 3, 4)
    k, v = attention.to_kv(context).view(2, 7, 2, 3, 4).unbind(2)
    weights = (torch.einsum("bihd,bjhd->bhij", q, k) / 2.0).softmax(-1)
    expected = attention.to_out(torch.einsum("bhij,bjhd->bihd", weights, v).reshape(2, 5, 12))
    with attention_kernel(twice_differentiable=math_kernel):
        torch.testing.assert_close(attention(x, context), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["union", "multi"])
def test_the_order_of_the_input_points_does_not_matter(kind):
    net, surface = make(kind), cloud()
    order = torch.randperm(surface.shape[1], generator=torch.Generator().manual_seed(2))
    found = net(surface[:, order], queries())
    for name, value in net(surface, queries()).items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["union", "multi", "parts"])
def test_decoding_in_blocks_equals_one_shot(kind):
    net, surface, points = make(kind), cloud(), queries()
    with torch.no_grad():
        whole = net(surface, points)
        net.block = 7
        parts = net(surface, points)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("kind", ["union", "multi", "parts"])
@pytest.mark.parametrize("query_type", ["learnable", "point"])
def test_eikonal_reaches_every_encoder_weight(kind, query_type):
    net = make(kind, query_type=query_type)
    gradient = net(cloud(), queries(), num_gradients=12)["sdf_gradient"]
    assert gradient.shape == (2, 12, 3)
    (gradient.norm(dim=-1) - 1).square().mean().backward()
    embed = net.embed if kind == "parts" else net.encoder.embed
    assert float(embed.linear.weight.grad.abs().sum()) > 0


@pytest.mark.parametrize("kind", ["union", "parts"])
def test_the_spatial_gradient_is_that_of_finite_differences(kind):
    net, surface, points = make(kind, num_frequencies=2), cloud(), queries()
    with torch.no_grad():
        gradient = net(surface, points, num_gradients=20)["sdf_gradient"]

        def at(x):
            return net(surface, x)["sdf"].amin(-1)

        step = 5e-3  # float32 inside
        offsets = torch.eye(3) * step
        expected = torch.stack(
            [(at(points + d) - at(points - d)) / (2 * step) for d in offsets], -1
        )
    torch.testing.assert_close(gradient, expected, atol=2e-2, rtol=2e-2)


def test_gradients_in_validation_need_no_graph_of_the_network():
    net, surface, points = make("union").eval(), cloud(), queries()
    expected = net(surface, points, num_gradients=20)
    with torch.inference_mode():
        found = net(surface, points, num_gradients=20)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value.detach(), atol=1e-4, rtol=1e-4)


def test_fused_kernels_have_no_second_derivative_which_is_why_math_is_asked_for():
    q = torch.randn(1, 2, 8, 8, requires_grad=True)

    def second(math_kernel):
        with attention_kernel(twice_differentiable=math_kernel):
            out = F.scaled_dot_product_attention(q, q.detach(), q.detach())
        (first,) = torch.autograd.grad(out.square().sum(), q, create_graph=True)
        first.square().sum().backward()

    second(math_kernel=True)
    with pytest.raises(RuntimeError, match="not implemented"):
        second(math_kernel=False)


def test_kl_is_that_of_a_standard_normal_and_noise_is_for_training_only():
    net = make("union", bottleneck="kl")
    with torch.no_grad():
        net.bottleneck.to_moments.weight.zero_()
        net.bottleneck.to_moments.bias.copy_(torch.tensor([1.0] * 4 + [math.log(4.0)] * 4))
    heads = net(cloud(), queries())
    expected = 0.5 * (1 + 4 - 1 - math.log(4.0))
    torch.testing.assert_close(heads["kl"], torch.full((2,), expected))
    net.eval()
    torch.testing.assert_close(net(cloud(), queries()), net(cloud(), queries()))


def test_groups_hold_only_points_of_their_class_and_all_of_a_small_one():
    surface = cloud(1, 50, classes=(0, 0, 0, 0, 2))  # class 2 has 10 points, 1 and 3 none
    groups, there = group_by_class(surface, 20)
    assert there.tolist() == [[True, False, True, False]]
    for number in (0, 2):
        own = {tuple(p) for p in surface[0][surface[0, :, 3 + number] == 1][:, :3].tolist()}
        found = {tuple(p) for p in groups[0, number].tolist()}
        assert found <= own
        assert len(found) == min(20, len(own))
    assert bool((groups[0, 1] == 0).all())


def test_a_class_without_points_is_completed_from_the_others():
    net = make("parts")
    partial, other = cloud(classes=(0, 1, 2)), cloud(classes=(0, 1, 2), seed=5)
    found = net(partial, queries())["sdf"]
    assert bool(found.isfinite().all())
    assert not torch.allclose(found[..., 3], net(other, queries())["sdf"][..., 3])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim_head": 5}, "dim_head=5"),
        ({"query_type": "both"}, "query_type='both'"),
        ({"bottleneck": "vq"}, "bottleneck='vq'"),
        ({"field": "one"}, "field='one'"),
        ({"num_latents": 0}, "num_latents=0"),
        ({"depth": -1}, "depth=-1"),
        ({"query_sampling": "grid"}, "query_sampling='grid'"),
        ({"num_frequencies": 0}, "num_frequencies=0"),
    ],
)
def test_arguments_out_of_range_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        VecSet(**{**TINY, **options})


def test_wrong_inputs_are_named():
    net = VecSet(**TINY)
    with pytest.raises(ShapeMismatchError, match=r"surface has shape \(2, 60, 3\).*points, 7"):
        net(cloud()[..., :3], queries())
    with pytest.raises(ShapeMismatchError, match=r"points has shape \(2, 0, 3\)"):
        net(cloud(), queries()[:, :0])
    with pytest.raises(ConfigError, match="8 query points out of a cloud of 5"):
        VecSet(**TINY, query_type="point")(cloud()[:, :5], queries())
