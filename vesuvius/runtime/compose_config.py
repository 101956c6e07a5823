"""Configurations outside of `python train.py` and `python infer.py`."""

from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from vesuvius.errors import ConfigError
from vesuvius.runtime.config_folder import config_folder


def compose_config(name: str, overrides: Sequence[str]) -> DictConfig:
    """Return the configuration that `python <name>.py <overrides>` would run with.

    Args:
        name: "train" or "infer".
        overrides: such as `model.n_filters=8`.

    Raises:
        ConfigError: no configuration groups, or an override that does not fit.
    """
    folder = config_folder()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(folder), version_base="1.3"):
            return compose(name, overrides=list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"{' '.join(overrides)}: {error}") from error
