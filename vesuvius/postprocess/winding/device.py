"""Which device the solver runs on."""

import functools
import logging

from vesuvius.errors import ConfigError, DeviceError

log = logging.getLogger(__name__)


@functools.cache
def _say_once(reason: str) -> None:
    log.info("winding solver on the CPU: %s", reason)


def resolve_device(device: str) -> str:
    """Return "cpu", the only device so far.

    Raises:
        ConfigError: none of auto, cpu, cuda.
        DeviceError: "cuda" is asked for.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device is {device!r}; expected 'auto', 'cpu' or 'cuda'")
    if device == "cuda":
        raise DeviceError(
            "device is 'cuda', but the winding solver has no CUDA path yet; use 'cpu' or 'auto'"
        )
    if device == "auto":
        _say_once("it has no CUDA path yet")
    return "cpu"
