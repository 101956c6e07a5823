"""`vesuvius compare`: two or more runs side by side."""

import argparse
from pathlib import Path

HELP = "compare runs: differing configuration, best scores, curves overlaid, score of every volume"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add = parser.add_argument
    add("runs", type=Path, nargs="+", metavar="RUN", help="folders of runs, the baseline first")
    add("--out", type=Path, default=Path("compare"), help="folder of the page (default compare)")


def run(args: argparse.Namespace) -> int:
    """Print the tables and say where page and picture are."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from vesuvius.runtime.compare_runs import cell_text, compare_runs

    tables = compare_runs(args.runs, args.out)
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    for title, (header, rows) in tables.items():
        table = Table(title=title)
        for name in header:
            table.add_column(escape(name), overflow="fold")
        for row in rows:
            table.add_row(*(escape(cell_text(cell)) for cell in row))
        console.print(table if rows else f"{title}: no difference")
    console.print(f"{args.out / 'compare.html'}, {args.out / 'curves.png'}")
    return 0
