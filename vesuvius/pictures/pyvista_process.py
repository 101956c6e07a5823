"""PyVista off screen in a process of its own, so that a broken driver cannot take training down.

Run as `python -m vesuvius.pictures.pyvista_process IN.npz OUT.npy` by `render_scenes` only.
"""

import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vesuvius.pictures.raycast import Camera

TIME_LIMIT_S = 120.0
_refused: list[str] = []
"""Why PyVista failed in this process; it is not tried again."""


def render_scenes(
    scenes: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]],
    camera: Camera,
    *,
    iso: float,
    size: int,
) -> list[npt.NDArray[np.uint8]] | str:
    """Return one (size, size, 4) uint8 RGBA per scene (field, colours), or why it cannot be drawn.

    Args:
        scenes: pairs of a (z, y, x) float32 field and (z, y, x, 3) uint8 colours.
        camera: from `raycast.look_at`.
        iso: level of the surface.
        size: pixels of the square pictures.
    """
    if find_spec("pyvista") is None:
        return "PyVista is not installed"
    if _refused:
        return _refused[0]
    with tempfile.TemporaryDirectory() as folder:
        inbox, outbox = Path(folder) / "scenes.npz", Path(folder) / "pictures.npy"
        arrays: dict[str, Any] = {f"field{i}": field for i, (field, _) in enumerate(scenes)}
        arrays |= {f"colours{i}": colours for i, (_, colours) in enumerate(scenes)}
        np.savez(
            inbox, iso=iso, size=size, count=len(scenes), centre=camera.centre, up=camera.up,
            forward=camera.forward, half_width=camera.half_width, **arrays,
        )  # fmt: skip
        reason = _run([sys.executable, "-m", __name__, str(inbox), str(outbox)])
        if reason is None and outbox.exists():
            return list(np.load(outbox))
    _refused.append(reason or "PyVista wrote no picture")
    return _refused[0]


def _run(command: list[str]) -> str | None:
    """Run the child and return None, or one line that says why it failed."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIME_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"PyVista drew nothing in {TIME_LIMIT_S:g} s"
    if done.returncode == 0:
        return None
    if done.returncode < 0:
        return f"PyVista crashed (signal {-done.returncode}): no usable OpenGL, EGL or OSMesa"
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return f"PyVista failed ({lines[-1].strip() if lines else f'status {done.returncode}'})"


def _main(inbox: str, outbox: str) -> None:
    """Child: render the scenes of an .npz to a (count, size, size, 4) .npy."""
    with np.load(inbox) as scenes:
        pictures = [
            _draw(scenes[f"field{i}"], scenes[f"colours{i}"], scenes)
            for i in range(int(scenes["count"]))
        ]
    np.save(outbox, np.stack(pictures))


def _draw(
    field: npt.NDArray[np.float32], colours: npt.NDArray[np.uint8], view: Any
) -> npt.NDArray[np.uint8]:
    import pyvista

    size = int(view["size"])
    plotter = pyvista.Plotter(off_screen=True, window_size=(size, size), lighting="light kit")
    # one voxel of air around the field closes the surface at the faces of the crop
    grid = pyvista.ImageData(
        dimensions=np.asarray(field.shape[::-1]) + 2, origin=(-1.0, -1.0, -1.0)
    )
    grid["field"] = np.pad(field, 1).ravel()  # z slowest, x fastest: VTK's own order
    mesh = grid.contour([float(view["iso"])], scalars="field")
    if mesh.n_points:
        nearest = np.clip(np.rint(mesh.points[:, ::-1]).astype(int), 0, np.array(field.shape) - 1)
        mesh["rgb"] = colours[nearest[:, 0], nearest[:, 1], nearest[:, 2]]
        plotter.add_mesh(
            mesh, scalars="rgb", rgb=True, smooth_shading=True, specular=0.15, ambient=0.2
        )
        plotter.enable_anti_aliasing("ssaa")
    else:
        plotter.add_mesh(pyvista.Sphere(radius=1e-6), opacity=0.0)
    centre, forward = view["centre"], view["forward"]
    distance = 4.0 * float(view["half_width"])
    plotter.camera.parallel_projection = True
    plotter.camera.focal_point = tuple(centre[::-1])
    plotter.camera.position = tuple((centre - distance * forward)[::-1])
    plotter.camera.up = tuple(view["up"][::-1])
    plotter.camera.parallel_scale = float(view["half_width"])
    plotter.camera.clipping_range = (0.1, 3 * distance)
    picture = plotter.screenshot(None, transparent_background=True, return_img=True)
    plotter.close()
    return np.asarray(picture, dtype=np.uint8)


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2])
