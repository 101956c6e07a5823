"""Logs how much memory a run holds."""

import psutil
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from vesuvius.errors import ConfigError

_MIB = 2**20


class MemoryMonitor(Callback):
    """Logs `memory/ram_mib` of each epoch and, on a GPU, `memory/gpu_*_mib`; limits GPU memory.

    `memory/ram_mib` is the resident memory of this process and its loader workers. On a GPU:
    `allocated` (tensors now), `reserved` (held by torch), `peak` (most tensors in the epoch).
    Speed is `SpeedMonitor`'s.

    Args:
        gpu_fraction: share of the GPU's memory this process may take, in (0, 1]; None = no limit.
            Beyond it torch raises its out-of-memory error instead of slowing other programs.
    """

    def __init__(self, *, gpu_fraction: float | None = None) -> None:
        if gpu_fraction is not None and not 0 < gpu_fraction <= 1:
            raise ConfigError(
                f"callbacks.memory.gpu_fraction={gpu_fraction}; expected a share in (0, 1]."
            )
        self.gpu_fraction = gpu_fraction

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Set the limit before the first tensor is on the GPU."""
        del pl_module, stage
        device = trainer.strategy.root_device
        if device.type == "cuda" and self.gpu_fraction is not None:
            torch.cuda.set_per_process_memory_fraction(self.gpu_fraction, device)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the peak of the last epoch."""
        del trainer
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what is held now and the epoch's peak."""
        del trainer
        for name, value in memory_figures(pl_module.device).items():
            pl_module.log(f"memory/{name}", value, rank_zero_only=True)


def memory_figures(device: torch.device) -> dict[str, float]:
    """Return MiB of this process and its children, and of its tensors where `device` is CUDA."""
    figures = {"ram_mib": _resident_bytes() / _MIB}
    if device.type == "cuda":
        figures["gpu_allocated_mib"] = torch.cuda.memory_allocated(device) / _MIB
        figures["gpu_reserved_mib"] = torch.cuda.memory_reserved(device) / _MIB
        figures["gpu_peak_mib"] = torch.cuda.max_memory_allocated(device) / _MIB
    return figures


def _resident_bytes() -> int:
    process = psutil.Process()
    total = int(process.memory_info().rss)
    for child in process.children(recursive=True):
        try:
            total += int(child.memory_info().rss)
        except psutil.Error:  # ended meanwhile
            continue
    return total
