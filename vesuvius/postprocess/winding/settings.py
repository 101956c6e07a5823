"""Constants of the winding solver, each a configuration key."""

from dataclasses import dataclass

from vesuvius.errors import ConfigError


@dataclass(frozen=True, slots=True)
class FieldSettings:
    """How the field is solved. Lengths in voxels.

    Attributes:
        normal_weight: trace of the normals' tensor relative to the gradients' tensor.
        orientation_sigma: Gaussian smoothing of the orientation tensor.
        sheet_sigma: Gaussian averaging of the probability along the sheets; 0: none.
        valley: depth of a probability valley that separates two slabs.
        most_sheets: no slab counts as more sheets than this.
        density_sigma_along: Gaussian width, along the sheets, over which gaps are gathered.
        density_sigma_across: the same across the sheets.
        peak_share: a peak in the histogram of gaps counts from this share of the highest one.
        prior_share: weight of the gaps further away beside those nearby.
        equalise_sigma: Gaussian width over which the jumps' density is compared with the local one.
        stiffness: weight of the field's slope along the sheets relative to across them.
        tolerance: relative residual of the first solve.
        iterations: conjugate-gradient iterations of the first solve, at most.
        lock_step: growth of the locked radius per stage.
        lock_iterations: conjugate-gradient iterations per stage, at most.
        lock_weight: pull of a cell full of ridge voxels, relative to one edge.
        lock_window: a ridge further from its level than this, in windings, does not pull.
        settle_weight: pull in the last stage, which moves the levels onto the ridges; 0: skip.
        retry_coherence: below this coherence other readings of the gaps are tried and the best
            kept, at about a fifth of the time of the whole each; 0: never.
    """

    normal_weight: float = 1.0
    orientation_sigma: float = 6.0
    sheet_sigma: float = 1.8
    valley: float = 0.15
    most_sheets: int = 4
    density_sigma_along: float = 12.0
    density_sigma_across: float = 3.0
    peak_share: float = 0.25
    prior_share: float = 0.6
    equalise_sigma: float = 9.0
    stiffness: float = 3.0
    tolerance: float = 1e-3
    iterations: int = 30
    lock_step: float = 24.0
    lock_iterations: int = 2
    lock_weight: float = 1.0
    lock_window: float = 0.35
    settle_weight: float = 3.0
    retry_coherence: float = 0.9

    def __post_init__(self) -> None:
        for name in (
            "orientation_sigma",
            "density_sigma_along",
            "density_sigma_across",
            "equalise_sigma",
            "lock_step",
        ):
            _check(name, getattr(self, name), low=0.0, open_low=True)
        for name in (
            "normal_weight",
            "sheet_sigma",
            "peak_share",
            "prior_share",
            "lock_weight",
            "settle_weight",
        ):
            _check(name, getattr(self, name), low=0.0)
        _check("tolerance", self.tolerance, low=0.0, high=1.0, open_low=True)
        _check("retry_coherence", self.retry_coherence, low=0.0, high=1.0)
        _check("lock_window", self.lock_window, low=0.0, high=0.5)
        _check("valley", self.valley, low=0.0, open_low=True)
        for name in ("stiffness", "iterations", "lock_iterations", "most_sheets"):
            _check(name, getattr(self, name), low=1)


@dataclass(frozen=True, slots=True)
class MaskSettings:
    """How the mask is built from the field. Lengths in voxels.

    Attributes:
        threshold: probability above which a voxel is surface in the threshold mask.
        thickness: of the band around every level; None: that of the data, from the volume above
            the threshold and the area of its ridges.
        support: least share of a disc of the level, around a voxel of the band, that has data.
        support_threshold: probability above which a voxel counts as data there.
        support_radius: of that disc; about the radius of the holes that are closed.
        hole_probability: a place on a level whose probability is below this is a hole for sure: the
            network did not merely doubt.
        hole_support: least share of the disc there, instead of `support`: torn places stay open.
        cut: remove one-voxel cuts between sheets that touch.
        dust: smallest 6-connected piece of one sheet that is kept, in voxels.
        fallback_coherence: below this coherence the cleaned threshold mask is returned instead.
    """

    threshold: float = 0.5
    thickness: float | None = None
    support: float = 0.4
    support_threshold: float = 0.25
    support_radius: float = 4.0
    hole_probability: float = 0.2
    hole_support: float = 0.9
    cut: bool = True
    dust: int = 200
    fallback_coherence: float = 0.5

    def __post_init__(self) -> None:
        for name in (
            "threshold", "support", "support_threshold", "hole_probability", "hole_support",
            "fallback_coherence",
        ):  # fmt: skip
            _check(name, getattr(self, name), low=0.0, high=1.0)
        if self.thickness is not None:
            _check("thickness", self.thickness, low=0.0, open_low=True)
        _check("support_radius", self.support_radius, low=0.0)
        _check("dust", self.dust, low=0)


def _check(
    name: str, value: float, *, low: float, high: float = float("inf"), open_low: bool = False
) -> None:
    """Raise ConfigError unless low <= value <= high (low < value if open)."""
    if low <= value <= high and not (open_low and value == low):
        return
    lower = f"above {low}" if open_low else f"at least {low}"
    upper = "" if high == float("inf") else f" and at most {high}"
    raise ConfigError(f"{name} is {value}; expected {lower}{upper}")
