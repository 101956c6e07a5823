"""Point-set auto-encoders: surface points of a labelled heart to fields."""

from vesuvius.models.vecset.network import VecSet
from vesuvius.models.vecset.per_class import VecSetPerClass

__all__ = ["VecSet", "VecSetPerClass"]
