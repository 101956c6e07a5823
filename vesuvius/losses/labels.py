"""Processing of training labels before the loss looks at them; scores see them as they are."""

import cc3d
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from vesuvius.errors import ConfigError
from vesuvius.losses.recall import medial_surface
from vesuvius.losses.soft_skeleton import dilate
from vesuvius.types import BACKGROUND, IGNORE, SURFACE


class LabelProcessing(nn.Module):
    """Closes pinholes, drops dust and gives all sheets one thickness.

    Hand-made labels break and change thickness from slice to slice, which the network then learns.
    Voxels of label 2 never become surface.

    Args:
        close: holes and gaps of at most twice so many voxels are filled, 0 = none. Sheets that
            lie closer than that would be joined: 1 is safe where they are 3 voxels apart.
        half_thickness: layers on either side of the middle of a sheet, so that all are
            2 * half_thickness + 1 voxels thick (2 + 2 * half_thickness where the label's thickness
            is even); None = leave the thickness. What falls away is ignored, not background: it was
            marked as surface.
        min_voxels: 26-connected pieces below this size are ignored; found on the host, 0 = keep.

    Source: own.

    Raises:
        ConfigError: an argument out of range, or nothing to do.
    """

    def __init__(
        self, *, close: int = 1, half_thickness: int | None = 1, min_voxels: int = 0
    ) -> None:
        super().__init__()
        if close < 0 or min_voxels < 0 or (half_thickness is not None and half_thickness < 0):
            raise ConfigError(
                f"LabelProcessing close={close}, half_thickness={half_thickness}, "
                f"min_voxels={min_voxels}; expected numbers >= 0."
            )
        if close == 0 and half_thickness is None and min_voxels == 0:
            raise ConfigError("LabelProcessing has nothing to do; set loss.labels=null instead.")
        self.close = close
        self.half_thickness = half_thickness
        self.min_voxels = min_voxels

    @torch.no_grad()
    def forward(self, label: UInt8[Tensor, "b 1 z y x"]) -> UInt8[Tensor, "b 1 z y x"]:
        """Return the processed label, values 0, 1, 2."""
        ignored = label == IGNORE
        surface = self._closed((label == SURFACE).float(), ignored)
        kept = surface
        if self.half_thickness is not None:
            kept = medial_surface(surface)  # a sheet between ignored voxels is thin, not endless
            for _ in range(self.half_thickness):
                kept = dilate(kept)
        if self.min_voxels:
            kept = kept * _without_dust(surface, self.min_voxels)
        found = torch.where((label == SURFACE) | ignored, IGNORE, BACKGROUND)
        return torch.where((kept > 0) & ~ignored, SURFACE, found).to(label.dtype)

    def _closed(self, surface: Float[Tensor, "b 1 z y x"], ignored: Tensor) -> Tensor:
        """Return the closing by a cube; what it needs beyond the crop counts as surface."""
        grown = surface
        for _ in range(self.close):
            grown = dilate(grown)
        shrunk = 1 - grown.masked_fill(ignored, 1.0)
        for _ in range(self.close):
            shrunk = dilate(shrunk)
        return torch.maximum(surface, 1 - shrunk).masked_fill(ignored, 0.0)


def _without_dust(surface: Tensor, min_voxels: int) -> Tensor:
    """Return 1 around components of at least so many voxels (one voxel further), else 0."""
    masks = (surface[:, 0] > 0).cpu().numpy()
    kept = np.stack([cc3d.dust(m, threshold=min_voxels, connectivity=26) for m in masks])
    return dilate(torch.from_numpy(kept.astype(np.float32))[:, None].to(surface.device))
