"""Uploads are believed only when every byte that was announced has arrived."""

from __future__ import annotations

import hashlib

import pytest

from terroir.registry.errors import UploadInvalid
from terroir.registry.uploads import MAX_CHUNK_BYTES, Upload

DATA = bytes(range(256)) * 41_000  # 10 MB: beyond what is kept in memory
DIGEST = hashlib.sha256(DATA).hexdigest()


def test_all_chunks_in_order_give_the_bytes_also_from_disk() -> None:
    with Upload(len(DATA), DIGEST) as upload:
        for start in range(0, len(DATA), MAX_CHUNK_BYTES):
            upload.write(DATA[start : start + MAX_CHUNK_BYTES])
        assert upload.finish() == DATA


def test_a_stream_that_ends_early_is_refused() -> None:
    with Upload(10, hashlib.sha256(b"0123456789").hexdigest()) as upload:
        upload.write(b"01234")
        with pytest.raises(UploadInvalid, match="carried 5 bytes, the header announced 10") as refused:
            upload.finish()
    assert refused.value.reason == "UPLOAD_SIZE_MISMATCH"


def test_more_bytes_than_announced_are_refused_at_once() -> None:
    with Upload(4, DIGEST) as upload, pytest.raises(UploadInvalid) as refused:
        upload.write(b"01234")
    assert refused.value.reason == "UPLOAD_SIZE_MISMATCH"


def test_other_bytes_of_the_right_size_are_refused() -> None:
    with Upload(4, hashlib.sha256(b"0123").hexdigest()) as upload:
        upload.write(b"0124")
        with pytest.raises(UploadInvalid) as refused:
            upload.finish()
    assert refused.value.reason == "UPLOAD_DIGEST_MISMATCH"


@pytest.mark.parametrize("size", [0, MAX_CHUNK_BYTES + 1])
def test_a_chunk_outside_the_contract_is_refused(size: int) -> None:
    with Upload(10 * MAX_CHUNK_BYTES, DIGEST) as upload, pytest.raises(UploadInvalid) as refused:
        upload.write(b"x" * size)
    assert refused.value.reason == "CHUNK_SIZE_INVALID"
