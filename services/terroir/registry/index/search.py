"""Search: which adapters meet a filter, and which versions have a hash."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Set
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from terroir.common.errors import InvalidArgument
from terroir.common.validation import ensure_identifier, ensure_text, page
from terroir.registry.index.fold import Index
from terroir.registry.index.rows import AdapterRow, VersionFacts
from terroir.registry.paging import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE, Page, PageQuery
from terroir.registry.regions.codes import same

MAX_QUERY_CHARACTERS: Final = 200
MAX_FILTER_TAGS: Final = 32
MAX_FILTER_METRICS: Final = 16
MAX_FOUND_BY_HASH: Final = 200
_RARE: Final = 5_000
"""Adapters that are sorted in a few milliseconds."""
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
        """Identifiers of one page, sorted; raises InvalidArgument for the filter, the size or the token."""
        conditions.ensure()
        request = page(
            query.size, query.token, default=DEFAULT_PAGE_SIZE, limit=MAX_PAGE_SIZE,
            query={"listing": "adapters", "filter": conditions.to_body()},
        )  # fmt: skip
        codes = self._codes_within(conditions.region)
        found = self._index.find(
            request.after or "", _accepts(conditions, codes), request.size + 1,
            among=self._rarest(conditions, codes), part=conditions.query.lower(),
        )  # fmt: skip
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

    def _codes_within(self, region: str) -> frozenset[str]:
        """Regions that adapters were made for and that lie in one."""
        if not region:
            return frozenset()
        return frozenset(map(same, self._regions.within(region, self._index.values("region"))))

    def _rarest(self, conditions: AdapterFilter, codes: frozenset[str]) -> frozenset[str] | None:
        """Adapters that meet the rarest of the conditions that the index keeps lists for; None if none is rare.

        Sorting a few beats walking past all, while many meet a common condition early on the walk.
        """
        wanted = [("base", conditions.base), ("trigger_word", conditions.trigger_word), ("alias", conditions.alias)]
        wanted += [("tag", tag) for tag in conditions.tags]
        lists = [[(facet, value)] for facet, value in wanted if value]
        if conditions.region:
            lists.append([("region", code) for code in codes])
        counted = [(sum(self._index.count(*each) for each in values), values) for values in lists]
        count, rarest = min(counted, key=lambda each: each[0], default=(_RARE + 1, []))
        if count > _RARE:
            return None
        return frozenset[str]().union(*(self._index.with_value(facet, value) for facet, value in rarest))


def _accepts(conditions: AdapterFilter, codes: frozenset[str]) -> Callable[[AdapterRow], bool]:
    """A row's test with the conditions that are asked for and no others: it may run for every adapter there is."""
    tests: list[Callable[[AdapterRow, VersionFacts], bool]] = []
    if conditions.query:
        part = conditions.query.lower()
        tests.append(lambda _, facts: part in facts.text)
    if conditions.region:
        tests.append(lambda _, facts: facts.region in codes)
    if conditions.base:
        tests.append(lambda _, facts: facts.base == conditions.base)
    if conditions.trigger_word:
        tests.append(lambda _, facts: facts.trigger_word == conditions.trigger_word)
    if conditions.alias:
        tests.append(lambda row, _: conditions.alias in row.aliases)
    if conditions.published_after is not None:
        after = conditions.published_after.timestamp()
        tests.append(lambda _, facts: facts.published >= after)
    if conditions.published_before is not None:
        before = conditions.published_before.timestamp()
        tests.append(lambda _, facts: facts.published < before)
    tests += [_tag_test(tag) for tag in conditions.tags]
    tests += [_bound_test(bound) for bound in conditions.metrics]
    deprecated = conditions.include_deprecated

    def accepts(row: AdapterRow) -> bool:
        facts = row.facts
        if facts is None or (row.deprecated and not deprecated and len(row.versions) in row.deprecated):
            return False
        for test in tests:  # noqa: SIM110 (a generator would double the time of a search)
            if not test(row, facts):
                return False
        return True

    return accepts


def _tag_test(tag: str) -> Callable[[AdapterRow, VersionFacts], bool]:
    return lambda _, facts: tag in facts.tags


def _bound_test(bound: MetricBound) -> Callable[[AdapterRow, VersionFacts], bool]:
    low = -math.inf if bound.minimum is None else bound.minimum
    high = math.inf if bound.maximum is None else bound.maximum

    def test(_: AdapterRow, facts: VersionFacts) -> bool:
        value = facts.metrics.get(bound.metric)
        return value is not None and low <= value <= high

    return test


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
