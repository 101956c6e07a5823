"""Builds the folder that predicts a competition's test volumes without network."""

import math
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from vesuvius import __version__
from vesuvius.errors import ConfigError
from vesuvius.inference.store import write_json
from vesuvius.runtime.compose_config import compose_config
from vesuvius.runtime.export import export_run
from vesuvius.runtime.kit_wheels import collect_wheels
from vesuvius.runtime.nnunet_predict import FILE as NNUNET_FILE
from vesuvius.runtime.run_folder import EXPORTED_CONFIG, EXPORTED_WEIGHTS, RunFolder
from vesuvius.runtime.versions import git_commit

NOTEBOOK = "submission.ipynb"


def build_kit(
    runs: Sequence[Path],
    out: Path,
    *,
    weights: Sequence[float] | None = None,
    postprocess: str = "threshold",
    overrides: Sequence[str] = (),
    checkpoint: str = "best",
    hours: float = 8.5,
    wheels: bool = True,
    own_wheel: Path | None = None,
    with_torch: bool = False,
    python_version: str | None = None,
) -> dict[str, Any]:
    """Write a new folder: wheels, models, settings, a notebook; return what `kit.json` says.

    Args:
        runs: training runs, exports, or imported nnU-Net models; their probabilities are averaged.
        out: folder that does not exist yet.
        weights: of the runs; None = equal.
        postprocess: an option of conf/postprocess, or a YAML file such as `vesuvius tune` writes.
        overrides: of the post-processing, e.g. postprocess.threshold=0.3.
        checkpoint: of training runs: "best" or "last".
        hours: written into the notebook.
        wheels: collect wheels (needs a package index).
        own_wheel: this package's wheel, ready made.
        with_torch: torch's wheel too.
        python_version: of the place of use, None = this one.

    Raises:
        ConfigError: `out` exists, weights do not fit, unknown post-processing.
        CheckpointError: a run's weights cannot be read.
        ExportError: pip failed.
    """
    if out.exists():
        raise ConfigError(f"{out} exists already; give --out a new folder, or remove it first.")
    shares = _shares(len(runs), weights)
    chosen = postprocess_config(postprocess, overrides)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        names = [
            add_model(run, partial / "models", number, checkpoint)
            for number, run in enumerate(runs)
        ]
        settings = {"models": names, "weights": shares, "postprocess": chosen}
        OmegaConf.save(OmegaConf.create(settings), partial / "kit.yaml")
        found: list[str] = []
        if wheels:
            found = collect_wheels(
                partial / "wheels",
                own_wheel=own_wheel,
                with_torch=with_torch,
                python_version=python_version,
            )
        write_json(partial / NOTEBOOK, notebook(hours))
        facts = {
            "models": dict(zip(names, shares, strict=True)),
            "runs": [str(run) for run in runs],
            "wheels": found,
            "bytes": sum(p.stat().st_size for p in partial.rglob("*") if p.is_file()),
            "vesuvius": __version__,
            "git_commit": git_commit(),
        }
        write_json(partial / "kit.json", facts)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return facts


def _shares(num_runs: int, weights: Sequence[float] | None) -> list[float]:
    given = [1.0] * num_runs if weights is None else [float(w) for w in weights]
    if len(given) != num_runs or min(given) < 0 or not math.isfinite(sum(given)) or not sum(given):
        raise ConfigError(
            f"--weights is {given}; expected {num_runs} numbers of at least 0, one for each run"
        )
    return [weight / sum(given) for weight in given]


def postprocess_config(name: str, overrides: Sequence[str]) -> Mapping[str, Any] | None:
    """Return the post-processing as plain values, None for "none".

    Raises:
        ConfigError: neither an option nor a YAML file with `_target_`, or it cannot be built.
    """
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            raise ConfigError(f"{name}: no such file (--postprocess)")
        loaded = OmegaConf.load(name)
        if not isinstance(loaded, DictConfig) or "_target_" not in loaded:
            raise ConfigError(f"{name}: expected a post-processing with a _target_ (--postprocess)")
        merged = OmegaConf.merge({"postprocess": loaded}, OmegaConf.from_dotlist(list(overrides)))
        node = merged.postprocess
    else:
        node = compose_config("infer", [f"postprocess={name}", *overrides]).postprocess
    if node is None:
        return None
    try:
        instantiate(node, _convert_="all")
    except InstantiationException as error:  # better now than where there is no network
        raise ConfigError(f"{name} (--postprocess): {str(error).strip()}") from error
    plain = OmegaConf.to_container(node, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def add_model(run: Path, folder: Path, number: int, checkpoint: str) -> str:
    """Copy a run's network into the kit; return its name there.

    Raises:
        ConfigError: a network that refines another one's predictions.
        CheckpointError: its weights cannot be read.
    """
    source = RunFolder(run)
    network = source.network(source.checkpoint(checkpoint))
    if getattr(network, "in_channels", 1) != 1:
        raise ConfigError(
            f"{run}: the network reads {network.in_channels} channels; a kit takes networks that "
            "read the image alone"
        )
    name = f"{number}_{re.sub(r'[^A-Za-z0-9_.-]', '_', source.path.resolve().name)}"
    if source.exported.is_file():  # an export or an imported model: nothing to convert
        target = folder / name
        target.mkdir(parents=True)
        for file in (EXPORTED_CONFIG, EXPORTED_WEIGHTS, NNUNET_FILE, "export.json"):
            if (source.path / file).is_file():
                shutil.copy(source.path / file, target / file)
    else:
        export_run(run, folder / name, formats=("safetensors",), checkpoint=checkpoint)
    return name


def notebook(hours: float) -> dict[str, Any]:
    """Return a notebook (nbformat 4) that installs, predicts and shows what was done."""
    cells = [
        (
            "markdown",
            "# Submission without network\n\nAttach this kit as a data set, switch the internet "
            "off, choose 2 x T4, run all. Elsewhere set the three paths below.",
        ),
        (
            "code",
            "import glob\nimport os\nimport time\nfrom pathlib import Path\n\n"
            "STARTED = time.time()\n"
            "def first(*patterns):\n"
            "    found = [p for pattern in patterns for p in sorted(glob.glob(pattern))]\n"
            "    assert found, f'nothing at {patterns}; set the path by hand'\n"
            "    return Path(found[0])\n\n"
            "KIT = Path(os.environ['KIT']) if 'KIT' in os.environ else first(\n"
            "    '/kaggle/input/*/kit.yaml', '/kaggle/input/*/*/kit.yaml', 'kit.yaml').parent\n"
            "TEST = Path(os.environ['TEST']) if 'TEST' in os.environ else first(\n"
            "    '/kaggle/input/*/test_images', '/kaggle/input/*/*/test_images')\n"
            "OUT = Path(os.environ.get('OUT', '/kaggle/working/submission.zip'))\n"
            f"HOURS = float(os.environ.get('HOURS', {hours}))  # Kaggle stops at 9\n"
            "print(KIT, TEST, OUT)",
        ),
        (
            "code",
            "# --no-index: nothing is looked up; torch is the one that is installed\n"
            "import subprocess\nimport sys\n\n"
            "if (KIT / 'wheels').is_dir():\n"
            "    subprocess.run([sys.executable, '-m', 'pip', 'install', '--quiet', '--no-index',\n"
            "                    '--no-compile', '--find-links', str(KIT / 'wheels'),\n"
            "                    'vesuvius'], check=True)",
        ),
        (
            "code",
            "# one process a device; each plans the hours from measured seconds a window\n"
            "left = max(0.01, HOURS - (time.time() - STARTED) / 3600)\n"
            "subprocess.run([sys.executable, '-m', 'vesuvius.cli.main', 'kit-run', str(KIT),\n"
            "                '--test', str(TEST), '--out', str(OUT), '--hours', str(left),\n"
            "                '--work', str(OUT.parent / 'kit_work')], check=True)",
        ),
        (
            "code",
            "import json\n\n"
            "report = json.loads((OUT.parent / 'kit_work' / 'kit_report.json').read_text())\n"
            "print(len(report['volumes']), 'volumes in', round(report['seconds']), 's')\n"
            "print('problems:', report['problems'] or 'none')\n"
            "import shutil\n"
            "shutil.rmtree(OUT.parent / 'kit_work')  # Kaggle keeps what is left in its folder",
        ),
    ]
    return {
        "cells": [_cell(kind, text, number) for number, (kind, text) in enumerate(cells)],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def _cell(kind: str, text: str, number: int) -> dict[str, Any]:
    cell: dict[str, Any] = {
        "cell_type": kind,
        "id": f"kit{number}",
        "metadata": {},
        "source": text.splitlines(keepends=True),
    }
    if kind == "code":
        cell |= {"execution_count": None, "outputs": []}
    return cell
