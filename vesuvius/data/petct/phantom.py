"""Procedural CT-PET slices of a chest with lung lesions: neither modality alone suffices.

CT shows lesions and benign nodules, drawn from one distribution, sharply: it knows where and how
large, not which. PET shows lesions hot and nodules cold, but blurred, noisy and shifted by
breathing, and it is hot elsewhere too (heart wall, spots without any nodule): it knows which, not
where exactly. The mask is the hot nodules' outline on CT. Source: own design.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from vesuvius.errors import ConfigError
from vesuvius.types import ByteVolume

Image = npt.NDArray[np.float32]
Rng = np.random.Generator

GRID = 512.0
"""Lengths of the settings are pixels of a 512 x 512 image, whatever size is drawn."""
CT_WINDOW_HU = (-1000.0, 400.0)
PET_WINDOW_SUV = (0.0, 10.0)


@dataclass(frozen=True, slots=True)
class PhantomSettings:
    """What the slices look like.

    Attributes:
        size: edge in pixels.
        lesion_radius: smallest and largest mean radius, log-uniform, pixels of a 512 grid.
        lesion_share: share of slices with lesions (1 to 3).
        max_nodules: benign nodules, 0 to so many.
        lesion_suv: smallest and largest uptake.
        pet_sigma: of the PET's blur, pixels of a 512 grid.
        pet_shift: greatest displacement of the PET along each axis, pixels of a 512 grid.
        pet_noise: standard deviation of the PET's noise at SUV 1.
        ct_noise_hu: standard deviation of the CT's noise.
    """

    size: int = 512
    lesion_radius: tuple[float, float] = (5.0, 26.0)
    lesion_share: float = 0.8
    max_nodules: int = 2
    lesion_suv: tuple[float, float] = (3.0, 11.0)
    pet_sigma: float = 7.0
    pet_shift: float = 6.0
    pet_noise: float = 0.1
    ct_noise_hu: float = 20.0

    def __post_init__(self) -> None:
        if self.size < 32:
            raise ConfigError(f"phantom size={self.size}; expected 32 pixels or more.")
        low, high = self.lesion_radius
        if not 0 < low <= high <= 40:
            raise ConfigError(
                f"phantom lesion_radius={self.lesion_radius}; expected smallest <= largest in "
                "(0, 40] pixels of a 512 grid."
            )
        if not 0 <= self.lesion_share <= 1 or self.max_nodules < 0 or self.pet_sigma < 0:
            raise ConfigError(
                f"phantom lesion_share={self.lesion_share} must lie in [0, 1], max_nodules="
                f"{self.max_nodules} and pet_sigma={self.pet_sigma} be >= 0."
            )


@dataclass(slots=True)
class Anatomy:
    """What all slices of a patient share; lengths in pixels of a 512 grid, from the centre."""

    body: tuple[float, float]  # half axes y, x
    lungs: list[tuple[float, float, float, float]]  # centre y, x, half axes y, x
    heart: tuple[float, float, float, float]
    heart_suv: float
    spine_y: float
    rib_phase: float
    lobes: list[tuple[float, float]] = field(default_factory=list)  # amplitude, phase of the lungs


def draw_anatomy(rng: Rng) -> Anatomy:
    """Return a patient."""
    body = (rng.uniform(145, 165), rng.uniform(195, 220))
    half_y, half_x = rng.uniform(92, 110), rng.uniform(62, 74)
    centre_x = rng.uniform(84, 94)
    lungs = [
        (rng.uniform(-12, 2), side * centre_x, half_y * rng.uniform(0.95, 1.05), half_x)
        for side in (-1, 1)
    ]
    heart = (rng.uniform(5, 30), rng.uniform(15, 35), rng.uniform(36, 46), rng.uniform(42, 54))
    return Anatomy(
        body=body,
        lungs=lungs,
        heart=heart,
        heart_suv=float(rng.choice([1.5, rng.uniform(3, 8)])),
        spine_y=body[0] * 0.66,
        rib_phase=rng.uniform(0, 1),
        lobes=[(rng.uniform(0, 0.05), rng.uniform(0, 2 * np.pi)) for _ in range(3)],
    )


class Canvas:
    """The pixel grid in coordinates of a 512 grid around the image's centre."""

    def __init__(self, size: int) -> None:
        axis = ((np.arange(size, dtype=np.float32) + 0.5) * (GRID / size) - GRID / 2).astype(
            np.float32
        )
        self.scale = size / GRID
        self.y, self.x = axis[:, None], axis[None, :]

    def ellipse(self, y: float, x: float, half_y: float, half_x: float) -> Image:
        """Return the squared relative radius: below 1 inside."""
        return ((self.y - y) / half_y) ** 2 + ((self.x - x) / half_x) ** 2

    def blob(self, outline: "Outline") -> tuple[tuple[slice, slice], npt.NDArray[np.bool_]]:
        """Return the window around an outline and which of its pixels lie inside."""
        reach = outline.radius * 1.6 + 2 / self.scale
        window = tuple(
            slice(*np.searchsorted(axis.ravel(), [centre - reach, centre + reach]).tolist())
            for axis, centre in ((self.y, outline.y), (self.x, outline.x))
        )
        dy, dx = self.y[window[0]] - outline.y, self.x[:, window[1]] - outline.x
        angle = np.arctan2(dy, dx)
        edge = np.full_like(angle, outline.radius)
        for number, (amplitude, phase) in enumerate(outline.waves, start=2):
            edge += outline.radius * amplitude * np.cos(number * angle + phase)
        return (window[0], window[1]), np.hypot(dy, dx) < edge


@dataclass(frozen=True, slots=True)
class Outline:
    """A lobed disc: radius * (1 + sum of a_k cos(k angle + phase)), k = 2, 3, 4."""

    y: float
    x: float
    radius: float
    waves: tuple[tuple[float, float], ...]


def draw_slice(
    anatomy: Anatomy, rng: Rng, settings: PhantomSettings
) -> tuple[ByteVolume, ByteVolume, ByteVolume]:
    """Return CT, PET and mask (0, 255) of one slice, each (size, size) uint8."""
    canvas = Canvas(settings.size)
    ct, pet, lung = _draw_chest(canvas, anatomy, rng)
    mask = np.zeros(ct.shape, np.uint8)
    num_lesions = int(rng.integers(1, 4)) if rng.random() < settings.lesion_share else 0
    num_nodules = int(rng.integers(0, settings.max_nodules + 1))
    outlines = _place(canvas, lung, rng, settings, num_lesions + num_nodules)
    for number, outline in enumerate(outlines):
        window, inside = canvas.blob(outline)
        ct[window][inside] = rng.uniform(10, 70)
        if number < num_lesions:
            pet[window][inside] = rng.uniform(*settings.lesion_suv)
            mask[window][inside] = 255
    _add_hot_spots(canvas, pet, lung, outlines, rng)
    return _as_ct(ct, rng, settings), _as_pet(pet, rng, settings), mask


def _draw_chest(
    canvas: Canvas, anatomy: Anatomy, rng: Rng
) -> tuple[Image, Image, npt.NDArray[np.bool_]]:
    """Return CT in HU, PET in SUV before blur, and where lesions may lie (free lung)."""
    level = rng.uniform(0.85, 1.05)  # of the slice along the body
    body = canvas.ellipse(0, 0, *anatomy.body)
    ct = np.where(body < 1, np.float32(-90), np.float32(-1000))  # skin and fat
    muscle = body < 0.86
    ct[muscle] = 45
    pet = np.where(muscle, np.float32(0.8), np.where(body < 1, np.float32(0.4), np.float32(0)))
    lung = np.zeros(ct.shape, np.bool_)
    for y, x, half_y, half_x in anatomy.lungs:
        radius = canvas.ellipse(y, x, half_y * level, half_x * level)
        wave = np.arctan2(canvas.y - y, canvas.x - x)
        edge = sum(a * np.cos(k * wave + p) for k, (a, p) in enumerate(anatomy.lobes, start=2))
        lung |= radius < (1 + edge) ** 2
    heart = canvas.ellipse(*anatomy.heart[:2], anatomy.heart[2] * level, anatomy.heart[3] * level)
    lung &= heart > 1
    ct[lung], pet[lung] = -830, 0.4
    inside = heart < 1
    ct[inside] = 40
    pet[inside] = np.where(heart[inside] > 0.5, anatomy.heart_suv, 1.4)  # the wall is hot
    _draw_bones(canvas, anatomy, ct, pet)
    _draw_vessels(canvas, ct, lung, rng)
    return ct, pet, lung


def _draw_bones(canvas: Canvas, anatomy: Anatomy, ct: Image, pet: Image) -> None:
    spine = canvas.ellipse(anatomy.spine_y, 0, 21, 24)
    ct[spine < 1] = 420
    ct[spine < 0.6] = 190
    pet[spine < 0.8] = 1.6
    half_y, half_x = anatomy.body[0] * 0.84, anatomy.body[1] * 0.84
    for angle in (np.arange(14) + anatomy.rib_phase) * (2 * np.pi / 14):
        rib = Outline(half_y * np.sin(angle), half_x * np.cos(angle), 7.0, ())
        window, inside = canvas.blob(rib)
        ct[window][inside] = 380


def _draw_vessels(canvas: Canvas, ct: Image, lung: npt.NDArray[np.bool_], rng: Rng) -> None:
    """Draw cross-sections of vessels, smaller than any lesion."""
    ys, xs = np.nonzero(lung)
    if not len(ys):
        return
    for pick in rng.integers(0, len(ys), 30):
        vessel = Outline(
            float(canvas.y[ys[pick], 0]), float(canvas.x[0, xs[pick]]), rng.uniform(1.2, 3.2), ()
        )
        window, inside = canvas.blob(vessel)
        ct[window][inside & lung[window]] = rng.uniform(-200, 40)


def _place(
    canvas: Canvas,
    lung: npt.NDArray[np.bool_],
    rng: Rng,
    settings: PhantomSettings,
    count: int,
) -> list[Outline]:
    """Return so many outlines inside the lungs, apart from each other; fewer if there is no room.

    The count comes first: which of them are hot is independent of place, size and density.
    """
    ys, xs = np.nonzero(lung)
    placed: list[Outline] = []
    low, high = np.log(settings.lesion_radius)
    for _ in range(40 * count):
        if len(placed) == count or not len(ys):
            break
        pick = int(rng.integers(len(ys)))
        radius = float(np.exp(rng.uniform(low, high)))
        waves = tuple((rng.uniform(0, 0.12), rng.uniform(0, 2 * np.pi)) for _ in range(3))
        outline = Outline(float(canvas.y[ys[pick], 0]), float(canvas.x[0, xs[pick]]), radius, waves)
        apart = all(
            np.hypot(o.y - outline.y, o.x - outline.x) > 1.4 * (o.radius + radius) + 10
            for o in placed
        )
        window, inside = canvas.blob(outline)
        if apart and inside.any() and lung[window][inside].all():
            placed.append(outline)
    return [placed[i] for i in rng.permutation(len(placed))]


def _add_hot_spots(
    canvas: Canvas, pet: Image, lung: npt.NDArray[np.bool_], outlines: list[Outline], rng: Rng
) -> None:
    """Add up to two spots of tracer without any nodule (clots of the injection)."""
    ys, xs = np.nonzero(lung)
    for _ in range(int(rng.integers(0, 3)) if len(ys) else 0):
        pick = int(rng.integers(len(ys)))
        y, x = float(canvas.y[ys[pick], 0]), float(canvas.x[0, xs[pick]])
        spot = Outline(y, x, rng.uniform(5, 14), ())
        if all(np.hypot(o.y - y, o.x - x) > 1.4 * (o.radius + spot.radius) + 12 for o in outlines):
            window, inside = canvas.blob(spot)
            pet[window][inside] = rng.uniform(4, 11)


def _as_ct(ct: Image, rng: Rng, settings: PhantomSettings) -> ByteVolume:
    scale = settings.size / GRID
    blurred = gaussian_filter(ct, 0.8 * scale, truncate=3.0) if scale >= 0.5 else ct
    noise = rng.standard_normal(ct.shape, dtype=np.float32)
    return to_bytes(blurred + noise * np.float32(settings.ct_noise_hu), CT_WINDOW_HU)


def _as_pet(pet: Image, rng: Rng, settings: PhantomSettings) -> ByteVolume:
    scale = settings.size / GRID
    shift = np.rint(rng.uniform(-1, 1, 2) * settings.pet_shift * scale).astype(int)
    moved = np.roll(pet, shift.tolist(), axis=(0, 1))  # the border is empty: nothing wraps
    noise = rng.standard_normal(pet.shape, dtype=np.float32)
    # counts: variance grows with uptake; blurred with it, so that noise has the PET's grain
    sigma = settings.pet_sigma * scale
    grain = np.sqrt(moved + np.float32(0.05)) * noise * np.float32(settings.pet_noise)
    blurred = gaussian_filter(moved + grain * np.float32(max(1.0, 2 * sigma)), sigma, truncate=3.0)
    return to_bytes(blurred, PET_WINDOW_SUV)


def to_bytes(image: Image, window: tuple[float, float]) -> ByteVolume:
    """Return the window's range as 0 to 255, clipped."""
    low, high = window
    scaled = (image - np.float32(low)) * np.float32(255 / (high - low))
    grey: ByteVolume = np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
    return grey
