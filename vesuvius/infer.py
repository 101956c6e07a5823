"""Inference: `python -m vesuvius.infer run_dir=<run> volume=<file or folder>`, or `infer.py`."""

import hydra
from omegaconf import DictConfig

from vesuvius.runtime.config_folder import config_folder


@hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="infer")
def main(cfg: DictConfig) -> float | None:
    """Predict, post-process and score as configured."""
    from vesuvius.runtime.infer import infer
    from vesuvius.runtime.user_errors import user_errors

    with user_errors():
        return infer(cfg)


if __name__ == "__main__":
    main()
