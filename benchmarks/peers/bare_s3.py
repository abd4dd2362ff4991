"""obstore as it comes, on a bucket."""

from __future__ import annotations

from obstore.store import S3Store

from terroir.store.s3 import S3Location


class BareS3:
    """Puts and gets without anything of ours."""

    def __init__(self, location: S3Location) -> None:
        self._store = S3Store(
            location.bucket,
            endpoint=location.endpoint,
            region=location.region,
            access_key_id=location.access_key_id,
            secret_access_key=location.secret_access_key,
            virtual_hosted_style_request=False,
            client_options={"allow_http": True},
        )

    def put(self, key: str, body: bytes) -> None:
        """Create one object."""
        self._store.put(key, body, mode="create", use_multipart=False)

    def get(self, key: str) -> bytes:
        """Read one object."""
        return self._store.get(key).bytes().to_bytes()
