"""`vesuvius diagnose`."""

import argparse

HELP = "not written yet"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    raise NotImplementedError
