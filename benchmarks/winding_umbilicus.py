"""Phantoms that hold the scroll's axis, solved with the axis given and without."""

import numpy as np
import numpy.typing as npt

from benchmarks.winding_blocks import right_share
from benchmarks.winding_cases import phantom_case
from vesuvius.metrics import competition_score
from vesuvius.postprocess.winding import winding_field
from vesuvius.postprocess.winding.umbilicus import plane_turns

EDGE = 128
NEAR_CUT, NEAR_AXIS = 20, 12
"""Voxels not compared: the phantom's own branch cut follows its warped sheets, ours is a plane."""


def _turn_difference(umbilicus_yx: tuple[float, float]) -> npt.NDArray[np.int32]:
    """Return the phantom's angle minus the solver's, in whole turns, (y, x).

    The phantom's cut lies opposite to the chunk's middle, the solver's toward lower x.
    """
    y, x = np.mgrid[:EDGE, :EDGE] - np.asarray(umbilicus_yx)[:, None, None]
    middle = np.arctan2(EDGE / 2 - umbilicus_yx[0], EDGE / 2 - umbilicus_yx[1])
    c, s = np.cos(middle), np.sin(middle)
    theirs = (middle + np.arctan2(y * c - x * s, x * c + y * s)) / (2 * np.pi)
    return np.rint(theirs - plane_turns((EDGE, EDGE), umbilicus_yx, 1)).astype(np.int32)


def umbilicus_rows(seeds: range, threads: int | None) -> None:
    """Print both solves of every seed."""
    print("| seed | threshold 0.5 | axis | coherence | right away from the cut | truth covered | "
          "score |\n|---|---|---|---|---|---|---|")  # fmt: skip
    for seed in seeds:
        umbilicus = (60.0 + 5 * (seed % 3), 42.0)
        case, label = phantom_case("default", (EDGE,) * 3, seed=seed, umbilicus_yx=umbilicus)
        shift = _turn_difference(umbilicus)
        numbers = [np.where(case.wrap > 0, case.wrap + k * shift + 5, 0) for k in (0, 1)]
        y, x = np.mgrid[:EDGE, :EDGE] - np.asarray(umbilicus)[:, None, None]
        compared = ~((np.abs(y) < NEAR_CUT) & (x < 0)) & (np.hypot(y, x) > NEAR_AXIS)
        plain = competition_score(case.probability > 0.5, label).score
        for name, axis in (("unknown", None), ("given", umbilicus)):
            result = winding_field(case.probability, umbilicus_yx=axis, threads=threads)
            found = np.where(compared, result.labels, 0)
            right = max(right_share(truth, found) for truth in numbers)  # whichever cut it has
            covered = np.count_nonzero((case.wrap > 0) & (result.labels > 0))
            covered /= np.count_nonzero(case.wrap)
            score = competition_score(result.mask, label).score
            print(
                f"| {seed} | {plain:.3f} | {name} | {result.coherence:.2f} | {100 * right:.2f} % | "
                f"{100 * covered:.0f} % | {score:.3f} |",
                flush=True,
            )
