"""`vesuvius check-model`: does a network train, how large is it, what does a step cost."""

import argparse

HELP = "build a network, run one training step on noise, report parameters, time, memory"


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what names the network, its input and the device."""
    add = parser.add_argument
    add(
        "what",
        nargs="*",
        metavar="RUN_OR_OVERRIDE",
        help="folder of a run or an export, or overrides as for train.py, e.g. "
        "model=dual_head_unet model.n_filters=8 (default: the default configuration)",
    )
    add("--checkpoint", default="best", help="of a run: best (default), last, or a path")
    add(
        "--shape",
        type=int,
        nargs=3,
        metavar=("Z", "Y", "X"),
        help="crop in voxels (default data.patch_zyx)",
    )
    add("--batch", type=int, default=1, help="crops (default 1)")
    add("--device", default="auto", help="auto (default), cpu, cuda, cuda:1")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_model_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print the figures; return 0, or 1 if a parameter gets no gradient."""
    from vesuvius.runtime.model_bench import check_model
    from vesuvius.runtime.quiet import quiet

    quiet()
    found = check_model(
        args.what,
        checkpoint=args.checkpoint,
        shape_zyx=args.shape,
        batch=args.batch,
        device=args.device,
    )
    print(f"{found['network']} on {found['device']}, image {found['image']}")
    print(f"  parameters  {found['num_parameters']:,} ({found['num_trainable']:,} trainable)")
    print(f"  forward     {found['gflop_forward']:.1f} GFLOP a crop, {found['forward_s']:.3f} s")
    print(f"  step        {found['step_s']:.3f} s (first call), {found['memory_mib']:.0f} MiB")
    print(f"  heads       {found['heads']}")
    print("  losses      " + ", ".join(f"{k} {v:.4f}" for k, v in found["losses"].items()))
    if found["no_gradient"]:
        print(f"fault: no finite gradient for {', '.join(found['no_gradient'])}")
        return 1
    print("  gradient    finite for every parameter")
    return 0
