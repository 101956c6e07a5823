"""Turns errors that are the user's to solve into one message and exit status 2."""

import errno
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf.errors import MissingMandatoryValue

from vesuvius.errors import VesuviusError
from vesuvius.storage.files import place_message

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
_USER_ERRORS = (VesuviusError, InstantiationException, MissingMandatoryValue)


def _user_error(error: BaseException | None) -> BaseException | None:
    """Return the error of ours behind Hydra's wrapper, or the wrapper itself, or None."""
    first = error
    while error is not None:
        if isinstance(error, VesuviusError):
            return error
        error = error.__cause__
    return first if isinstance(first, _USER_ERRORS) else None


def user_message(error: BaseException) -> str | None:
    """Return what to tell about an error that is the user's to solve; None: it is a bug."""
    found = _user_error(error)
    if found is not None:
        return without_traceback(str(found))
    if isinstance(error, MisconfigurationException):
        return _explain(str(error))
    if isinstance(error, OSError):
        if error.errno in _DISK:
            return (
                f"cannot write {error.filename or 'to the run folder'}: {error.strerror}. Free "
                "space or choose another paths.log_dir; what was finished is kept, and "
                "ckpt_path=auto goes on from the last whole checkpoint."
            )
        return place_message(error)
    return None


@contextmanager
def user_errors() -> Iterator[None]:
    """Print a user's error without a traceback and exit with 2; let everything else through.

    In a multirun the error is raised: the sweeper counts the failed job and may go on.
    """
    try:
        yield
    except Exception as error:
        message = user_message(error)
        if message is None or HydraConfig.get().mode == RunMode.MULTIRUN:
            raise
        sys.stderr.write(f"error: {message}\n")
        sys.exit(2)


def without_traceback(message: str) -> str:
    """Return what an error said before a loader process wrapped it in its traceback."""
    if re.match(r"Caught \w+ in DataLoader worker process", message) is None:
        return message
    return re.split(r"\n(?:\w+\.)*\w*Error: ", message)[-1].rstrip()


def _explain(message: str) -> str:
    """Add the cure to Lightning's message about a device that is not there."""
    if "No supported gpu backend found" in message or "accelerator can not run" in message:
        return (
            f"{message} trainer=gpu or trainer=ddp was asked for, but torch sees no GPU. Use "
            "trainer=default (CPU), or look at `vesuvius diagnose`."
        )
    return message
