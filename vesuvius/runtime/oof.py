"""Out-of-fold prediction: each volume by the one run of a cross-validation that never saw it."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vesuvius.data.folds import Folds
from vesuvius.data.sources import list_volumes
from vesuvius.errors import ConfigError, RunFileError
from vesuvius.inference.store import write_json
from vesuvius.runtime.compose_config import compose_config
from vesuvius.runtime.infer import infer
from vesuvius.runtime.run_folder import RunFolder, file_hash
from vesuvius.runtime.run_split import FILE

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FoldRun:
    """One run of a cross-validation.

    Attributes:
        path: its folder.
        train: ids it was trained on.
        val: ids it validated on.
    """

    path: Path
    train: frozenset[str]
    val: frozenset[str]


def find_runs(folders: Sequence[Path]) -> list[FoldRun]:
    """Return the runs at the folders: runs themselves, or sweeps that hold them.

    Raises:
        RunFileError: a folder holds no run, or a run kept no split.
    """
    paths: list[Path] = []
    for folder in folders:
        inside = sorted(p.parent.parent for p in folder.glob("*/.hydra/config.yaml"))
        paths += [folder] if (folder / ".hydra").is_dir() else inside
        if not inside and not (folder / ".hydra").is_dir():
            raise RunFileError(
                f"{folder}: holds no run. Give the folder of `python train.py -m data.fold=0,1,2`, "
                "or the run folders."
            )
    return [_read_run(path) for path in paths]


def _read_run(path: Path) -> FoldRun:
    file = path / FILE
    try:
        split = json.loads(file.read_text(encoding="utf-8"))
        return FoldRun(path, frozenset(map(str, split["train"])), frozenset(map(str, split["val"])))
    except OSError as error:
        raise RunFileError(
            f"{file}: no such file, so nobody knows what the run was trained on"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise RunFileError(f"{file}: not the split of a run ({error})") from error


def plan(
    runs: Sequence[FoldRun], volume_ids: Sequence[str], folds: Folds | None = None
) -> dict[str, FoldRun]:
    """Return which run predicts each volume.

    Args:
        runs: of one cross-validation.
        volume_ids: what is to be predicted.
        folds: the file the runs were trained by; None = trust the runs' own splits.

    Raises:
        ConfigError: a volume was seen in training by the run that should predict it, is held out
            by no run or by two, or the runs do not follow the folds.
    """
    chosen: dict[str, FoldRun] = {}
    for run in runs:
        seen = sorted(run.train & run.val)
        if seen:
            raise ConfigError(f"leak: {run.path} trained on {seen[0]}, which it validates on")
        for name in sorted(run.val):
            if name in chosen:
                raise ConfigError(
                    f"{chosen[name].path} and {run.path} both hold out {name}; give one run for "
                    "each fold"
                )
            chosen[name] = run
    missing = sorted(set(volume_ids) - set(chosen))
    if missing:
        raise ConfigError(
            f"{len(missing)} of {len(volume_ids)} volumes are held out by none of the {len(runs)} "
            f"runs, e.g. {missing[0]}: train the other folds, or give fewer volumes"
        )
    if folds is not None:
        _check_folds(runs, folds)
    return {name: chosen[name] for name in volume_ids}


def _check_folds(runs: Sequence[FoldRun], folds: Folds) -> None:
    """Raise ConfigError unless each run follows one fold of the file."""
    for run in runs:
        sides = [folds.split(k) for k in range(folds.num_folds)]
        matches = [k for k, s in enumerate(sides) if run.val == set(s["val"])]
        if not matches:
            raise ConfigError(f"{run.path} holds out other volumes than any fold of the file")
        leaks = sorted(run.train & set(sides[matches[0]]["val"]))
        if leaks:
            raise ConfigError(f"leak: {run.path} was trained on {leaks[0]} of its own fold")


def predict_out_of_fold(
    folders: Sequence[Path],
    volumes: Path,
    out: Path,
    *,
    folds: Folds | None = None,
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Predict every volume by the run that held it out, into one folder.

    Finished volumes are not predicted again: after an interruption run the same call.

    Args:
        folders: run folders, or folders of sweeps.
        volumes: folder of volumes.
        out: gets what infer.py leaves, and `oof.json`: which run predicted which volume.
        folds: file the runs were trained by.
        overrides: of infer.py, such as tta=flips.

    Returns:
        What `oof.json` says.

    Raises:
        ConfigError: a leak, a volume without a run, an override that does not fit.
        RunFileError: a folder holds no run.
    """
    _check_overrides(overrides)
    runs = find_runs(folders)
    planned = plan(runs, list(list_volumes(volumes)), folds)
    facts: dict[str, Any] = {"volumes": {}, "runs": {}, "overrides": list(overrides)}
    for number, run in enumerate(runs):
        names = [name for name, other in planned.items() if other is run]
        if not names:
            continue
        cfg = compose_config("infer", [*overrides, "split=val"])
        cfg.run_dir, cfg.volume, cfg.out_dir = str(run.path), str(volumes), str(out)
        log.info("fold run %d of %d: %s, %d volumes", number + 1, len(runs), run.path, len(names))
        score = infer(cfg)
        _keep_tables(out, number)
        checkpoint = RunFolder(run.path).checkpoint(cfg.checkpoint)
        facts["runs"][str(run.path)] = {"checkpoint": file_hash(checkpoint), "score": score}
        facts["volumes"] |= {name: str(run.path) for name in names}
    write_json(out / "oof.json", facts)
    return facts


def _check_overrides(overrides: Sequence[str]) -> None:
    ours = ("run_dir", "volume", "out_dir", "split", "max_volumes")
    for text in overrides:
        if text.lstrip("+~").split("=")[0] in ours:
            raise ConfigError(f"{text}: this command sets {', '.join(ours)} itself")


def _keep_tables(out: Path, number: int) -> None:
    """Rename what each run's call writes under the same name."""
    for name in ("report.json", "scores.csv"):
        path = out / name
        if path.is_file():
            path.replace(path.with_name(f"{path.stem}_run{number}{path.suffix}"))


def mean_scores(facts: Mapping[str, Any]) -> float | None:
    """Return the mean of the runs' scores weighted by their volumes; None without labels."""
    runs, volumes = facts["runs"], list(facts["volumes"].values())
    scored = [(run["score"], volumes.count(path)) for path, run in runs.items()]
    if any(score is None for score, _ in scored) or not scored:
        return None
    return float(sum(score * count for score, count in scored)) / len(volumes)
