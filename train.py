"""Training entry point: `python train.py [group=option] [key=value]`; `--help` shows the config."""

import hydra
from omegaconf import DictConfig


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> float | None:
    """Train as configured; return the sweep's objective."""
    from vesuvius.runtime.train import train
    from vesuvius.runtime.user_errors import user_errors

    with user_errors():
        return train(cfg)


if __name__ == "__main__":
    main()
