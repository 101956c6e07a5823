"""nnU-Net's residual-encoder U-Net with the surface heads of this framework."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from vesuvius.models.residual_encoder_unet import ResidualEncoderUNet3D
from vesuvius.models.surface_network import PaddedNetwork
from vesuvius.models.unet_parts import Activation, UNetNorm


class ResEncSurface(PaddedNetwork):
    """ResidualEncoderUNet3D whose levels feed surface and normals heads.

    Args:
        features_per_stage: channels of each stage, finest first; at least two stages.
        blocks_per_stage: residual blocks of each encoder stage.
        strides_zyx: (z, y, x) of each stage's first block; the first is normally [1, 1, 1].
        kernel_sizes: (z, y, x), odd, of each stage; None = 3^3 everywhere.
        convs_per_stage_decoder: convolutions of each decoder stage, deepest first; None = 1.
        in_channels: image channels.
        norm: 'instance' or 'batch'.
        activation: 'leaky_relu' or 'relu'.
        normals_head: predict the sheet's normal (nz, ny, nx), tanh, in [-1, 1].
        surface_bias: initial bias of the surface logit; -2 (sigmoid 0.12) starts from background.
        deep_supervision: surface heads on so many coarser levels, in training only; needs
            loss=surface_deep.
        sdf_distance: the surface head regresses the signed distance to the sheets' faces within
            +- so many voxels (needs the loss term sdf); None = a plain logit.

    Raises:
        ConfigError: lists of different lengths, even kernels, sizes below 1, unknown names.

    Source: Isensee et al. 2024, "nnU-Net Revisited"; the heads are own.
    """

    def __init__(
        self,
        *,
        features_per_stage: Sequence[int],
        blocks_per_stage: Sequence[int],
        strides_zyx: Sequence[Sequence[int]],
        kernel_sizes: Sequence[Sequence[int]] | None = None,
        convs_per_stage_decoder: Sequence[int] | None = None,
        in_channels: int = 1,
        norm: UNetNorm = "instance",
        activation: Activation = "leaky_relu",
        normals_head: bool = True,
        surface_bias: float = -2.0,
        deep_supervision: int = 0,
        sdf_distance: float | None = None,
    ) -> None:
        super().__init__()
        num_stages = len(features_per_stage)
        self.unet = ResidualEncoderUNet3D(
            features_per_stage=features_per_stage,
            n_blocks_per_stage=blocks_per_stage,
            kernel_sizes=[(3, 3, 3)] * num_stages if kernel_sizes is None else kernel_sizes,
            strides=strides_zyx,
            n_conv_per_stage_decoder=convs_per_stage_decoder or [1] * (num_stages - 1),
            in_channels=in_channels,
            num_classes=1,
            norm=norm,
            activation=activation,
        )
        # The heads below take their place; unused parameters would stop DistributedDataParallel.
        self.unet.decoder.seg_layers = nn.ModuleList()
        self.in_channels = in_channels
        self.divisor_zyx = self.unet.divisor_zyx
        self.add_heads(
            self.unet.features_per_stage[:-1],
            normals_head=normals_head,
            surface_bias=surface_bias,
            deep_supervision=deep_supervision,
            sdf_distance=sdf_distance,
        )

    def features(self, image: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b n z y x"]:
        """Return the finest feature map; (z, y, x) must divide by `divisor_zyx`."""
        return self.unet.features(image)[0]

    def feature_levels(self, image: Float[Tensor, "b c z y x"]) -> list[Tensor]:
        """Return the feature maps of the decoder's levels, the finest first."""
        return self.unet.features(image)
