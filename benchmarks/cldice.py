"""Soft clDice beside MONAI's SoftclDiceLoss and the separate remedies: time and memory of a step.

Forward + backward on one crop of tilted sheets 2 to 3 voxels thick (7 %) and a prediction of them
with noise. Times are medians of interleaved runs. Memory is the peak of the process beyond what it
held before the step (Linux), each variant in a process of its own.

    python benchmarks/cldice.py [--size 64] [--iterations 50] [--repeats 5] [--only memory]
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from vesuvius.losses.cldice import CenterlineDiceLoss
from vesuvius.losses.composite import LossTerm
from vesuvius.losses.recall import MedialRecallLoss
from vesuvius.runtime.model_bench import PeakMemory

NAMES = ("monai", "ours", "ours, new label each step", "ours, tolerance 1e-3", "medial recall")


def crop(size: int) -> tuple[Tensor, Tensor]:
    """Return label and logit (1, 1, z, y, x)."""
    generator = torch.Generator().manual_seed(0)
    z, y, x = torch.meshgrid(*[torch.arange(size, dtype=torch.float32)] * 3, indexing="ij")
    distance = (0.2 * z + 0.9 * y + 0.4 * x + 3 * torch.sin(x / 9)) % 32
    mask = (distance < 2.5).float()[None, None]
    noise = torch.randn(mask.shape, generator=generator)
    return mask, ((8 * mask - 4) + 1.5 * noise).requires_grad_()


def make_step(name: str, size: int, iterations: int) -> Callable[[], float]:
    """Return forward + backward of one variant; it returns the loss."""
    mask, logit = crop(size)
    if name == "monai":
        from monai.losses.cldice import SoftclDiceLoss

        loss_of = SoftclDiceLoss(iter_=iterations, sigmoid=True)

        def step() -> float:
            logit.grad = None
            loss = loss_of(input=logit, target=mask)
            loss.backward()
            return float(loss.detach())

        return step
    tolerance = 1e-3 if "tolerance" in name else 0.0
    term: LossTerm = CenterlineDiceLoss(iterations=iterations, tolerance=tolerance)
    if name == "medial recall":
        term = MedialRecallLoss()
    label = mask.to(torch.uint8)

    def own_step() -> float:
        logit.grad = None
        fresh = label.clone() if "new label" in name else label
        targets = {"label": fresh, "surface": mask, "valid": torch.ones_like(mask)}
        loss = term({"surface_logit": logit}, targets)
        loss.backward()
        return float(loss.detach())

    return own_step


def measure_memory(name: str, size: int, iterations: int) -> None:
    make_step(name, 16, 2)()  # imports and thread pools
    step = make_step(name, size, iterations)
    with PeakMemory(torch.device("cpu")) as peak:
        step()
    print(f"{peak.mib:.1f}")


def memory_in_own_process(name: str, size: int, iterations: int) -> float:
    command = [sys.executable, str(Path(__file__)), "--measure", name]
    command += ["--size", str(size), "--iterations", str(iterations)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--iterations", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=("memory", "time"))
    parser.add_argument("--measure", choices=NAMES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure_memory(args.measure, args.size, args.iterations)
        return
    times: dict[str, list[float]] = {name: [] for name in NAMES}
    losses = dict.fromkeys(NAMES, float("nan"))
    steps = {name: make_step(name, args.size, args.iterations) for name in NAMES}
    for number in range(args.repeats + 1 if args.only != "memory" else 0):
        for name, step in steps.items():
            start = time.perf_counter()
            losses[name] = step()
            if number:  # the first round warms up
                times[name].append(1e3 * (time.perf_counter() - start))
    print(f"{args.size}^3, {args.iterations} iterations, {torch.get_num_threads()} threads")
    base = statistics.median(times["monai"]) if times["monai"] else float("nan")
    base_mib = 0.0
    for name in NAMES:
        mib = memory_in_own_process(name, args.size, args.iterations) if args.only != "time" else 0
        base_mib = base_mib or mib
        median = statistics.median(times[name]) if times[name] else float("nan")
        print(
            f"{name:28s} loss {losses[name]:.6f}  {median:8.1f} ms  {base / median:5.2f}x  "
            f"{mib:7.1f} MiB  {base_mib / max(mib, 1e-9):5.1f}x less"
        )


if __name__ == "__main__":
    main()
