"""Versions of the code and of what it stands on; imports nothing heavy."""

import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("torch", "lightning", "torchmetrics", "hydra-core", "numpy", "zarr", "tifffile")


def git_commit() -> str:
    """Return the commit of the code, '+' appended when it was changed, '' outside a checkout."""
    here = str(Path(__file__).parent)

    def git(*arguments: str) -> str:
        command = ["git", "-C", here, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
        return done.stdout.strip()

    try:
        commit = git("rev-parse", "--short=12", "HEAD")
        return commit + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def package_versions(names: Iterable[str] = _PACKAGES) -> dict[str, str]:
    """Return installed versions by package name; absent packages are left out."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
