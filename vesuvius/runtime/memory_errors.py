"""Turns "out of memory" into which sizes were too large and which keys lower them."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from omegaconf import DictConfig, OmegaConf

from vesuvius.errors import OutOfMemoryError

_SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether a GPU's or the machine's memory was too small."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def training_memory(cfg: DictConfig) -> AbstractContextManager[None]:
    """Name crop, batch and the keys to lower when a training runs out of memory.

    Raises:
        OutOfMemoryError: instead of torch's error.
    """
    return _told(lambda error: _training_message(cfg, error))


def inference_memory(roi_zyx: list[int], batch_size: int) -> AbstractContextManager[None]:
    """Name window and batch when an inference runs out of memory.

    Raises:
        OutOfMemoryError: instead of torch's error.
    """
    first = "batch_size=1" if batch_size > 1 else f"roi_zyx={_smaller(roi_zyx)}"
    return _told(
        lambda error: (
            f"out of memory with windows roi_zyx={roi_zyx}, batch_size={batch_size}: "
            f"{_first_line(error)}. Try {first}; precision=bf16 halves the activations."
        )
    )


@contextmanager
def _told(message: Callable[[BaseException], str]) -> Iterator[None]:
    """Raise OutOfMemoryError with the message for the error of a memory that was too small."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(message(error)) from error


def _training_message(cfg: DictConfig, error: BaseException) -> str:
    patch = OmegaConf.select(cfg, "data.patch_zyx")
    batch = OmegaConf.select(cfg, "data.batch_size")
    told = [f"data.patch_zyx={list(patch)}"] if patch is not None else []
    told += [f"data.batch_size={batch}"] if batch is not None else []
    told += [f"trainer.precision={cfg.trainer.precision}"]
    advice = []
    if batch is not None and batch > 1:
        steps = cfg.trainer.accumulate_grad_batches
        advice.append(
            f"data.batch_size={batch // 2} with trainer.accumulate_grad_batches={2 * steps} (the "
            "same step in half the memory)"
        )
    if patch is not None and max(patch) > 32:
        advice.append(f"data.patch_zyx={_smaller(list(patch))}")
    if str(cfg.trainer.precision).startswith("32"):
        advice.append("trainer.precision=bf16-mixed")
    advice.append("a smaller model (e.g. model.n_filters)")
    return (
        f"out of memory in training with {', '.join(told)}: {_first_line(error)}. Lower the first "
        f"of these that you can: {'; '.join(advice)}."
    )


def _smaller(sizes: list[int]) -> list[int]:
    """Return three quarters of the sizes, in multiples of 16."""
    return [max(16, size * 3 // 4 // 16 * 16) if size > 16 else size for size in sizes]


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")[:200]
