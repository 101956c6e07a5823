"""Entry point of the console script: `vesuvius <command> ...`.

Each command is a module `vesuvius/cli/<command>.py` with `HELP`, `add_arguments(parser)` and
`run(args) -> int`. Modules import torch, matplotlib and the like inside `run` only, so that
`vesuvius --help` answers at once.
"""

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence

from vesuvius import __version__
from vesuvius.errors import VesuviusError

COMMANDS = (
    "phantom",
    "prepare",
    "verify",
    "view",
    "splits",
    "oof",
    "score",
    "tune",
    "submit",
    "info",
    "kit",
    "kit-run",
    "winding",
    "sheets",
    "lr-find",
    "soup",
    "export",
    "nnunet",
    "runs",
    "compare",
    "dashboard",
    "check-model",
    "benchmark",
    "diagnose",
    "petct",
    "heart",
)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with every subcommand."""
    parser = argparse.ArgumentParser(
        prog="vesuvius",
        description="Tools around scroll CT. Training and inference: train.py, infer.py.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = importlib.import_module(f"vesuvius.cli.{name.replace('-', '_')}")
        command = commands.add_parser(name, help=module.HELP, description=module.HELP)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; return its exit status (2 for a user's error, 130 after Ctrl-C)."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    args = build_parser().parse_args(argv)
    try:
        return int(args.run(args))
    except VesuviusError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; finished work is kept, run the same command to go on", file=sys.stderr)
        return 130
    except Exception as error:
        message = _message(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        return 2


def _message(error: Exception) -> str | None:
    """Return what to tell about an error that is the user's to solve; None: it is a bug."""
    if isinstance(error, OSError):
        from vesuvius.storage.files import place_message

        return place_message(error)
    if "hydra" in sys.modules:  # the command composed a configuration
        from vesuvius.runtime.user_errors import user_message

        return user_message(error)
    return None


if __name__ == "__main__":
    sys.exit(main())
