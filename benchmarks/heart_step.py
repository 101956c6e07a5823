"""A training step of the small heart network beside a straightforward one: time and memory.

The straightforward network has the same layers, weights, loss and inputs, but explicit attention
(the softmax matrix is stored, as where fused kernels without a second derivative are avoided) and
one decoder pass with a graph for the spatial gradient over all points. Both give the same loss and
parameter gradients, which is checked first. Times are medians of interleaved steps; memory is the
peak of a process of its own beyond what it held before the step (Linux; CUDA: torch's count).

    OMP_NUM_THREADS=1 python -m benchmarks.heart_step [--batch 1] [--repeats 3] [--device cuda]
"""

import argparse
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from vesuvius.losses.composite import CompositeLoss
from vesuvius.losses.vecset import ClassLoss, EikonalLoss, SdfLoss, SurfaceLoss
from vesuvius.models.vecset import VecSet
from vesuvius.models.vecset.attention import Attention
from vesuvius.modules.heart import HeartModule
from vesuvius.runtime.model_bench import PeakMemory

SMALL = {"dim": 256, "depth": 8, "num_latents": 128, "latent_dim": 16}
NAMES = ("straightforward", "ours")


class ExplicitAttention(Attention):
    """The same weights with the attention matrix written out."""

    def attend(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        q = self.to_q(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        similarity = torch.einsum("bhid,bhjd->bhij", q, keys) * q.shape[-1] ** -0.5
        out = torch.einsum("bhij,bhjd->bhid", similarity.softmax(-1), values)
        return self.to_out(out.transpose(1, 2).flatten(2))


class StraightforwardVecSet(VecSet):
    """Explicit attention; the gradient's graph covers every decoded point."""

    def __init__(self, **sizes: int) -> None:
        super().__init__(**sizes)
        for layer in self.modules():
            if isinstance(layer, Attention):
                layer.__class__ = ExplicitAttention

    def forward(self, surface: Tensor, points: Tensor, *, num_gradients: int = 0) -> dict:
        points = points.requires_grad_()
        latents, _ = self.encode(surface)
        heads = self.split(self.values(points, self.keys_values(latents)))
        inside = heads["sdf"][:, :num_gradients].sum()
        (gradient,) = torch.autograd.grad(inside, points, create_graph=True)
        return heads | {"sdf_gradient": gradient[:, :num_gradients]}


def make_batch(size: int, device: str) -> dict[str, Tensor]:
    """Return random points with the sizes of the original: 8192 surface, 3072 queries."""
    generator = torch.Generator().manual_seed(0)
    xyz = torch.rand(size, 8192, 3, generator=generator) * 2 - 1
    label = torch.randint(0, 10, (size, 8192), generator=generator)
    points = torch.rand(size, 3072, 3, generator=generator) * 2 - 1
    sdf = points.norm(dim=-1) - 0.7
    target = torch.stack((sdf, (sdf < 0) * torch.randint(1, 11, sdf.shape)), -1)
    surface = torch.cat((xyz, F.one_hot(label, 10).float()), -1)
    batch = {"surface": surface, "surface_target": surface, "points": points, "target": target}
    batch |= {f"{name}_class_mask": torch.ones(size, 10) for name in ("valid", "present", "input")}
    return {name: tensor.to(device) for name, tensor in batch.items()}


def make_module(name: str, device: str) -> HeartModule:
    """Return the module with seed_multiclass losses; both names have equal weights."""
    torch.manual_seed(0)
    net = VecSet(**SMALL) if name == "ours" else StraightforwardVecSet(**SMALL)
    torch.nn.init.normal_(net.decoder.head.weight, std=0.05)
    terms = {
        "sdf_vol": (1.0, SdfLoss(part="vol")),
        "sdf_near": (10.0, SdfLoss(part="near")),
        "sdf_surface": (10.0, SurfaceLoss()),
        "eikonal": (1e-3, EikonalLoss()),
        "class_bce": (1.0, ClassLoss()),
    }
    loss = CompositeLoss(term={n: {"weight": w, "fn": fn} for n, (w, fn) in terms.items()})
    return HeartModule(model=net, loss=loss, optimizer=torch.optim.AdamW).to(device)


def step(module: HeartModule, batch: dict[str, Tensor]) -> float:
    """Run forward and backward; return the loss."""
    module.zero_grad()
    loss = module.loss(module.forward_batch(batch), batch)["total"]
    loss.backward()
    return float(loss.detach())


def check_equal(batch: dict[str, Tensor], device: str) -> None:
    """Raise unless both give one loss and one gradient."""
    modules = [make_module(name, device) for name in NAMES]
    losses = [step(module, batch) for module in modules]
    norms = [torch.cat([p.grad.flatten() for p in module.model.parameters()]) for module in modules]
    distance = float((norms[0] - norms[1]).norm() / norms[0].norm())
    print(f"losses {losses[0]:.6f} {losses[1]:.6f}, relative gradient difference {distance:.1e}")
    if abs(losses[0] - losses[1]) > 1e-4 * abs(losses[0]) or distance > 1e-3:
        raise SystemExit("the two networks differ: nothing to compare")


def timed(module: HeartModule, batch: dict[str, Tensor], device: str) -> float:
    """Return seconds of one step; CPU seconds on the CPU, which other processes do not distort."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    start = clock()
    step(module, batch)
    if device != "cpu":
        torch.cuda.synchronize()
    return clock() - start


def memory_of(name: str, size: int, device: str) -> float:
    """Return MiB of a step, measured in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.heart_step", "--memory-of", name]
    command += ["--batch", str(size), "--device", device]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory-of", choices=NAMES)
    args = parser.parse_args()
    batch = make_batch(args.batch, args.device)
    if args.memory_of:
        module = make_module(args.memory_of, args.device)
        with PeakMemory(torch.device(args.device)) as peak:
            step(module, batch)
        print(peak.mib)
        return
    check_equal(batch, args.device)
    modules = {name: make_module(name, args.device) for name in NAMES}
    times: dict[str, list[float]] = {name: [] for name in NAMES}
    for name in NAMES:
        step(modules[name], batch)
    for _ in range(args.repeats):
        for name in NAMES:
            times[name].append(timed(modules[name], batch, args.device))
    seconds = {name: statistics.median(found) for name, found in times.items()}
    mib = {name: memory_of(name, args.batch, args.device) for name in NAMES}
    print(f"batch {args.batch}, {args.device}, {torch.get_num_threads()} threads")
    print("| network | s a step | MiB |\n|---|---|---|")
    for name in NAMES:
        print(f"| {name} | {seconds[name]:.2f} | {mib[name]:.0f} |")
    first, ours = NAMES
    print(
        f"{seconds[first] / seconds[ours]:.2f}x faster, {mib[ours] / mib[first]:.2f} of the memory"
    )


if __name__ == "__main__":
    main()
