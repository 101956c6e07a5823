"""`vesuvius verify`: are these labels what training expects?"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vesuvius.data.verify import Pair

HELP = "check labelled volumes: shapes, label values, share of surface; saves a picture"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add = parser.add_argument
    add("path", type=Path, metavar="PATH", help="prepared folder, or Kaggle-layout source")
    add("--num", type=int, default=10, help="volumes to sample (default 10)")
    add("--seed", type=int, default=42, help="of the sample (default 42)")
    add(
        "--picture",
        type=Path,
        default=Path("verify.png"),
        help="PNG of one middle slice: labels, surface, ignore (default verify.png)",
    )


def run(args: argparse.Namespace) -> int:
    """Print the facts of sampled volumes; return 0, or 1 on a fatal verdict or a bad volume."""
    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    from vesuvius.data.verify import find_pairs, inspect_pair, sample_pairs, shares, verdict
    from vesuvius.errors import VesuviusError

    pairs = find_pairs(args.path)
    chosen = sample_pairs(pairs, args.num, args.seed)
    table = Table(
        "volume", "shape z y x", "dtype", "grey", "labels", "background", "surface", "ignore"
    )
    facts, problems = [], []
    for pair in track(chosen, "verifying", console=Console(file=sys.stderr), transient=True):
        try:
            facts.append(inspect_pair(pair))
        except (VesuviusError, OSError) as error:
            problems.append(("refuse", f"{pair.volume_id}: {error}"))
    for fact in facts:
        table.add_row(
            fact.volume_id,
            " ".join(map(str, fact.shape_zyx)),
            fact.dtype,
            f"{fact.grey_range[0]:g}-{fact.grey_range[1]:g}",
            " ".join(map(str, fact.values)),
            *(f"{share:.2%}" for share in fact.shares),
        )
        found = verdict(fact.counts, fact.volume_id)
        if found[0] != "ok":
            problems.append(found)
    total = [sum(fact.counts[i] for fact in facts) for i in range(3)]
    if facts:
        table.add_section()
        table.add_row("all", "", "", "", "", *(f"{share:.2%}" for share in shares(total)))
        Console().print(table)
        whole = verdict(total, f"{len(facts)} of {len(pairs)} volumes")
        print(f"{whole[0]}: {whole[1]}")
        fine = {fact.volume_id for fact in facts}
        _save_picture(args.picture, next(p for p in chosen if p.volume_id in fine))
    for level, line in problems:
        print(f"{'error' if level == 'refuse' else 'warning'}: {line}", file=sys.stderr)
    return 1 if any(level == "refuse" for level, _ in problems) else 0


def _save_picture(path: Path, pair: "Pair") -> None:
    from vesuvius.pictures.volume import label_panel

    label_panel(path, pair.label.read_all(), image=pair.image.read_all(), title=pair.volume_id)
    print(f"picture: {path}")
