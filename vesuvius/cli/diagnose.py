"""`vesuvius diagnose`: what this machine offers, what is wrong with it, and the cure."""

import argparse
from pathlib import Path

HELP = "report Python, torch, GPU, memory, disk and packages; name common faults and cures"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--path",
        type=Path,
        action="append",
        help="folder that must be writable, repeatable (default: this and the temporary folder)",
    )


def run(args: argparse.Namespace) -> int:
    """Print all findings; return 0, or 1 if one of them is a fault."""
    import tempfile

    from rich.console import Console
    from rich.table import Table

    from vesuvius.runtime.diagnose import run_checks

    paths = args.path or [Path.cwd(), Path(tempfile.gettempdir())]
    table = Table("", "what", "found", "cure", show_lines=False)
    marks = {
        "ok": "[green]ok[/green]",
        "warn": "[yellow]warn[/yellow]",
        "fault": "[red]fault[/red]",
    }
    findings = run_checks(paths)
    for finding in findings:
        table.add_row(marks[finding.level], finding.name, finding.found, finding.cure)
    Console().print(table)
    num_faults = sum(finding.level == "fault" for finding in findings)
    print(f"{num_faults} faults" if num_faults != 1 else "1 fault")
    return 1 if num_faults else 0
