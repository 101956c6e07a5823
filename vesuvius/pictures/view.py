"""A volume and what was found in it as one HTML page: three linked planes, nothing to load."""

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt

from vesuvius.errors import VolumeFormatError
from vesuvius.pictures import style
from vesuvius.pictures.page import inert_json, page
from vesuvius.pictures.view_pack import Slab, pack
from vesuvius.storage.files import write_bytes
from vesuvius.types import ByteVolume

_SCRIPTS = ("data.js", "paint.js", "planes.js", "panel.js")
_MASK = (86, 180, 233)
_IGNORE = (204, 121, 167)
_MOST_SHEETS = 2**16 - 1


@dataclass(frozen=True, slots=True)
class Scene:
    """What a page shows; all arrays are (z, y, x) of one shape.

    Attributes:
        title: heading.
        image: grey values; uint8.
        grey_range: grey values of the scan that 0 and 255 of `image` stand for.
        probability: 255 = 1; None where there is none, as below.
        mask: 0 and 1.
        label: 0 background, 1 surface, 2 ignore.
        sheets: integers, 0 = none.
        origin_zyx: voxel of the scan at which the arrays begin.
        factor: edge in voxels of the cell that one value of the arrays stands for.
        voxel_size_zyx_um: micrometres of a voxel of the scan, None if unknown.
        line: facts below the heading.
        notes: what the reader must know: reduced, windowed, NaN.
    """

    title: str
    image: ByteVolume
    grey_range: tuple[float, float] = (0.0, 255.0)
    probability: ByteVolume | None = None
    mask: ByteVolume | None = None
    label: ByteVolume | None = None
    sheets: npt.NDArray[np.integer[Any]] | None = None
    origin_zyx: tuple[int, int, int] = (0, 0, 0)
    factor: int = 1
    voxel_size_zyx_um: tuple[float, float, float] | None = None
    line: str = ""
    notes: Sequence[str] = field(default_factory=tuple)


def view_page(scene: Scene) -> bytes:
    """Return the page; its size is that of the deflated arrays times 4/3.

    Raises:
        ShapeMismatchError: the arrays differ in shape.
        VolumeFormatError: more than 65535 sheets.
    """
    style.check_same_shape(
        "image", image=scene.image, probability=scene.probability, mask=scene.mask,
        label=scene.label, sheets=scene.sheets,
    )  # fmt: skip
    layers, arrays = _layers(scene)
    size = scene.voxel_size_zyx_um
    facts = {
        "title": scene.title,
        "line": scene.line,
        "notes": list(scene.notes),
        "shape_zyx": list(scene.image.shape),
        "origin_zyx": list(scene.origin_zyx),
        "factor": scene.factor,
        "voxel_size_zyx_um": None if size is None else [n * scene.factor for n in size],
        "grey_range": list(scene.grey_range),
        "grey_exact": scene.grey_range == (0.0, 255.0) and scene.factor == 1,
        "window": _window(scene.image),
        "layers": layers,
    }
    resources = files("vesuvius.pictures") / "viewer"
    texts = {name: (resources / name).read_text("utf-8") for name in (*_SCRIPTS, "viewer.css")}
    shell = (resources / "viewer.html").read_text("utf-8")
    body = [
        shell.replace("{{title}}", html.escape(scene.title)),
        f"<script type='application/json' id='facts'>{inert_json(facts)}</script>",
        *(_element(name, slab) for name, array in arrays.items() for slab in pack(array)),
    ]
    script = "\n".join(texts[name] for name in _SCRIPTS)
    return page(scene.title, "\n".join(body), style=texts["viewer.css"], scripts=[script]).encode()


def write_view(path: Path, content: bytes) -> Path:
    """Write the page atomically and return its path.

    Raises:
        StorageError: the file cannot be written.
    """
    return write_bytes(path, content)


def _element(layer: str, slab: Slab) -> str:
    flag = " data-differences='1'" if slab.differences else ""
    return f"<script type='text/plain' class='part' data-layer='{layer}'{flag}>{slab.text}</script>"


def _layers(scene: Scene) -> tuple[list[dict[str, Any]], dict[str, npt.NDArray[Any]]]:
    """Return what the page knows of each layer, in the order of painting, and their arrays."""
    layers: list[dict[str, Any]] = [{"id": "image", "name": "grey value", "kind": "grey"}]
    arrays: dict[str, npt.NDArray[Any]] = {"image": scene.image}
    if scene.probability is not None:
        arrays["probability"] = scene.probability
        layers.append(_layer("probability", "probability", _heat_palette(), "fill", opacity=0.7))
    if scene.sheets is not None:
        numbers, arrays["sheets"] = _compact(scene.sheets)
        layers.append(
            _layer("sheets", "sheet number", sheet_palette(numbers), "fill", opacity=0.75)
            | {"values": [int(n) for n in numbers]}
        )
    if scene.mask is not None:
        arrays["mask"] = scene.mask
        layers.append(
            _layer("mask", "mask", [(0, 0, 0), _MASK], "outline", opacity=1.0)
            | {"values": ["-", "surface"]}
        )
    if scene.label is not None:
        arrays["label"] = scene.label
        layers.append(
            _layer("label", "label", [(0, 0, 0), style.LABEL, _IGNORE], "outline", opacity=1.0)
            | {"values": ["background", "surface", "ignore"]}
        )
    for layer in layers:
        layer["dtype"] = str(arrays[layer["id"]].dtype)
    return layers, arrays


def _layer(
    name: str, title: str, palette: Sequence[Sequence[int]], drawn: str, *, opacity: float
) -> dict[str, Any]:
    flat = [int(part) for colour in palette for part in colour]
    return {
        "id": name, "name": title, "kind": name, "palette": flat, "style": drawn,
        "opacity": opacity, "on": True,
    }  # fmt: skip


def _heat_palette() -> list[tuple[int, int, int]]:
    table = mpl.colormaps[style.HEAT](np.arange(256))[:, :3]
    return [(int(r), int(g), int(b)) for r, g, b in np.rint(255 * table)]


def sheet_palette(numbers: npt.NDArray[np.integer[Any]]) -> list[tuple[int, int, int]]:
    """Return a colour for each number; neighbours differ in hue and in lightness.

    Hues go round by the golden angle, lightness goes in threes: sheets side by side stay apart for
    colour-blind readers as well.
    """
    hue = np.mod(numbers.astype(np.float64) * 0.381966, 1.0)
    third = np.mod(numbers, 3).astype(np.int64)
    value = np.array([1.0, 0.62, 0.85])[third]
    saturation = np.array([0.45, 0.85, 0.95])[third]
    rgb = mpl.colors.hsv_to_rgb(np.stack([hue, saturation, value], axis=-1))
    return [(int(r), int(g), int(b)) for r, g, b in np.rint(255 * rgb)]


def _compact(
    sheets: npt.NDArray[np.integer[Any]],
) -> tuple[npt.NDArray[np.integer[Any]], npt.NDArray[Any]]:
    """Return the numbers there are, 0 first, and the array as places in that list."""
    present = np.unique(sheets)
    numbers = np.concatenate([[0], present[present != 0]]).astype(np.int64)
    if len(numbers) > _MOST_SHEETS:
        raise VolumeFormatError(
            f"sheets: {len(numbers) - 1} different numbers; expected at most {_MOST_SHEETS - 1}. "
            "Show a smaller region"
        )
    order = np.argsort(numbers)
    places = order[np.searchsorted(numbers[order], sheets)]
    return numbers, places.astype(np.uint8 if len(numbers) <= 2**8 else np.uint16)


def _window(image: ByteVolume) -> list[int]:
    """Return the values shown as black and white at first."""
    low, high = style.grey_window(image)
    black = min(int(low), 254)
    return [black, max(round(high), black + 1)]
