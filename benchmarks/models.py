"""Cost of the surface networks beside MONAI's and Keras medicai's: one table.

    python benchmarks/models.py                            # 64^3, about 5 minutes
    python benchmarks/models.py --size 96 --repeats 3
    python benchmarks/models.py --only segformer medicai_segformer --forward-only

Forward and training step (forward, backward, AdamW) of one crop, batch 1, float32 and, in brackets,
bf16 on channels_last_3d (how the trainer runs ours on a CPU that has it). Every network runs in a
process of its own; times are medians of `--repeats` after a warm-up. RSS is that process's
peak resident memory with imports. GFLOP: torch.utils.flop_counter, forward; a multiply-add counts
2. medicai 0.0.4 is measured if it can be imported (pip install keras medicai); it is no dependency.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "dual_head_unet": ("dual_head_unet.DualHeadResUNet3D", {}),
    "segformer": ("segformer.SegFormer3D", {"norm": "group", "upsample": "subvoxel"}),
    "segformer_published": ("segformer.SegFormer3D", {"normals_head": False}),
    "upernet": (
        "upernet.UPerNet3D",
        {"decoder_channels": 128, "norm": "group", "upsample": "subvoxel"},
    ),
    "upernet_published": ("upernet.UPerNet3D", {"backbone": "resnet18", "normals_head": False}),
    "transunet": ("transunet.TransUNet3D", {"num_levels": 4, "norm": "group"}),
    "transunet_published": ("transunet.TransUNet3D", {"normals_head": False}),
    "unetr_pp": ("unetr_pp.UNETRPlusPlus", {"norm": "group"}),
    "primus_s": ("primus.Primus3D", {}),
    "resenc_s": (
        "resenc.ResEncSurface",
        {
            "features_per_stage": [16, 32, 64, 128, 160],
            "blocks_per_stage": [1, 2, 2, 2, 2],
            "strides_zyx": [[1, 1, 1], [2, 2, 2], [1, 2, 2], [2, 2, 2], [1, 2, 2]],
        },
    ),
}
PEERS = ("monai_segresnet", "monai_swinunetr", "monai_unetr")
KERAS = {
    "medicai_segformer": ("SegFormer", "mit_b0"),
    "medicai_upernet": ("UPerNet", "resnet18"),
    "medicai_transunet": ("TransUNet", "resnet18"),
    "medicai_unetr_pp": ("UNETRPlusPlus", "unetr_plusplus_encoder"),
}
PAIRS = {  # the same architecture at the same settings
    "segformer_published": "medicai_segformer",
    "upernet_published": "medicai_upernet",
    "transunet_published": "medicai_transunet",
    "unetr_pp": "medicai_unetr_pp",
}
ALL = (  # the same architecture side by side
    "segformer_published", "medicai_segformer", "segformer", "dual_head_unet", *PEERS, "upernet",
    "transunet", "unetr_pp", "medicai_unetr_pp", "upernet_published", "medicai_upernet",
    "transunet_published", "medicai_transunet", "primus_s", "resenc_s",
)  # fmt: skip


def build_ours(name: str, size: int) -> Any:
    import importlib

    path, arguments = OURS[name]
    module, network = path.split(".")
    if "transunet" in name or name == "unetr_pp":
        arguments = {**arguments, "crop_zyx": (size,) * 3}
    return getattr(importlib.import_module(f"vesuvius.models.{module}"), network)(**arguments)


def build_monai(name: str, size: int) -> Any:
    from monai.networks.nets import UNETR, SegResNet, SwinUNETR

    if name == "monai_segresnet":
        return SegResNet(init_filters=16, in_channels=1, out_channels=4)
    if name == "monai_unetr":
        return UNETR(in_channels=1, out_channels=4, img_size=(size,) * 3)
    return SwinUNETR(in_channels=1, out_channels=4, feature_size=24)


def build_keras(name: str, size: int) -> Any:
    os.environ["KERAS_BACKEND"] = "torch"
    import medicai.models

    network, encoder = KERAS[name]
    build = getattr(medicai.models, network)
    return build(encoder_name=encoder, input_shape=(size, size, size, 1), num_classes=2)


def median_seconds(step: Callable[[], Any], repeats: int) -> float:
    step()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure(name: str, size: int, repeats: int, *, forward_only: bool) -> dict[str, float]:
    """Return the figures of one network; run in a process of its own."""
    warnings.filterwarnings("ignore")
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    torch.manual_seed(0)
    keras = name in KERAS
    builder = build_ours if name in OURS else build_keras if keras else build_monai
    model = builder(name, size)
    image = torch.rand(1, size, size, size, 1) if keras else torch.rand(1, 1, size, size, size)
    weights = [w.value for w in model.trainable_weights] if keras else list(model.parameters())
    result: dict[str, float] = {"parameters": sum(w.numel() for w in weights) / 1e6}
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    result["gflop"] = counter.get_total_flops() / 1e9

    def forward() -> None:
        with torch.no_grad():
            model(image)

    optimizer = torch.optim.AdamW(weights)

    def step() -> None:
        out = model(image, training=True) if keras else model(image)
        outputs = out.values() if isinstance(out, dict) else [out]
        sum(o.float().square().mean() for o in outputs).backward()
        optimizer.step()
        optimizer.zero_grad()

    result["forward_s"] = median_seconds(forward, repeats)
    result["forward_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if forward_only:
        return result
    model.train()
    result["step_s"] = median_seconds(step, repeats)
    result["step_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if not keras:
        model.to(memory_format=torch.channels_last_3d)
        image = image.contiguous(memory_format=torch.channels_last_3d)
        with torch.autocast("cpu", torch.bfloat16):
            result["step_bf16_s"] = median_seconds(step, repeats)
            model.eval()
            result["forward_bf16_s"] = median_seconds(forward, repeats)
    return result


def available(name: str) -> bool:
    import importlib.util

    package = "medicai" if name in KERAS else "monai" if name in PEERS else "torch"
    return importlib.util.find_spec(package) is not None


def show(row: dict[str, float], name: str) -> None:
    def pair(key: str) -> str:
        if f"{key}_s" not in row:
            return "-"
        bf16 = row.get(f"{key}_bf16_s")
        return f"{row[f'{key}_s']:.2f}" + (f" ({bf16:.2f})" if bf16 else "")

    memory = f"{row['step_mb']:.0f}" if "step_mb" in row else "-"
    print(
        f"| {name} | {row['parameters']:.2f} | {row['gflop']:.1f} | {pair('forward')} | "
        f"{pair('step')} | {row['forward_mb']:.0f} | {memory} |",
        flush=True,
    )


def run_all(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Measure every network in a process of its own, print its row, return the rows."""
    found: dict[str, dict[str, float]] = {}
    notes = []
    for name in args.only:
        if not available(name):
            notes.append(f"{name}: not installed, left out")
            continue
        command = [sys.executable, __file__, "--measure", name, "--size", str(args.size)]
        command += ["--repeats", str(args.repeats)]
        command += ["--forward-only"] if args.forward_only else []
        result = subprocess.run(command, text=True, capture_output=True, check=False)
        if result.returncode:
            notes.append(f"{name}: failed, {result.stderr.strip().splitlines()[-1][:150]}")
            continue
        found[name] = json.loads(result.stdout.splitlines()[-1])
        show(found[name], name)
    print("\n" + "\n".join(notes))
    return found


def show_ratios(rows: dict[str, dict[str, float]]) -> None:
    """Print ours against the same architecture elsewhere."""
    for ours, peer in PAIRS.items():
        if ours in rows and peer in rows:
            a, b = rows[ours], rows[peer]
            print(
                f"{ours} against {peer}: {b['forward_s'] / a['forward_s']:.1f}x faster forward, "
                f"{100 * (a['parameters'] / b['parameters'] - 1):+.1f} % parameters"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=64, help="crop in voxels, a multiple of 32")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=ALL, default=list(ALL))
    parser.add_argument("--forward-only", action="store_true")
    parser.add_argument("--measure", choices=ALL, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        row = measure(args.measure, args.size, args.repeats, forward_only=args.forward_only)
        print(json.dumps(row))
        return
    print(f"{args.size}^3, batch 1; seconds in float32 (bf16 channels_last_3d)\n")
    print(
        "| network | M parameters | GFLOP | forward s | training step s | RSS MB forward | step |"
    )
    print("|---|---|---|---|---|---|---|", flush=True)
    show_ratios(run_all(args))


if __name__ == "__main__":
    main()
