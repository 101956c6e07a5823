"""The winding field: every wrap gets its own number."""

from vesuvius.postprocess.winding.result import WindingResult, winding_field
from vesuvius.postprocess.winding.settings import FieldSettings, MaskSettings

__all__ = ["FieldSettings", "MaskSettings", "WindingResult", "winding_field"]
