"""`vesuvius benchmark`: time, throughput and memory of inference."""

import argparse

from vesuvius.cli.check_model import add_model_arguments

HELP = "time the inference of a window: mean, median, p95, throughput, memory"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_model_arguments(parser)
    parser.add_argument(
        "--precision", default="auto", help="auto (default), fp32, bf16, fp16; as in infer.py"
    )
    parser.add_argument("--warmup", type=int, default=3, help="calls that do not count (3)")
    parser.add_argument("--repeats", type=int, default=20, help="calls that count (20)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead")


def run(args: argparse.Namespace) -> int:
    """Print the figures."""
    import json

    from vesuvius.runtime.model_bench import benchmark_model
    from vesuvius.runtime.quiet import quiet

    quiet()
    found = benchmark_model(
        args.what,
        checkpoint=args.checkpoint,
        shape_zyx=args.shape,
        batch=args.batch,
        device=args.device,
        precision=args.precision,
        warmup=args.warmup,
        repeats=args.repeats,
    )
    if args.json:
        print(json.dumps(found))
        return 0
    print(f"image {found['image']} on {found['device']} in {found['precision']}")
    print(
        f"  a call      mean {1e3 * found['mean_s']:.1f} ms, median {1e3 * found['median_s']:.1f}, "
        f"p95 {1e3 * found['p95_s']:.1f} ({found['repeats']} calls)"
    )
    print(f"  throughput  {found['windows_s']:.2f} windows/s, {found['mvoxels_s']:.2f} Mvoxel/s")
    print(f"  memory      {found['memory_mib']:.0f} MiB beyond the network")
    return 0
