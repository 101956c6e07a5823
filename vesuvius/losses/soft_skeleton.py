"""Soft skeleton of a volume by iterated min and max filters, with a backward that saves memory.

Axis legend: b batch, z y x. Values in [0, 1]. Ignored voxels count as outside the volume: they
neither erode their neighbours nor lend them their value, just as if the volume ended there.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

AXES = (2, 3, 4)


def erode(volume: Float[Tensor, "b 1 z y x"]) -> Float[Tensor, "b 1 z y x"]:
    """Return the minimum over a voxel and its 6 face neighbours; nothing beyond the faces."""
    out = volume.clone()
    for axis in AXES:
        ahead, behind = _shifted(out, axis)
        torch.minimum(ahead, volume.narrow(axis, 0, volume.shape[axis] - 1), out=ahead)
        torch.minimum(behind, volume.narrow(axis, 1, volume.shape[axis] - 1), out=behind)
    return out


def dilate(volume: Float[Tensor, "b 1 z y x"]) -> Float[Tensor, "b 1 z y x"]:
    """Return the maximum over 3^3 voxels: three passes of three voxels each."""
    return _dilation_passes(volume)[-1]


def _shifted(volume: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Return views without the first and without the last layer of an axis."""
    length = volume.shape[axis] - 1
    return volume.narrow(axis, 1, length), volume.narrow(axis, 0, length)


def _dilation_passes(volume: Tensor) -> list[Tensor]:
    """Return the volume and what each axis' pass makes of it."""
    passes = [volume]
    for axis in AXES:
        source = passes[-1]
        out = source.clone()
        ahead, behind = _shifted(out, axis)
        source_ahead, source_behind = _shifted(source, axis)
        torch.maximum(ahead, source_behind, out=ahead)
        torch.maximum(behind, source_ahead, out=behind)
        passes.append(out)
    return passes


def _route(
    source: Tensor, out: Tensor, gradient: Tensor, axes: Sequence[int], into: Tensor
) -> Tensor:
    """Add `gradient` of an extremum `out` to the voxels of `source` that it was taken from.

    The voxel itself comes first, then its neighbours along `axes` in turn: every output has one
    giver, so sums of gradients are kept. `gradient` is used up. Ties are harmless: equal values
    of neighbours come from the same voxel of the input, which gets the gradient either way.
    """
    given = gradient * (source == out)
    into.add_(given)
    gradient.sub_(given)
    for axis in axes:
        source_ahead, source_behind = _shifted(source, axis)
        into_ahead, into_behind = _shifted(into, axis)
        out_ahead, out_behind = _shifted(out, axis)
        left_ahead, left_behind = _shifted(gradient, axis)
        given = left_ahead * (source_behind == out_ahead)
        into_behind.add_(given)
        left_ahead.sub_(given)
        given = left_behind * (source_ahead == out_behind)
        into_ahead.add_(given)
        left_behind.sub_(given)
    return into


def _filled(volume: Tensor, ignored: Tensor | None, value: float) -> Tensor:
    return volume if ignored is None else volume.masked_fill(ignored, value)


def _excess(level: Tensor, eroded: Tensor, ignored: Tensor | None) -> tuple[Tensor, list[Tensor]]:
    """Return relu(level - opening of level), 0 where ignored, and the passes of the dilation."""
    passes = _dilation_passes(_filled(eroded, ignored, 0.0))
    excess = torch.sub(level, passes[-1]).clamp_(min=0)
    return (excess if ignored is None else excess.masked_fill_(ignored, 0.0)), passes


def _join(skeleton: Tensor, excess: Tensor) -> Tensor:
    """Return skeleton + excess * (1 - skeleton), in place."""
    return skeleton.add_(torch.addcmul(excess, excess, skeleton, value=-1))


def _remaining(level: Tensor, skeleton: Tensor, ignored: Tensor | None) -> float:
    """Return the most that all further levels can add, as a share of the skeleton's sum.

    The opening of level k is at least level k + 1, so its excess is at most the difference of the
    two; over all later levels these sum to at most level k minus its smallest value. Where a level
    is constant nothing is left at all: the exact end for labels, whose sheets are eroded away.
    """
    flat = level.flatten(1)
    above = flat - flat.amin(1, keepdim=True)
    if ignored is not None:
        above.masked_fill_(ignored.flatten(1), 0.0)
    return float((above.sum(1) / skeleton.flatten(1).sum(1).clamp(min=1.0)).max())


def _run(
    volume: Tensor, ignored: Tensor | None, iterations: int, tolerance: float, keep_every: int
) -> tuple[Tensor, list[tuple[Tensor, Tensor]], int]:
    """Return the skeleton, every n-th (level, skeleton before it), and how many levels ran."""
    level = _filled(volume, ignored, 1.0)
    skeleton = torch.zeros_like(volume)
    kept = []
    for number in range(iterations + 1):
        if keep_every and number % keep_every == 0:
            kept.append((level, skeleton.clone()))
        eroded = _filled(erode(level), ignored, 1.0)
        _join(skeleton, _excess(level, eroded, ignored)[0])
        level = eroded
        if _remaining(level, skeleton, ignored) <= tolerance:
            return skeleton, kept, number + 1
    return skeleton, kept, iterations + 1


class _SoftSkeleton(torch.autograd.Function):
    """The skeleton, keeping every sqrt(n)-th level and recomputing the others in backward.

    Autograd over n levels would keep every intermediate and 8-byte positions of every maximum.
    """

    @staticmethod
    def forward(
        ctx: Any, volume: Tensor, ignored: Tensor | None, iterations: int, tolerance: float
    ) -> Tensor:
        keep_every = max(1, math.isqrt(iterations + 1))
        skeleton, kept, ctx.num_levels = _run(volume, ignored, iterations, tolerance, keep_every)
        ctx.keep_every, ctx.ignored = keep_every, ignored
        ctx.save_for_backward(*[tensor for pair in kept for tensor in pair])
        return skeleton

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        saved, ignored, n = ctx.saved_tensors, ctx.ignored, ctx.keep_every
        # of the skeleton after a level, with what later levels left of it; of the next level
        to_skeleton, to_next = gradient.clone(), torch.zeros_like(gradient)
        for part in reversed(range(len(saved) // 2)):
            level, before = saved[2 * part], saved[2 * part + 1].clone()
            steps = []
            for _ in range(min(n, ctx.num_levels - part * n)):
                eroded = _filled(erode(level), ignored, 1.0)
                excess, _ = _excess(level, eroded, ignored)
                steps.append((level, eroded, before.clone(), excess))
                _join(before, excess)
                level = eroded
            while steps:
                to_next = _backward_level(*steps.pop(), ignored, to_skeleton, to_next)
        return _filled(to_next, ignored, 0.0), None, None, None


def _backward_level(
    level: Tensor,
    eroded: Tensor,
    before: Tensor,
    excess: Tensor,
    ignored: Tensor | None,
    to_skeleton: Tensor,
    to_next: Tensor,
) -> Tensor:
    """Return the gradient of a level from that of the next level; scales `to_skeleton` in place."""
    to_excess = (1 - before).mul_(to_skeleton).mul_(excess > 0)
    to_skeleton.mul_(1 - excess)
    passes = _dilation_passes(_filled(eroded, ignored, 0.0))
    left = to_excess.neg()
    for number in (2, 1, 0):
        axis = [AXES[number]]
        source, out = passes[number], passes[number + 1]
        left = _route(source, out, left, axis, torch.zeros_like(left))
    to_next = _filled(to_next.add_(left), ignored, 0.0)
    return _route(level, eroded, to_next, AXES, to_excess)


def soft_skeleton(
    volume: Float[Tensor, "b 1 z y x"],
    *,
    iterations: int,
    ignored: Bool[Tensor, "b 1 z y x"] | None = None,
    tolerance: float = 0.0,
) -> Float[Tensor, "b 1 z y x"]:
    """Return the soft skeleton in [0, 1], 0 at ignored voxels; differentiable in `volume`.

    Args:
        volume: probabilities or a mask in [0, 1].
        iterations: erosions after the first; half the thickness of a sheet is enough.
        ignored: voxels that count as outside the volume.
        tolerance: stop once all further levels together can change the skeleton's sum by no more
            than this share; 0 stops when nothing is left.

    Source: Shit et al., clDice, CVPR 2021, algorithm 1, with one erosion a level instead of two,
    3^3 maxima in three passes, and this early end.
    """
    if torch.is_grad_enabled() and volume.requires_grad:
        apply = _SoftSkeleton.apply
        result = apply(volume, ignored, iterations, tolerance)  # type: ignore[no-untyped-call]
        assert isinstance(result, Tensor)
        return result
    with torch.no_grad():
        return _run(volume, ignored, iterations, tolerance, 0)[0]
