"""What a chain is tuned on: predictions with labels, loaded where they are used."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from vesuvius.types import FloatVolume


@dataclass(frozen=True, slots=True)
class Case:
    """One volume by name.

    Attributes:
        name: volume id.
        prediction: where its prediction lies, for the loader.
        label: where its label lies.
        scroll: scroll id, or "" if unknown.
    """

    name: str
    prediction: str
    label: str
    scroll: str = ""


@dataclass(frozen=True, slots=True)
class CaseData:
    """The arrays of one case.

    Attributes:
        probability: (z, y, x) float32 in [0, 1].
        normals: (3, z, y, x) float32 or None.
        label: (z, y, x) of 0, 1, 2.
    """

    probability: FloatVolume
    normals: FloatVolume | None
    label: npt.NDArray[np.generic]


Loader = Callable[[Case], CaseData]
"""A function of a module (processes find it by name)."""


@lru_cache(maxsize=2)
def loaded(load: Loader, case: Case) -> CaseData:
    """Return the arrays of a case; the last two stay in memory."""
    return load(case)


def fingerprint(load: Loader, case: Case) -> str:
    """Return a hash of everything a case holds."""
    data = loaded(load, case)
    digest = hashlib.blake2b(digest_size=16)
    for array in (data.probability, data.normals, data.label):
        if array is not None:
            digest.update(str((array.dtype, array.shape)).encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
