"""Steps of a chain from their configuration, where a search makes thousands of them."""

from collections.abc import Mapping
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from vesuvius.errors import ConfigError, VesuviusError
from vesuvius.postprocess.steps.state import Step


def build_step(node: Mapping[str, Any]) -> Step:
    """Return the step of a mapping with `_target_` and arguments.

    Raises:
        ConfigError: no such class, an unknown argument, or one out of range.
    """
    try:
        step: Step = instantiate(dict(node), _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        reason = cause if isinstance(cause, VesuviusError) else error
        raise ConfigError(str(reason).strip()) from error
    return step
