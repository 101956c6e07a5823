"""Writes a phantom data set: `<out>/{CT,PET,masks}/patient_XXX_slice_NNNN.png`."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from vesuvius.data.petct.layout import FOLDERS
from vesuvius.data.petct.phantom import PhantomSettings, draw_anatomy, draw_slice
from vesuvius.data.petct.png import write_png
from vesuvius.errors import ConfigError
from vesuvius.storage.files import write_text

RECORD = "phantom.json"


def write_phantom(
    out: Path,
    *,
    num_patients: int,
    slices_per_patient: int,
    settings: PhantomSettings,
    seed: int = 0,
    progress: Callable[[], object] = lambda: None,
) -> int:
    """Write what is missing and return how many slices were drawn.

    Slice k of patient p is a function of (seed, p, k) and the settings: more of either can be asked
    for later. A folder of other settings or another seed is refused.

    Raises:
        ConfigError: numbers out of range, or a folder of other settings.
        StorageError: a file cannot be written.
    """
    if num_patients < 1 or slices_per_patient < 1:
        raise ConfigError(
            f"num_patients={num_patients}, slices_per_patient={slices_per_patient}; both must be "
            ">= 1."
        )
    identity = json.loads(json.dumps({"seed": seed, **asdict(settings)}))
    _check_record(out, identity)
    written = 0
    for patient in range(num_patients):
        anatomy = draw_anatomy(np.random.default_rng((seed, patient)))
        for number in range(slices_per_patient):
            name = f"patient_{patient:03d}_slice_{number:04d}.png"
            paths = [out / folder / name for folder in FOLDERS.values()]
            if not all(path.is_file() for path in paths):
                rng = np.random.default_rng((seed, patient, number, 1))
                for path, image in zip(paths, draw_slice(anatomy, rng, settings), strict=True):
                    write_png(path, image)
                written += 1
            progress()
    return written


def _check_record(out: Path, identity: dict[str, Any]) -> None:
    """Write the record of a new folder; compare that of an old one."""
    path = out / RECORD
    if not path.is_file():
        if any((out / folder).is_dir() for folder in FOLDERS.values()):
            raise ConfigError(f"{out} holds slices that are no phantom's; choose a new folder.")
        write_text(path, json.dumps(identity, indent=2) + "\n")
        return
    known = json.loads(path.read_text(encoding="utf-8"))
    changed = [key for key in identity if known.get(key) != identity[key]]
    if changed:
        key = changed[0]
        raise ConfigError(
            f"{out} holds a phantom with {key}={known.get(key)}, asked for is {identity[key]}; "
            "choose a new folder."
        )
