"""From settings to a store: a local folder, or a bucket."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final, Protocol

from pydantic import SecretStr

from terroir.store.errors import InvalidKey, StoreUnavailable
from terroir.store.interface import ObjectStore, ensure_prefix
from terroir.store.local import LocalStore
from terroir.store.probe import ensure_conditional
from terroir.store.s3 import S3Location, S3Store

_REGION: Final = "us-east-1"
_URL: Final = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?")


class StoreSettings(Protocol):
    """What a service's settings say about its store; declared and described in `ServiceSettings`."""

    @property
    def data_dir(self) -> Path:
        """Local folder."""
        ...

    @property
    def store(self) -> str:
        """`s3://bucket/prefix`, or empty for the folder."""
        ...

    @property
    def store_endpoint(self) -> str:
        """Address of the service."""
        ...

    @property
    def store_region(self) -> str:
        """Region of the bucket."""
        ...

    @property
    def store_access_key_id(self) -> SecretStr:
        """Access key."""
        ...

    @property
    def store_secret_access_key(self) -> SecretStr:
        """Its secret."""
        ...

    @property
    def store_timeout_seconds(self) -> float:
        """Of one request."""
        ...

    @property
    def store_retry_seconds(self) -> float:
        """Of repeats."""
        ...

    @property
    def store_silence_seconds(self) -> float:
        """Without an answer."""
        ...

    @property
    def store_insecure_http(self) -> bool:
        """Allow plain http."""
        ...

    @property
    def store_create_bucket(self) -> bool:
        """Create a missing bucket."""
        ...


def location_of(settings: StoreSettings) -> Path | S3Location:
    """The folder or bucket that settings name; raises StoreUnavailable (STORE_URL_INVALID, STORE_INSECURE_HTTP)."""
    if not settings.store:
        return settings.data_dir.expanduser()
    named = _URL.fullmatch(settings.store)
    if named is None:
        raise _refused(
            f"store {settings.store!r} is no place (write s3://bucket or s3://bucket/prefix, or leave it empty for the "
            "folder data_dir)"
        )
    try:
        prefix = ensure_prefix((named[2] or "").strip("/"))
    except InvalidKey as error:
        raise _refused(f"the prefix in store {settings.store!r} is wrong: {error}") from error
    if settings.store_endpoint and not re.fullmatch(r"https?://[^/\s]+", settings.store_endpoint.rstrip("/")):
        raise _refused(f"store_endpoint {settings.store_endpoint!r} is no address (write https://host:port)")
    location = S3Location(
        bucket=named[1],
        prefix=prefix,
        endpoint=settings.store_endpoint.rstrip("/"),
        region=settings.store_region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or _REGION,
        access_key_id=settings.store_access_key_id.get_secret_value(),
        secret_access_key=settings.store_secret_access_key.get_secret_value(),
        timeout_seconds=settings.store_timeout_seconds,
        retry_seconds=settings.store_retry_seconds,
        silence_seconds=settings.store_silence_seconds,
    )
    if location.endpoint.startswith("http://") and not location.is_loopback and not settings.store_insecure_http:
        raise StoreUnavailable(
            f"{location} would send keys and objects unencrypted (use https, or set store_insecure_http on a network "
            "that you trust)",
            "",
            "STORE_INSECURE_HTTP",
        )
    return location


def open_store(location: Path | S3Location) -> ObjectStore:
    """A store as it is, for those who only read or whose writes others have vouched for."""
    return S3Store(location) if isinstance(location, S3Location) else LocalStore(location)


def open_for_writing(settings: StoreSettings) -> ObjectStore:
    """The store of a service that writes, proved to be writable and to keep conditional creates; makes the bucket.

    Raises StoreUnavailable: STORE_URL_INVALID, STORE_INSECURE_HTTP, STORE_READ_ONLY, STORE_BUCKET_MISSING,
    STORE_PERMISSION_DENIED, STORE_UNREACHABLE, STORE_NOT_CONDITIONAL.
    """
    location = location_of(settings)
    if isinstance(location, S3Location):
        # Loaded here alone: minio-py and what it needs take a quarter of a second that a local folder need not wait.
        from terroir.store.bucket import ensure_bucket

        if settings.store_create_bucket:
            ensure_bucket(location)
    store = open_store(location)
    if isinstance(store, LocalStore):
        store.ensure_writable()
    else:
        ensure_conditional(store, str(location))
    return store


def _refused(message: str) -> StoreUnavailable:
    return StoreUnavailable(message, "", "STORE_URL_INVALID")
