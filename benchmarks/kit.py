"""The offline kit end to end: wheels, a fresh environment without an index, the notebook.

    python -m benchmarks.kit RUN_DIR TEST_FOLDER [--hours 0.5]

Builds the kit of a run (this needs a package index), makes a new virtual environment that sees
torch and what only torch needs (as on Kaggle) and nothing else, installs the kit with
`pip --no-index`, runs the notebook's cells with that Python and checks the submission with this
one. Prints what each step took.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from vesuvius.data.sources import list_volumes
from vesuvius.data.volume import Volume
from vesuvius.inference.submission import check_submission
from vesuvius.runtime.kit_build import NOTEBOOK, build_kit
from vesuvius.runtime.kit_wheels import dependencies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--hours", type=float, default=0.5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds = {}
        start = time.perf_counter()
        facts = build_kit([args.run], folder / "kit", hours=args.hours)
        seconds["build"] = time.perf_counter() - start
        print(f"kit: {len(facts['wheels'])} wheels, {facts['bytes'] / 2**20:.0f} MiB")
        start = time.perf_counter()
        python = fresh_environment(folder / "env")
        seconds["environment"] = time.perf_counter() - start
        script = folder / "notebook.py"
        script.write_text(notebook_code(folder / "kit" / NOTEBOOK), encoding="utf-8")
        start = time.perf_counter()
        paths = {"KIT": folder / "kit", "TEST": args.test.resolve(), "OUT": folder / "s.zip"}
        keep = {k: os.environ[k] for k in ("PATH", "HOME", "OMP_NUM_THREADS") if k in os.environ}
        subprocess.run(
            [python, "-I", str(script)],
            check=True,
            cwd=folder,
            env={**keep, **{k: str(v) for k, v in paths.items()}, "PIP_NO_INDEX": "1"},
        )
        seconds["notebook (install, predict, zip)"] = time.perf_counter() - start
        shapes = {k: Volume(v).shape_zyx for k, v in list_volumes(args.test).items()}
        found = check_submission(folder / "s.zip", shapes)
    for step, value in seconds.items():
        print(f"{step:36s} {value:7.1f} s")
    print(f"submission: {len(found.shapes)} volumes, {found.num_bytes} bytes, valid")


def fresh_environment(folder: Path) -> Path:
    """Make a virtual environment whose only packages are pip and torch with what it needs."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    target = folder / "lib" / version / "site-packages"
    source = Path(torch.__file__).parents[1]
    names = {name.replace("-", "_").lower() for name in ["torch", *dependencies("torch")]}
    modules = _modules(names)
    for path in source.iterdir():
        stem = path.name.removesuffix(".dist-info").split("-")[0].lower()
        wanted = path.name in modules or (path.name.endswith(".dist-info") and stem in names)
        if wanted and not (target / path.name).exists():
            (target / path.name).symlink_to(path)
    return folder / "bin" / "python"


def _modules(names: set[str]) -> set[str]:
    """Return the top-level names of distributions' modules."""
    from importlib.metadata import packages_distributions

    modules = {
        module
        for module, owners in packages_distributions().items()
        if any(owner.replace("-", "_").lower() in names for owner in owners)
    }
    return modules | {f"{module}.py" for module in modules} | {"torch.libs"}


def notebook_code(path: Path) -> str:
    """Return the code cells of a notebook in order."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")


if __name__ == "__main__":
    main()
