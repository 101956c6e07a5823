"""Exported files give the network's outputs; inference runs from them."""

import json

import numpy as np
import pytest
import safetensors.torch
import tifffile
import torch

from vesuvius.cli.main import main
from vesuvius.errors import CheckpointError, ConfigError, ExportError
from vesuvius.runtime import export
from vesuvius.runtime.export import export_run
from vesuvius.runtime.run_folder import RunFolder
from vesuvius.runtime.weights import load_network

SHAPE = (16, 16, 32)


def reference(run_dir):
    """Return network, image and heads, without the code under test."""
    run = RunFolder(run_dir)
    network = run.network(run_dir / "checkpoints" / "best.ckpt").eval()
    image = torch.rand(1, 1, *SHAPE)
    with torch.no_grad():
        return network, image, network(image)


def test_safetensors_hold_the_checkpoints_tensors(run_dir, tmp_path):
    export_run(run_dir, tmp_path / "out", formats=["safetensors"])
    stored = safetensors.torch.load_file(tmp_path / "out" / "model.safetensors")
    state = torch.load(run_dir / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert {f"model.{name}" for name in stored} == set(state)
    assert all(torch.equal(value, state[f"model.{name}"]) for name, value in stored.items())
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        *("config.yaml", "export.json", "model.safetensors", "split.json", "summary.txt")
    ]


def test_the_exported_program_gives_the_networks_outputs(run_dir, tmp_path):
    facts = export_run(run_dir, tmp_path / "out", formats=["exported"])
    _, image, heads = reference(run_dir)
    outputs = torch.export.load(tmp_path / "out" / "model.pt2").module()(image)
    for name, value in heads.items():
        torch.testing.assert_close(outputs[name], value, atol=1e-4, rtol=0)
    assert facts["greatest_difference"]["exported"] <= 1e-4


def test_onnx_gives_the_networks_outputs(run_dir, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    facts = export_run(run_dir, tmp_path / "out", formats=["onnx"])
    _, image, heads = reference(run_dir)
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    assert [i.name for i in session.get_inputs()] == ["image"]
    assert [o.name for o in session.get_outputs()] == ["surface_logit", "normals"]
    for name, got in zip(heads, session.run(None, {"image": image.numpy()}), strict=True):
        np.testing.assert_allclose(got, heads[name].numpy(), atol=1e-4)
    assert facts["greatest_difference"]["onnx"] <= 1e-4
    assert not list((tmp_path / "out").glob("*.data"))  # one file


def test_json_and_summary_say_what_was_exported(run_dir, tmp_path):
    network, *_ = reference(run_dir)
    num_parameters = sum(p.numel() for p in network.parameters())
    export_run(run_dir, tmp_path / "out", formats=["safetensors"], shape_zyx=(8, 16, 16))
    facts = json.loads((tmp_path / "out" / "export.json").read_text())
    assert facts["input"]["shape"] == [1, 1, 8, 16, 16]
    assert facts["outputs"]["normals"] == [1, 3, 8, 16, 16]
    assert facts["num_parameters"] == num_parameters
    assert facts["run"]["git_commit"] == "abc"
    summary = (tmp_path / "out" / "summary.txt").read_text()
    assert f"DualHeadResUNet3D: {num_parameters:,} parameters" in summary
    assert "surface_head" in summary
    assert "head normals 1x3x8x16x16" in summary
    config = RunFolder(tmp_path / "out").config
    assert config == RunFolder(run_dir).config


def test_the_exported_folder_is_a_run_folder(run_dir, tmp_path):
    _, image, heads = reference(run_dir)
    export_run(run_dir, tmp_path / "out", formats=["safetensors"])
    folder = RunFolder(tmp_path / "out")
    again = folder.network(folder.checkpoint("best")).eval()
    with torch.no_grad():
        assert torch.equal(again(image)["surface_logit"], heads["surface_logit"])
    assert folder.patch_zyx() == list(SHAPE)
    assert folder.volume_ids("val") == ["b"]


def test_inference_from_the_export_writes_the_same_masks(run_dir, tmp_path, run_infer):
    export_run(run_dir, tmp_path / "out", formats=["safetensors"])
    masks = []
    for name, source in (("from_run", run_dir), ("from_export", tmp_path / "out")):
        run_infer(
            *(source, tmp_path / name),
            *("postprocess=none", "precision=fp32", "pictures=false", "threshold=0.2"),
        )
        (path,) = (tmp_path / name).glob("*_mask.tif")
        masks.append(tifffile.imread(path))
    assert np.array_equal(*masks)


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 3, 4), (5, 7, 6)])
def test_adaptive_pooling_as_means_is_torchs(size):
    image = torch.rand(2, 3, 5, 7, 10)
    expected = torch.nn.functional.adaptive_avg_pool3d(image, size)
    torch.testing.assert_close(export._pool_by_means(image, size), expected)


def test_onnx_of_a_network_with_adaptive_pooling(tmp_path):
    pytest.importorskip("onnxruntime")

    class Pooled(torch.nn.Module):
        def forward(self, image):
            return {"surface_logit": torch.nn.functional.adaptive_avg_pool3d(image, (2, 3, 3))}

    image = torch.rand(1, 1, 4, 7, 8)
    difference = export._save_onnx(Pooled(), image, Pooled()(image), tmp_path / "model.onnx")
    assert difference is not None
    assert difference < 1e-5


def test_a_file_that_differs_is_not_kept(run_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_save_program", lambda *_: 0.01)
    with pytest.raises(ExportError, match=r"exported file gives outputs that differ by 0\.01"):
        export_run(run_dir, tmp_path / "out", formats=["exported"])
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_bad_arguments_are_named(run_dir, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="format 'tflite' is unknown; expected any of safet"):
        export_run(run_dir, tmp_path / "out", formats=["tflite"])
    with pytest.raises(ConfigError, match="exists already"):
        export_run(run_dir, run_dir)
    with pytest.raises(CheckpointError, match=r"last\.ckpt does not exist; the run has \['best"):
        export_run(run_dir, tmp_path / "out", formats=["safetensors"], checkpoint="last")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs onnx and onnxscript: pip install"):
        export_run(run_dir, tmp_path / "out", formats=["onnx"])


def test_truncated_or_foreign_weights_are_named(run_dir, tmp_path):
    export_run(run_dir, tmp_path / "out", formats=["safetensors"])
    path = tmp_path / "out" / "model.safetensors"
    network, *_ = reference(run_dir)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"Cannot read .*model\.safetensors"):
        load_network(network, path)
    safetensors.torch.save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="belongs to another network than DualHead"):
        load_network(network, path)


def test_command_line(run_dir, tmp_path, capsys):
    out = tmp_path / "out"
    status = main(["export", str(run_dir), "--out", str(out), "--shape", "8", "16", "16"])
    assert status == 0
    assert (out / "model.pt2").is_file()
    printed = capsys.readouterr().out
    assert "exported     greatest difference" in printed
    assert "image [1, 1, 8, 16, 16]" in printed
    assert main(["export", str(run_dir), "--out", str(out)]) == 2
