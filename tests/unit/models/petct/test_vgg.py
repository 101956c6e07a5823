"""VGG branch against torchvision's layers written out; weights by path, random, none."""

import logging

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from vesuvius.cli.main import main
from vesuvius.errors import CheckpointError, ConfigError
from vesuvius.models.petct.vgg import VGG19Branch, vgg19_branch
from vesuvius.models.petct.vgg_weights import SHAPES, file_sha256, grey_weight

PLAN = [64, 64, "M", 128, 128, "M", 256, 256, 256, 256]


def torchvision_layers():
    """Return VGG19's `features` up to conv3_4's ReLU, as torchvision numbers them."""
    torch.manual_seed(0)
    layers, channels = [], 3
    for entry in PLAN:
        if entry == "M":
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(channels, entry, 3, padding=1), nn.ReLU()]
            channels = entry
    return nn.Sequential(*layers)


@pytest.fixture(scope="module")
def rgb():
    return torchvision_layers()


@pytest.fixture
def full_file(rgb, tmp_path):
    """A file like torchvision's, with its name's hash right and parts nobody needs."""
    state = {f"features.{k}": v for k, v in rgb.state_dict().items()}
    path = tmp_path / "vgg.pth"
    torch.save({**state, "classifier.0.weight": torch.zeros(2, 2)}, path)
    return path.rename(tmp_path / f"vgg19-{file_sha256(path)[:8]}.pth")


def test_a_full_file_has_the_shapes_expected(rgb):
    assert {f"features.{k}": tuple(v.shape) for k, v in rgb.state_dict().items()} == SHAPES
    assert sum(p.numel() for p in rgb.parameters()) == 2_325_568


def test_levels_are_torchvisions_with_an_extra_pooling(rgb, full_file):
    branch = vgg19_branch(weights=str(full_file))
    x = torch.rand(1, 1, 32, 48) * 2 - 1
    grey = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    with torch.no_grad():
        pooled = nn.functional.max_pool2d(rgb[:2](x * grey), 2)  # conv1_1, ReLU, extra pool
        slices = [rgb[2:4](pooled)]
        slices.append(rgb[4:9](slices[0]))
        slices.append(rgb[9:](slices[1]))
        levels = branch(x)
    assert [tuple(level.shape[1:]) for level in levels] == [
        (64, 16, 24), (128, 8, 12), (256, 4, 6),
    ]  # fmt: skip
    for level, expected in zip(levels, slices, strict=True):
        torch.testing.assert_close(level, expected, rtol=1e-4, atol=1e-5)


def test_grey_conversion_by_hand():
    kernel = torch.tensor([1.0, 10.0, 100.0]).view(1, 3, 1, 1)
    assert grey_weight(kernel).item() == pytest.approx(0.299 + 5.87 + 11.4)


def test_weights_of_a_file_are_frozen_and_logged_with_their_hash(full_file, caplog):
    caplog.set_level(logging.INFO)
    branch = vgg19_branch(weights=str(full_file))
    assert not any(p.requires_grad for p in branch.parameters())
    assert file_sha256(full_file) in caplog.text
    assert branch.origin == f"sha256:{file_sha256(full_file)}"
    unfrozen = vgg19_branch(weights=str(full_file), trainable=True)
    assert all(p.requires_grad for p in unfrozen.parameters())


def test_random_weights_are_said_so_and_trained(caplog):
    branch = vgg19_branch(weights="random", width=2)
    assert "VGG branch with random weights, trained" in caplog.text
    assert all(p.requires_grad for p in branch.parameters())
    frozen = vgg19_branch(weights="random", trainable=False, width=2)
    assert not any(p.requires_grad for p in frozen.parameters())
    assert vgg19_branch(weights="none") is None


def test_imagenet_norm_maps_grey_to_imagenets_scale():
    plain, normed = VGG19Branch(width=2), VGG19Branch(width=2, imagenet_norm=True)
    normed.load_state_dict(plain.state_dict())
    mean = 0.299 * 0.485 + 0.587 * 0.456 + 0.114 * 0.406
    std = 0.299 * 0.229 + 0.587 * 0.224 + 0.114 * 0.225
    x = torch.rand(1, 1, 8, 8) * 2 - 1
    for a, b in zip(normed(x), plain(((x + 1) / 2 - mean) / std), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_the_strip_tool_keeps_what_is_used(full_file, tmp_path, suffix, capsys):
    target = tmp_path / f"stripped{suffix}"
    assert main(["petct", "strip-vgg", str(full_file), str(target)]) == 0
    assert file_sha256(target) in capsys.readouterr().out
    assert 9_200_000 < target.stat().st_size < 9_400_000
    stripped = load_file(target) if suffix == ".safetensors" else torch.load(target)
    assert set(stripped) == set(SHAPES)
    whole, small = (vgg19_branch(weights=str(path)) for path in (full_file, target))
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, small.state_dict()[name])


def test_files_that_are_not_vgg19(full_file, tmp_path):
    with pytest.raises(CheckpointError, match=r"no such file\. Nothing is downloaded"):
        vgg19_branch(weights=str(tmp_path / "absent.pth"))
    damaged = tmp_path / "vgg19-00000000.pth"
    damaged.write_bytes(full_file.read_bytes())
    with pytest.raises(CheckpointError, match="its name says 00000000"):
        vgg19_branch(weights=str(damaged))
    cut = tmp_path / "cut.pth"
    cut.write_bytes(full_file.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="Cannot read"):
        vgg19_branch(weights=str(cut))
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(b"12345678")
    with pytest.raises(CheckpointError, match="Cannot read"):
        vgg19_branch(weights=str(cut))
    other = tmp_path / "other.pth"
    torch.save({"features.0.weight": torch.zeros(64, 1, 3, 3)}, other)
    with pytest.raises(
        CheckpointError, match=r"does not hold VGG19's weights: features\.0\.weight"
    ):
        vgg19_branch(weights=str(other))
    with pytest.raises(ConfigError, match=r"set model\.width=32"):
        vgg19_branch(weights=str(full_file), width=16)
