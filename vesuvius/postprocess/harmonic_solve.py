"""Conjugate gradients for the harmonic system: AMG on the CPU, Jacobi on a GPU."""

import logging
import time
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse

from vesuvius.errors import SolverError

_LOG = logging.getLogger(__name__)

Device = Literal["auto", "cpu", "cuda"]
Vector = npt.NDArray[np.float64]

AMG_FROM, AMG_UP_TO = 500, 12_000_000
"""Unknowns for which the multigrid hierarchy pays; above, its memory (about 1 kB each) does not."""
ERROR_PER_TOL = 0.1
"""The estimated error of u must fall below this many times `tol` as well as the residual: weights
from 1e-10 to 1 then leave 2e-5 in u instead of 0.3 (test_weak_edges_do_not_end_the_solve_early)."""


class Solution(NamedTuple):
    """A solved system.

    Attributes:
        values: (n,) unknowns.
        iterations: CG steps.
        residual: |b - A u| / |b|.
        converged: whether `tol` was reached.
        method: "direct", "amg-cg", "jacobi-cg" or "jacobi-cg-cuda".
        seconds_setup: time for the preconditioner.
    """

    values: Vector
    iterations: int
    residual: float
    converged: bool
    method: str
    seconds_setup: float


def solve_system(
    matrix: sparse.csr_matrix, rhs: Vector, *, tol: float, maxiter: int, device: Device = "auto"
) -> Solution:
    """Solve a symmetric positive definite system to a relative residual of `tol`.

    Args:
        matrix: (n, n) CSR, a reduced graph Laplacian.
        rhs: (n,).
        tol: relative residual; the preconditioned residual, an estimate of the error of u, must
            also fall below 0.1 tol, because a part that hangs on a weak edge hardly shows in the
            residual.
        maxiter: most CG steps.
        device: "cuda" uses CuPy, "cpu" does not, "auto" does where there is one. Without CuPy, or
            if it does not converge, the CPU solves, and the log says so.

    Raises:
        SolverError: unknown device.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise SolverError(f"device must be 'auto', 'cpu' or 'cuda', got {device!r}")
    if matrix.shape[0] < AMG_FROM:
        values = np.atleast_1d(sparse.linalg.spsolve(matrix.tocsc(), rhs))
        residual = _residual(matrix, values, rhs)
        return Solution(values, 0, residual, converged=True, method="direct", seconds_setup=0.0)
    if device != "cpu":
        solution = _solve_on_gpu(matrix, rhs, tol=tol, maxiter=maxiter, asked=device == "cuda")
        if solution is not None and solution.converged:
            return solution
    started = time.perf_counter()
    precondition, method = _preconditioner(matrix)
    seconds = time.perf_counter() - started
    values, steps, done = conjugate_gradients(matrix, rhs, precondition, tol=tol, maxiter=maxiter)
    residual = _residual(matrix, values, rhs)
    if not done:
        _LOG.warning(
            "harmonic solver: not converged after %d iterations, relative residual %.2e (tol %.1e)",
            steps,
            residual,
            tol,
        )
    return Solution(values, steps, residual, done, method, seconds)


def conjugate_gradients(
    matrix: Any,
    rhs: Any,
    precondition: Callable[[Any], Any],
    *,
    tol: float,
    maxiter: int,
) -> tuple[Any, int, bool]:
    """Return u with A u = b, the steps taken, and whether both criteria of `tol` were met.

    Works on NumPy and CuPy arrays alike.

    Source: Saad, Iterative Methods for Sparse Linear Systems, 2003, algorithm 9.1.
    """
    values = rhs * 0.0
    residual = rhs.copy()
    target = tol * float((rhs @ rhs) ** 0.5)
    correction = precondition(residual)
    direction = correction.copy()
    product = float(residual @ correction)
    for step in range(maxiter + 1):
        small = float((residual @ residual) ** 0.5) <= target
        if small and float(abs(correction).max()) <= ERROR_PER_TOL * tol:
            return values, step, True
        if step == maxiter or not product > 0:  # product <= 0: rounding has eaten all digits
            return values, step, small
        image = matrix @ direction
        length = product / float(direction @ image)
        values += length * direction
        residual -= length * image
        correction = precondition(residual)
        following = float(residual @ correction)
        direction *= following / product
        direction += correction
        product = following
    return values, maxiter, False


def _preconditioner(matrix: sparse.csr_matrix) -> tuple[Callable[[Vector], Vector], str]:
    if matrix.shape[0] > AMG_UP_TO:
        inverse = 1.0 / matrix.diagonal()
        return (lambda residual: inverse * residual), "jacobi-cg"
    import pyamg  # slow to import and needed by this one method

    # splu: the default pseudo-inverse cuts off the weakly coupled parts that we must keep.
    levels = pyamg.ruge_stuben_solver(
        matrix,
        max_coarse=500,
        coarse_solver="splu",
        presmoother=("gauss_seidel", {"sweep": "forward"}),
        postsmoother=("gauss_seidel", {"sweep": "backward"}),
    )
    return levels.aspreconditioner(cycle="V").matvec, "amg-cg"


def _solve_on_gpu(
    matrix: sparse.csr_matrix, rhs: Vector, *, tol: float, maxiter: int, asked: bool
) -> Solution | None:
    """Return the solution by CuPy, or None, with a line in the log, where that is impossible."""
    level = logging.WARNING if asked else logging.INFO
    try:
        import cupy  # optional
        from cupyx.scipy import sparse as gpu_sparse

        if cupy.cuda.runtime.getDeviceCount() < 1:
            _LOG.log(level, "harmonic solver: no CUDA device, solving on the CPU")
            return None
        gpu_matrix = gpu_sparse.csr_matrix(matrix)
        inverse = cupy.asarray(1.0 / matrix.diagonal())
        values, steps, done = conjugate_gradients(
            gpu_matrix, cupy.asarray(rhs), lambda r: inverse * r, tol=tol, maxiter=maxiter
        )
        host = cupy.asnumpy(values)
    except ImportError:
        _LOG.log(level, "harmonic solver: CuPy is not installed, solving on the CPU")
        return None
    except (RuntimeError, MemoryError) as error:  # CUDA's own errors derive from RuntimeError
        _LOG.log(level, "harmonic solver: CuPy failed (%s), solving on the CPU", error)
        return None
    residual = _residual(matrix, host, rhs)
    if not done:
        _LOG.warning(
            "harmonic solver: CuPy did not converge in %d iterations (residual %.2e), solving on "
            "the CPU",
            steps,
            residual,
        )
    return Solution(host, steps, residual, done, "jacobi-cg-cuda", 0.0)


def _residual(matrix: sparse.csr_matrix, values: Vector, rhs: Vector) -> float:
    norm = float(np.linalg.norm(rhs))
    return float(np.linalg.norm(rhs - matrix @ values)) / norm if norm else 0.0
