"""Search: which adapters meet a filter, and which versions have a hash."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Set
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import reduce
from itertools import islice
from typing import Any, Final, Protocol

from terroir.common.errors import InvalidArgument
from terroir.common.validation import ensure_identifier, ensure_text, page
from terroir.registry.index import Index
from terroir.registry.index_rows import AdapterRow
from terroir.registry.paging import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE, Page, PageQuery
from terroir.registry.region_codes import same

MAX_QUERY_CHARACTERS: Final = 200
MAX_FILTER_TAGS: Final = 32
MAX_FILTER_METRICS: Final = 16
MAX_FOUND_BY_HASH: Final = 200
_TAG: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_METRIC: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_HASH: Final = re.compile(r"[0-9a-f]{8,64}")


class RegionNesting(Protocol):
    """What searches ask of the region tree."""

    def within(self, code: str, codes: Iterable[str]) -> Set[str]:
        """Those of `codes` that are `code`, in any case, or lie in it."""
        ...


@dataclass(frozen=True)
class MetricBound:
    """Bounds on a figure, both inclusive; a version without the figure does not meet them."""

    metric: str
    minimum: float | None = None
    maximum: float | None = None

    def holds(self, row: AdapterRow) -> bool:
        """Whether the newest version's figure is within the bounds."""
        value = row.facts.metrics.get(self.metric) if row.facts is not None else None
        return (
            value is not None
            and (self.minimum is None or value >= self.minimum)
            and (self.maximum is None or value <= self.maximum)
        )


@dataclass(frozen=True)
class AdapterFilter:
    """Conditions on an adapter's newest version, all of which must hold; empty ones ask for nothing."""

    query: str = ""
    """Part of the identifier, the trigger word or the description, in any case."""
    region: str = ""
    """A region's code; what lies below it counts too."""
    base: str = ""
    tags: tuple[str, ...] = ()
    trigger_word: str = ""
    alias: str = ""
    published_after: datetime | None = None
    """Inclusive."""
    published_before: datetime | None = None
    """Exclusive."""
    metrics: tuple[MetricBound, ...] = ()
    include_deprecated: bool = False

    def ensure(self) -> None:
        """Raise InvalidArgument for what can't be searched for."""
        ensure_text(self.query, "filter.query", MAX_QUERY_CHARACTERS)
        ensure_text(self.trigger_word, "filter.trigger_word", MAX_QUERY_CHARACTERS)
        if self.alias:
            ensure_identifier(self.alias, "filter.alias")
        _ensure_count(self.tags, "filter.tags", MAX_FILTER_TAGS)
        for place, tag in enumerate(self.tags):
            _ensure_word(_TAG, tag, f"filter.tags[{place}]", "INVALID_TAG", "1 to 63 of a-z, 0-9 and '-'")
        _ensure_count(self.metrics, "filter.metrics", MAX_FILTER_METRICS)
        for place, bound in enumerate(self.metrics):
            at = f"filter.metrics[{place}]"
            _ensure_word(_METRIC, bound.metric, f"{at}.metric", "INVALID_METRIC", "1 to 63 of a-z, 0-9 and '_'")
            _ensure_window(bound.minimum, bound.maximum, at)
        after, before = self.published_after, self.published_before
        _ensure_window(
            after.timestamp() if after is not None else None,
            before.timestamp() if before is not None else None,
            "filter.published_after",
        )

    def to_body(self) -> dict[str, Any]:
        """As a JSON-able value: what page tokens are bound to."""
        times = {name: getattr(self, name) for name in ("published_after", "published_before")}
        return {**asdict(self), **{name: time.isoformat() if time else None for name, time in times.items()}}


class Search:
    """Answers from the index."""

    def __init__(self, index: Index, regions: RegionNesting) -> None:
        self._index = index
        self._regions = regions

    def adapters(self, conditions: AdapterFilter, query: PageQuery) -> Page[str]:
        """Identifiers of one page, sorted; raises InvalidArgument for the filter, the size or the token.

        Conditions with values that the index keeps lists of are looked up, the rest is compared row by row.
        """
        conditions.ensure()
        request = page(
            query.size, query.token, default=DEFAULT_PAGE_SIZE, limit=MAX_PAGE_SIZE,
            query={"listing": "adapters", "filter": conditions.to_body()},
        )  # fmt: skip
        rows = self._index.rows_after(request.after or "", self._looked_up(conditions))
        found = list(islice((adapter for adapter, row in rows if _meets(row, conditions)), request.size + 1))
        shown = found[: request.size]
        return Page(tuple(shown), request.next_token(shown[-1]) if len(found) > len(shown) else "")

    def by_hash(self, digits: str) -> list[tuple[str, int]]:
        """(adapter, number) of versions with a hash that begins with `digits`, oldest first; InvalidArgument."""
        lowered = digits.lower().removeprefix("0x")
        if not _HASH.fullmatch(lowered):
            raise InvalidArgument(
                f"hash {digits[:80]!r} is not 8 to 64 hexadecimal digits; copy it from a model site or from sha256sum",
                reason="INVALID_HASH",
                field="hash",
            )
        found = self._index.with_hash(lowered)
        found.sort(key=lambda each: (each[1].created_at, each[0], each[1].number))
        return [(adapter, document.number) for adapter, document in found[:MAX_FOUND_BY_HASH]]

    def _looked_up(self, conditions: AdapterFilter) -> Set[str] | None:
        """Adapters that meet every condition that is looked up; None if there is no such condition."""
        wanted = [("base", conditions.base), ("trigger_word", conditions.trigger_word), ("alias", conditions.alias)]
        wanted += [("tag", tag) for tag in conditions.tags]
        sets = [self._index.with_value(facet, value) for facet, value in wanted if value]
        if conditions.region:
            inside = self._regions.within(conditions.region, self._index.values("region"))
            sets.append(frozenset().union(*(self._index.with_value("region", same(code)) for code in inside)))
        return reduce(lambda left, right: left & right, sorted(sets, key=len)) if sets else None


def _meets(row: AdapterRow, conditions: AdapterFilter) -> bool:
    facts = row.facts
    if facts is None or (row.deprecated and not conditions.include_deprecated and len(row.versions) in row.deprecated):
        return False
    after, before = conditions.published_after, conditions.published_before
    return (
        (not conditions.query or conditions.query.lower() in facts.text)
        and (after is None or facts.published >= after.timestamp())
        and (before is None or facts.published < before.timestamp())
        and all(bound.holds(row) for bound in conditions.metrics)
    )


def _ensure_count(values: Collection[object], field: str, limit: int) -> None:
    if len(values) > limit:
        raise InvalidArgument(
            f"{field} has {len(values)} entries; at most {limit} are allowed: search for fewer",
            reason="FILTER_TOO_LARGE",
            field=field,
        )


def _ensure_word(pattern: re.Pattern[str], value: str, field: str, reason: str, rule: str) -> None:
    if not pattern.fullmatch(value):
        raise InvalidArgument(f"{field} {value[:80]!r} can't be one: use {rule}", reason=reason, field=field)


def _ensure_window(low: float | None, high: float | None, field: str) -> None:
    if any(bound is not None and math.isnan(bound) for bound in (low, high)):
        raise InvalidArgument(f"{field} is not a number; give a bound", reason="OUT_OF_RANGE", field=field)
    if low is not None and high is not None and not low <= high:
        raise InvalidArgument(
            f"{field} begins at {low:.12g}, behind its end {high:.12g}; swap them", reason="OUT_OF_RANGE", field=field
        )
