"""Objects in a bucket of MinIO, AWS or any other S3 service with conditional writes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NoReturn
from urllib.parse import urlsplit

from obstore.exceptions import AlreadyExistsError, NotSupportedError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store as ObstoreS3

from terroir.store.errors import AlreadyExists, NotFound, StoreUnavailable
from terroir.store.obstore_driver import ObstoreDriver, Verb

if TYPE_CHECKING:  # exists in the stubs alone
    from obstore.store import S3Config

_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_CONNECT_SECONDS: Final = 2.0
_BACKOFF_SECONDS: Final = 1.0
_LARGE_BODY_BYTES: Final = 1024 * 1024


@dataclass(frozen=True)
class S3Location:
    """Where a bucket is and how it is reached."""

    bucket: str
    prefix: str = ""
    """Before every key, without slashes at its ends; several Terroirs may share a bucket."""
    endpoint: str = ""
    """`http://host:port` or `https://host`; empty: AWS."""
    region: str = "us-east-1"
    access_key_id: str = field(default="", repr=False)
    """Empty: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the machine's own role."""
    secret_access_key: str = field(default="", repr=False)
    timeout_seconds: float = 30.0
    """Of one request with its body; a blob is one request."""
    retry_seconds: float = 3.0
    """How long a failed request is repeated before the store counts as unreachable."""
    silence_seconds: float = 5.0
    """How long the service may send nothing; while it receives a large body it may be silent for all of the timeout."""

    def __str__(self) -> str:
        return f"s3://{self.bucket}{f'/{self.prefix}' if self.prefix else ''}" + (
            f" at {self.endpoint}" if self.endpoint else ""
        )

    @property
    def bound_seconds(self) -> float:
        """What a request takes at the longest when the service is gone, hangs or fails, repeats included.

        One that writes more than a megabyte may take `timeout_seconds` instead of the silence.
        """
        return self.retry_seconds + _BACKOFF_SECONDS + max(self.silence_seconds, _CONNECT_SECONDS)

    @property
    def is_loopback(self) -> bool:
        """Whether its traffic never leaves this machine."""
        return urlsplit(self.endpoint).hostname in ("127.0.0.1", "localhost", "::1")


class S3Store(ObstoreDriver):
    """A store in a bucket. Opening it makes no request; `ensure_bucket` and `probe` do.

    Conditional creates go out as `If-None-Match: *`; 409 and 412 both mean that the object exists. obstore repeats
    failed requests, creates too: a create whose first answer was lost then meets its own object and says AlreadyExists,
    which the writers of blobs and documents expect.
    """

    def __init__(self, location: S3Location) -> None:
        """Raises ValueError for a bucket name that S3 does not allow."""
        if not _BUCKET.fullmatch(location.bucket):
            raise ValueError(f"bucket {location.bucket!r} (use 3 to 63 of a-z 0-9 . -)")
        self.location = location
        self._requests = open_backend(location, location.silence_seconds)
        # The HTTP client counts silence from the begin of a request, so a long upload would look like a hanging server.
        self._uploads = open_backend(location, location.timeout_seconds)
        super().__init__(self._requests, str(location))

    def _backend_for(self, body_bytes: int) -> ObstoreS3:
        return self._uploads if body_bytes > _LARGE_BODY_BYTES else self._requests

    def _raise_store_error(self, error: Exception, key: str, verb: Verb) -> NoReturn:
        if verb == "write" and isinstance(error, AlreadyExistsError):
            message = f"{key} already exists in {self._place} (read it, or write under another key)"
            raise AlreadyExists(message, key) from error
        text = str(error)
        if "<Code>NoSuchBucket<" in text:
            raise StoreUnavailable(
                f"{self._place}: the bucket {self.location.bucket} does not exist (create it, or correct the name)",
                key,
                "STORE_BUCKET_MISSING",
            ) from error
        if verb in ("read", "delete") and isinstance(error, FileNotFoundError):
            raise NotFound(f"{key} is not in {self._place} (check the name)", key) from error
        # obstore names it for single objects, not for lists. No key holds a space, so the text is the service's own.
        if isinstance(error, PermissionDeniedError | UnauthenticatedError) or "status code: 403" in text:
            raise StoreUnavailable(
                f"can't {verb} {key or 'objects'} in {self._place}: access denied "
                "(check the access key, its secret, and that its policy allows get, put, delete and list)",
                key,
                "STORE_PERMISSION_DENIED",
            ) from error
        if isinstance(error, NotSupportedError) or "<Code>NotImplemented<" in text:
            raise StoreUnavailable(
                f"can't {verb} {key} in {self._place}: the service does not support it "
                "(use one with conditional writes, such as a current MinIO)",
                key,
                "STORE_NOT_CONDITIONAL",
            ) from error
        raise StoreUnavailable(
            f"can't {verb} {key or 'objects'} in {self._place}: {_short(text)} (try again; if it lasts, check that the "
            "service runs and can be reached from here)",
            key,
            "STORE_UNREACHABLE",
        ) from error


def open_backend(location: S3Location, silence_seconds: float, *, prefixed: bool = True) -> ObstoreS3:
    """Obstore's client of a bucket; keys begin below the location's prefix unless `prefixed` is false."""
    config: S3Config = {"region": location.region, "virtual_hosted_style_request": False}
    if location.endpoint:
        config["endpoint"] = location.endpoint
    if location.access_key_id:
        config |= {
            "access_key_id": location.access_key_id,
            "secret_access_key": location.secret_access_key,
        }
    return ObstoreS3(
        location.bucket,
        prefix=(location.prefix or None) if prefixed else None,
        config=config,
        client_options={
            "allow_http": location.endpoint.startswith("http://"),
            "timeout": timedelta(seconds=location.timeout_seconds),
            "read_timeout": timedelta(seconds=min(silence_seconds, location.timeout_seconds)),
            "connect_timeout": timedelta(seconds=min(_CONNECT_SECONDS, location.timeout_seconds)),
        },
        retry_config={
            "max_retries": 10,
            "retry_timeout": timedelta(seconds=location.retry_seconds),
            "backoff": {
                "init_backoff": timedelta(milliseconds=50),
                "max_backoff": timedelta(seconds=_BACKOFF_SECONDS),
                "base": 2,
            },
        },
    )


def _short(text: str) -> str:
    """The root of an HTTP error, without addresses of single objects and without obstore's debugging output."""
    first = text.split("\n\nDebug source:")[0].replace("\n", " ")
    return first if len(first) <= 200 else f"{first[:120]} … {first[-70:]}"
