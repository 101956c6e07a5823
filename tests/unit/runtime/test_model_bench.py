"""check-model and benchmark: figures by hand, faults found."""

import subprocess
import sys
import time

import pytest
import torch

from vesuvius.cli.main import main
from vesuvius.errors import ConfigError
from vesuvius.runtime.model_bench import benchmark_model, check_model, percentile
from vesuvius.runtime.model_facts import count_gflop, load_config, summary_text

TINY = ["model.n_filters=2", "data.patch_zyx=[16,16,32]"]


def test_check_counts_parameters_and_finds_every_gradient():
    found = check_model([*TINY, "model.normals_head=true"], device="cpu")
    assert found["num_parameters"] == found["num_trainable"] == 87_490
    assert found["heads"] == {"surface_logit": [1, 1, 16, 16, 32], "normals": [1, 3, 16, 16, 32]}
    assert found["no_gradient"] == []
    assert set(found["losses"]) == {"total", "dice", "bce", "normal"}
    assert found["step_s"] >= found["forward_s"] > 0


def test_check_of_a_run_uses_its_weights(run_dir):
    state = torch.load(run_dir / "checkpoints" / "best.ckpt", weights_only=True)
    state["state_dict"]["model.surface_head.bias"].fill_(float("nan"))
    torch.save(state, run_dir / "checkpoints" / "best.ckpt")
    with pytest.raises(ConfigError, match="head 'surface_logit' holds values that are not finite"):
        check_model([str(run_dir)], device="cpu")


def test_gflop_of_one_convolution_by_hand():
    convolution = torch.nn.Conv3d(2, 4, 3, padding=1, bias=False)
    image = torch.zeros(1, 2, 5, 6, 7)
    assert count_gflop(convolution, image) == pytest.approx(2 * 2 * 4 * 27 * 5 * 6 * 7 / 1e9)


def test_peak_memory_sees_what_was_freed_again():
    """In a process of its own: one that has trained keeps freed memory and takes it from there."""
    code = """
import torch
from vesuvius.runtime.model_bench import PeakMemory
with PeakMemory(torch.device("cpu")) as memory:
    torch.ones(150 * 2**20, dtype=torch.uint8).fill_(2)
print(memory.mib)
with PeakMemory(torch.device("cpu")) as memory:
    pass
print(memory.mib)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    large, small = map(float, done.stdout.split())
    assert large == pytest.approx(150, abs=30)
    assert small < 30


def test_percentile_by_hand():
    values = [float(n) for n in range(20, 0, -1)]
    assert percentile(values, 0.95) == 19
    assert percentile(values, 0.5) == 10
    assert percentile([3.0], 0.95) == 3


def test_benchmark_leaves_the_warm_up_out(run_dir, monkeypatch):
    calls = []

    class Slow:
        device, precision = torch.device("cpu"), "fp32"

        def __call__(self, image):
            calls.append(tuple(image.shape))
            time.sleep(0.2 if len(calls) <= 2 else 0.01)

    monkeypatch.setattr("vesuvius.runtime.model_bench.prepare_network", lambda *_, **__: Slow())
    found = benchmark_model([str(run_dir)], warmup=2, repeats=4, batch=2)
    assert calls == [(2, 1, 16, 16, 32)] * 6
    assert 0.01 <= found["median_s"] < 0.1
    assert found["windows_s"] == pytest.approx(2 / found["median_s"])
    assert found["mvoxels_s"] == pytest.approx(2 * 8192 / found["median_s"] / 1e6)
    with pytest.raises(ConfigError, match="--repeats 0"):
        benchmark_model([str(run_dir)], repeats=0)


def test_arguments_that_name_nothing_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="is no training run"):
        load_config([str(tmp_path)])
    with pytest.raises(ConfigError, match="'nonsense' is no override; give one run folder"):
        load_config(["model.n_filters=2", "nonsense"])
    with pytest.raises(ConfigError, match=r"(?s)model=unet9: .*Available options"):
        load_config(["model=unet9"])


def test_summary_names_parts_shapes_and_parameters():
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 4, 3, padding=1))

    class Heads(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body = network

        def forward(self, image):
            return {"surface_logit": self.body(image)}

    lines = summary_text(Heads(), torch.zeros(1, 1, 4, 5, 6)).splitlines()
    assert lines[1].split() == ["body", "Sequential", "1x4x4x5x6", "112"]
    assert "Heads: 112 parameters" in lines
    assert "head surface_logit 1x4x4x5x6" in lines


def test_command_lines(capsys, run_dir):
    assert main(["check-model", *TINY, "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "parameters  87,490 (87,490 trainable)" in printed
    assert "finite for every parameter" in printed
    options = ["--device", "cpu", "--precision", "fp32", "--warmup", "0", "--repeats", "2"]
    assert main(["benchmark", str(run_dir), *options]) == 0
    printed = capsys.readouterr().out
    assert "image [1, 1, 16, 16, 32] on cpu in fp32" in printed
    assert "windows/s" in printed
    assert main(["check-model", "model=unet9"]) == 2
