"""The wheels an offline installation needs, in the versions that are installed here."""

import importlib.util
import logging
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import vesuvius
from vesuvius.errors import ConfigError, ExportError

log = logging.getLogger(__name__)

OURS = "vesuvius"
PREINSTALLED = ("torch",)
"""What the place of use has already (Kaggle: with CUDA); what only it needs is left out too."""
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux2014_x86_64", "manylinux_2_17_x86_64", "any")


def dependencies(
    root: str = OURS, *, leave_out: Sequence[str] = PREINSTALLED, extras: Sequence[str] = ()
) -> dict[str, str]:
    """Return name -> installed version of all that `root` needs, itself excluded.

    Args:
        root: an installed distribution.
        leave_out: names that are not followed.
        extras: of `root`.

    Raises:
        ConfigError: a dependency is not installed.
    """
    found: dict[str, str] = {}
    queue = [(root, tuple(extras))]
    skipped = {canonicalize_name(name) for name in leave_out}
    seen: set[tuple[str, tuple[str, ...]]] = set()
    while queue:
        item = queue.pop()
        if item in seen:
            continue
        seen.add(item)
        name, wanted = item
        for text in requires(name) or []:
            requirement = Requirement(text)
            child = canonicalize_name(requirement.name)
            if child in skipped or not _applies(requirement, wanted):
                continue
            try:
                found[child] = version(child)
            except PackageNotFoundError as error:
                raise ConfigError(
                    f"{child}, which {name} needs, is not installed here; install it, so that the "
                    "kit gets a version that was tried"
                ) from error
            queue.append((child, tuple(sorted(requirement.extras))))
    return dict(sorted(found.items()))


def _applies(requirement: Requirement, extras: Sequence[str]) -> bool:
    if requirement.marker is None:
        return True
    return any(requirement.marker.evaluate({"extra": extra}) for extra in (*extras, ""))


def collect_wheels(
    folder: Path,
    *,
    own_wheel: Path | None = None,
    with_torch: bool = False,
    python_version: str | None = None,
) -> list[str]:
    """Put our wheel and those of all dependencies into a folder; return the file names.

    Args:
        folder: made if missing.
        own_wheel: ours, ready made; None builds it from the checkout.
        with_torch: torch too (200 MB and more).
        python_version: of the place of use, e.g. "3.12"; None = this one.

    Raises:
        ConfigError: no checkout to build from, or a dependency is not installed.
        ExportError: pip failed, or a package has no wheel for that Python.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = dependencies(leave_out=() if with_torch else PREINSTALLED)
    pinned = [f"{name}=={number.split('+')[0]}" for name, number in found.items()]
    log.info("collecting %d wheels", len(pinned) + 1)
    if python_version is None:
        _pip("wheel", "--no-deps", "--wheel-dir", str(folder), *pinned)
    else:
        for pin in pinned:
            _for_python(pin, folder, python_version)
    if own_wheel is None:
        _build_own(folder)
    else:
        target = folder / own_wheel.name
        target.write_bytes(own_wheel.read_bytes())
    return sorted(path.name for path in folder.glob("*.whl"))


def _for_python(pin: str, folder: Path, python_version: str) -> None:
    """Fetch a wheel for another Python; build those that have none and are pure Python."""
    platforms = [part for name in PLATFORMS for part in ("--platform", name)]
    options = ["--no-deps", "--only-binary=:all:", "--python-version", python_version, *platforms]
    try:
        _pip("download", *options, "--dest", str(folder), pin)
    except ExportError:
        before = set(folder.glob("*.whl"))
        _pip("wheel", "--no-deps", "--wheel-dir", str(folder), pin)
        made = next(iter(set(folder.glob("*.whl")) - before), None)
        if made is None or not made.name.endswith("-none-any.whl"):
            raise ExportError(
                f"{pin} has no wheel for Python {python_version} on Linux; install a version that "
                "has one here, or build the kit with that Python"
            ) from None


def _build_own(folder: Path) -> None:
    root = Path(vesuvius.__file__).parents[1]
    if not (root / "pyproject.toml").is_file():
        raise ConfigError(
            f"this package was not installed from a checkout (no pyproject.toml in {root}); give "
            "its wheel with --wheel FILE"
        )
    # with hatchling at hand pip need not fetch it into an environment of its own
    isolation = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    _pip("wheel", "--no-deps", *isolation, "--wheel-dir", str(folder), str(root))


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise ExportError(f"pip {arguments[0]} failed: {' | '.join(lines[-3:]) or done.returncode}")
