"""Full texts of all adapters as one string: a search for a part of them runs at the speed of `str.find`."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator


class SearchTexts:
    """All texts of searches in one string, so that looking for a part walks no rows."""

    def __init__(self, ids: list[str], texts: Iterator[str]) -> None:
        """`ids` are sorted, and each has its text, which is not empty, at the same place of `texts`."""
        self._ids = ids
        self._begins = array("Q")
        at, kept = 0, []
        for text in texts:
            self._begins.append(at)
            kept.append(text)
            at += len(text) + 1
        # NUL lies between them: no query may hold it, so none matches across two.
        self._text = "\0".join(kept)

    def ids_with(self, part: str, after: str) -> Iterator[str]:
        """Those with a part in their text behind an identifier, sorted."""
        place = bisect_right(self._ids, after)
        while place < len(self._ids):
            found = self._text.find(part, self._begins[place])
            if found < 0:
                return
            place = bisect_right(self._begins, found)
            yield self._ids[place - 1]
