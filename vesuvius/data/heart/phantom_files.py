"""Writes a folder of phantom hearts: `<root>/heart_<number>.nii.gz` and `phantom.json`."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from vesuvius.data.heart.labels import write_label_map
from vesuvius.data.heart.phantom import HeartPhantomSettings, make_heart
from vesuvius.errors import ConfigError
from vesuvius.storage.files import write_text

GENERATOR_VERSION = 1
"""Raised whenever the same settings and seed give other voxels."""

_RECORD = "phantom.json"


def write_heart_phantoms(
    root: Path, *, count: int, seed: int = 0, settings: HeartPhantomSettings | None = None
) -> Iterator[tuple[Path, bool]]:
    """Write hearts and yield (file, whether it was written now); finished ones are left alone.

    Heart i depends on (seed, i) and the settings only: asking for more adds some.

    Args:
        root: folder, made if missing.
        count: number of hearts.
        seed: decides all of them.
        settings: grid and difficulty; None = 96^3 of 1.25 mm.

    Raises:
        ConfigError: a number out of range, or the folder holds hearts of other settings.
        StorageError: a file cannot be written.
    """
    if count < 1 or seed < 0:
        raise ConfigError(f"count is {count}, seed {seed}; expected 1 or more, 0 or more")
    settings = settings or HeartPhantomSettings()
    _keep_record(root / _RECORD, {"seed": seed, **asdict(settings)})
    affine = np.diag([*settings.spacing, 1.0])
    for number in range(count):
        path = root / f"heart_{number:04d}.nii.gz"
        written = not path.is_file()
        if written:
            own_seed = int(np.random.default_rng([seed, number]).integers(1 << 31))
            write_label_map(path, make_heart(own_seed, settings), affine)
        yield path, written


def _keep_record(path: Path, asked: dict[str, object]) -> None:
    identity = json.loads(json.dumps({"generator_version": GENERATOR_VERSION, **asked}))
    if path.is_file():
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: cannot be read ({error}); delete the folder") from error
        if known != identity:
            changed = [
                k for k in identity if not isinstance(known, dict) or known.get(k) != identity[k]
            ]
            raise ConfigError(
                f"{path.parent}: holds hearts made with other settings ({', '.join(changed)}); "
                "choose another folder, or delete this one"
            )
        return
    write_text(path, json.dumps(identity, indent=1) + "\n")
