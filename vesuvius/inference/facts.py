"""Reads back what made an output: the provenance in stores, TIFF descriptions and JSON files."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tifffile
import zarr

from vesuvius.errors import VolumeFormatError, VolumeNotFoundError
from vesuvius.storage.block_store import ATTRIBUTE


def read_provenance(path: str | Path) -> dict[str, Any]:
    """Return the provenance of a prediction store, a mask TIFF or the JSON beside it.

    Raises:
        VolumeNotFoundError: nothing there.
        VolumeFormatError: unreadable, or it carries no provenance.
    """
    source = Path(path)
    if not source.exists():
        raise VolumeNotFoundError(f"{source}: no such file or folder")
    try:
        if source.is_dir():
            found = _of_store(source)
        elif source.suffix.lower() in (".tif", ".tiff"):
            found = _of_tiff(source)
        else:
            found = json.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, tifffile.TiffFileError) as error:
        raise VolumeFormatError(f"{source}: cannot be read ({error})") from error
    if not isinstance(found, Mapping) or "command" not in found:
        raise VolumeFormatError(
            f"{source}: carries no provenance; infer.py writes it into <id>.zarr, <id>_mask.tif "
            "and <id>_mask.json"
        )
    return dict(found)


def _of_store(path: Path) -> Any:
    attributes = dict(zarr.open_group(path, mode="r").attrs).get(ATTRIBUTE, {})
    return attributes.get("provenance") if isinstance(attributes, Mapping) else None


def _of_tiff(path: Path) -> Any:
    with tifffile.TiffFile(path) as file:
        shaped = file.shaped_metadata
    return shaped[0].get(ATTRIBUTE) if shaped else None
