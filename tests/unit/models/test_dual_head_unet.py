"""DualHeadResUNet3D: sizes, heads, gradients, the original's weights."""

import pytest
import torch

from vesuvius.errors import CheckpointError, ConfigError, ShapeMismatchError
from vesuvius.models.dual_head_unet import DualHeadResUNet3D
from vesuvius.models.original_weights import load_original_weights
from vesuvius.models.surface_network import Head3D, to_cells


@pytest.mark.parametrize(("n_filters", "millions"), [(16, 5.56), (32, 22.24)])
def test_parameter_count_of_the_original(n_filters, millions):
    with torch.device("meta"):
        model = DualHeadResUNet3D(n_filters=n_filters)
    count = sum(p.numel() for p in model.parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize("shape", [(16, 32, 32), (7, 17, 33), (1, 16, 16)], ids=str)
def test_any_size_comes_back_at_its_size(shape):
    model = DualHeadResUNet3D(n_filters=2).eval()
    with torch.no_grad():
        outputs = model(torch.rand(2, 1, *shape))
    assert outputs["surface_logit"].shape == (2, 1, *shape)
    assert outputs["normals"].shape == (2, 3, *shape)
    assert outputs["normals"].abs().max() <= 1


def test_z_is_pooled_once_by_default():
    assert DualHeadResUNet3D(n_filters=2).divisor_zyx == (2, 16, 16)


def test_cells_are_read_and_drawn_voxel_by_voxel():
    image = torch.arange(2 * 4 * 2 * 6.0).view(2, 1, 4, 2, 6)
    cells = to_cells(image, 2)
    assert cells.shape == (2, 8, 2, 1, 3)
    # the cell at (1, 0, 2) of the first image holds z 2..3, y 0..1, x 4..5, x the fastest
    assert cells[0, :, 1, 0, 2].tolist() == [28, 29, 34, 35, 40, 41, 46, 47]
    head = Head3D(8, 1, stride=2, upsample="subvoxel", bias=0.0)
    with torch.no_grad():
        head.conv.weight.copy_(torch.eye(8).view(8, 8, 1, 1, 1))
    torch.testing.assert_close(head(cells), image)


@pytest.mark.parametrize("deep", [0, 1])
def test_a_network_of_cells_gives_voxels(deep):
    torch.manual_seed(0)
    model = DualHeadResUNet3D(
        n_filters=4, strides_zyx=[[2, 2, 2]] * 2, space_to_depth=2, deep_supervision=deep
    )
    assert model.divisor_zyx == (8, 8, 8)
    image = torch.rand(2, 1, 16, 16, 24)
    outputs = model(image.contiguous(memory_format=torch.channels_last_3d))
    assert outputs["surface_logit"].shape == (2, 1, 16, 16, 24)
    assert outputs["normals"].shape == (2, 3, 16, 16, 24)
    if deep:
        assert outputs["surface_logit_deep1"].shape == (2, 1, 4, 4, 6)
    sum(o.square().sum() for o in outputs.values()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    odd = model.eval()(torch.rand(1, 1, 7, 9, 11))
    assert odd["surface_logit"].shape == (1, 1, 7, 9, 11)


def test_starts_from_background():
    torch.manual_seed(0)
    model = DualHeadResUNet3D(n_filters=4)
    share = torch.sigmoid(model(torch.rand(1, 1, 16, 32, 32))["surface_logit"]).mean()
    assert 0.05 < share < 0.3
    assert model.surface_head.bias.item() == -2.0


@pytest.mark.parametrize("norm", ["batch", "instance", "group"])
def test_every_parameter_gets_a_gradient(norm):
    torch.manual_seed(0)
    model = DualHeadResUNet3D(n_filters=8, norm=norm)
    outputs = model(torch.rand(2, 1, 8, 32, 32))
    sum(o.square().sum() for o in outputs.values()).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
    assert without == []


def test_without_normals_head():
    model = DualHeadResUNet3D(n_filters=2, normals_head=False)
    assert model.heads == ("surface_logit",)
    assert set(model.eval()(torch.rand(1, 1, 2, 16, 16))) == {"surface_logit"}


def test_bad_arguments_and_inputs_are_named():
    with pytest.raises(ConfigError, match=r"model\.norm is 'layer'"):
        DualHeadResUNet3D(n_filters=2, norm="layer")
    with pytest.raises(ConfigError, match=r"model\.space_to_depth=0; expected an integer >= 1"):
        DualHeadResUNet3D(n_filters=2, space_to_depth=0)
    with pytest.raises(ConfigError, match=r"model\.strides_zyx"):
        DualHeadResUNet3D(n_filters=2, strides_zyx=[[2, 2]])
    with pytest.raises(ShapeMismatchError, match=r"shape \(1, 3, 8, 16, 16\); expected \(b, 1"):
        DualHeadResUNet3D(n_filters=2)(torch.rand(1, 3, 8, 16, 16))


def original_name(key):
    """Our parameter name in the original's words (an independent inverse of the reader)."""
    words = key.split(".")
    place = words[0]
    if place in ("encoder", "decoder", "upsamplers"):
        level = int(words[1]) + 1 if place == "encoder" else 4 - int(words[1])
        place = {"encoder": "enc", "decoder": "dec", "upsamplers": "up"}[place] + str(level)
        words = words[2:]
    else:
        place = {"surface_head": "seg_head", "normals_head": "normal_head"}.get(place, place)
        words = words[1:]
    inner = {"conv1": "conv.0", "norm1": "conv.1", "conv2": "conv.3", "norm2": "conv.4"}
    if words[0] == "shortcut":
        words = ["residual", *words[1:]]
    return ".".join([place, *(inner.get(w, w) for w in words)])


@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize("wrapped", [True, False], ids=["model_state_dict", "bare"])
def test_original_weights_load(tmp_path, prefix, wrapped):
    torch.manual_seed(0)
    source, target = DualHeadResUNet3D(n_filters=2), DualHeadResUNet3D(n_filters=2)
    source.train()(torch.rand(2, 1, 4, 16, 16))  # batch statistics differ from their defaults
    state = {prefix + original_name(k): v for k, v in source.state_dict().items()}
    assert prefix + "enc1.conv.0.weight" in state
    torch.save({"model_state_dict": state, "epoch": 3} if wrapped else state, tmp_path / "best.pth")
    load_original_weights(target, tmp_path / "best.pth")
    image = torch.rand(1, 1, 4, 16, 16)
    with torch.no_grad():
        expected, found = source.eval()(image), target.eval()(image)
    assert torch.equal(expected["surface_logit"], found["surface_logit"])
    assert torch.equal(expected["normals"], found["normals"])


def test_original_weights_of_another_width_are_refused(tmp_path):
    source = DualHeadResUNet3D(n_filters=2)
    state = {original_name(k): v for k, v in source.state_dict().items()}
    torch.save({"model_state_dict": state}, tmp_path / "best.pth")
    with pytest.raises(CheckpointError, match=r"n_filters=2.*network n_filters=4"):
        load_original_weights(DualHeadResUNet3D(n_filters=4), tmp_path / "best.pth")


def test_unreadable_weights_are_refused(tmp_path):
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"PK\x03\x04 truncated")
    with pytest.raises(CheckpointError, match=r"Cannot read weights from .*broken\.pth"):
        load_original_weights(DualHeadResUNet3D(n_filters=2), broken)
    torch.save({"other.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"'other\.weight' is not one of the original"):
        load_original_weights(DualHeadResUNet3D(n_filters=2), tmp_path / "other.pth")
