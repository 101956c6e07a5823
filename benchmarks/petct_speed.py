"""CoCoSeg's attention and fusion against the formulas as written, and its step against DynUNet.

    OMP_NUM_THREADS=1 python benchmarks/petct_speed.py                  # fusion at 512^2
    OMP_NUM_THREADS=1 python benchmarks/petct_speed.py --step 256       # training step, batch 1

Fusion: the three levels of a 512^2 slice (64 channels at 256^2, 128 at 128^2, 256 at 64^2), four
sources, inference in float32, one thread; the direct version computes q, k, v, E, softmax, gamma
A v + v for each source, concatenates, convolves. Times are CPU seconds, the best of `--repeats`;
memory is the growth of a process's peak resident memory over its size before the first call.
Step: forward, backward, AdamW of CoCoSeg V2 beside MONAI's DynUNet in 2-D with two channels and
the number of parameters that comes closest.
"""

import argparse
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vesuvius.runtime.model_bench import PeakMemory

LEVELS = ((64, 256), (128, 128), (256, 64))
NUM_SOURCES = 4


def direct(fusion: Any, sources: list[Tensor]) -> Tensor:
    """The formulas, source by source."""
    cam, attended = fusion.attention, []
    for x in sources:
        b, c, h, w = x.shape
        q, k, v = (conv(x).view(b, c, -1) for conv in (cam.query, cam.key, cam.value))
        energy = torch.bmm(q, k.transpose(1, 2))
        weights = torch.softmax(energy.max(-1, keepdim=True).values - energy, -1)
        attended.append((cam.gamma * torch.bmm(weights, v) + v).view(b, c, h, w))
    return fusion.conv(torch.cat(attended, 1))


def ours(fusion: Any, sources: list[Tensor]) -> Tensor:
    return fusion.fuse(sources)


def make_level(channels: int, side: int) -> tuple[Any, list[Tensor]]:
    from vesuvius.models.petct.attention import ChannelAttention, Fusion

    torch.manual_seed(0)
    cam = ChannelAttention(channels)
    nn.init.constant_(cam.gamma, 0.5)
    fusion = Fusion(channels, NUM_SOURCES, attention=cam, norm=nn.Identity())
    return fusion, [torch.randn(1, channels, side, side) for _ in range(NUM_SOURCES)]


def best_seconds(run: Callable[[], Any], repeats: int) -> float:
    run()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def measure_memory(which: str, level: int) -> float:
    """Return MB that one call adds to the peak; in a process of its own."""
    fusion, sources = make_level(*LEVELS[level])
    with torch.inference_mode():
        small = [s[:, :, :16, :16].contiguous() for s in sources]
        direct(fusion, small)  # libraries are loaded
        with PeakMemory(torch.device("cpu")) as peak:
            (direct if which == "direct" else ours)(fusion, sources)
    return peak.mib


def run_memory(which: str, level: int) -> float:
    command = [sys.executable, __file__, "--memory", which, str(level)]
    out = subprocess.run(command, text=True, capture_output=True, check=True).stdout
    return float(json.loads(out.splitlines()[-1]))


def compare_fusion(repeats: int) -> None:
    totals = [0.0, 0.0]
    print("| level | direct s | ours s | ratio | greatest difference | direct MB | ours MB |")
    print("|---|---|---|---|---|---|---|")
    for number, (channels, side) in enumerate(LEVELS):
        fusion, sources = make_level(channels, side)
        with torch.inference_mode():
            error = float((direct(fusion, sources) - ours(fusion, sources)).abs().max())
            times = [best_seconds(partial(f, fusion, sources), repeats) for f in (direct, ours)]
        memory = [run_memory(which, number) for which in ("direct", "ours")]
        totals = [t + s for t, s in zip(totals, times, strict=True)]
        print(
            f"| {channels} at {side}^2 | {times[0]:.2f} | {times[1]:.2f} | "
            f"{times[0] / times[1]:.2f} | {error:.1e} | {memory[0]:.0f} | {memory[1]:.0f} |",
            flush=True,
        )
    print(f"| all | {totals[0]:.2f} | {totals[1]:.2f} | {totals[0] / totals[1]:.2f} | | | |")


def make_dynunet(parameters: int) -> nn.Module:
    """Return the DynUNet of five levels whose number of parameters comes closest."""
    warnings.filterwarnings("ignore")
    from monai.networks.nets import DynUNet

    def make(width: int) -> nn.Module:
        strides = [1, 2, 2, 2, 2]
        return DynUNet(
            spatial_dims=2, in_channels=2, out_channels=1, kernel_size=[3] * 5, strides=strides,
            upsample_kernel_size=strides[1:], filters=[width * 2**i for i in range(5)],
        )  # fmt: skip

    widths = range(24, 64, 2)
    return min((make(w) for w in widths), key=lambda net: abs(count(net) - parameters))


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def compare_step(size: int, repeats: int) -> None:
    from vesuvius.models.petct.cocoseg import CoCoSeg
    from vesuvius.models.petct.vgg import vgg19_branch

    cocoseg = CoCoSeg(vgg=partial(vgg19_branch, weights="checkpoint"))
    networks = {"CoCoSeg V2": cocoseg, "DynUNet": make_dynunet(count(cocoseg))}
    print(f"\nslices of {size}^2, batch 1, float32\n")
    print("| network | M parameters | step s |\n|---|---|---|")
    image, label = torch.rand(1, 2, size, size), (torch.rand(1, 1, size, size) > 0.98).float()
    times = []
    for name, network in networks.items():
        optimizer = torch.optim.AdamW(network.parameters())

        def step(network: nn.Module = network, optimizer: Any = optimizer) -> None:
            out = network(image)
            logit = out["lesion_logit"] if isinstance(out, dict) else out
            nn.functional.binary_cross_entropy_with_logits(logit, label).backward()
            optimizer.step()
            optimizer.zero_grad()

        times.append(best_seconds(step, repeats))
        print(f"| {name} | {count(network) / 1e6:.2f} | {times[-1]:.2f} |", flush=True)
    print(f"\nCoCoSeg takes {times[0] / times[1]:.1f} times as long")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--step", type=int, metavar="SIZE", help="compare training steps instead")
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory:
        print(json.dumps(measure_memory(args.memory[0], int(args.memory[1]))))
    elif args.step:
        compare_step(args.step, args.repeats)
    else:
        compare_fusion(args.repeats)


if __name__ == "__main__":
    main()
