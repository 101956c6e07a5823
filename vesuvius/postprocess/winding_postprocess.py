"""The winding solver as a post-processing that a configuration can name."""

from vesuvius.postprocess.winding import FieldSettings, MaskSettings, winding_field
from vesuvius.postprocess.winding.device import resolve_device
from vesuvius.types import FloatVolume, PostprocessResult


class WindingPostprocess:
    """Numbers the sheets of a volume by their winding field and builds the mask from it.

    Args:
        threshold: probability above which a voxel is surface in the threshold mask.
        thickness: of the band around every level, voxels; None: that of the data.
        support: least share of a disc of the level, around a voxel of the band, that has data.
        support_threshold: probability above which a voxel counts as data there.
        support_radius: of that disc, voxels; about the radius of the holes that are closed.
        hole_probability: a place on a level below this probability is a hole for sure.
        hole_support: least share of the disc there, instead of `support`.
        cut: remove one-voxel cuts between sheets that touch.
        dust: smallest 6-connected piece of one sheet that is kept, voxels.
        fallback_coherence: below this coherence the cleaned threshold mask is returned.
        normal_weight: weight of network normals beside the probability's own gradients.
        lock_step: growth of the locked radius per stage, voxels; smaller is safer and slower.
        stiffness: weight of the field's slope along the sheets relative to across them.
        umbilicus_yx: scroll axis in the volume's voxel coordinates, if known.
        device: "auto", "cpu" or "cuda".
        threads: CPU threads; None: all cores of this process.
    """

    def __init__(
        self, *, threshold: float = 0.5, thickness: float | None = None, support: float = 0.4,
        support_threshold: float = 0.25,
        support_radius: float = 4.0, hole_probability: float = 0.2, hole_support: float = 0.9,
        cut: bool = True, dust: int = 200,
        fallback_coherence: float = 0.5, normal_weight: float = 1.0, lock_step: float = 24.0,
        stiffness: float = 3.0,
        umbilicus_yx: tuple[float, float] | None = None, device: str = "auto",
        threads: int | None = None,
    ) -> None:  # fmt: skip
        self.settings = FieldSettings(
            normal_weight=normal_weight, lock_step=lock_step, stiffness=stiffness
        )
        self.mask_settings = MaskSettings(
            threshold=threshold, thickness=thickness, support=support,
            support_threshold=support_threshold,
            support_radius=support_radius, hole_probability=hole_probability,
            hole_support=hole_support, cut=cut, dust=dust,
            fallback_coherence=fallback_coherence,
        )  # fmt: skip
        resolve_device(device)
        self.umbilicus_yx = umbilicus_yx
        self.device = device
        self.threads = threads

    def __call__(
        self, probability: FloatVolume, normals: FloatVolume | None = None
    ) -> PostprocessResult:
        """Return mask, sheet numbers and report; see `winding_field`."""
        result = winding_field(
            probability, normals, umbilicus_yx=self.umbilicus_yx, device=self.device,
            threads=self.threads, settings=self.settings, mask_settings=self.mask_settings,
        )  # fmt: skip
        return PostprocessResult(result.mask, result.labels, result.report)
