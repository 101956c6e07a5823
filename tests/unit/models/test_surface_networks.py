"""What every surface network has to keep: sizes, gradients, determinism, export, learning."""

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch.utils.flop_counter import FlopCounterMode

from vesuvius.cpu_conv import mend_cpu_convolutions
from vesuvius.errors import ConfigError, ShapeMismatchError
from vesuvius.models.attention import SelfAttention, resize_grid
from vesuvius.models.dual_head_unet import DualHeadResUNet3D
from vesuvius.models.mit import ReducedAttention3D
from vesuvius.models.primus import Primus3D, RotaryAttention3D, rotary_angles
from vesuvius.models.resenc import ResEncSurface
from vesuvius.models.segformer import SegFormer3D
from vesuvius.models.surface_network import Head3D
from vesuvius.models.transunet import MaskedCrossAttention3D, TransUNet3D
from vesuvius.models.unetr_pp import PairedAttention3D, UNETRPlusPlus
from vesuvius.models.upernet import UPerNet3D

MIT = {"dims": [8, 16, 20, 32], "depths": [1, 1, 1, 1]}
TINY = {
    "dual_head_unet": (DualHeadResUNet3D, {"n_filters": 8, "norm": "group"}),
    "segformer": (
        SegFormer3D,
        {**MIT, "decoder_channels": 32, "norm": "group", "upsample": "subvoxel"},
    ),
    "upernet_mit": (
        UPerNet3D,
        {**MIT, "decoder_channels": 16, "norm": "group", "upsample": "subvoxel"},
    ),
    "upernet_resnet": (
        UPerNet3D,
        {
            "backbone": "resnet18",
            "width": 8,
            "decoder_channels": 16,
            "norm": "group",
            "upsample": "subvoxel",
        },
    ),
    "transunet": (
        TransUNet3D,
        {
            "width": 8,
            "num_levels": 3,
            "embed_dim": 32,
            "num_layers": 2,
            "num_heads": 2,
            "mlp_dim": 32,
            "num_queries": 5,
            "decoder_channels": [16, 16, 8],
            "crop_zyx": [32, 32, 32],
            "norm": "group",
        },
    ),
    "primus": (
        Primus3D,
        {
            "embed_dim": 72,
            "num_layers": 2,
            "num_heads": 4,
            "patch": 4,
            "crop_zyx": [32, 32, 32],
            "feature_channels": 16,
        },
    ),
    "resenc": (
        ResEncSurface,
        {
            "features_per_stage": [16, 16, 32],
            "blocks_per_stage": [1, 1, 1],
            "strides_zyx": [[1, 1, 1], [2, 2, 2], [1, 2, 2]],
        },
    ),
    "unetr_pp": (
        UNETRPlusPlus,
        {
            "dims": [16, 16, 32, 32],
            "depths": [1, 1, 1, 1],
            "num_tokens": [8, 8, 8, 4],
            "num_heads": 2,
            "crop_zyx": [32, 32, 32],
            "norm": "group",
        },
    ),
}


def build(name, **changes):
    torch.manual_seed(0)
    network, arguments = TINY[name]
    return network(**{**arguments, **changes})


def num_parameters(model):
    return sum(p.numel() for p in model.parameters())


TRACED = [
    n if n in ("resenc", "segformer") else pytest.param(n, marks=pytest.mark.slow) for n in TINY
]
"""Tracing takes 1 to 3 s a network; by default one convolutional and one with attention."""


@pytest.fixture(params=TINY)
def name(request):
    return request.param


@pytest.mark.parametrize("shape", [(32, 32, 32), (17, 33, 5), (1, 40, 32)], ids=str)
def test_any_size_comes_back_at_its_size(name, shape):
    model = build(name).eval()
    with torch.no_grad():
        outputs = model(torch.rand(2, 1, *shape))
    assert tuple(outputs) == model.heads == ("surface_logit", "normals")
    assert outputs["surface_logit"].shape == (2, 1, *shape)
    assert outputs["normals"].shape == (2, 3, *shape)
    assert outputs["normals"].abs().max() <= 1


def test_without_normals_head(name):
    model = build(name, normals_head=False).eval()
    assert model.heads == ("surface_logit",)
    with torch.no_grad():
        assert tuple(model(torch.rand(1, 1, 32, 32, 32))) == ("surface_logit",)


# At 32^3 a level of stride 32 has one token: attention over one key knows no query, gradient 0.
@pytest.mark.parametrize("size", [(64, 32, 32), (32, 64, 40)], ids=str)
def test_every_parameter_gets_a_gradient(name, size):
    model = build(name)
    for module in model.modules():  # nnU-Net's residual branches start at 0: no gradient at first
        if isinstance(module, torch.nn.InstanceNorm3d) and not module.weight.any():
            torch.nn.init.ones_(module.weight)
    outputs = model(torch.rand(2, 1, *size))
    sum((o - 0.3).square().sum() for o in outputs.values()).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_same_seed_same_step(name):
    losses = []
    for _ in range(2):
        model = build(name)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        image = torch.rand(2, 1, 32, 32, 32)
        for _ in range(2):
            outputs = model(image)
            loss = sum(o.square().mean() for o in outputs.values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[0] == losses[1]


def test_starts_from_background(name):
    with torch.no_grad():
        logit = build(name).eval()(torch.rand(1, 1, 32, 32, 32))["surface_logit"]
    assert 0.02 < torch.sigmoid(logit).mean() < 0.4


def test_an_image_does_not_depend_on_its_neighbours_in_the_batch(name):
    model = build(name).eval()
    images = torch.rand(2, 1, 32, 32, 32)
    with torch.no_grad():
        together = model(images)["surface_logit"][1:]
        alone = model(images[1:])["surface_logit"]
    torch.testing.assert_close(together, alone, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("name", TRACED)
def test_exports(name):
    model = build(name).eval()
    image = torch.rand(1, 1, 32, 32, 32)
    program = torch.export.export(model, (image,))
    with torch.no_grad():
        expected, found = model(image), program.module()(image)
    for head in model.heads:
        torch.testing.assert_close(found[head], expected[head], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", TRACED)
def test_compiles_without_graph_breaks(name):
    torch.compiler.reset()
    model = build(name)
    image = torch.rand(1, 1, 32, 32, 32)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(image), model(image), atol=1e-4, rtol=1e-4)


def test_flops_can_be_counted(name):
    model = build(name).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.rand(1, 1, 32, 32, 32))
    assert 1e6 < counter.get_total_flops() < 1e10


def test_bf16_on_channels_last(name):
    model = build(name).to(memory_format=torch.channels_last_3d)
    mend_cpu_convolutions(model)  # as training does; torch's own gradient is NaN at z = 2
    image = torch.rand(1, 1, 32, 32, 32).contiguous(memory_format=torch.channels_last_3d)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(image)
    sum(o.float().square().sum() for o in outputs.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    exact = model(image)["surface_logit"]
    assert (outputs["surface_logit"].float() - exact).abs().mean() < 0.1


@pytest.mark.parametrize("name", [n for n in TINY if n not in ("dual_head_unet", "resenc")])
def test_checkpointing_changes_nothing_but_memory(name):
    image = torch.rand(1, 1, 32, 32, 32)
    found, saved = [], []
    for checkpointing in (False, True):
        model = build(name, checkpointing=checkpointing)
        sizes = []
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t
        )
        with hooks:
            outputs = model(image)
        saved.append(sum(sizes))
        sum(o.square().sum() for o in outputs.values()).backward()
        found.append([p.grad for p in model.parameters()])
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(plain, again, atol=1e-4, rtol=1e-3)
    assert saved[1] < 0.95 * saved[0]


@pytest.mark.parametrize("shape", [(1, 3, 32, 32, 32), (1, 32, 32, 32)], ids=str)
def test_wrong_input_is_named(name, shape):
    with pytest.raises(ShapeMismatchError, match=r"image has shape .*; expected \(b, 1, z, y, x\)"):
        build(name)(torch.rand(shape))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("segformer", {"variant": "b9"}, r"model\.variant is 'b9'; expected one of 'b0', 'b1'"),
        ("segformer", {"upsample": "nearest"}, r"model\.upsample is 'nearest'; expected one of"),
        ("segformer", {"dims": [8, 16]}, r"model\.dims=\[8, 16\].*expected four integers"),
        ("segformer", {"dims": [8, 16, 21, 32]}, r"model\.dims=21 cannot be shared by 5"),
        ("segformer", {"decoder_channels": 0}, r"model\.decoder_channels=0; expected an integer"),
        ("segformer", {"norm": "layer"}, r"model\.norm is 'layer'"),
        ("segformer", {"in_channels": 0}, r"model\.in_channels=0"),
        ("upernet_mit", {"backbone": "vgg"}, r"model\.backbone is 'vgg'.*'mit_b0'.*'resnet18'"),
        ("upernet_resnet", {"dims": [8, 16, 20, 32]}, r"model\.dims.*set model\.width instead"),
        ("transunet", {"backbone": "vgg"}, r"model\.backbone is 'vgg'; expected one of 'resnet18'"),
        ("transunet", {"num_levels": 6}, r"model\.num_levels=6.*expected 3 to 5 levels"),
        ("transunet", {"embed_dim": 33}, r"model\.embed_dim=33 cannot be shared by 2"),
        ("primus", {"num_heads": 5}, r"model\.embed_dim=72 cannot be shared by 5"),
        ("primus", {"num_heads": 24}, r"= 3 channels a head; rotary positions"),
        ("primus", {"patch": 6}, r"model\.patch=6; expected a power of 2"),
        ("primus", {"crop_zyx": [32]}, r"model\.crop_zyx=\[32\]; expected \(z, y, x\)"),
        ("unetr_pp", {"depths": [1, 1]}, r"model\.depths=\[1, 1\].*expected four integers"),
        ("unetr_pp", {"crop_zyx": [32, 32]}, r"model\.crop_zyx=\[32, 32\]; expected \(z, y, x\)"),
        ("unetr_pp", {"dims": [15, 16, 32, 32]}, r"model\.dims=15 cannot be shared by 2"),
    ],
)
def test_wrong_arguments_are_named(name, changes, message):
    with pytest.raises(ConfigError, match=message):
        build(name, **changes)


PUBLISHED = [  # trainable parameters of medicai 0.0.4 (Keras), 64^3 x 1 input, 2 classes
    (SegFormer3D, {"variant": "b0"}, 4_492_066),
    (SegFormer3D, {"variant": "b1"}, 16_606_786),
    (SegFormer3D, {"variant": "b2"}, 25_916_226),
    (SegFormer3D, {"variant": "b3"}, 41_172_546),
    (SegFormer3D, {"variant": "b4"}, 53_995_138),
    (SegFormer3D, {"variant": "b5"}, 69_832_642),
    (UPerNet3D, {"backbone": "mit_b0"}, 25_662_754),
    (UPerNet3D, {"backbone": "resnet18"}, 56_808_770),
    (TransUNet3D, {}, 69_770_068),
    (UNETRPlusPlus, {}, 22_807_626),
    (UNETRPlusPlus, {"crop_zyx": (96, 96, 96)}, 29_536_362),
    # the paper's own: 64 x 128 x 128 crops, patches of (2, 4, 4): 32^3 tokens as 128^3 here
    (UNETRPlusPlus, {"crop_zyx": (128, 128, 128)}, 42_960_000),
]


@pytest.mark.parametrize(("network", "arguments", "count"), PUBLISHED, ids=str)
def test_parameters_are_within_five_percent_of_the_source(network, arguments, count):
    with torch.device("meta"):
        model = network(normals_head=False, **arguments)
    assert num_parameters(model) == pytest.approx(count, rel=0.05)


def test_parameters_of_segformer_by_hand():
    """The formula of the paper's layers at b0, one logit."""
    total, previous, patch = 0, 1, 7
    for channels, depth, reduction in zip((32, 64, 160, 256), (2,) * 4, (4, 2, 1, 1), strict=True):
        total += previous * channels * patch**3 + channels + 2 * channels  # embedding, norm
        attention = 4 * (channels**2 + channels)
        if reduction > 1:
            attention += channels**2 * reduction**3 + channels + 2 * channels
        hidden = 4 * channels
        ffn = 2 * channels * hidden + hidden + channels + 27 * hidden + hidden
        total += depth * (attention + ffn + 4 * channels) + 2 * channels
        total += channels * 256 + 256 + 512 + 256 * 256  # decoder: embedding, norm, fusion
        previous, patch = channels, 3
    total += 2 * 256 + 256 + 1
    with torch.device("meta"):
        assert num_parameters(SegFormer3D(normals_head=False)) == total


def test_fusing_before_enlarging_equals_the_published_decoder():
    """Concatenate the enlarged levels, one 1^3 convolution, norm, ReLU."""
    model = build("segformer").eval()
    image = torch.rand(1, 1, 32, 32, 32)
    with torch.no_grad():
        found = model.features(image)
        levels = []
        for level, embed in zip(model.encoder(image), model.embed, strict=True):
            embedded = embed(level.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)
            levels.append(F.interpolate(embedded, size=(8, 8, 8), mode="trilinear"))
        kernel = torch.cat([fuse.weight for fuse in model.fuse], dim=1)[:, :, None, None, None]
        expected = F.relu(model.norm(F.conv3d(torch.cat(levels, dim=1), kernel)))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_reduced_attention_equals_softmax_of_the_reduced_map():
    torch.manual_seed(0)
    layer = ReducedAttention3D(6, 2, 2)
    x = torch.rand(1, 64, 6)
    keys = layer.norm(layer.reduce(x.transpose(1, 2).view(1, 6, 4, 4, 4)).flatten(2).mT)
    assert keys.shape == (1, 8, 6)
    q, (k, v) = layer.q(x), layer.kv(keys).split(6, dim=-1)
    parts = []
    for head in range(2):
        part = slice(3 * head, 3 * head + 3)
        scores = q[..., part] @ k[..., part].mT / math.sqrt(3)
        parts.append(scores.softmax(-1) @ v[..., part])
    torch.testing.assert_close(layer(x, (4, 4, 4)), layer.proj(torch.cat(parts, -1)))


def test_cross_attention_on_the_queries_equals_projected_voxels():
    """Keys and values projected voxel by voxel, as the papers write it."""
    torch.manual_seed(0)
    layer = MaskedCrossAttention3D(8, 3, 2, 16, 0.0)
    queries, level = torch.rand(1, 4, 8), torch.rand(1, 10, 3)
    allowed = torch.rand(1, 4, 10) > 0.5
    allowed[0, 2] = False  # reads everything instead of nothing
    voxels = layer.level(level)
    q, k, v = layer.q(layer.norm1(queries)), layer.k(voxels), layer.v(voxels)
    parts = []
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        scores = q[..., part] @ k[..., part].mT / 2
        scores[:, [0, 1, 3]] = scores[:, [0, 1, 3]].masked_fill(~allowed[:, [0, 1, 3]], -torch.inf)
        parts.append(scores.softmax(-1) @ v[..., part])
    expected = queries + layer.proj(torch.cat(parts, -1))
    expected = expected + layer.mlp(layer.norm2(expected))
    torch.testing.assert_close(layer(queries, level, allowed), expected)


def test_paired_attention_equals_its_equations():
    """Equations of section 3.3, one head at a time."""
    torch.manual_seed(0)
    layer = PairedAttention3D(8, (2, 2, 3), 5, 2, 0.0)
    with torch.no_grad():
        layer.temperature.copy_(torch.tensor([[0.5, 2.0], [3.0, 0.7]]))
    x = torch.rand(1, 12, 8)
    q, k, v_channel, v_spatial = layer.qkvv(x).split(8, dim=-1)
    channel, spatial = [], []
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        qn, kn = (t[..., part] / t[..., part].norm(dim=1, keepdim=True) for t in (q, k))
        scores = layer.temperature[0, head] * (qn.mT @ kn)
        channel.append((scores.softmax(-1) @ v_channel[..., part].mT).mT)
        k_mixed, v_mixed = (layer.mix(t[..., part].mT) for t in (k, v_spatial))
        weights = (layer.temperature[1, head] * (qn @ k_mixed)).softmax(-1)
        spatial.append(weights @ v_mixed.mT)
    expected = torch.cat(
        [layer.proj_spatial(torch.cat(spatial, -1)), layer.proj_channel(torch.cat(channel, -1))], -1
    )
    torch.testing.assert_close(layer(x, (2, 2, 3)), expected)


def test_rotary_attention_sees_relative_positions_alone():
    """Scores of two tokens depend on the difference of their places, on each axis."""
    angles = rotary_angles((3, 4, 5), 12, device=torch.device("cpu"))
    assert angles.shape == (60, 6)
    turned = torch.polar(torch.ones_like(angles), angles).view(3, 4, 5, 6)
    torch.manual_seed(0)
    q, k = torch.randn(2, 6, dtype=torch.cfloat)

    def score(a, b):
        return (q * turned[a] * (k * turned[b]).conj()).sum().real

    torch.testing.assert_close(score((0, 1, 2), (1, 3, 4)), score((1, 0, 0), (2, 2, 2)))
    for other in ((2, 2, 2), (1, 1, 2), (1, 2, 3)):
        assert abs(score((1, 0, 0), other) - score((1, 0, 0), (1, 2, 2))) > 1e-3


def test_rotary_attention_equals_its_equations():
    """Complex rotation of channel pairs, softmax, one head at a time."""
    torch.manual_seed(0)
    layer = RotaryAttention3D(24, 2)
    torch.nn.init.normal_(layer.q_bias)
    torch.nn.init.normal_(layer.v_bias)
    x = torch.randn(1, 8, 24)
    angles = rotary_angles((2, 2, 2), 12, device=torch.device("cpu"))
    q, k, v = (x @ part.T for part in layer.qkv.weight.chunk(3))
    q, v = q + layer.q_bias, v + layer.v_bias
    parts = []
    for head in range(2):
        part = slice(12 * head, 12 * head + 12)
        turned = [
            torch.complex(t[..., part][..., :6], t[..., part][..., 6:]) * torch.exp(1j * angles)
            for t in (q, k)
        ]
        scores = (turned[0][:, :, None] * turned[1][:, None].conj()).sum(-1).real / math.sqrt(12)
        parts.append(scores.softmax(-1) @ v[..., part])
    expected = layer.proj(layer.norm(torch.cat(parts, -1)))
    torch.testing.assert_close(layer(x, angles.cos(), angles.sin()), expected)


def test_mixtures_keep_a_constant_on_another_grid():
    layer = PairedAttention3D(8, (2, 2, 2), 5, 2, 0.0)
    with torch.no_grad():
        layer.mix.weight.fill_(0.25)
    weight = layer.mixing_weight((4, 6, 2))
    assert weight.shape == (5, 48)
    torch.testing.assert_close(weight.sum(1), layer.mix.weight.sum(1))


def test_position_grid_is_interpolated():
    grid = torch.arange(4.0).view(1, 1, 1, 1, 4)
    found = resize_grid(grid, (1, 1, 8))[0, 0, 0, 0]
    assert found.tolist() == [0.0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0]


@pytest.mark.parametrize("name", ["segformer", "upernet_resnet"])
def test_trilinear_upsampling_of_the_papers(name):
    model = build(name, upsample="trilinear").eval()
    image = torch.rand(1, 1, 32, 32, 32)
    with torch.no_grad():
        low = model.surface_head.conv(model.features(image))
        assert low.shape == (1, 1, 8, 8, 8)
        expected = F.interpolate(low, scale_factor=4, mode="trilinear")
        torch.testing.assert_close(model(image)["surface_logit"], expected)


def test_subvoxel_head_draws_single_voxels():
    """The map of voxel (1, 0, 1) inside a stride-2 cell is its own set of weights."""
    head = Head3D(1, 1, stride=2, upsample="subvoxel", bias=0.0)
    with torch.no_grad():
        head.conv.weight.zero_()
        head.conv.weight[0b101] = 1.0
    cells = torch.arange(1.0, 9.0).view(1, 1, 2, 2, 2)
    drawn = head(cells)
    assert drawn.shape == (1, 1, 4, 4, 4)
    assert torch.equal(drawn[:, :, 1::2, 0::2, 1::2], cells)
    assert drawn.count_nonzero() == 8


def test_attention_is_fused():
    """No (n, n) matrix is stored for the backward pass."""
    layer = SelfAttention(8, 1)
    stored = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: stored.append(t) or t, lambda t: t):
        layer(torch.rand(1, 300, 8))
    assert max(t.numel() for t in stored) < 300 * 300


def test_fusing_early_saves_work():
    """A decoder of 16^3 x (1024 x 256) multiplications would alone cost 2.1 GFLOP."""
    with torch.device("meta"):
        model = SegFormer3D().eval()
        image = torch.rand(1, 1, 64, 64, 64)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(image)
    assert counter.get_total_flops() < 3.0e9


@pytest.mark.slow
def test_overfits_one_crop(name):
    """Dice over 0.95 on tilted sheets of 3 voxels, every 10."""
    torch.set_num_threads(1)
    model = build(name)
    z, y, x = torch.meshgrid(*[torch.arange(32.0)] * 3, indexing="ij")
    phase = (0.3 * z + 0.8 * y + 0.5 * x + 2 * torch.sin(x / 6)) % 10
    label = (phase < 3).float()[None, None]
    noise = torch.Generator().manual_seed(0)
    image = (0.3 + 0.4 * label + 0.1 * torch.randn(label.shape, generator=noise)).clamp(0, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    dice = 0.0
    for step in range(600):
        logit = model(image)["surface_logit"]
        p = torch.sigmoid(logit)
        soft = 1 - 2 * (p * label).sum() / (p.sum() + label.sum())
        optimizer.zero_grad()
        (soft + F.binary_cross_entropy_with_logits(logit, label)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        mask = logit > 0
        dice = (2 * (mask * label).sum() / (mask.sum() + label.sum())).item()
        if step > 20 and dice > 0.97:
            break
    assert dice > 0.95
