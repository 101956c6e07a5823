"""What a URL is, and how long reading from it may take; the reading itself: remote_store.py."""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from vesuvius.errors import ConfigError

REMOTE_SCHEMES = ("http", "https", "s3", "s3a", "gs", "az", "abfs", "abfss")
"""URL schemes read over the network."""


@dataclass(frozen=True, slots=True)
class RemoteSettings:
    """How long a remote read may take.

    Attributes:
        timeout_s: of one request, connecting and body together.
        attempts: requests for one chunk before it counts as failed.
        wait_s: pause before the second attempt; doubled for each one after it.
    """

    timeout_s: float = 60.0
    attempts: int = 5
    wait_s: float = 0.5

    def __post_init__(self) -> None:
        if self.timeout_s <= 0 or self.attempts < 1 or self.wait_s < 0:
            raise ConfigError(
                f"remote reads need timeout_s above 0, attempts of at least 1 and wait_s of at "
                f"least 0, got {self} (remote.timeout_s, remote.attempts, remote.wait_s)"
            )


def is_remote(source: str | Path) -> bool:
    """Tell whether a string is the URL of something read over the network."""
    if not isinstance(source, str):
        return False
    found = re.match(r"([a-z][a-z0-9+.-]*)://", source, flags=re.IGNORECASE)
    return found is not None and found[1].lower() in REMOTE_SCHEMES


def as_source(source: str | Path) -> str | Path:
    """Return a remote URL as a string without trailing slash, anything local as a path.

    Raises:
        ConfigError: a URL of an unknown scheme.
    """
    if is_remote(source):
        return str(source).rstrip("/")
    scheme = re.match(r"([a-z][a-z0-9+.-]+)://", str(source), flags=re.IGNORECASE)
    if scheme is None:
        return Path(source)
    if scheme[1].lower() == "file":
        return Path(unquote(urlsplit(str(source)).path))
    raise ConfigError(
        f"{source}: unknown scheme {scheme[1]!r}; expected file or one of "
        f"{', '.join(REMOTE_SCHEMES)}"
    )
