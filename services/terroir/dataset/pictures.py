"""Read the pictures of a dataset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from terroir.common.validation import ensure_digest
from terroir.dataset.album import Albums
from terroir.dataset.catalogue import Catalogue
from terroir.dataset.errors import ImageNotFound
from terroir.dataset.judging import judge_some
from terroir.dataset.model import JudgedPicture
from terroir.dataset.thresholds import Thresholds
from terroir.store.blobs import Blobs

_CHUNK_BYTES: Final = 512 * 1024


class Pictures:
    """Lists and downloads. Safe for threads; every method blocks."""

    def __init__(self, catalogue: Catalogue, albums: Albums, blobs: Blobs, thresholds: Thresholds) -> None:
        self._catalogue = catalogue
        self._albums = albums
        self._blobs = blobs
        self._thresholds = thresholds

    def list(self, dataset_id: str, skip: int, count: int) -> tuple[Sequence[JudgedPicture], bool]:
        """At most `count` pictures in order of import, after the first `skip`; also whether more follow.

        Pictures are never removed, so a page is stable while others are imported. Raises DatasetNotFound.
        """
        self._catalogue.get(dataset_id)
        album = self._albums.load(dataset_id)
        digests = list(album.pictures)[skip : skip + count]
        return judge_some(album, digests, self._thresholds), skip + count < len(album.pictures)

    def open(self, dataset_id: str, digest: str) -> Iterator[bytes]:
        """The file as imported, in chunks. Raises DatasetNotFound or ImageNotFound."""
        self._catalogue.get(dataset_id)
        ensure_digest(digest, "digest")
        if digest not in self._albums.load(dataset_id).pictures:
            raise ImageNotFound(dataset_id, digest)
        return self._blobs.iter_chunks(digest, _CHUNK_BYTES)
