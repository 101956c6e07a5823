"""Errors a user can act on: what is wrong, what came, what was expected, what to do.

Every class also derives from the built-in exception that fits, so callers may catch either.
The command line prints the message alone (no traceback) and exits with status 2.
"""


class VesuviusError(Exception):
    """Base of all errors that are the user's to solve."""


class VolumeNotFoundError(VesuviusError, FileNotFoundError):
    """A path holds no volume, or a folder holds none."""


class VolumeFormatError(VesuviusError, ValueError):
    """A file is not a readable 3-D volume: truncated, 2-D, 4-D, wrong dtype, NaN, out of range."""


class PairingError(VesuviusError, ValueError):
    """Images and labels (or predictions and labels) do not pair up by name."""


class ShapeMismatchError(VesuviusError, ValueError):
    """Two arrays that must agree in shape do not."""


class LabelValueError(VesuviusError, ValueError):
    """A label volume holds values outside {0, 1, 2} or is implausible as a surface label."""


class CaseFormatError(VesuviusError, ValueError):
    """A prepared case (npz) cannot be read, or its arrays contradict each other."""


class ConfigError(VesuviusError, ValueError):
    """An argument or config key is out of range or contradicts another."""


class RunFileError(VesuviusError, FileNotFoundError):
    """A file of a training run (metrics, history) is missing or holds nothing to show."""


class CheckpointError(VesuviusError, RuntimeError):
    """A checkpoint cannot be read or belongs to another network."""


class ExportError(VesuviusError, RuntimeError):
    """An exported file does not give the network's outputs."""


class NonFiniteLossError(VesuviusError, ArithmeticError):
    """Too many training steps in a row had a NaN or infinite loss."""


class RemoteReadError(VesuviusError, OSError):
    """A remote volume could not be read: refused, unreachable, or failing after every retry."""


class OutOfMemoryError(VesuviusError, MemoryError):
    """The device or the machine has too little memory for what was asked."""


class SolverError(VesuviusError, RuntimeError):
    """A post-processing solver got input it cannot use."""


class DeviceError(VesuviusError, RuntimeError):
    """The device asked for is not there."""


class StorageError(VesuviusError, OSError):
    """Writing failed: disk full, no permission. Nothing half-written is left behind."""
