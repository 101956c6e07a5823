"""Which overlap and test-time augmentation a time budget allows, from measured seconds a window."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vesuvius.errors import ConfigError
from vesuvius.inference.predictor import Tta, tta_symmetries
from vesuvius.inference.windows import plan_windows

Zyx = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Rung:
    """One setting of the sliding window.

    Attributes:
        overlap: of neighbouring windows, share of a window.
        tta: "none", "flips" or "flips_rot90".
    """

    overlap: float
    tta: Tta

    def __str__(self) -> str:
        return f"overlap {self.overlap:g}, tta {self.tta}"


LADDER = (
    Rung(0.5, "flips_rot90"),
    Rung(0.5, "flips"),
    Rung(0.5, "none"),
    Rung(0.25, "none"),
    Rung(0.1, "none"),
)
"""From best to fastest; costs 16, 8, 1 and about 0.4 and 0.25."""


@dataclass(slots=True)
class ModelSpeed:
    """What one network costs; `seconds` is updated as volumes are predicted.

    Attributes:
        roi_zyx: window.
        ttas: what it can do, best first; a rung's tta it cannot do counts as its own best.
        seconds: of one forward of one window.
    """

    roi_zyx: Zyx
    ttas: tuple[Tta, ...]
    seconds: float

    def usable(self, rung: Rung) -> Rung:
        """Return the rung with a tta this network can do."""
        return rung if rung.tta in self.ttas else Rung(rung.overlap, self.ttas[0])

    def forwards(self, shape_zyx: Zyx, rung: Rung) -> int:
        """Return how often the network runs for one volume."""
        own = self.usable(rung)
        axes = plan_windows(shape_zyx, self.roi_zyx, overlap=own.overlap, blend="gaussian")
        return math.prod(len(axis.starts) for axis in axes) * len(tta_symmetries(own.tta))

    def learn(self, seconds: float, forwards: int) -> None:
        """Take the speed of the last volume; it replaces the estimate, which it is better than."""
        self.seconds = seconds / max(1, forwards)


def projected_seconds(
    shapes: Sequence[Zyx], models: Sequence[ModelSpeed], rung: Rung, *, per_voxel: float
) -> float:
    """Return the time for volumes at a rung.

    Args:
        shapes: of the volumes.
        models: networks that all predict each volume.
        rung: the setting.
        per_voxel: seconds a voxel for reading, post-processing and writing.
    """
    return sum(
        per_voxel * math.prod(shape)
        + sum(model.forwards(shape, rung) * model.seconds for model in models)
        for shape in shapes
    )


def choose_rung(
    shapes: Sequence[Zyx],
    models: Sequence[ModelSpeed],
    *,
    per_voxel: float,
    seconds_left: float,
    ladder: Sequence[Rung] = LADDER,
) -> Rung:
    """Return the best rung whose projected time fits; the fastest one if none does.

    Raises:
        ConfigError: the ladder is empty.
    """
    if not ladder:
        raise ConfigError("the ladder is empty; expected settings such as 0.5:flips")
    for rung in ladder:
        if projected_seconds(shapes, models, rung, per_voxel=per_voxel) <= seconds_left:
            return rung
    return ladder[-1]


def parse_ladder(texts: Sequence[str]) -> tuple[Rung, ...]:
    """Return the rungs of texts such as "0.5:flips".

    Raises:
        ConfigError: not <overlap>:<tta>.
    """
    rungs = []
    for text in texts:
        overlap, _, tta = text.partition(":")
        if tta not in ("none", "flips", "flips_rot90"):
            raise ConfigError(
                f"{text!r} is no setting; expected <overlap>:<tta>, e.g. 0.5:flips (tta: none, "
                "flips, flips_rot90)"
            )
        try:
            share = float(overlap)
        except ValueError as error:
            raise ConfigError(f"{text!r}: {overlap!r} is no share of a window") from error
        if not 0 <= share < 1:
            raise ConfigError(f"{text!r}: the overlap must lie in [0, 1)")
        rungs.append(Rung(share, tta))  # type: ignore[arg-type]
    return tuple(rungs)


def share_out(sizes: Mapping[str, int], num_parts: int) -> list[list[str]]:
    """Return disjoint lists of names with sums of sizes as equal as greedily possible.

    The largest goes first, each to the part with the least so far.

    Args:
        sizes: name -> voxels.
        num_parts: at least 1; parts may be empty.
    """
    parts: list[list[str]] = [[] for _ in range(num_parts)]
    sums = [0] * num_parts
    for name in sorted(sizes, key=lambda n: (-sizes[n], n)):
        part = sums.index(min(sums))
        parts[part].append(name)
        sums[part] += sizes[name]
    return parts
