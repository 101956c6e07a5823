"""`vesuvius export`: a run's network as safetensors, ExportedProgram and ONNX."""

import argparse
from pathlib import Path

HELP = "write a trained network as safetensors, torch.export program and ONNX, each checked"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add = parser.add_argument
    add("run_dir", type=Path, metavar="RUN_DIR", help="folder of a training run")
    add("--out", type=Path, required=True, help="new folder; infer.py run_dir=OUT runs from it")
    add(
        "--format",
        default="safetensors,exported",
        help="comma-separated: safetensors (always written), exported (model.pt2), onnx "
        "(default safetensors,exported; onnx needs pip install 'vesuvius[export]')",
    )
    add("--checkpoint", default="best", help="best (default), last, or a path")
    add(
        "--shape",
        type=int,
        nargs=3,
        metavar=("Z", "Y", "X"),
        help="image of the exported programs in voxels (default: the crop of training)",
    )


def run(args: argparse.Namespace) -> int:
    """Export and say what was written and how far the outputs differ."""
    from vesuvius.runtime.export import export_run
    from vesuvius.runtime.quiet import quiet

    quiet()
    facts = export_run(
        args.run_dir,
        args.out,
        formats=[name.strip() for name in args.format.split(",") if name.strip()],
        checkpoint=args.checkpoint,
        shape_zyx=args.shape,
    )
    for name, difference in facts["greatest_difference"].items():
        checked = "not checked" if difference is None else f"greatest difference {difference:.1e}"
        print(f"{name:12s} {checked}")
    print(
        f"{args.out}: {facts['num_parameters']:,} parameters, image {facts['input']['shape']}, "
        f"outputs {facts['outputs']}"
    )
    return 0
