"""Zarr stores by URL: http(s), S3, Google and Azure through obstore, with bounded retries.

A chunk that the server says is not there (404) is a chunk that was never written: Zarr gives it the
fill value. Every other failure is tried again and then raised with the URL of the chunk; nothing
that failed turns into zeros.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from typing import Any, TypeVar

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import ObjectStore, WrapperStore

from vesuvius.data.disk_cache import ABSENT, Absent, DiskCache
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
_METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")
_T = TypeVar("_T")


def remote_store(url: str, settings: RemoteSettings) -> "RetryingStore":
    """Return the read-only Zarr store at a URL.

    S3 reads its key, region and endpoint from the AWS_* variables of the environment; without any
    credentials there requests are unsigned, as public buckets want them.

    Raises:
        ConfigError: obstore is not installed, or the URL makes no sense to it.
    """
    return RetryingStore(ObjectStore(_open(url, settings), read_only=True), url, settings)


def list_objects(url: str, settings: RemoteSettings | None = None) -> dict[str, str] | None:
    """Return what lies below the URL of a bucket: relative names with size and version.

    Returns:
        None if listing is refused.

    Raises:
        RemoteReadError: it failed after every retry.
        ConfigError: see `remote_store`.
    """
    settings = settings or RemoteSettings()
    opened = _open(url, settings)
    for attempt in range(1, settings.attempts + 1):
        try:
            return {
                str(entry["path"]): f"{entry['size']} {entry['e_tag'] or entry['last_modified']}"
                for entries in opened.list()
                for entry in entries
            }
        except Exception as error:  # obstore's classes share no useful base
            if type(error).__name__ in _REFUSED:
                return None
            if attempt == settings.attempts:
                raise RemoteReadError(
                    f"{url}: cannot be listed after {attempt} attempts ({_first_line(error)}); "
                    "run the same command again to go on, or raise remote.attempts"
                ) from error
        time.sleep(settings.wait_s * 2 ** (attempt - 1))
    raise AssertionError("unreachable: the last attempt returns or raises")


def _open(url: str, settings: RemoteSettings) -> Any:
    """Return obstore's store at a URL."""
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
        return obstore.store.from_url(
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


class _PlacedStore(WrapperStore[Store]):
    """What the stores below share: the URL they are called by, and ranges read through `get`.

    Args:
        store: what is read.
        url: of the store's root.
    """

    def __init__(self, store: Store, url: str) -> None:
        super().__init__(store)
        self.url = url

    def __str__(self) -> str:
        return self.url

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        """Return the bytes of several ranges in their order."""
        wanted = [self.get(key, prototype, part) for key, part in key_ranges]
        return list(await asyncio.gather(*wanted))


class RetryingStore(_PlacedStore):
    """Any Zarr store whose failing reads are repeated, then raised with the URL that failed.

    Args:
        store: what is read; returns None for a key that is not there, raises for anything else.
        url: of the store's root, for messages.
        settings: attempts and pauses.
    """

    def __init__(self, store: Store, url: str, settings: RemoteSettings) -> None:
        super().__init__(store, url)
        self.settings = settings

    def _with_store(self, store: Store) -> "RetryingStore":
        return RetryingStore(store, self.url, self.settings)

    async def get(
        self,
        key: str,
        prototype: BufferPrototype,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Return the bytes of a key, None if the server says there are none."""
        return await self._tried(key, lambda: self._store.get(key, prototype, byte_range))

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


class CachedStore(_PlacedStore):
    """A store whose chunks are looked up in a `DiskCache` first; metadata is always asked for.

    Only what the server answered goes in: bytes, or that there is no such chunk. An error of the
    store passes through and is not kept.

    Args:
        store: what is read.
        url: of the store's root: names its chunks in the cache.
        cache: where they are kept.
    """

    def __init__(self, store: Store, url: str, cache: DiskCache) -> None:
        super().__init__(store, url)
        self.cache = cache

    def _with_store(self, store: Store) -> "CachedStore":
        return CachedStore(store, self.url, self.cache)

    async def get(
        self,
        key: str,
        prototype: BufferPrototype,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Return the bytes of a key, None if the server said that there are none."""
        if key.rpartition("/")[2] in _METADATA:
            return await self._store.get(key, prototype, byte_range)
        name = f"{self.url}/{key}" + ("" if byte_range is None else f" {byte_range}")
        known = await asyncio.to_thread(self.cache.get, name)
        if known is not None:
            return None if isinstance(known, Absent) else prototype.buffer.from_bytes(known)
        found = await self._store.get(key, prototype, byte_range)
        content = ABSENT if found is None else found.to_bytes()
        await asyncio.to_thread(self.cache.put, name, content)
        return found


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0][:300] or type(error).__name__
