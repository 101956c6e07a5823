"""Inference entry point: `python infer.py run_dir=<run> volume=<file or folder>`."""

import hydra
from omegaconf import DictConfig


@hydra.main(version_base="1.3", config_path="conf", config_name="infer")
def main(cfg: DictConfig) -> float | None:
    """Predict, post-process and score as configured."""
    from vesuvius.runtime.infer import infer
    from vesuvius.runtime.user_errors import user_errors

    with user_errors():
        return infer(cfg)


if __name__ == "__main__":
    main()
