"""Analytic spiral chunks with known wraps: the rows of the winding solver's table.

Ridge k of a chunk is the set W = k + 1/2 + delta_k of a smooth winding coordinate W (distance to
an umbilicus divided by the pitch, plus the angle in turns, plus a warp). Holes, fading, bridges,
specks, touching patches and noise turn the 3-voxel ridge lines into what a network predicts.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from vesuvius.data.phantom import make_phantom
from vesuvius.data.phantom_settings import PhantomSettings

Float = npt.NDArray[np.float32]
FLOW_SCALE = 22.0


@dataclass(frozen=True)
class Condition:
    """One row of the table; lengths in voxels, shares in [0, 1].

    Attributes:
        pitch: mean distance between wraps.
        warp: standard deviation of the sheets' displacement, over `warp_scale` voxels.
        touching: share of the sheet area pushed against a neighbour.
        holes: share of the sheet area missing (in balls of `hole_radius`).
        bridges, specks: number per million voxels.
        noise: standard deviation of the noise on the logits.
        fading: standard deviation of the sheets' brightness.
        thickness: of a ridge line.
        flows: number of displacement fields composed one after the other; unlike one warp, they
            can overturn sheets without tearing them.
        flow: standard deviation of each, per axis, over `FLOW_SCALE` voxels.
    """

    pitch: float = 8.0
    warp: float = 3.0
    warp_scale: float = 24.0
    touching: float = 0.04
    holes: float = 0.06
    hole_radius: tuple[float, float] = (3.0, 8.0)
    bridges: float = 40.0
    specks: float = 60.0
    noise: float = 0.8
    fading: float = 0.12
    thickness: float = 3.0
    flows: int = 0
    flow: float = 0.0


DEFAULT = Condition()
CONDITIONS: dict[str, Condition] = {
    "default": DEFAULT,
    "many touching": replace(DEFAULT, touching=0.75),
    "many large holes": replace(DEFAULT, holes=0.36, hole_radius=(6.0, 14.0)),
    "bridges and specks": replace(DEFAULT, bridges=300.0, specks=600.0),
    "heavy noise": replace(DEFAULT, noise=1.8, fading=0.2),
    "all together": replace(
        DEFAULT, touching=0.2, holes=0.22, hole_radius=(5.0, 12.0), bridges=180.0, specks=350.0,
        noise=1.4, fading=0.2,
    ),
    "pitch 7": replace(DEFAULT, pitch=7.0),
    "pitch 18": replace(DEFAULT, pitch=18.0),
    "strong folds": replace(DEFAULT, pitch=9.0, flows=3, flow=8.0),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One chunk: probability, truth.

    Attributes:
        probability: (z, y, x) float32 in [0, 1].
        wrap: (z, y, x) int32 true sheet number on the true surface (holes included), 0 elsewhere.
        winding: (z, y, x) float32, the smooth coordinate W (ridges near half-integers).
        density: (z, y, x) float32, windings per voxel, |grad W|.
    """

    probability: Float
    wrap: npt.NDArray[np.int32]
    winding: Float
    density: Float


def smooth_noise(shape: tuple[int, int, int], scale: float, rng: np.random.Generator) -> Float:
    """Return noise of zero mean, unit deviation and correlation length `scale` (Gaussian sigma)."""
    step = max(scale / 2.0, 1.0)
    coarse = tuple(int(np.ceil(n / step)) + 9 for n in shape)
    values = ndimage.gaussian_filter(rng.standard_normal(coarse).astype(np.float32), scale / step)
    values /= values.std()
    offsets = [rng.uniform(2, 3)] * 3
    return np.asarray(
        ndimage.affine_transform(
            values, [1 / step] * 3, offset=offsets, output_shape=shape, order=2, mode="nearest"
        ),
        np.float32,
    )


def winding_coordinate(
    condition: Condition, shape: tuple[int, int, int], rng: np.random.Generator
) -> Float:
    """Return W of a chunk whose umbilicus lies outside, about 1.4 chunk sides from its centre."""
    nz, ny, nx = shape
    z, y, x = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in shape), indexing="ij")
    for _ in range(condition.flows):
        here = np.stack([z, y, x])
        moved = [
            ndimage.map_coordinates(
                condition.flow * smooth_noise(shape, FLOW_SCALE, rng), here, order=1, mode="nearest"
            )
            for _ in range(3)
        ]
        z, y, x = here + np.stack(moved).astype(np.float32)
    angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(1.0, 1.6) * max(ny, nx)
    cy, cx = ny / 2 - distance * np.sin(angle), nx / 2 - distance * np.cos(angle)
    lean = rng.uniform(-0.25, 0.25)
    radius = np.hypot(y - cy, x - cx) + lean * (z - nz / 2)
    turn = np.angle(np.exp(1j * (np.arctan2(y - cy, x - cx) - angle))) / (2 * np.pi)
    warp = condition.warp * smooth_noise(shape, condition.warp_scale, rng)
    stretch = 1 + 0.06 * smooth_noise(shape, 60.0, rng)
    base = radius - radius.mean()
    return np.asarray(
        (base * stretch + warp) / condition.pitch + turn + rng.uniform(30, 31), np.float32
    )


def _patches(
    share: float, shape: tuple[int, int, int], scale: float, rng: np.random.Generator
) -> Float:
    """Return soft patches in [0, 1] covering about `share` of the volume."""
    noise = smooth_noise(shape, scale, rng)
    cut = float(np.quantile(noise, 1 - share)) if share > 0 else np.inf
    return np.clip((noise - cut) / 0.8 + 0.5, 0, 1).astype(np.float32)


def _displacements(
    condition: Condition, shape: tuple[int, int, int], density: Float, rng: np.random.Generator
) -> list[Float]:
    """Return delta_k (in windings) for k mod 6: neighbours move together in touching patches."""
    room = np.maximum(1.0 - condition.thickness * density, 0.0)
    wobble = [0.04 * smooth_noise(shape, 10.0, rng) for _ in range(6)]
    deltas = [w.astype(np.float32) for w in wobble]
    scale = max(9.0, 1.2 * condition.pitch)
    for pair in range(6):
        push = _patches(condition.touching / 2, shape, scale, rng) * room / 2
        deltas[pair] = deltas[pair] + push
        deltas[(pair + 1) % 6] = deltas[(pair + 1) % 6] - push
    return deltas


def _stamp(
    volume: Float, centre: npt.NDArray[np.float64], axes: npt.NDArray[np.float64],
    radii: npt.NDArray[np.float64], value: float,
) -> None:  # fmt: skip
    """Raise `volume` to `value` inside one ellipsoid."""
    reach = int(np.ceil(radii.max())) + 1
    low = np.maximum(np.floor(centre).astype(int) - reach, 0)
    high = np.minimum(np.floor(centre).astype(int) + reach + 1, volume.shape)
    if np.any(high <= low):
        return
    grid = np.stack(
        np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True)), indexing="ij"), -1
    )
    local = (grid - centre) @ axes.T / radii
    blob = (value / (1 + np.exp(((local**2).sum(-1) - 1) * 4))).astype(np.float32)
    part = volume[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    np.maximum(part, blob, out=part)


def _add_clutter(
    profile: Float, wrap: npt.NDArray[np.int32], winding: Float, condition: Condition,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    """Draw bridges (rods along the normal, from a sheet) and specks (balls anywhere)."""
    million = profile.size / 1e6
    gradient = np.stack(np.gradient(winding), -1)
    surface = np.argwhere(wrap > 0)
    for _ in range(rng.poisson(condition.bridges * million)):
        start = surface[rng.integers(len(surface))]
        normal = gradient[tuple(start)]
        normal = normal / (np.linalg.norm(normal) + 1e-6)
        other = np.linalg.svd(normal[None])[2][1:]
        length = condition.pitch / 2
        radii = np.array([length / 2 + 2.0, *rng.uniform(1.2, 3.0, 2)])
        side = rng.choice([-1.0, 1.0])
        axes = np.concatenate([normal[None], other])
        _stamp(profile, start + side * normal * length, axes, radii, rng.uniform(0.6, 0.95))
    for _ in range(rng.poisson(condition.specks * million)):
        centre = rng.uniform(0, profile.shape)
        _stamp(profile, centre, np.eye(3), rng.uniform(0.8, 2.6, 3), rng.uniform(0.5, 0.95))


def _hole_map(
    condition: Condition, wrap: npt.NDArray[np.int32], rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Return the surface voxels that are missing: balls on one sheet each, to the asked share."""
    hole = np.zeros(wrap.shape, bool)
    surface = np.argwhere(wrap > 0)
    missing, wanted = 0, condition.holes * len(surface)
    while missing < wanted:
        centre = surface[rng.integers(len(surface))]
        radius = rng.uniform(*condition.hole_radius)
        reach = int(radius) + 1
        box = tuple(
            slice(max(c - reach, 0), min(c + reach + 1, n))
            for c, n in zip(centre, wrap.shape, strict=True)
        )
        grid = np.ogrid[box]
        ball = sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) <= radius**2
        fresh = ball & (wrap[box] == wrap[tuple(centre)]) & ~hole[box]
        hole[box] |= fresh
        missing += int(fresh.sum())
    return hole


def make_case(
    condition: Condition, shape: tuple[int, int, int] = (128, 128, 128), *, seed: int = 0
) -> Case:
    """Return one chunk of a condition."""
    rng = np.random.default_rng(seed)
    winding = winding_coordinate(condition, shape, rng)
    density = np.sqrt(sum(g * g for g in np.gradient(winding))).astype(np.float32)
    deltas = _displacements(condition, shape, density, rng)
    base = np.floor(winding).astype(np.int32)
    best = np.full(shape, np.inf, np.float32)
    wrap = np.zeros(shape, np.int32)
    for step in (-1, 0, 1):
        number = base + step
        delta = np.choose(number % 6, deltas)
        distance = np.abs(winding - (number + 0.5 + delta)) / np.maximum(density, 1e-3)
        closer = distance < best
        best[closer], wrap[closer] = distance[closer], number[closer]
    half = condition.thickness / 2
    wrap[best > half] = 0
    profile = (1 / (1 + np.exp(np.clip((best - half) / 0.3, -30, 30)))).astype(np.float32)
    probability = degraded(profile, wrap, winding, condition, rng)
    return Case(probability, wrap, winding, density)


def degraded(
    profile: Float, wrap: npt.NDArray[np.int32], winding: Float, condition: Condition,
    rng: np.random.Generator,
) -> Float:  # fmt: skip
    """Return what a mediocre network would make of a clean line profile in [0, 1]."""
    hole = _hole_map(condition, wrap, rng)
    soft_hole = ndimage.gaussian_filter(hole.astype(np.float32), 0.7)
    profile = profile * (1 - np.clip(1.6 * soft_hole, 0, 1))
    fading = condition.fading * smooth_noise(wrap.shape, 8.0, rng)
    profile *= np.clip(0.88 + fading, 0.1, 1.0)
    _add_clutter(profile, wrap, winding, condition, rng)
    logit = np.log(np.clip(profile, 0.02, 0.98) / (1 - np.clip(profile, 0.02, 0.98)))
    noise = rng.standard_normal(wrap.shape).astype(np.float32)
    noise += 1.5 * smooth_noise(wrap.shape, 1.5, rng)
    logit += condition.noise * noise / 1.8
    probability = ndimage.gaussian_filter(1 / (1 + np.exp(-logit)), 0.6)
    return np.clip(probability, 0, 1).astype(np.float32)


def phantom_case(
    preset: str, shape: tuple[int, int, int] = (128, 128, 128), *, seed: int = 0,
    condition: Condition | None = None, umbilicus_yx: tuple[float, float] | None = None,
    origin_zyx: tuple[int, int, int] = (0, 0, 0),
) -> tuple[Case, npt.NDArray[np.uint8]]:  # fmt: skip
    """Return a case from the project's phantom and the label it would be scored against.

    Cases that share seed and umbilicus but differ in `origin_zyx` are parts of one scroll, each
    with its own damage.

    The probability is the phantom's recto line, degraded as in `condition`. A line voxel belongs
    to wrap rint(winding): in phantoms the recto lies at whole numbers.
    """
    condition = condition or replace(DEFAULT, holes=0.04, bridges=15.0, specks=30.0)
    phantom = make_phantom(
        shape, seed=seed, settings=PhantomSettings.preset(preset), umbilicus_yx=umbilicus_yx,
        origin_zyx=origin_zyx,
    )  # fmt: skip
    rng = np.random.default_rng([seed + 1000, *origin_zyx] if any(origin_zyx) else seed + 1000)
    line = phantom.surface > 0
    distance = ndimage.distance_transform_edt(~line) - ndimage.distance_transform_edt(line)
    profile = (1 / (1 + np.exp(np.clip((distance - 0.2) / 0.35, -30, 30)))).astype(np.float32)
    wrap = np.where(line, np.rint(phantom.winding), 0).astype(np.int32)
    gradient = np.gradient(phantom.winding)
    density = np.sqrt(sum(g * g for g in gradient)).astype(np.float32)
    probability = degraded(profile, wrap, phantom.winding, condition, rng)
    return Case(probability, wrap, phantom.winding, density), phantom.label
