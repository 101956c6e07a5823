"""Zarr stores by URL: http(s), S3, Google and Azure through obstore, with bounded retries.

A chunk that the server says is not there (404) is a chunk that was never written: Zarr gives it the
fill value. Every other failure is tried again and then raised with the URL of the chunk; nothing
that failed turns into zeros.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from typing import Any, TypeVar

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import ObjectStore, WrapperStore

from vesuvius.data.remote import RemoteSettings
from vesuvius.errors import ConfigError, RemoteReadError

_REFUSED = ("PermissionDeniedError", "UnauthenticatedError", "PermissionError")
_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
)
_T = TypeVar("_T")


def remote_store(url: str, settings: RemoteSettings) -> "RetryingStore":
    """Return the read-only Zarr store at a URL.

    S3 reads its key, region and endpoint from the AWS_* variables of the environment; without any
    credentials there requests are unsigned, as public buckets want them.

    Raises:
        ConfigError: obstore is not installed, or the URL makes no sense to it.
    """
    try:
        import obstore.exceptions
        import obstore.store
    except ImportError as error:
        raise ConfigError(
            f"{url}: remote volumes need obstore; pip install 'vesuvius[cloud]'"
        ) from error
    unsigned = url.lower().startswith("s3") and not any(os.environ.get(k) for k in _CREDENTIALS)
    options: dict[str, Any] = {"config": {"skip_signature": True}} if unsigned else {}
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    plain = url.lower().startswith("http://") or endpoint.startswith("http://")
    try:
        opened = obstore.store.from_url(
            url,
            client_options={
                "allow_http": plain,
                "timeout": timedelta(seconds=settings.timeout_s),
                "connect_timeout": timedelta(seconds=min(settings.timeout_s, 10.0)),
            },
            # One place decides about retries: RetryingStore.
            retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=settings.timeout_s)},
            **options,
        )
    except (obstore.exceptions.BaseError, ValueError) as error:
        raise ConfigError(f"{url}: not a usable URL ({_first_line(error)})") from error
    return RetryingStore(ObjectStore(opened, read_only=True), url, settings)


class RetryingStore(WrapperStore[Store]):
    """Any Zarr store whose failing reads are repeated, then raised with the URL that failed.

    Args:
        store: what is read; returns None for a key that is not there, raises for anything else.
        url: of the store's root, for messages.
        settings: attempts and pauses.
    """

    def __init__(self, store: Store, url: str, settings: RemoteSettings) -> None:
        super().__init__(store)
        self.url = url
        self.settings = settings

    def _with_store(self, store: Store) -> "RetryingStore":
        return RetryingStore(store, self.url, self.settings)

    def __str__(self) -> str:
        return self.url

    async def get(
        self,
        key: str,
        prototype: BufferPrototype,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Return the bytes of a key, None if the server says there are none."""
        return await self._tried(key, lambda: self._store.get(key, prototype, byte_range))

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        """Return the bytes of several ranges in their order."""
        wanted = [self.get(key, prototype, part) for key, part in key_ranges]
        return list(await asyncio.gather(*wanted))

    async def exists(self, key: str) -> bool:
        """Tell whether the server has the key."""
        return await self._tried(key, lambda: self._store.exists(key))

    async def _tried(self, key: str, read: Callable[[], Awaitable[_T]]) -> _T:
        settings = self.settings
        for attempt in range(1, settings.attempts + 1):
            try:
                return await read()
            except Exception as error:  # obstore's classes share no useful base
                refused = type(error).__name__ in _REFUSED
                if refused or attempt == settings.attempts:
                    raise self._failed(key, attempt, error, refused=refused) from error
            await asyncio.sleep(settings.wait_s * 2 ** (attempt - 1))
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _failed(
        self, key: str, attempts: int, error: Exception, *, refused: bool
    ) -> RemoteReadError:
        advice = (
            "the server refuses access: check the URL and the credentials (AWS_* variables)"
            if refused
            else "run the same command again to go on, or raise remote.attempts and "
            "remote.timeout_s"
        )
        return RemoteReadError(
            f"{self.url}/{key}: cannot be read after {attempts} attempt"
            f"{'' if attempts == 1 else 's'} ({_first_line(error)}); {advice}"
        )


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0][:300] or type(error).__name__
