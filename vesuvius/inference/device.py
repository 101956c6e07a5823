"""Choice of the device."""

import torch

from vesuvius.errors import DeviceError


def select_device(device: str | torch.device) -> torch.device:
    """Return the device; "auto" takes CUDA where there is one, else the CPU.

    Raises:
        DeviceError: the name is unknown, or that device is not in this machine.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise DeviceError(f"device {device!r} is unknown; use 'auto', 'cpu' or 'cuda'") from error
    if chosen.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (chosen.index or 0) >= count:
            msg = (
                f"device {str(device)!r} was asked for, but this machine has {count} usable CUDA "
                "devices; use device=cpu or device=auto"
            )
            raise DeviceError(msg)
    return chosen
