"""Label beside prediction in three dimensions, coloured by verdict.

The surface is drawn by PyVista off screen where it is installed and works (optional extra `viz`),
else by the package's own ray caster, which needs no graphics stack. PyVista runs in a process of
its own with a time limit: a driver that crashes or hangs costs a picture, never the training.
"""

import logging
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import ndimage

from vesuvius.errors import ConfigError
from vesuvius.pictures import pyvista_process, raycast, style
from vesuvius.types import IGNORE, SURFACE

Renderer = Literal["auto", "pyvista", "numpy"]
RENDERERS = ("auto", "pyvista", "numpy")
NEAR_VOXELS = 2
"""A labelled voxel is found, and a predicted one right, within this distance of the other."""

_LOGGER = logging.getLogger(__name__)
_ISO = 0.4  # of the mask blurred by 0.7 voxel: keeps a sheet of two voxels in one piece
_BLUR_VOXELS = 0.7
_LARGEST_SIDE = 192
_PICTURE_PX = 560


def view3d(
    path: Path,
    *,
    label: npt.NDArray[np.generic],
    probability: npt.NDArray[np.floating[Any]],
    threshold: float = 0.5,
    title: str = "",
    renderer: Renderer = "auto",
) -> Path | None:
    """Write the label (left) and the prediction (right) as shaded surfaces in one PNG.

    Labelled surface is coloured found or missed, predicted surface right, false or not scored
    (where the label is ignore), each with a tolerance of 2 voxels. Both are seen by the same
    camera, z upwards. Specks and threads one voxel thick are smoothed away; volumes over 192
    voxels a side are reduced by whole factors first.

    Args:
        path: PNG to write; its folder is made.
        label: (z, y, x) of 0 background, 1 surface, 2 ignore.
        probability: (z, y, x) in [0, 1].
        threshold: probability from which a voxel counts as surface.
        title: heading.
        renderer: "pyvista", "numpy" (own ray caster), or "auto": PyVista where it works.

    Returns:
        The path, or None when `renderer="pyvista"` and PyVista cannot draw here; the reason is
        logged in one line.

    Raises:
        ShapeMismatchError: if the volumes differ in shape or are not 3-D.
        ConfigError: if the renderer is unknown.
        StorageError: if the file cannot be written.
    """
    if renderer not in RENDERERS:
        raise ConfigError(f"view3d: renderer is '{renderer}'; expected one of {RENDERERS}")
    style.check_same_shape("label", label=label, probability=probability)
    predicted = np.asarray(probability) >= threshold
    truth, predicted, ignore = _shrink(label == SURFACE, predicted, label == IGNORE)
    camera = raycast.look_at(truth.shape)
    scenes = [
        (_field(truth), _label_colours(truth, predicted)),
        (_field(predicted), _prediction_colours(truth, predicted, ignore)),
    ]
    pictures = _render(scenes, camera, renderer)
    if pictures is None:
        return None
    shares = (float((label == SURFACE).mean()), float((probability >= threshold).mean()))
    names = [f"Label   {shares[0]:.1%} of voxels", f"Prediction   {shares[1]:.1%} of voxels"]
    figure = _page(pictures, names, camera, truth.shape)
    width, height = figure.get_size_inches()
    size = " x ".join(map(str, label.shape))
    heading = f"{title}   |   {size} voxels" if title else f"{size} voxels"
    figure.text(
        0.4 / width, 1 - 0.3 / height, heading, fontsize=14, color=style.INK, weight="bold",
        va="center",
    )  # fmt: skip
    figure.legend(
        handles=style.verdict_legend(with_ignore=bool(ignore.any())), loc="center left",
        bbox_to_anchor=(0.3 / width, 0.3 / height), ncols=4, frameon=False, fontsize=10,
        handlelength=1.1, handleheight=1.1, columnspacing=1.4, labelcolor=style.INK,
    )  # fmt: skip
    note = f"within {NEAR_VOXELS} voxels, threshold {threshold:g}"
    figure.text(
        1 - 0.4 / width, 0.3 / height, note, fontsize=10, color=style.MUTED, ha="right",
        va="center",
    )  # fmt: skip
    return style.save_figure(figure, path)


def _page(
    pictures: list[npt.NDArray[np.uint8]],
    names: list[str],
    camera: raycast.Camera,
    shape_zyx: tuple[int, ...],
) -> Figure:
    """Return a figure with the scenes side by side, as high as the box in them."""
    flat = camera.project(raycast.box_corners(shape_zyx))
    half_height = float(np.abs(flat[:, 1]).max()) + 0.06
    side = _PICTURE_PX / style.DPI
    scene_height = side * half_height
    width, height = 2 * side + 0.5, scene_height + 1.4
    figure = style.new_figure(width, height)
    for column, (picture, name) in enumerate(zip(pictures, names, strict=True)):
        left = 0.15 + column * (side + 0.2)
        box = (left / width, 0.55 / height, side / width, scene_height / height)
        axes = figure.add_axes(box)
        _draw_scene(axes, picture, camera, shape_zyx)
        axes.set_ylim(-half_height, half_height)
        axes.set_title(name, fontsize=12, color=style.INK, pad=2)
    return figure


def _render(
    scenes: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]],
    camera: raycast.Camera,
    renderer: Renderer,
) -> list[npt.NDArray[np.uint8]] | None:
    if renderer != "numpy":
        outcome = pyvista_process.render_scenes(scenes, camera, iso=_ISO, size=_PICTURE_PX)
        if not isinstance(outcome, str):
            return outcome
        if renderer == "pyvista":
            _LOGGER.warning(
                "3-D picture skipped: %s. Install the extra 'viz' (pip install 'vesuvius[viz]') "
                "or set renderer=numpy.",
                outcome,
            )
            return None
        _LOGGER.debug("3-D picture drawn by the built-in ray caster: %s", outcome)
    return [
        raycast.render(field, colours, camera, iso=_ISO, size=_PICTURE_PX)
        for field, colours in scenes
    ]


def _shrink(*masks: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.bool_]]:
    """Return the masks reduced by a whole factor (any voxel of a block) to at most 192 a side."""
    factor = -(-max(masks[0].shape) // _LARGEST_SIDE)
    reduced: list[npt.NDArray[np.bool_]] = []
    for mask in masks:
        padding = [(0, -size % factor) for size in mask.shape]
        blocks = np.pad(mask, padding)
        z, y, x = (size // factor for size in blocks.shape)
        reduced.append(np.any(blocks.reshape(z, factor, y, factor, x, factor), axis=(1, 3, 5)))
    return reduced


def _field(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    blurred: npt.NDArray[np.float32] = ndimage.gaussian_filter(
        mask.astype(np.float32), _BLUR_VOXELS, mode="constant"
    )
    return blurred


def _near(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the voxels within NEAR_VOXELS (Euclidean) of the mask."""
    if not mask.any():
        return np.zeros_like(mask)
    close: npt.NDArray[np.bool_] = ndimage.distance_transform_edt(~mask) <= NEAR_VOXELS
    return close


def _label_colours(
    truth: npt.NDArray[np.bool_], predicted: npt.NDArray[np.bool_]
) -> npt.NDArray[np.uint8]:
    colours = np.empty((*truth.shape, 3), dtype=np.uint8)
    colours[:] = style.MISSED
    colours[_near(predicted)] = style.AGREE
    return colours


def _prediction_colours(
    truth: npt.NDArray[np.bool_], predicted: npt.NDArray[np.bool_], ignore: npt.NDArray[np.bool_]
) -> npt.NDArray[np.uint8]:
    colours = np.empty((*predicted.shape, 3), dtype=np.uint8)
    colours[:] = style.FALSE
    colours[ignore] = style.UNSCORED
    colours[_near(truth) & ~ignore] = style.AGREE
    return colours


def _draw_scene(
    axes: Axes,
    picture: npt.NDArray[np.uint8],
    camera: raycast.Camera,
    shape_zyx: tuple[int, ...],
) -> None:
    """Draw the rendered surface inside the wire frame of its box, edges at the back behind it."""
    corners = raycast.box_corners(shape_zyx)
    flat = camera.project(corners)
    farthest = int(np.argmax(corners @ camera.forward))
    for first in range(8):
        for bit in (1, 2, 4):
            second = first | bit
            if second == first:
                continue
            hidden = farthest in (first, second)
            axes.plot(
                flat[[first, second], 0], flat[[first, second], 1],
                color=style.FRAME if hidden else style.MUTED,
                linewidth=0.9, linestyle=(0, (4, 3)) if hidden else "-",
                zorder=1 if hidden else 3, solid_capstyle="round",
            )  # fmt: skip
    axes.imshow(picture, extent=(-1, 1, -1, 1), zorder=2, interpolation="auto")
    # corners differ by bit 4 along z, 2 along y, 1 along x: name the edges at the outline
    for name, (first, second) in {"z": (1, 5), "y": (0, 2), "x": (0, 1)}.items():
        middle = flat[[first, second]].mean(axis=0)
        outward = middle / (np.linalg.norm(middle) + 1e-9) * 0.05
        across, upward = (float(value) for value in middle + outward)
        axes.text(across, upward, name, fontsize=11, color=style.MUTED, ha="center", va="center")
    axes.set_xlim(-1, 1)
    axes.set_axis_off()
