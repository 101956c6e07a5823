"""Where the configuration groups lie: in the checkout, or inside the installed package."""

from pathlib import Path

import vesuvius
from vesuvius.errors import ConfigError


def config_folder() -> Path:
    """Return the folder with `train.yaml` and the groups.

    A wheel carries it as `vesuvius/conf`; in a checkout it stands beside the package.

    Raises:
        ConfigError: neither is there.
    """
    package = Path(vesuvius.__file__).parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "train.yaml").is_file():
            return folder
    raise ConfigError(
        f"The configuration groups are missing: no conf/train.yaml in {package} or beside it. "
        "Install the package again, or run train.py with --config-dir=<your conf folder>."
    )
