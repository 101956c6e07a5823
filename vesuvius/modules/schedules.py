"""Learning-rate schedules over optimizer steps."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from vesuvius.errors import ConfigError


def cosine(
    optimizer: Optimizer, *, num_steps: int, final_share: float = 0.01, warmup_share: float = 0.0
) -> LambdaLR:
    """Return linear warm-up, then half a cosine from lr down to `final_share` * lr.

    Args:
        optimizer: its `lr` is the peak.
        num_steps: optimizer steps of the whole run.
        final_share: last learning rate relative to the peak, in [0, 1].
        warmup_share: share of the steps spent warming up, in [0, 1).

    Source: Loshchilov and Hutter 2017 (SGDR) without restarts.

    Raises:
        ConfigError: a share out of range.
    """
    if not 0 <= final_share <= 1 or not 0 <= warmup_share < 1:
        raise ConfigError(
            f"scheduler.final_share={final_share} must lie in [0, 1], "
            f"scheduler.warmup_share={warmup_share} in [0, 1)."
        )
    warmup_steps = int(warmup_share * num_steps)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        progress = min(1.0, (step - warmup_steps) / max(1, num_steps - warmup_steps))
        return final_share + (1 - final_share) * 0.5 * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, factor)


def poly(optimizer: Optimizer, *, num_steps: int, exponent: float = 0.9) -> LambdaLR:
    """Return lr * (1 - step / num_steps)^exponent, nnU-Net's schedule (Isensee et al. 2021)."""
    if exponent <= 0:
        raise ConfigError(f"scheduler.exponent={exponent}; expected > 0.")
    return LambdaLR(optimizer, lambda step: max(0.0, 1 - step / max(1, num_steps)) ** exponent)
