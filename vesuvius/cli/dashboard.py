"""`vesuvius dashboard`: the comparison dashboard of a wandb project."""

import argparse
from pathlib import Path

HELP = "build the wandb workspace (or report) that compares runs: scores, losses, pictures, sweep"
TASKS = ("surface", "petct", "heart")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add = parser.add_argument
    add("--entity", required=True, help="wandb user or team")
    add("--project", default="vesuvius", help="logger.wandb.project (default vesuvius)")
    add("--task", choices=TASKS, default="surface", help="whose scores (default surface)")
    add("--sweep", nargs="+", default=[], metavar="KEY", help="axes, such as optimizer.lr seed")
    add("--report", action="store_true", help="a report to send to people instead")
    add("--json", type=Path, metavar="FILE", help="only write the definition; needs no login")


def run(args: argparse.Namespace) -> int:
    """Save the dashboard and print its URL, or write its definition."""
    from vesuvius.inference.store import write_json
    from vesuvius.runtime.dashboard import publish, report, workspace

    build = report if args.report else workspace
    dashboard = build(args.entity, args.project, task=args.task, sweep=args.sweep)
    if args.json is not None:
        write_json(args.json, dashboard._to_model().model_dump(by_alias=True, exclude_none=True))
        print(args.json)
        return 0
    print(publish(dashboard))
    return 0
