"""Settings of the phantom: plain numbers, checked when they are made, with named presets."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Literal

from vesuvius.errors import ConfigError

Preset = Literal["default", "touching", "holes", "folds", "clean"]

_SHARES = (
    "touching_share",
    "split_share",
    "hole_share",
    "label_break_share",
    "ignore_share",
    "debris_share",
    "crumpled_share",
    "deformation",
    "gap_variation",
)
_NOT_NEGATIVE = (
    "noise",
    "blur",
    "phase_contrast",
    "ring_strength",
    "beam_hardening",
    "inclusions",
    "fibre_contrast",
)


@dataclass(frozen=True, slots=True)
class PhantomSettings:
    """What a phantom looks like. Lengths are voxels, shares lie in [0, 1], greys in 0..255.

    Attributes:
        pitch: smallest and largest distance from wrap to wrap; the local distance varies between.
        thickness: smallest and largest papyrus thickness; never more than the local pitch.
        deformation: 0 is a perfect spiral, 1 is crumpled (the map stays invertible).
        gap_variation: 0 is evenly spaced wraps, 1 lets neighbouring gaps differ fivefold.
        touching_share: share of the sheet area pressed against the next wrap (besides the places
            where there is no room for a gap anyway).
        split_share: share of the sheet area where the two fibre layers come apart.
        hole_share: share of the sheet area torn away or eaten.
        crumpled_share: share of the volume where the sheets are crumpled beyond recognition;
            labelled 2, the truth stays as it was before.
        fibre_contrast: strength of the fibre texture, 1 as in the real samples.
        air: mean grey of air.
        recto: mean grey of the recto layer (fibres along the winding direction), denser.
        verso: mean grey of the verso layer (fibres along z), looser.
        inclusions: bright grains per million voxels.
        debris_share: share of the gaps filled with loose fibres and crumbs.
        blur: sigma of the point spread function.
        phase_contrast: strength of the bright rims and dark halos of phase-contrast scans.
        noise: standard deviation of the detector noise in greys.
        ring_strength: standard deviation of ring artefacts in greys.
        beam_hardening: relative brightening from the axis outward over 1000 voxels, and uneven
            shading of 0.4 times that.
        label_break_share: share of the surface line that the label lacks (labelled 0).
        ignore_share: share of the chunk labelled 2 beside the rim; 0.58 to 0.71 in the competition.
        ignore_rim: thickness of the rim labelled 2 on every face.
        line_thickness: thickness of the surface line, centred on the recto face.
    """

    pitch: tuple[float, float] = (8.0, 30.0)
    thickness: tuple[float, float] = (5.0, 14.0)
    deformation: float = 0.4
    gap_variation: float = 0.7
    touching_share: float = 0.12
    split_share: float = 0.3
    hole_share: float = 0.04
    crumpled_share: float = 0.05
    fibre_contrast: float = 1.0
    air: float = 90.0
    recto: float = 162.0
    verso: float = 143.0
    inclusions: float = 60.0
    debris_share: float = 0.05
    blur: float = 1.2
    phase_contrast: float = 1.0
    noise: float = 6.0
    ring_strength: float = 1.5
    beam_hardening: float = 0.15
    label_break_share: float = 0.05
    ignore_share: float = 0.35
    ignore_rim: int = 3
    line_thickness: float = 2.0

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            ConfigError: a value is out of range; the text names it and the range.
        """
        for name, floor, ceiling in (("pitch", 6.0, 200.0), ("thickness", 2.0, 100.0)):
            _check_range(name, getattr(self, name), floor, ceiling)
        if self.thickness[0] > self.pitch[0]:
            raise ConfigError(
                f"PhantomSettings.thickness starts at {self.thickness[0]:g} voxels, above the "
                f"smallest pitch {self.pitch[0]:g}: wraps would cross; lower thickness[0] or "
                "raise pitch[0]"
            )
        for name in _SHARES:
            _check(name, getattr(self, name), 0.0, 1.0)
        for name in _NOT_NEGATIVE:
            _check(name, getattr(self, name), 0.0, 1e6)
        for name in ("air", "recto", "verso"):
            _check(name, getattr(self, name), 0.0, 255.0)
        _check("ignore_rim", self.ignore_rim, 0, 64)
        _check("line_thickness", self.line_thickness, 1.0, 6.0)

    @classmethod
    def preset(cls, name: str) -> "PhantomSettings":
        """Return the settings of one named difficulty.

        Args:
            name: `default`, `touching` (dense, pressed wraps), `holes` (a third of the sheet
                missing), `folds` (crumpled) or `clean` (no artefacts, complete labels).

        Raises:
            ConfigError: no preset has that name.
        """
        changes = PRESETS.get(name)
        if changes is None:
            raise ConfigError(
                f"no phantom preset is named {name!r}; choose one of {', '.join(PRESETS)}"
            )
        return replace(cls(), **changes)  # type: ignore[arg-type]

    def as_dict(self) -> dict[str, float | int | list[float]]:
        """Return the values ready for JSON (tuples as lists)."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


PRESETS: dict[str, dict[str, object]] = {
    "default": {},
    "touching": {"pitch": (8.0, 20.0), "touching_share": 0.55, "gap_variation": 0.8},
    "holes": {"hole_share": 0.33, "label_break_share": 0.1},
    "folds": {"deformation": 1.0, "gap_variation": 0.9, "touching_share": 0.2},
    "clean": {
        "hole_share": 0.0,
        "split_share": 0.0,
        "crumpled_share": 0.0,
        "touching_share": 0.0,
        "noise": 3.0,
        "ring_strength": 0.0,
        "beam_hardening": 0.0,
        "label_break_share": 0.0,
        "ignore_share": 0.0,
    },
}
"""What each preset changes against the default settings."""


def setting_names() -> tuple[str, ...]:
    """Return the names of all settings in their order."""
    return tuple(field.name for field in fields(PhantomSettings))


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # also catches NaN
        raise ConfigError(
            f"PhantomSettings.{name} is {value:g}, expected a value from {low:g} to {high:g}"
        )


def _check_range(name: str, value: tuple[float, float], floor: float, ceiling: float) -> None:
    if len(value) != 2 or not floor <= value[0] <= value[1] <= ceiling:
        raise ConfigError(
            f"PhantomSettings.{name} is {tuple(value)}, expected (smallest, largest) with "
            f"{floor:g} <= smallest <= largest <= {ceiling:g}"
        )
