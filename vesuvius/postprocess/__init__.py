"""Probability to mask and sheet numbers: plain functions of NumPy arrays."""

from vesuvius.postprocess.chain import ChainPostprocess
from vesuvius.postprocess.harmonic import HarmonicPostprocess, harmonic_field, harmonic_mask
from vesuvius.postprocess.threshold import ThresholdPostprocess
from vesuvius.postprocess.winding import WindingResult, winding_field

__all__ = [
    "ChainPostprocess",
    "HarmonicPostprocess",
    "ThresholdPostprocess",
    "WindingResult",
    "harmonic_field",
    "harmonic_mask",
    "winding_field",
]
