"""GetCovers warm and cold, preparations beside pictures that somebody waits for, and a feed for ten minutes."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.bench import Bench
from benchmarks.covers import answers, preparing, replay
from benchmarks.covers.rig import rig
from benchmarks.minio_place import NOT_BUILT
from benchmarks.parts import in_parts
from benchmarks.rows import Row


def rows(bench: Bench) -> Iterator[Row]:
    """All parts on one bucket, in this order."""
    with rig(bench.work) as place:
        if place is None:
            yield bench.row("GetCovers", "ms", None, reason=NOT_BUILT)
            return
        yield from in_parts(
            bench,
            ("GetCovers", lambda: answers.rows(bench, place)),
            ("preparations", lambda: preparing.rows(bench, place)),
            ("a feed", lambda: replay.rows(bench, place)),
        )
