"""Another post-processing as a step: the winding solver, the harmonic one, or a chain."""

from dataclasses import replace

import numpy as np

from vesuvius.postprocess.steps.state import ChainState
from vesuvius.types import Postprocess


class Nested:
    """Runs a post-processing of (probability, normals) and takes its mask and sheet numbers.

    Args:
        postprocess: e.g. `vesuvius.postprocess.winding_postprocess.WindingPostprocess`.
        within_mask: it sees probability 0 outside the mask so far (if there is one): what the
            steps before dropped stays dropped.
    """

    reads_mask = False
    makes_mask = True

    def __init__(self, *, postprocess: Postprocess, within_mask: bool = False) -> None:
        self.postprocess, self.within_mask = postprocess, within_mask

    def __call__(self, state: ChainState) -> ChainState:
        """Return the state with the mask and sheet numbers of the post-processing."""
        probability = state.probability
        if self.within_mask and state.mask is not None:
            probability = np.where(state.mask, probability, np.float32(0))
        result = self.postprocess(probability, state.normals)
        notes = {name: value for name, value in result.report.items() if "second" not in name}
        after = replace(state, mask=result.mask.astype(np.bool_), labels=result.labels)
        return replace(after, notes=notes)
