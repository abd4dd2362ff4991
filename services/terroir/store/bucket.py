"""The bucket itself, which obstore cannot create: by minio-py, and for nothing else.

minio-py has no conditional PUT and silently overwrites when asked for one through `metadata=`; objects never go through
it.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.credentials.providers import ChainedProvider, EnvAWSProvider, IamAwsProvider, Provider, StaticProvider
from minio.error import MinioException, S3Error

from terroir.store.errors import StoreUnavailable
from terroir.store.s3 import S3Location

_EXISTS: Final = ("BucketAlreadyOwnedByYou", "BucketAlreadyExists")
_AWS: Final = "https://s3.amazonaws.com"


def ensure_bucket(location: S3Location) -> None:
    """Create the bucket if it is missing; one that is there already, or that we may not ask about, is left alone.

    Raises StoreUnavailable: STORE_UNREACHABLE, STORE_PERMISSION_DENIED (it is missing and we may not create it).
    """
    client = minio_client(location)
    try:
        if not client.bucket_exists(location.bucket):
            client.make_bucket(location.bucket, location.region)
    except S3Error as error:
        if error.code in _EXISTS or (error.code == "AccessDenied" and error.bucket_name == location.bucket):
            return  # another replica was faster; or only its objects are ours, and the first request will tell
        raise StoreUnavailable(
            f"{location}: can't create the bucket: {error.code} {error.message} (create it, or check the access key "
            "and its secret)",
            "",
            "STORE_PERMISSION_DENIED",
        ) from error
    except (MinioException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise StoreUnavailable(
            f"{location} can't be reached: {type(error).__name__} (check the endpoint and that the service runs)",
            "",
            "STORE_UNREACHABLE",
        ) from error


def minio_client(location: S3Location) -> Minio:
    """A client for what obstore lacks; bounded like the store's own requests."""
    url = urlsplit(location.endpoint or _AWS)
    credentials: Provider
    if location.access_key_id:
        credentials = StaticProvider(location.access_key_id, location.secret_access_key)
    else:
        credentials = ChainedProvider([EnvAWSProvider(), IamAwsProvider()])
    return Minio(
        url.netloc,
        secure=url.scheme == "https",
        region=location.region,
        credentials=credentials,
        http_client=urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=2.0, read=location.silence_seconds),
            retries=urllib3.Retry(total=3, backoff_factor=0.1, status_forcelist=[500, 502, 503, 504]),
        ),
    )
