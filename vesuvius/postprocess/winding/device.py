"""Which device the solver runs on."""

import functools
import logging

from vesuvius.errors import ConfigError, DeviceError

log = logging.getLogger(__name__)


@functools.cache
def cuda_problem() -> str | None:
    """Return why CuPy cannot be used here, or None if it can."""
    try:
        import cupy  # an optional dependency
    except ImportError:
        return "CuPy is not installed (pip install 'vesuvius[cuda12]')"
    return None if cupy.cuda.is_available() else "CuPy finds no CUDA device"


@functools.cache
def _say_once(reason: str) -> None:
    log.info("winding solver on the CPU: %s", reason)


def resolve_device(device: str) -> str:
    """Return "cpu" or "cuda".

    Raises:
        ConfigError: none of auto, cpu, cuda.
        DeviceError: "cuda" is asked for and not there.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device is {device!r}; expected 'auto', 'cpu' or 'cuda'")
    if device == "cpu":
        return "cpu"
    problem = cuda_problem()
    if problem is None:
        return "cuda"
    if device == "cuda":
        raise DeviceError(f"device is 'cuda' but {problem}; use device='cpu' or 'auto'")
    _say_once(problem)
    return "cpu"
