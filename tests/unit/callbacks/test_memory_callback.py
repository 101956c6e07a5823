"""Memory of a run: what it holds, not what it once held."""

import subprocess
import sys

import pytest
import torch

from vesuvius.callbacks.memory import MemoryMonitor, memory_figures
from vesuvius.errors import ConfigError

from .tiny import fit

pytestmark = pytest.mark.filterwarnings(
    "ignore:The '.*_dataloader' does not have many workers",
    "ignore:`isinstance.treespec, LeafSpec.` is deprecated",
    "ignore:GPU available but not used",
)


def test_an_epoch_logs_resident_memory():
    trainer, _ = fit([MemoryMonitor(gpu_fraction=0.95)])
    logged = {k: v for k, v in trainer.callback_metrics.items() if k.startswith("memory/")}
    assert set(logged) == {"memory/ram_mib"}  # no GPU, no GPU figures
    assert 50 < logged["memory/ram_mib"] < 100_000


_HOLD = "import numpy; block = numpy.ones(200 * 2**20, numpy.uint8); print(0, flush=True); input()"
_ALONE = f"""
import subprocess, sys
import numpy, torch
from vesuvius.callbacks.memory import memory_figures

def ram():
    return memory_figures(torch.device("cpu"))["ram_mib"]

figures = [ram()]
block = numpy.ones(200 * 2**20, numpy.uint8)
figures.append(ram())
child = subprocess.Popen(
    [sys.executable, "-c", {_HOLD!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE
)
child.stdout.readline()
figures.append(ram())
child.communicate(b"x")
figures.append(ram())
print(*figures)
"""


def test_resident_memory_is_what_the_process_and_its_children_hold():
    # a process of its own: here, children of earlier tests may end between two figures
    done = subprocess.run([sys.executable, "-c", _ALONE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    empty, own, with_child, child_ended = map(float, done.stdout.split())
    assert own - empty == pytest.approx(200, abs=20)
    assert with_child - own == pytest.approx(240, abs=40)  # its interpreter and numpy too
    assert child_ended == pytest.approx(own, abs=5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_figures_and_limit():
    device = torch.device("cuda")
    torch.cuda.reset_peak_memory_stats()
    block = torch.ones(100 * 2**20, dtype=torch.uint8, device=device)
    figures = memory_figures(device)
    assert figures["gpu_allocated_mib"] >= 100
    assert figures["gpu_reserved_mib"] >= figures["gpu_allocated_mib"]
    assert figures["gpu_peak_mib"] >= 100
    del block


@pytest.mark.parametrize("fraction", [0, 1.5])
def test_a_bad_fraction_is_named(fraction):
    with pytest.raises(ConfigError, match=f"gpu_fraction={fraction}; expected a share"):
        MemoryMonitor(gpu_fraction=fraction)
