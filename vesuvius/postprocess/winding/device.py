"""Which device the solver runs on."""

import functools
import importlib
import logging
from typing import Any

from vesuvius.errors import ConfigError, DeviceError
from vesuvius.postprocess.winding.backend import ArrayBackend, Backend, CompiledBackend

log = logging.getLogger(__name__)


@functools.cache
def _say_once(reason: str) -> None:
    log.info("winding solver on the CPU: %s", reason)


@functools.cache
def _find_cupy() -> tuple[Any, str]:
    """Return the module cupy and "", or None and why it cannot be used."""
    try:
        cupy = importlib.import_module("cupy")
    except ImportError:
        return None, "CuPy is not installed (pip install 'vesuvius[cuda12]')"
    return (cupy, "") if cupy.cuda.is_available() else (None, "CuPy finds no CUDA device")


def resolve_device(device: str) -> str:
    """Return "cpu" or "cuda"; "auto" means CUDA where CuPy finds a device.

    Raises:
        ConfigError: none of auto, cpu, cuda.
        DeviceError: "cuda" is asked for, but there is no CuPy or no device.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device is {device!r}; expected 'auto', 'cpu' or 'cuda'")
    if device == "cpu":
        return "cpu"
    cupy, reason = _find_cupy()
    if cupy is not None:
        return "cuda"
    if device == "cuda":
        raise DeviceError(f"device is 'cuda', but {reason}; use device 'cpu' or 'auto'")
    _say_once(reason)
    return "cpu"


def make_backend(device: str, threads: int) -> Backend:
    """Return the heavy stages for a device of `resolve_device`."""
    if resolve_device(device) == "cuda":
        return ArrayBackend(_find_cupy()[0])
    return CompiledBackend(threads)
