"""Which data a run saw: a hash over what its folder holds, without reading voxels."""

import hashlib
import json
import os
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from vesuvius.inference.store import write_json

METADATA = {"zarr.json", ".zgroup", ".zarray", ".zattrs"}


def data_fingerprint(root: Path) -> str:
    """Return 16 hex digits that change when volumes come, go, or were prepared otherwise.

    Of a Zarr store its metadata count (shapes, chunks, attributes with the source's hash), of
    other files name and size.
    """
    digest = hashlib.sha256()
    for folder, folders, files in os.walk(root):
        folders.sort()
        metadata = METADATA & set(files)
        for name in sorted(metadata or files):
            path = Path(folder, name)
            digest.update(path.relative_to(root).as_posix().encode())
            digest.update(path.read_bytes() if metadata else b"%d" % path.stat().st_size)
        if ".zarray" in files or ("zarr.json" in files and is_array(Path(folder, "zarr.json"))):
            folders.clear()  # below lie chunks alone
    return digest.hexdigest()[:16]


def is_array(path: Path) -> bool:
    """Return whether a zarr.json describes an array."""
    return bool(json.loads(path.read_text(encoding="utf-8")).get("node_type") == "array")


def fingerprint_of(datamodule: object) -> str | None:
    """Return the fingerprint of a data module's root, or its own; None if it has neither."""
    root = getattr(datamodule, "root", None)
    if root is not None:
        return data_fingerprint(Path(root)) if Path(root).is_dir() else None
    own = getattr(datamodule, "fingerprint", None)
    return None if own is None else str(own())


class DataFingerprint(Callback):
    """Adds the fingerprint to `run.json` and the loggers once the data is there.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @rank_zero_only
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hash the data module's root, or what else it says its data is."""
        del pl_module
        path = self.folder / "run.json"
        found = fingerprint_of(trainer.datamodule)  # type: ignore[attr-defined]
        if found is None or not path.is_file():
            return
        facts = json.loads(path.read_text(encoding="utf-8"))
        facts["data"]["fingerprint"] = found
        write_json(path, facts)
        for logger in trainer.loggers:
            logger.log_hyperparams({"data_fingerprint": found})
