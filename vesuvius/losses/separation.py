"""Separation of neighbouring sheets: at least one voxel between them must stay background."""

from collections.abc import Mapping

import cc3d
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vesuvius.errors import ConfigError
from vesuvius.losses.cldice import surface_probability
from vesuvius.losses.composite import LossTerm
from vesuvius.losses.soft_skeleton import dilate


@torch.no_grad()
def sheet_numbers(
    surface: Float[Tensor, "b 1 z y x"], wrap: Int[Tensor, "b 1 z y x"] | None
) -> Int[Tensor, "b 1 z y x"]:
    """Return a number per sheet at surface voxels, 0 elsewhere.

    The true wrap where the batch has it (a surface voxel without one takes a neighbour's), else
    26-connected components of each crop's label, found on the host.
    """
    if wrap is not None:
        numbers = wrap.to(surface.dtype)
        numbers = torch.where(numbers > 0, numbers, dilate(numbers))
        return (numbers * surface).to(torch.int64)
    masks = (surface[:, 0] > 0).cpu().numpy()
    labels = np.stack([cc3d.connected_components(mask, connectivity=26) for mask in masks])
    return torch.from_numpy(labels.astype(np.int64))[:, None].to(surface.device)


@torch.no_grad()
def crossings(
    numbers: Int[Tensor, "n length"], free: Bool[Tensor, "n length"], max_gap: int
) -> Int[Tensor, "gaps max_gap"]:
    """Return, along lines of voxels, the flat indices of the voxels of each gap between sheets.

    A gap is a run of at most `max_gap` free voxels from one sheet to another sheet. Shorter ones
    repeat their first voxel.
    """
    length = numbers.shape[1]
    stops = (~free).flatten().nonzero()[:, 0]
    before, after = stops[:-1], stops[1:]
    sheets = numbers.flatten()[stops]
    first, last = sheets[:-1], sheets[1:]
    width = after - before - 1
    gap = (width >= 1) & (width <= max_gap) & (first > 0) & (last > 0) & (first != last)
    gap &= before // length == after // length  # on one line
    before, width = before[gap], width[gap]
    steps = torch.arange(max_gap, device=numbers.device)
    return before[:, None] + 1 + torch.where(steps < width[:, None], steps, 0)


class SheetSeparationLoss(LossTerm):
    """Mean over all gaps between neighbouring sheets of -log(1 - least p in the gap).

    A gap is a straight run, along z, y or x, of at most `max_gap` labelled background voxels with
    one sheet before and another one after it. Two masks merge there if every voxel of the run is
    predicted; one voxel of background is enough to part them in the 6-connected foreground of
    TopoScore. So the term punishes the least probability of each run and leaves the thickness of
    sheets to the other terms. Runs that touch an ignored voxel take no part. Mean per sample, then
    over samples; 0 without neighbouring sheets. Sheets are told apart by `wrap` if the batch has
    it (data.with_wrap=true), else as components of the label: where the label itself merges them
    nothing can be asked. Use it beside Dice or cross-entropy.

    Args:
        max_gap: widest run in voxels; wider ones do not merge by accident.

    Source: own.
    """

    def __init__(self, *, max_gap: int = 6) -> None:
        super().__init__()
        if max_gap < 1:
            raise ConfigError(f"SheetSeparationLoss max_gap={max_gap}; expected >= 1 voxel.")
        self.max_gap = max_gap

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """Return the scalar loss >= 0 of `surface_logit` (1 or 2 channels)."""
        logit = outputs["surface_logit"]
        if logit.shape[1] == 2:
            logit = logit[:, 1:] - logit[:, :1]
        elif logit.shape[1] != 1:
            surface_probability(logit)  # raises, naming the shape
        numbers = sheet_numbers(targets["surface"], targets.get("wrap"))
        free = (targets["valid"] > 0) & (targets["surface"] == 0)
        sums = logit.new_zeros(len(logit))
        counts = logit.new_zeros(len(logit))
        for axis in (2, 3, 4):
            costs, samples = self._costs(logit, numbers, free, axis)
            sums = sums.index_add(0, samples, costs)
            counts.index_add_(0, samples, torch.ones_like(costs))
        return (sums / counts.clamp(min=1)).mean()

    def _costs(self, logit: Tensor, numbers: Tensor, free: Tensor, axis: int) -> tuple[Tensor, ...]:
        """Return -log(1 - least p) of each gap along an axis, and the sample it belongs to."""
        lines = [t.movedim(axis, -1).reshape(-1, t.shape[axis]) for t in (logit, numbers, free)]
        gaps = crossings(lines[1], lines[2], self.max_gap)
        least = lines[0].flatten()[gaps].amin(1)
        return F.softplus(least), gaps[:, 0] // (lines[0].numel() // len(logit))
