"""Post-processing as a chain of named steps in any order."""

import time
from collections.abc import Iterable, Mapping, Sequence

import cc3d
import numpy as np

from vesuvius.errors import ConfigError
from vesuvius.postprocess.inputs import check_normals, check_probability
from vesuvius.postprocess.steps.state import ChainState, Mask, Step
from vesuvius.postprocess.winding.parallel import resolve_threads
from vesuvius.types import FloatVolume, LabelVolume, PostprocessResult, Report

_GROWTH_ROUNDS = 8
"""Sheet numbers spread at most so many voxels into what later steps added."""


class ChainPostprocess:
    """Runs steps one after the other on (probability, mask, normals).

    Args:
        step: name -> step (see `vesuvius.postprocess.steps`), in the order they run.
        order: names in another order, some of them only, or one of them twice; None: as given.
        threads: CPU threads of each step; None: all cores of this process.

    Raises:
        ConfigError: no step, an unknown name in `order`, a step that needs a mask before any step
            made one, or no step that makes a mask.
    """

    def __init__(
        self,
        *,
        step: Mapping[str, Step],
        order: Sequence[str] | None = None,
        threads: int | None = None,
    ) -> None:
        self.steps = ordered_steps(step, order)
        self.threads = resolve_threads(threads)

    def __call__(
        self, probability: FloatVolume, normals: FloatVolume | None = None
    ) -> PostprocessResult:
        """Return mask, sheet numbers (if a step made them) and seconds and voxels of each step.

        Raises:
            SolverError: the probability is not a volume, holds NaN or leaves [0, 1].
        """
        volume = check_probability(probability)
        if normals is not None:
            normals = check_normals(normals, volume.shape)
        state = ChainState(volume, normals, threads=self.threads)
        report: Report = {"method": "chain"}
        for number, (name, step) in enumerate(self.steps, start=1):
            start = time.perf_counter()
            state = run_step(name, step, state)
            key = f"{number:02d}_{name}"
            report[f"{key}/seconds"] = time.perf_counter() - start
            if state.mask is not None:
                report[f"{key}/voxels"] = int(np.count_nonzero(state.mask))
            report |= {f"{key}/{note}": value for note, value in state.notes.items()}
        return chain_result(state, report)


def ordered_steps(
    step: Mapping[str, Step], order: Sequence[str] | None = None
) -> list[tuple[str, Step]]:
    """Return (name, step) in running order, checked: `ChainPostprocess` says what is refused."""
    if not step:
        raise ConfigError("the chain has no step; e.g. 'postprocess/step=[threshold,dust]'")
    unknown = sorted(set(order or ()) - set(step))
    if unknown:
        raise ConfigError(f"order names {unknown}; the chain's steps are {list(step)}")
    steps = [(name, step[name]) for name in (order or step)]
    for name, one in steps:
        if not all(hasattr(one, part) for part in ("reads_mask", "makes_mask", "__call__")):
            raise ConfigError(f"step {name!r} is a {type(one).__name__}, which is no chain step")
    check_masks((name, one.reads_mask, one.makes_mask) for name, one in steps)
    return steps


def check_masks(steps: Iterable[tuple[str, bool, bool]]) -> None:
    """Refuse an order of (name, reads_mask, makes_mask) in which a mask is read before made."""
    made = False
    names = []
    for name, reads, makes in steps:
        names.append(name)
        if reads and not made:
            raise ConfigError(
                f"step {name!r} needs a mask, but no step before it makes one: put a threshold or "
                f"hysteresis step first (steps: {names})"
            )
        made |= makes
    if not made:
        raise ConfigError(
            f"no step of {names} makes a mask; add a threshold or hysteresis step to the chain"
        )


def run_step(name: str, step: Step, state: ChainState) -> ChainState:
    """Return the state after one step, with sheet numbers that fit its mask.

    Raises:
        ConfigError: names the step.
    """
    try:
        after = step(state)
    except ConfigError as error:
        raise ConfigError(f"step {name!r}: {error}") from error
    if after.labels is None or after.mask is None or after.mask is state.mask:
        return after
    labels = fitted_labels(after.labels, after.mask)
    return ChainState(
        after.probability, after.normals, after.mask, labels, after.threads, after.notes
    )


def chain_result(state: ChainState, report: Report) -> PostprocessResult:
    """Return the result of a chain that ended in `state`."""
    assert state.mask is not None  # check_masks saw to it
    report["mask_share"] = float(state.mask.mean())
    return PostprocessResult(state.mask.astype(np.uint8), state.labels, report)


def fitted_labels(labels: LabelVolume, mask: Mask) -> LabelVolume:
    """Return sheet numbers that are positive exactly on the mask.

    Numbers outside are dropped; voxels that a step added take the number of the sheet they grew
    from (6 neighbours, the larger number wins a tie); new pieces get new numbers.
    """
    out: LabelVolume = np.where(mask, labels, 0).astype(np.int32)
    for _ in range(_GROWTH_ROUNDS):
        bare = mask & (out == 0)
        if not bare.any():
            return out
        before = int(np.count_nonzero(bare))
        near = out.copy()
        for axis in range(3):
            a, b = np.moveaxis(out, axis, 0), np.moveaxis(near, axis, 0)
            np.maximum(b[1:], a[:-1], out=b[1:])
            np.maximum(b[:-1], a[1:], out=b[:-1])
        out[bare] = near[bare]
        if int(np.count_nonzero(bare & (out == 0))) == before:
            break
    bare = np.ascontiguousarray(mask & (out == 0))
    if bare.any():
        pieces = cc3d.connected_components(bare, connectivity=26)
        out[bare] = pieces[bare].astype(np.int32) + out.max()
    return out
