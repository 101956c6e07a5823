"""Refuses settings of infer.py that would fail late, or silently do something else."""

from collections.abc import Sequence

from omegaconf import DictConfig, ListConfig

from vesuvius.errors import ConfigError


def check_settings(cfg: DictConfig) -> None:
    """Check numbers that no constructor sees before the first volume is opened.

    Raises:
        ConfigError: names the key, what came, what was expected.
    """
    _number(cfg, "threshold", low=0, high=1)
    _number(cfg, "block_memory_gb", low=0, open_low=True)
    _number(cfg, "air_max", low=0, optional=True)
    _number(cfg, "max_volumes", low=1, whole=True, optional=True)
    _number(cfg, "level", low=0, whole=True)
    _sequence(cfg, "roi_zyx", "three whole numbers, e.g. [128,128,128]")
    _sequence(cfg, "region_zyx", "[[z0,z1],[y0,y1],[x0,x1]]")
    if cfg.region_zyx is not None and not all(_is_list(pair) for pair in cfg.region_zyx):
        raise ConfigError(
            f"region_zyx={cfg.region_zyx}; expected [[z0,z1],[y0,y1],[x0,x1]] in whole voxels"
        )


def _number(
    cfg: DictConfig, key: str, *, low: float, high: float = float("inf"), whole: bool = False,
    optional: bool = False, open_low: bool = False,
) -> None:  # fmt: skip
    value = cfg[key]
    if value is None and optional:
        return
    right_type = type(value) is int or (type(value) is float and not whole)
    if right_type and low <= value <= high and not (open_low and value == low):
        return
    kind = "a whole number" if whole else "a number"
    bound = f"above {low}" if open_low else f"of at least {low}"
    most = f" and at most {high}" if high < float("inf") else ""
    raise ConfigError(
        f"{key}={value}; expected {kind} {bound}{most}{', or null' if optional else ''}"
    )


def _sequence(cfg: DictConfig, key: str, expected: str) -> None:
    if cfg[key] is not None and not _is_list(cfg[key]):
        raise ConfigError(f"{key}={cfg[key]}; expected {expected}, or null")


def _is_list(value: object) -> bool:
    return isinstance(value, (ListConfig, Sequence)) and not isinstance(value, str)
