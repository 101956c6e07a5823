"""Checks that a network trains, and how fast and large it is."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from hydra.utils import instantiate
from torch import Tensor

from vesuvius.errors import ConfigError
from vesuvius.inference import prepare_network
from vesuvius.inference.device import select_device
from vesuvius.runtime.model_facts import (
    build_network,
    call_network,
    count_gflop,
    load_config,
    random_image,
)
from vesuvius.runtime.run_folder import training_patch

_MIB = 2**20


class PeakMemory:
    """MiB used within a `with` block at most, beyond what was held before.

    On CUDA torch's own count; on Linux the peak of the process' resident memory; elsewhere its
    growth.
    """

    mib = 0.0

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __enter__(self) -> "PeakMemory":
        """Forget the peak so far."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = float(torch.cuda.memory_allocated(self._device))
        else:
            self._can_reset = _reset_peak()
            self._before = float(psutil.Process().memory_info().rss)
        return self

    def __exit__(self, *_: object) -> None:
        """Read the peak."""
        if self._device.type == "cuda":
            peak = float(torch.cuda.max_memory_allocated(self._device))
        elif self._can_reset:
            lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
            peak = 1024.0 * next(int(line.split()[1]) for line in lines if "VmHWM" in line)
        else:
            peak = float(psutil.Process().memory_info().rss)
        self.mib = max(0.0, peak - self._before) / _MIB


def _reset_peak() -> bool:
    """Set the process' peak resident memory to what it holds now; False where that is not so."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def check_model(
    what: Sequence[str],
    *,
    checkpoint: str = "best",
    shape_zyx: Sequence[int] | None = None,
    batch: int = 1,
    device: str = "auto",
) -> dict[str, Any]:
    """Build the module, run one training step on noise, and return its figures.

    Args:
        what: a run's folder, or overrides of `train.py`.
        checkpoint: "best", "last" or a path, for a run.
        shape_zyx: crop in voxels; None = data.patch_zyx.
        batch: crops.
        device: "auto", "cpu", "cuda", ...

    Returns:
        network, num_parameters, num_trainable, gflop_forward, image, heads (name -> shape),
        losses (name -> value), no_gradient (names of parameters), forward_s, step_s, memory_mib,
        device.

    Raises:
        ConfigError: outputs or losses are not finite, a head has another size than the image.
    """
    config, run = load_config(what)
    chosen = select_device(device)
    module = instantiate(config.module, _convert_="all")
    if run is not None:
        module.model = run.network(run.checkpoint(checkpoint))
    module = module.to(chosen).train()
    shape = [int(n) for n in shape_zyx or training_patch(config)]
    image = random_image(shape, batch=batch, channels=int(getattr(module.model, "in_channels", 1)))
    image = image.to(chosen)
    label = (image[:, :1] > 0.9).to(torch.uint8)
    gflop = count_gflop(module.model.eval(), image[:1])
    module.model.train()
    with PeakMemory(chosen) as memory:
        start = time.perf_counter()
        heads = call_network(module.model, image)
        forward_s = _elapsed(start, chosen)
        losses = module.loss(heads, {"image": image, "label": label})
        losses["total"].backward()
        step_s = _elapsed(start, chosen)
    _check_outputs(heads, losses, image)
    parameters = dict(module.model.named_parameters())
    return {
        "network": type(module.model).__name__,
        "num_parameters": sum(p.numel() for p in parameters.values()),
        "num_trainable": sum(p.numel() for p in parameters.values() if p.requires_grad),
        "gflop_forward": gflop,
        "image": list(image.shape),
        "heads": {name: list(value.shape) for name, value in heads.items()},
        "losses": {name: float(value.detach()) for name, value in losses.items()},
        "no_gradient": [
            n for n, p in parameters.items() if p.requires_grad and not _has_gradient(p)
        ],
        "forward_s": forward_s,
        "step_s": step_s,
        "memory_mib": memory.mib,
        "device": str(chosen),
    }


def _has_gradient(parameter: Tensor) -> bool:
    return parameter.grad is not None and bool(parameter.grad.isfinite().all())


def _elapsed(start: float, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _check_outputs(heads: dict[str, Tensor], losses: dict[str, Tensor], image: Tensor) -> None:
    for name, value in heads.items():
        if value.shape[2:] != image.shape[2:]:
            raise ConfigError(
                f"head {name!r} has shape {tuple(value.shape)} for an image of "
                f"{tuple(image.shape)}; expected the same z, y, x."
            )
        if not bool(value.isfinite().all()):
            raise ConfigError(f"head {name!r} holds values that are not finite.")
    bad = [name for name, value in losses.items() if not math.isfinite(float(value.detach()))]
    if bad:
        raise ConfigError(f"loss terms {bad} are not finite on noise.")


def benchmark_model(
    what: Sequence[str],
    *,
    checkpoint: str = "best",
    shape_zyx: Sequence[int] | None = None,
    batch: int = 1,
    device: str = "auto",
    precision: str = "auto",
    warmup: int = 3,
    repeats: int = 20,
    progress: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Time inference of one window as `infer.py` runs it: folded norms, precision, memory format.

    Args:
        what: a run's folder, or overrides of `train.py`.
        checkpoint: "best", "last" or a path, for a run.
        shape_zyx: window in voxels; None = data.patch_zyx.
        batch: windows a call.
        device: "auto", "cpu", "cuda", ...
        precision: "auto", "fp32", "bf16" or "fp16".
        warmup: calls that do not count.
        repeats: calls that count.
        progress: called after each of them.

    Returns:
        mean_s, median_s, p95_s of a call, windows_s, mvoxels_s (at the median), memory_mib,
        precision, device, image.

    Raises:
        ConfigError: fewer than one repeat.
    """
    if repeats < 1 or warmup < 0 or batch < 1:
        raise ConfigError(
            f"--repeats {repeats} and --batch {batch} must be >= 1, --warmup {warmup} >= 0."
        )
    config, run = load_config(what)
    shape = [int(n) for n in shape_zyx or training_patch(config)]
    network = prepare_network(
        build_network(config, run, checkpoint),
        device=device,
        precision=precision,  # type: ignore[arg-type] # checked there
    )
    image = random_image(shape, batch=batch).to(network.device)
    times = []
    with PeakMemory(network.device) as memory:
        for number in range(warmup + repeats):
            start = time.perf_counter()
            network(image)
            if number >= warmup:
                times.append(_elapsed(start, network.device))
            if progress is not None:
                progress()
    median = statistics.median(times)
    return {
        "mean_s": statistics.fmean(times),
        "median_s": median,
        "p95_s": percentile(times, 0.95),
        "windows_s": batch / median,
        "mvoxels_s": batch * math.prod(shape) / median / 1e6,
        "memory_mib": memory.mib,
        "precision": network.precision,
        "device": str(network.device),
        "image": list(image.shape),
        "repeats": repeats,
    }


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
