"""Files that others put into a bucket. Their names follow no rule of ours, so they are no `ObjectStore`: read only."""

from __future__ import annotations

import obstore
from obstore.exceptions import BaseError

from terroir.store.errors import NotFound, StoreUnavailable
from terroir.store.s3 import S3Location, open_backend

MAX_FILE_BYTES = 64 * 1024 * 1024
"""Of one file; pictures are smaller."""


class ForeignBucket:
    """The files that lie directly below the prefix of a location; folders in it are left out."""

    def __init__(self, location: S3Location) -> None:
        self._place = str(location)
        # Its prefix is no key of ours either, so it is asked for and not handed to the driver.
        self._prefix = f"{location.prefix}/" if location.prefix else ""
        self._backend = open_backend(location, location.timeout_seconds, prefixed=False)

    def names(self) -> list[str]:
        """Names of the files, sorted; raises StoreUnavailable."""
        try:
            listed = obstore.list_with_delimiter(self._backend, self._prefix or None)
        except (BaseError, OSError) as error:
            raise self._unavailable("list", self._prefix, error) from error
        names = (meta["path"].rpartition("/")[2] for meta in listed["objects"])
        return sorted(name for name in names if name and name not in (".", "..") and "\0" not in name)

    def read(self, name: str) -> bytes:
        """One file; raises NotFound, and StoreUnavailable (FOREIGN_FILE_TOO_LARGE too)."""
        key = f"{self._prefix}{name}"
        try:
            found = self._backend.get(key)
            if found.meta["size"] > MAX_FILE_BYTES:
                raise StoreUnavailable(
                    f"{key} in {self._place} has {found.meta['size']} bytes, more than {MAX_FILE_BYTES} (take it out)",
                    key,
                    "FOREIGN_FILE_TOO_LARGE",
                )
            return found.bytes().to_bytes()
        except FileNotFoundError as error:
            raise NotFound(f"{key} is not in {self._place} any more", key) from error
        except (BaseError, OSError) as error:
            raise self._unavailable("read", key, error) from error

    def _unavailable(self, verb: str, key: str, error: Exception) -> StoreUnavailable:
        text = str(error).partition("\n")[0]
        refused = "403" in text or "NoSuchBucket" in str(error)
        return StoreUnavailable(
            f"can't {verb} {key or 'files'} in {self._place}: {text[:200]} (check that the bucket exists and that the "
            "service's keys may list and read it)",
            key,
            "STORE_PERMISSION_DENIED" if refused else "STORE_UNREACHABLE",
        )
