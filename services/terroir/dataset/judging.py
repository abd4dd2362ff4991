"""Join pictures, captions, gates and the pictures' likeness to each other into what a person sees."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from terroir.dataset.album import Album
from terroir.dataset.gates import Likeness, judge, worst
from terroir.dataset.model import JudgedPicture, Picture
from terroir.dataset.thresholds import Thresholds


def judge_all(album: Album, thresholds: Thresholds) -> tuple[JudgedPicture, ...]:
    """Every picture of `album`, in order of import."""
    return judge_some(album, album.pictures, thresholds)


def judge_some(album: Album, digests: Iterable[str], thresholds: Thresholds) -> tuple[JudgedPicture, ...]:
    """The pictures `digests` of `album`, each compared with all that were imported before it."""
    elders = _Elders(album)
    return tuple(_judged(album, album.pictures[digest], elders, thresholds) for digest in digests)


def _judged(album: Album, picture: Picture, elders: _Elders, thresholds: Thresholds) -> JudgedPicture:
    findings = judge(picture, elders.likeness(picture), thresholds)
    return JudgedPicture(picture, worst(findings), findings, album.caption(picture.digest))


class _Elders:
    """Finds, for a picture, the earlier ones that it repeats."""

    def __init__(self, album: Album) -> None:
        self._names: list[str] = []
        self._place: dict[str, int] = {}
        self._first_with: dict[str, int] = {}
        hashes: list[int] = []
        for picture in album.pictures.values():
            if picture.measured is not None:
                place = len(self._names)
                self._names.append(picture.file_name)
                self._place[picture.digest] = place
                self._first_with.setdefault(picture.measured.pixel_digest, place)
                hashes.append(int(picture.measured.perceptual_hash, 16))
        self._hashes = np.array(hashes, dtype=np.uint64)

    def likeness(self, picture: Picture) -> Likeness:
        if picture.measured is None:
            return Likeness()
        place = self._place[picture.digest]
        first = self._first_with[picture.measured.pixel_digest]
        if first != place:
            return Likeness(same_pixels_as=self._names[first])
        if place == 0:
            return Likeness()
        distances = np.bitwise_count(self._hashes[:place] ^ self._hashes[place])
        nearest = int(distances.argmin())
        return Likeness(looks_like=self._names[nearest], differing_bits=int(distances[nearest]))
