"""Memory of a run: what it holds, not what it once held."""

import numpy as np
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


def test_resident_memory_grows_by_what_is_allocated():
    before = memory_figures(torch.device("cpu"))["ram_mib"]
    block = np.ones(200 * 2**20, np.uint8)
    after = memory_figures(torch.device("cpu"))["ram_mib"]
    assert after - before == pytest.approx(200, abs=20)
    del block


@pytest.mark.gpu
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
