"""Coherence-enhancing diffusion: the probability flows along the sheets, not across them."""

import numpy as np
import numpy.typing as npt

from vesuvius.postprocess.steps.state import ChainState, check_at_least, check_between
from vesuvius.postprocess.winding.jit import compiled
from vesuvius.postprocess.winding.orientation import block_tensor, orientation
from vesuvius.postprocess.winding.parallel import over_slabs
from vesuvius.postprocess.winding.sample import BLOCK
from vesuvius.types import FloatVolume

Blocks = npt.NDArray[np.float32]


@compiled
def _tensor(
    axis: Blocks, planarity: Blocks, across: float, at: tuple[int, int, int], out: Blocks
) -> None:
    """Write the diffusion tensor zz, yy, xx, zy, zx, yx of the block at `at` into `out`.

    Along the sheet the planarity (at least `across`), across it `across`.
    """
    n = axis[at[0], at[1], at[2]]
    along = max(planarity[at[0], at[1], at[2]], across)
    drop = across - along
    out[0] = along + drop * n[0] * n[0]
    out[1] = along + drop * n[1] * n[1]
    out[2] = along + drop * n[2] * n[2]
    out[3] = drop * n[0] * n[1]
    out[4] = drop * n[0] * n[2]
    out[5] = drop * n[1] * n[2]


@compiled
def _step(
    u: FloatVolume, out: FloatVolume, tensors: Blocks, rate: float, start: int, stop: int
) -> None:
    """Write one explicit step of du/dt = div(D grad u), D constant in a block, into `out`.

    Second differences for the diagonal of D, central differences for its mixed terms; faces are
    mirrored. At most `rate` 1/6 is stable.
    """
    depth, height, width = u.shape
    for z in range(start, stop):
        zb, za = max(z - 1, 0), min(z + 1, depth - 1)
        for y in range(height):
            yb, ya = max(y - 1, 0), min(y + 1, height - 1)
            for x in range(width):
                xb, xa = max(x - 1, 0), min(x + 1, width - 1)
                t = tensors[z // BLOCK, y // BLOCK, x // BLOCK]
                here = 2 * u[z, y, x]
                flow = t[0] * (u[zb, y, x] + u[za, y, x] - here)
                flow += t[1] * (u[z, yb, x] + u[z, ya, x] - here)
                flow += t[2] * (u[z, y, xb] + u[z, y, xa] - here)
                mixed = t[3] * (u[za, ya, x] + u[zb, yb, x] - u[za, yb, x] - u[zb, ya, x])
                mixed += t[4] * (u[za, y, xa] + u[zb, y, xb] - u[za, y, xb] - u[zb, y, xa])
                mixed += t[5] * (u[z, ya, xa] + u[z, yb, xb] - u[z, ya, xb] - u[z, yb, xa])
                out[z, y, x] = u[z, y, x] + rate * (flow + 0.5 * mixed)


@compiled
def _all_tensors(
    axis: Blocks, planarity: Blocks, across: float, out: Blocks, start: int, stop: int
) -> None:
    for i in range(start, stop):
        for j in range(axis.shape[1]):
            for k in range(axis.shape[2]):
                _tensor(axis, planarity, across, (i, j, k), out[i, j, k])


def diffuse(
    probability: FloatVolume,
    normals: FloatVolume | None = None,
    *,
    iterations: int,
    across: float = 0.01,
    sigma: float = 6.0,
    normal_weight: float = 1.0,
    threads: int = 1,
) -> FloatVolume:
    """Return the probability after explicit steps of 1/6 of coherence-enhancing diffusion.

    Args:
        probability: (z, y, x) in [0, 1].
        normals: (3, z, y, x) of the network, or None: gradients alone give the direction.
        iterations: steps; n of them blur along a sheet by about sqrt(n / 3) voxels.
        across: diffusivity across the sheet, in (0, 1].
        sigma: Gaussian smoothing of the structure tensor, voxels.
        normal_weight: weight of the normals beside the gradients.
        threads: CPU threads.

    Source: Weickert, "Coherence-enhancing diffusion filtering", 1999, with the structure tensor's
    planarity (on blocks of 4 voxels) in place of his coherence.
    """
    tensor = block_tensor(probability, normals, normal_weight=normal_weight, threads=threads)
    axis, planarity = orientation(tensor, sigma_blocks=sigma / BLOCK, threads=threads)
    blocks = np.empty_like(tensor)
    over_slabs(
        lambda a, b: _all_tensors(axis, planarity, across, blocks, a, b), len(blocks), threads
    )
    here, there = probability.astype(np.float32, copy=True), np.empty_like(probability)
    for _ in range(iterations):

        def part(a: int, b: int, u: FloatVolume = here, out: FloatVolume = there) -> None:
            _step(u, out, blocks, 1 / 6, a, b)

        over_slabs(part, len(here), threads)
        here, there = there, here
    return here


class CoherenceDiffusion:
    """Coherence-enhancing diffusion of the probability.

    Args:
        iterations: explicit steps of 1/6; n of them blur along a sheet by about sqrt(n / 3) voxels.
        across: diffusivity across the sheet relative to along it, in (0, 1].
        sigma: Gaussian smoothing of the structure tensor, voxels.
        normal_weight: weight of the network's normals beside the gradients; 0 ignores them.

    Raises:
        ConfigError: an argument out of range.
    """

    reads_mask = False
    makes_mask = False

    def __init__(
        self,
        *,
        iterations: int = 10,
        across: float = 0.01,
        sigma: float = 6.0,
        normal_weight: float = 1.0,
    ) -> None:
        check_at_least("iterations", iterations, 1)
        check_between("across", across, 1e-6, 1)
        check_at_least("sigma", sigma, 0.5)
        check_at_least("normal_weight", normal_weight, 0)
        self.iterations, self.across = iterations, across
        self.sigma, self.normal_weight = sigma, normal_weight

    def __call__(self, state: ChainState) -> ChainState:
        """Return the state with the probability diffused along the sheets."""
        smooth = diffuse(
            state.probability,
            state.normals,
            iterations=self.iterations,
            across=self.across,
            sigma=self.sigma,
            normal_weight=self.normal_weight,
            threads=state.threads,
        )
        return state.with_probability(smooth)
