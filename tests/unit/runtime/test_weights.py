"""Checkpoints: what is read, what is refused, in which words."""

import pytest
import torch

from vesuvius.errors import CheckpointError
from vesuvius.models.dual_head_unet import DualHeadResUNet3D
from vesuvius.runtime.weights import describe_differences, load_network, read_checkpoint


def lightning_checkpoint(model, path):
    torch.save({"state_dict": {f"model.{k}": v for k, v in model.state_dict().items()}}, path)
    return path


def test_our_checkpoint_loads(tmp_path):
    torch.manual_seed(0)
    source, target = DualHeadResUNet3D(n_filters=2), DualHeadResUNet3D(n_filters=2)
    load_network(target, lightning_checkpoint(source, tmp_path / "best.ckpt"))
    for name, value in source.state_dict().items():
        assert torch.equal(value, target.state_dict()[name])


def test_another_network_is_named_by_its_tensors(tmp_path):
    path = lightning_checkpoint(DualHeadResUNet3D(n_filters=2), tmp_path / "best.ckpt")
    with pytest.raises(
        CheckpointError, match=r"another network than DualHeadResUNet3D: shape: encoder\.0\.conv1"
    ):
        load_network(DualHeadResUNet3D(n_filters=4), path)


def test_missing_truncated_and_executable_files_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="Checkpoint not found"):
        read_checkpoint(tmp_path / "none.ckpt")
    whole = lightning_checkpoint(DualHeadResUNet3D(n_filters=2), tmp_path / "whole.ckpt")
    cut = tmp_path / "cut.ckpt"
    cut.write_bytes(whole.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"Cannot read checkpoint .*cut\.ckpt.*truncated"):
        read_checkpoint(cut)
    torch.save({"state_dict": {}, "danger": print}, tmp_path / "code.ckpt")
    with pytest.raises(CheckpointError, match="holds code, which is never executed") as caught:
        read_checkpoint(tmp_path / "code.ckpt")
    assert "weights_only" not in str(caught.value)  # torch's advice would run the code


def test_differences_are_counted():
    expected = {name: torch.zeros(1) for name in "abcde"}
    found = {"a": torch.zeros(2), "x": torch.zeros(1)}
    assert describe_differences(expected, found) == (
        "missing: b, c, d and 1 more; unexpected: x; shape: a is (2,), expected (1,)"
    )
    assert describe_differences(expected, dict(expected)) == ""
