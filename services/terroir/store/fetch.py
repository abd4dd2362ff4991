"""Copy a folder of a bucket to a local one: how a pod gets model weights before its service starts.

    python -m terroir.store.fetch s3://models/sd15 /models/sd15

Keys come by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or the machine's role. Files that are there whole are kept, so
that a restarted pod copies nothing twice.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from terroir.store.errors import StoreError, StoreUnavailable
from terroir.store.interface import ObjectStore
from terroir.store.s3 import S3Location, S3Store

_PART_BYTES: Final = 64 * 1024 * 1024
_REGION: Final = "us-east-1"


def fetch(store: ObjectStore, folder: Path, say: Callable[[str], object]) -> int:
    """Copy every object of a store into a folder; returns the bytes copied. Raises StoreError and OSError.

    A file appears under its name only when it is whole.
    """
    copied = 0
    keys = list(store.list(""))
    for number, key in enumerate(keys, 1):
        target, size = folder / key, store.size(key)
        if target.is_file() and target.stat().st_size == size:
            say(f"{number}/{len(keys)} {key}: there")
            continue
        say(f"{number}/{len(keys)} {key}: {size / 1e6:.1f} MB")
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.partial")
        with partial.open("wb") as out:
            for start in range(0, size, _PART_BYTES):
                out.write(store.get_range(key, start, min(_PART_BYTES, size - start)))
            out.flush()
            os.fsync(out.fileno())
        partial.replace(target)
        copied += size
    return copied


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; status 1 with one line when it fails."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("source", help="s3://bucket/prefix")
    parser.add_argument("folder", type=Path, help="where the files go")
    parser.add_argument("--endpoint", default="", help="https://host:port of the S3 service; AWS without")
    parser.add_argument("--region", default=os.environ.get("AWS_REGION", _REGION), help="region of the bucket")
    parser.add_argument("--insecure-http", action="store_true", help="allow an endpoint without TLS")
    options = parser.parse_args(argv)
    place = urlsplit(options.source)
    if place.scheme != "s3" or not place.netloc:
        parser.error(f"{options.source!r} is no place in a bucket: write s3://bucket/prefix")
    if options.endpoint.startswith("http://") and not options.insecure_http:
        parser.error(f"{options.endpoint} has no TLS: use https, or --insecure-http on a network that you trust")
    location = S3Location(place.netloc, place.path.strip("/"), options.endpoint, options.region)
    try:
        store = S3Store(location)
        copied = fetch(store, options.folder, lambda line: sys.stderr.write(f"{line}\n"))
        if not options.folder.is_dir() or not any(options.folder.iterdir()):
            raise StoreUnavailable(f"{options.source} holds nothing; compare bucket and prefix", "", "SOURCE_EMPTY")
    except (StoreError, OSError) as error:
        reason = getattr(error, "reason", type(error).__name__)
        sys.stderr.write(f"terroir fetch: [{reason}] {error}\n")
        return 1
    sys.stderr.write(f"{copied / 1e6:.1f} MB copied to {options.folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
