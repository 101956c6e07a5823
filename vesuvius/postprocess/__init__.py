"""Probability to mask and sheet numbers: plain functions of NumPy arrays."""

from vesuvius.postprocess.winding import WindingResult, winding_field

__all__ = ["WindingResult", "winding_field"]
