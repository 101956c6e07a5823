"""DualHeadResUNet3D: residual 3-D U-Net with a surface head and a normals head."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vesuvius.errors import ConfigError
from vesuvius.models.blocks import MaxPool3d, Norm, ResidualBlock3D
from vesuvius.models.surface_network import PaddedNetwork, check_positive, to_cells

ANISOTROPIC_STRIDES_ZYX = ((2, 2, 2), (1, 2, 2), (1, 2, 2), (1, 2, 2))


class DualHeadResUNet3D(PaddedNetwork):
    """Residual U-Net whose last feature map feeds several 1^3 heads.

    Channels n, 2n, 4n, ... on the levels of the encoder; max pooling by `strides_zyx`, transposed
    convolutions mirror it. With the default strides z shrinks by 2 only: sheets are 1 to 3 voxels
    thick and four isotropic poolings erased them when they lie flat in z.

    Args:
        n_filters: channels of the first level.
        in_channels: image channels.
        strides_zyx: pooling of each level; its length is the number of poolings.
        norm: 'batch', 'instance' or 'group'.
        normals_head: predict the sheet's normal (nz, ny, nx), tanh, in [-1, 1].
        surface_bias: initial bias of the surface logit; -2 (sigmoid 0.12) starts from background.
        deep_supervision: surface heads on so many coarser levels of the decoder, in training only;
            needs loss=surface_deep.
        sdf_distance: the surface head regresses the signed distance to the sheets' faces within
            +- so many voxels, from which the logit follows (needs the loss term sdf); None = a
            plain logit.
        space_to_depth: side in voxels of the cells the network works on, 1 = voxels. The voxels of
            a cell are its first channels, and each head gives every voxel of a cell weights of its
            own. With 2 all convolutions run on an eighth of the voxels, which is most of a step:
            the same network is several times faster and may be twice as wide.

    Source: the original Chimera project; Ronneberger et al. 2015; He et al. 2016; Shi et al. 2016
    (space to depth and back).
    """

    def __init__(
        self,
        *,
        n_filters: int = 16,
        in_channels: int = 1,
        strides_zyx: Sequence[Sequence[int]] = ANISOTROPIC_STRIDES_ZYX,
        norm: Norm = "batch",
        normals_head: bool = True,
        surface_bias: float = -2.0,
        deep_supervision: int = 0,
        sdf_distance: float | None = None,
        space_to_depth: int = 1,
    ) -> None:
        super().__init__()
        check_positive(n_filters=n_filters, in_channels=in_channels, space_to_depth=space_to_depth)
        if not strides_zyx or any(len(s) != 3 or min(s) < 1 for s in strides_zyx):
            raise ConfigError(
                f"model.strides_zyx={strides_zyx}: expected a list of (z, y, x) triples >= 1, "
                "one per pooling, for example [[2,2,2],[1,2,2]]."
            )
        strides = [(int(z), int(y), int(x)) for z, y, x in strides_zyx]
        widths = [n_filters * 2**level for level in range(len(strides) + 1)]
        self.in_channels, self.n_filters = in_channels, n_filters
        self.strides_zyx = strides
        self.cell = space_to_depth
        self.divisor_zyx = tuple(
            space_to_depth * math.prod(s[axis] for s in strides) for axis in range(3)
        )
        self.encoder = nn.ModuleList(
            ResidualBlock3D(i, o, norm=norm)
            for i, o in zip(
                [in_channels * space_to_depth**3, *widths[:-2]], widths[:-1], strict=True
            )
        )
        self.pools = nn.ModuleList(MaxPool3d(s, s) for s in strides)
        self.bottleneck = ResidualBlock3D(widths[-2], widths[-1], norm=norm)
        # Listed from the deepest level to the finest, the order in which forward runs them.
        self.upsamplers = nn.ModuleList(
            nn.ConvTranspose3d(2 * w, w, s, s)
            for w, s in zip(widths[-2::-1], strides[::-1], strict=True)
        )
        self.decoder = nn.ModuleList(ResidualBlock3D(2 * w, w, norm=norm) for w in widths[-2::-1])
        self.add_heads(
            widths[:-1],
            normals_head=normals_head,
            surface_bias=surface_bias,
            deep_supervision=deep_supervision,
            sdf_distance=sdf_distance,
            stride=space_to_depth,
        )

    def features(self, image: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b n z y x"]:
        """Return the last feature map; (z, y, x) must divide by `divisor_zyx`."""
        return self.feature_levels(image)[0]

    def feature_levels(self, image: Float[Tensor, "b c z y x"]) -> list[Tensor]:
        """Return the feature maps of the decoder's levels, the finest first."""
        skips: list[Tensor] = []
        hidden = to_cells(image, self.cell)
        for block, pool in zip(self.encoder, self.pools, strict=True):
            hidden = block(hidden)
            skips.append(hidden)
            hidden = pool(hidden)
        hidden = self.bottleneck(hidden)
        levels: list[Tensor] = []
        for up, block in zip(self.upsamplers, self.decoder, strict=True):
            hidden = block(torch.cat([up(hidden), skips.pop()], dim=1))
            levels.append(hidden)
        return levels[::-1]
