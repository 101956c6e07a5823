"""Training step of our networks beside the original's and MONAI's: one table.

    python -m benchmarks.train_step                      # 64^3, batch 1, about 3 minutes
    python -m benchmarks.train_step --size 128 --rounds 3
    python -m benchmarks.train_step --data               # share of the step spent waiting for data
    python -m benchmarks.train_step --device cuda --size 128 --batch 2

A step is forward, loss, backward and AdamW on a crop with 5 % surface. Each contestant has a
process of its own; their steps alternate, so that the machine's drift hits all alike. The figure is
the median of the rounds (with one thread in CPU seconds, which other processes do not touch), the
ratio is taken against the original in the same run. Contestants: the original project's network
with its loss (the same layers as ours, dense normals) in fp32; our default network; `cells`, the
network of `experiment=quick` at twice its width, which is as many parameters; MONAI's SegResNet
(one more deep block) and DynUNet (residual, 16 to 256 channels) at the same number of parameters
with DiceCELoss. `fp32` is the default of all of them, `bf16` is autocast on channels_last_3d.
"""

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.loss import original_loss, sheets
from vesuvius.cpu_conv import mend_cpu_convolutions
from vesuvius.layout import to_channels_last
from vesuvius.losses.composite import CompositeLoss
from vesuvius.losses.normals import NormalLoss
from vesuvius.losses.overlap import BCELoss, DiceLoss
from vesuvius.models.dual_head_unet import DualHeadResUNet3D
from vesuvius.runtime.allocator import keep_freed_memory

CONTESTANTS = (
    "original fp32", "ours fp32", "ours bf16", "cells fp32", "cells bf16",
    "segresnet fp32", "segresnet bf16", "dynunet fp32", "dynunet bf16",
)  # fmt: skip
OURS: dict[str, Callable[[], nn.Module]] = {
    "original": DualHeadResUNet3D,
    "ours": DualHeadResUNet3D,
    "cells": partial(
        DualHeadResUNet3D,
        n_filters=32,
        strides_zyx=[[2, 2, 2]] * 3,
        norm="instance",
        space_to_depth=2,
    ),
}
Loss = Callable[[Any, Tensor], Tensor]


def build(name: str) -> tuple[nn.Module, Loss]:
    """Return the network called `name` and its loss (outputs, label) -> scalar."""
    if name in OURS:
        terms = {"dice": DiceLoss(), "bce": BCELoss(), "normal": NormalLoss()}
        composite = CompositeLoss(term={k: {"weight": 1.0, "fn": t} for k, t in terms.items()})

        def ours(outputs: Any, label: Tensor) -> Tensor:
            return composite(outputs, {"label": label})["total"]

        def original(outputs: Any, label: Tensor) -> Tensor:
            return original_loss(outputs, label.float())

        return OURS[name](), original if name == "original" else ours
    from monai.losses import DiceCELoss
    from monai.networks.nets import DynUNet, SegResNet

    dice_ce = DiceCELoss(sigmoid=True)
    if name == "segresnet":
        network = SegResNet(init_filters=16, out_channels=1, blocks_down=(1, 2, 2, 5))
    else:
        network = DynUNet(
            3, 1, 1, kernel_size=[3] * 5, strides=[1, 2, 2, 2, 2],
            upsample_kernel_size=[2] * 4, filters=[16, 32, 64, 128, 256], res_block=True,
        )  # fmt: skip
    return network, lambda outputs, label: dice_ce(outputs.float(), label.float())


class Contestant:
    """One network and precision; `step` does one training step and returns its seconds."""

    def __init__(self, name: str, label: Tensor, image: Tensor) -> None:
        torch.manual_seed(0)
        network, precision = name.split()
        self.device = image.device
        self.model, self.loss = build(network)
        self.model.to(self.device)
        self.bf16 = precision == "bf16"
        self.label, self.image = label, image
        if self.bf16 and network in OURS:
            mend_cpu_convolutions(self.model)
        if self.bf16:
            self.model.to(memory_format=torch.channels_last_3d)
            self.image = to_channels_last(image)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)

    @property
    def parameters(self) -> float:
        return sum(p.numel() for p in self.model.parameters()) / 1e6

    def step(self) -> float:
        # CPU time of the one thread: other processes of the machine do not count
        alone = self.device.type == "cpu" and torch.get_num_threads() == 1
        clock = time.process_time if alone else time.perf_counter
        start = clock()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            outputs = self.model(self.image)
        if isinstance(outputs, dict):
            outputs = {name: value.float() for name, value in outputs.items()}
        self.loss(outputs, self.label).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return clock() - start


def crop(args: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Return (label, image) of one batch on the device."""
    mask = sheets(args.size).expand(args.batch, -1, -1, -1, -1)
    noise = torch.randn(mask.shape, generator=torch.Generator().manual_seed(0))
    image = (0.3 + 0.4 * mask + 0.1 * noise).clamp(0, 1)
    return mask.to(args.device, torch.uint8).contiguous(), image.to(args.device)


class Process:
    """A contestant in a process of its own, which does a step for every line it reads."""

    def __init__(self, name: str, args: argparse.Namespace) -> None:
        command = [sys.executable, "-m", "benchmarks.train_step", "--serve", name]
        command += ["--size", str(args.size), "--batch", str(args.batch), "--device", args.device]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.parameters = self.read()

    def read(self) -> float:
        assert self.process.stdout is not None
        return float(self.process.stdout.readline())

    def ask(self, what: str) -> float:
        """Return the seconds of a "step" or the MiB of "memory"."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        return self.read()


def serve(args: argparse.Namespace) -> None:
    """Answer a parent's questions on standard output."""
    if args.serve.startswith(("ours", "cells")):
        keep_freed_memory()  # as train.py does
    contestant = Contestant(args.serve, *crop(args))
    print(contestant.parameters, flush=True)
    for line in sys.stdin:
        print(contestant.step() if line.strip() == "step" else peak_mib(args.device), flush=True)


def peak_mib(device: str) -> float:
    """Return the peak so far: allocated on a GPU, resident on the CPU."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**20
    # ru_maxrss would count the parent's memory of before exec as well
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def data_share() -> None:
    """Train with two workers on phantoms and print the share of the time spent waiting for data."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "train.py", "data.num_workers=2", "trainer.max_epochs=2",
            "data.samples_per_volume=6", "callbacks=[speed]", "metrics=none",
            "optimized_metric=null", "trainer.limit_val_batches=0", f"hydra.run.dir={folder}/run",
            f"paths.data_dir={folder}", "trainer.enable_progress_bar=false",
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
        with (Path(folder) / "run" / "metrics.csv").open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row.get("time/data_s")]
    for row in rows:
        data, step = float(row["time/data_s"]), float(row["time/step_s"])
        print(
            f"epoch {row['epoch']}: wait {1e3 * data:.2f} ms, rest of the step {1e3 * step:.0f} ms:"
            f" {100 * data / (data + step):.2f} % waiting for data"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=64, help="crop in voxels, a multiple of 16")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--data", action="store_true", help="measure the wait for data instead")
    parser.add_argument("--serve", choices=CONTESTANTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        return serve(args)
    if args.data:
        return data_share()
    contestants = {name: Process(name, args) for name in args.only}
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(args.rounds + 1):
        for name, contestant in contestants.items():
            taken = contestant.ask("step")
            if turn:
                seconds[name].append(taken)
    first = statistics.median(seconds[args.only[0]])
    threads = torch.get_num_threads()
    print(f"{args.size}^3, batch {args.batch}, {args.device}, {threads} threads\n")
    print(f"| contestant | M parameters | step s | {args.only[0]} / this | peak MiB |")
    print("|---|---|---|---|---|")
    for name, contestant in contestants.items():
        median = statistics.median(seconds[name])
        print(
            f"| {name} | {contestant.parameters:.2f} | {median:.3f} | {first / median:.2f} | "
            f"{contestant.ask('memory'):.0f} |",
            flush=True,
        )
        contestant.process.kill()
    return None


if __name__ == "__main__":
    main()
