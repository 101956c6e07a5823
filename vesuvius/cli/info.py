"""`vesuvius info`: what made a prediction or a mask."""

import argparse
from pathlib import Path

HELP = "print what made a prediction store, a mask TIFF or its JSON, and the command"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("file", type=Path, help="<id>.zarr, <id>_mask.tif or <id>_mask.json")
    parser.add_argument("--json", action="store_true", help="print the whole record as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the record; the last line is the command."""
    import json

    from vesuvius.inference.facts import read_provenance

    facts = read_provenance(args.file)
    if args.json:
        print(json.dumps(facts, indent=2))
        return 0
    for model in facts.get("models", []):
        print(f"model       {model['model']}")
        print(f"checkpoint  {model['checkpoint']} ({model['checkpoint_hash']})")
    source = facts.get("input", {})
    print(f"input       {source.get('source')} level {source.get('level')}")
    print(f"region_zyx  {source.get('region_zyx')} of {source.get('shape_zyx')}")
    print(f"voxel (um)  {source.get('voxel_size_zyx_um')} zyx, {source.get('dtype')}")
    for key, value in facts.get("settings", {}).items():
        if key not in ("checkpoint", "source", "shape_zyx"):
            print(f"{key:<11} {value}")
    print(f"code        vesuvius {facts.get('vesuvius')}, commit {facts.get('git_commit')}")
    print(facts["command"])
    return 0
