"""Parts of an area: one that fails leaves the others their rows."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator

from benchmarks.bench import Bench
from benchmarks.rows import Row

Part = tuple[str, Callable[[], Iterator[Row]]]
"""What it measures, in words, and its rows."""


class PartsFailed(Exception):
    """Some parts could not be measured; the rows of all others, and a row with the reason for each, came before."""


def in_parts(bench: Bench, *parts: Part) -> Iterator[Row]:
    """The rows of all parts. A part that raises ends with a row that says why; PartsFailed is raised after the last."""
    failed = []
    for name, rows in parts:
        try:
            yield from rows()
        except Exception as error:  # whatever it is: hours of the other parts must not go with it
            failed.append(name)
            bench.say(traceback.format_exc())
            yield bench.row(name, "", None, reason=f"failed with {type(error).__name__}: {_first_line(error)}")
    if failed:
        raise PartsFailed(", ".join(failed))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or "no message").splitlines()[0][:300]
