"""Runs an offline kit: one process a device, then submission.zip, whole whatever happened."""

import logging
import multiprocessing
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vesuvius.data.sources import list_volumes
from vesuvius.data.tiff import read_tiff
from vesuvius.data.volume import Volume
from vesuvius.errors import ConfigError, RunFileError
from vesuvius.inference import write_mask
from vesuvius.inference.budget import LADDER, Rung, share_out
from vesuvius.inference.device import select_device
from vesuvius.inference.store import write_json
from vesuvius.inference.submission import Submission, write_submission
from vesuvius.runtime.kit_worker import Share, read_report, work

log = logging.getLogger(__name__)

RESERVE = 0.05
"""Share of the hours kept for starting, zipping and a last slow volume."""


@dataclass(frozen=True, slots=True)
class KitResult:
    """What a run of the kit left.

    Attributes:
        submission: the checked zip.
        volumes: id -> figures (setting, seconds, problem).
        seconds: in all.
    """

    submission: Submission
    volumes: Mapping[str, Mapping[str, Any]]
    seconds: float

    @property
    def problems(self) -> dict[str, str]:
        """Return volume id -> what went wrong, for those that did not go as planned."""
        return {name: str(f["problem"]) for name, f in self.volumes.items() if "problem" in f}


def run_kit(
    kit: Path,
    test: Path,
    out: Path,
    *,
    work_dir: Path,
    hours: float = 8.5,
    devices: Sequence[str] = (),
    ladder: Sequence[Rung] = LADDER,
) -> KitResult:
    """Predict all test volumes and write the submission.

    The volumes are shared out over the devices by their voxels. Each process measures its
    networks on a real window and takes the best setting of the ladder that fits the time left,
    again before every volume. A volume that fails gets an empty mask and is reported; masks of an
    earlier, interrupted call in `work_dir` are kept.

    Args:
        kit: folder of `vesuvius kit`.
        test: folder of test volumes.
        out: the zip.
        work_dir: gets masks and reports.
        hours: for everything.
        devices: one process each; () = all CUDA devices, else the CPU.
        ladder: settings from best to fastest.

    Raises:
        RunFileError: no kit there.
        ConfigError: no hours.
        DeviceError: a device is not there.
    """
    started = time.time()
    if not (kit / "kit.yaml").is_file():
        raise RunFileError(f"{kit}: holds no kit.yaml; give the folder that `vesuvius kit` wrote")
    if hours <= 0:
        raise ConfigError(f"--hours is {hours}; expected a positive number")
    volumes = list_volumes(test)
    shapes = {name: Volume(path).shape_zyx for name, path in volumes.items()}
    chosen = list(devices) or default_devices()
    for device in chosen:
        select_device(device)
    sizes = {name: int(np.prod(shape)) for name, shape in shapes.items()}
    parts = [part for part in share_out(sizes, len(chosen)) if part]
    on_cpu = sum(device == "cpu" for device in chosen)
    shares = [
        Share(
            kit=kit,
            volumes={name: volumes[name] for name in part},
            masks=work_dir / "masks",
            device=device,
            deadline=started + hours * 3600 * (1 - RESERVE),
            ladder=tuple(ladder),
            report=work_dir / f"worker_{number}.json",
            threads=max(1, torch.get_num_threads() // on_cpu) if on_cpu > 1 else 0,
        )
        for number, (part, device) in enumerate(zip(parts, chosen, strict=False))
    ]
    log.info("%d volumes on %s, %.1f hours", len(volumes), ", ".join(chosen), hours)
    run_shares(shares)
    figures = read_figures(shares)
    for name in fill_missing(shapes, work_dir / "masks"):
        figures.setdefault(name, {})["problem"] = "empty mask: its process died"
    submission = write_submission(
        out, shapes, lambda name: read_tiff(work_dir / "masks" / f"{name}.tif")
    )
    result = KitResult(submission, figures, time.time() - started)
    content = {"seconds": result.seconds, "volumes": figures, "problems": result.problems}
    write_json(work_dir / "kit_report.json", content)
    return result


def default_devices() -> list[str]:
    """Return all CUDA devices, or the CPU."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [f"cuda:{index}" for index in range(count)] or ["cpu"]


def run_shares(shares: Sequence[Share]) -> None:
    """Do the shares in a process each (one alone: in this one); a dead one's rest is done again."""
    if len(shares) == 1:
        work(shares[0])
        return
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=work, args=(share,)) for share in shares]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    for share, process in zip(shares, processes, strict=True):
        if process.exitcode != 0:
            log.error(
                "the process on %s ended with %s; its volumes are done again",
                *(share.device, process.exitcode),
            )
            again = context.Process(target=work, args=(replace(share, again=True),))
            again.start()
            again.join()


def read_figures(shares: Sequence[Share]) -> dict[str, dict[str, Any]]:
    """Return id -> figures of all processes."""
    figures: dict[str, dict[str, Any]] = {}
    for share in shares:
        for name, values in read_report(share.report).items():
            figures[name] = {**values, "device": share.device}
    return figures


def fill_missing(shapes: Mapping[str, tuple[int, int, int]], masks: Path) -> list[str]:
    """Write an empty mask for each volume without one; return their ids."""
    missing = [name for name in shapes if not (masks / f"{name}.tif").is_file()]
    for name in missing:
        write_mask(masks / f"{name}.tif", np.zeros(shapes[name], np.uint8))
    return missing
