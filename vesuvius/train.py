"""Training: `python -m vesuvius.train [group=option] [key=value]`, in a checkout `train.py`."""

import hydra
from omegaconf import DictConfig

from vesuvius.runtime.config_folder import config_folder


@hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="train")
def main(cfg: DictConfig) -> float | None:
    """Train as configured; return the sweep's objective."""
    from vesuvius.runtime.train import train
    from vesuvius.runtime.user_errors import user_errors

    with user_errors():
        return train(cfg)


if __name__ == "__main__":
    main()
