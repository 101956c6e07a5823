"""Colours, fonts and the PNG writer that every picture shares.

Figures are made with `matplotlib.figure.Figure` and never with pyplot: no global state, no
display, safe in a training process. Colours follow Okabe and Ito (2008), so that the three
verdicts stay apart for colour-blind readers.
"""

from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from vesuvius.errors import ShapeMismatchError
from vesuvius.storage.files import write_bytes
from vesuvius.types import IGNORE, SURFACE

RgbImage = npt.NDArray[np.uint8]
"""(h, w, 3) uint8."""

AGREE = (0, 196, 140)
"""Label and prediction both say surface."""
MISSED = (255, 107, 53)
"""Surface in the label, not in the prediction."""
FALSE = (77, 184, 255)
"""Surface in the prediction, background in the label."""
UNSCORED = (190, 172, 226)
"""Surface in the prediction where the label says ignore."""
LABEL = (255, 201, 64)
LABEL_BACKGROUND = (20, 22, 26)
LABEL_IGNORE = (104, 110, 124)
TICK = "#1f9bff"
"""Seen on both ends of the heat map."""
INK, MUTED, FRAME, PAPER = "#1c1f26", "#6b7280", "#c9ced6", "#ffffff"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6b7280", "#1c1f26")
"""Line colours of curves, in order of use."""

HEAT = "magma"
"""Colour map of probabilities."""

IGNORE_DIM = 0.55
"""Grey of a voxel that the label leaves out is multiplied by this."""
OVERLAY_ALPHA = 0.85
DPI = 100


def hex_colour(rgb: tuple[int, int, int]) -> str:
    """Return '#rrggbb' for matplotlib."""
    return "#{:02x}{:02x}{:02x}".format(*rgb)


def grey_window(image: npt.NDArray[np.generic]) -> tuple[float, float]:
    """Return the grey values (low, high) shown as black and white: percentiles 0.5 and 99.5."""
    low, high = np.percentile(np.asarray(image, dtype=np.float32), (0.5, 99.5))
    return float(low), float(max(high, low + 1e-6))


def grey_rgb(plane: npt.NDArray[np.generic], window: tuple[float, float]) -> RgbImage:
    """Return (h, w, 3) grey of a (h, w) plane, clipped to the window (low, high)."""
    low, high = window
    scaled = np.clip((np.asarray(plane, dtype=np.float32) - low) / (high - low), 0.0, 1.0)
    return np.repeat(np.rint(scaled * 255).astype(np.uint8)[..., None], 3, axis=-1)


def paint(
    rgb: RgbImage,
    where: npt.NDArray[np.bool_],
    colour: tuple[int, int, int],
    *,
    alpha: float = OVERLAY_ALPHA,
) -> RgbImage:
    """Return a copy of (h, w, 3) rgb with `colour` blended in where the (h, w) mask is true."""
    out = rgb.copy()
    mixed = rgb[where] * (1.0 - alpha) + np.asarray(colour, dtype=np.float32) * alpha
    out[where] = np.rint(mixed).astype(np.uint8)
    return out


def label_rgb(label: npt.NDArray[np.generic]) -> RgbImage:
    """Return (h, w, 3) of a (h, w) label: background dark, surface gold, ignore grey."""
    out = np.empty((*label.shape, 3), dtype=np.uint8)
    out[:] = LABEL_BACKGROUND
    out[label == SURFACE] = LABEL
    out[label == IGNORE] = LABEL_IGNORE
    return out


def verdict_rgb(
    grey: RgbImage, label: npt.NDArray[np.generic], predicted: npt.NDArray[np.bool_]
) -> RgbImage:
    """Return grey (h, w, 3) painted with the verdict on each voxel of a (h, w) prediction.

    Agreement, missed and false surface have a colour each; where the label is ignore the grey is
    dimmed and a prediction is painted as unscored.
    """
    surface, ignore = label == SURFACE, label == IGNORE
    out = grey.copy()
    out[ignore] = np.rint(grey[ignore] * IGNORE_DIM).astype(np.uint8)
    out = paint(out, surface & predicted, AGREE)
    out = paint(out, surface & ~predicted, MISSED)
    out = paint(out, ~surface & ~ignore & predicted, FALSE)
    return paint(out, ignore & predicted, UNSCORED)


def verdict_legend(*, with_ignore: bool) -> list[Patch]:
    """Return the legend entries of `verdict_rgb`."""
    entries = [(AGREE, "found"), (MISSED, "missed"), (FALSE, "false")]
    if with_ignore:
        entries.append((UNSCORED, "unlabelled, not scored"))
    return [Patch(color=hex_colour(colour), label=text) for colour, text in entries]


def dice(label: npt.NDArray[np.generic], predicted: npt.NDArray[np.bool_]) -> float:
    """Return the Dice of a (z, y, x) prediction over voxels that are not ignore; NaN if no surface.

    NaN means that neither side has a surface voxel.
    """
    surface = label == SURFACE
    counted = predicted & (label != IGNORE)
    total = int(surface.sum()) + int(counted.sum())
    return 2.0 * int((surface & counted).sum()) / total if total else float("nan")


def check_same_shape(reference: str, **arrays: npt.NDArray[np.generic] | None) -> None:
    """Raise unless all given arrays are 3-D and share the shape of `arrays[reference]`.

    Raises:
        ShapeMismatchError: names the argument, its shape and the shape expected.
    """
    first = arrays[reference]
    if first is None or first.ndim != 3:
        shape = None if first is None else first.shape
        raise ShapeMismatchError(
            f"picture: argument '{reference}' has shape {shape}; expected a volume (z, y, x). "
            "Take one sample and one channel of a batch, e.g. batch[0, 0]."
        )
    for name, array in arrays.items():
        if array is not None and array.shape != first.shape:
            raise ShapeMismatchError(
                f"picture: argument '{name}' has shape {array.shape}, but '{reference}' has "
                f"{first.shape}; pass volumes of the same crop."
            )


def bare(axes: Axes) -> None:
    """Remove ticks and give an image axes a thin frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(FRAME)
        spine.set_linewidth(0.8)


def epoch_axes(axes: Axes) -> None:
    """Give a curve's axes their frame, grid and ticks; x counts epochs."""
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(FRAME)
    axes.grid(visible=True, axis="y", color="#e7e9ee", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9.5, colors=MUTED, length=3)
    axes.set_xlabel("epoch", fontsize=10, color=MUTED)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))


def new_figure(width_in: float, height_in: float) -> Figure:
    """Return an empty white figure of that size in inches (100 pixels each)."""
    return Figure(figsize=(width_in, height_in), dpi=DPI, facecolor=PAPER)


def save_figure(figure: Figure, path: Path) -> Path:
    """Render a figure as PNG and write it atomically; return the path."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return write_bytes(path, buffer.getvalue())
