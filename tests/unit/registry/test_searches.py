"""Searches against a model that compares every adapter with every condition."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from terroir.registry.index.fold import Index
from terroir.registry.index.rows import hashes_of
from terroir.registry.index.search import AdapterFilter, MetricBound, Search
from terroir.registry.paging import PageQuery
from terroir.store.documents import Document
from tests.unit.registry.index_kit import state_body, version_body

PARENTS = {"hangzhou": "zhejiang", "zhejiang": "china", "chengdu": "china"}
TIMES = [datetime(2026, 1, day, tzinfo=UTC) for day in range(1, 6)]


class Nesting:
    """A small tree."""

    def within(self, code: str, codes: Iterable[str]) -> frozenset[str]:
        return frozenset(each for each in codes if code in self.chain(each))

    @staticmethod
    def chain(code: str) -> list[str]:
        found = [code]
        while found[-1] in PARENTS:
            found.append(PARENTS[found[-1]])
        return found


BOUNDS = st.builds(MetricBound, metric=st.just("loss"), minimum=st.none() | st.integers(0, 3))
WORDS = st.sampled_from(["", "ink", "Tea", "moon"])
ADAPTERS = st.lists(
    st.fixed_dictionaries(
        {
            "base": st.sampled_from(["tiny", "large"]),
            "region": st.sampled_from(["", "hangzhou", "zhejiang", "chengdu", "china"]),
            "tags": st.lists(st.sampled_from(["ink", "tea", "moon"]), unique=True),
            "trigger_word": WORDS,
            "description": WORDS,
            "metrics": st.dictionaries(st.sampled_from(["loss", "likeness"]), st.integers(0, 3), max_size=2),
            "published": st.sampled_from(TIMES),
            "versions": st.integers(1, 2),
            "aliases": st.lists(st.sampled_from(["production", "staging"]), unique=True),
            "deprecated": st.booleans(),
        }
    ),
    max_size=12,
)
FILTERS = st.builds(
    AdapterFilter,
    query=st.sampled_from(["", "", "ink", "TEA", "adapter-1"]),
    region=st.sampled_from(["", "", "hangzhou", "zhejiang", "china", "mars"]),
    base=st.sampled_from(["", "", "tiny", "unknown"]),
    tags=st.lists(st.sampled_from(["ink", "tea"]), unique=True, max_size=2).map(tuple),
    trigger_word=st.sampled_from(["", "", "ink"]),
    alias=st.sampled_from(["", "", "production"]),
    published_after=st.none() | st.just(TIMES[1]),
    published_before=st.none() | st.just(TIMES[3]),
    metrics=st.lists(BOUNDS, max_size=1).map(tuple),
    include_deprecated=st.booleans(),
)


def filled(adapters: list[dict[str, object]]) -> Index:
    """An index of them; only the newest version has the fields, those before have others."""
    index = Index()
    for place, adapter in enumerate(adapters):
        name, fields = f"adapter-{place:02d}", dict(adapter)
        count, published = fields.pop("versions"), fields.pop("published")
        aliases, deprecated = fields.pop("aliases"), fields.pop("deprecated")
        for number in range(1, count + 1):  # type: ignore[operator]
            own = fields if number == count else {"tags": ["old"], "region": "mars", "trigger_word": "old"}
            body = version_body(f"{name} {number}", **own)
            document = Document(number, body, f"op-{number}", "e", published.isoformat(), "")  # type: ignore[attr-defined]
            index.apply(f"adapters/{name}", document)
        state = state_body(dict.fromkeys(aliases, 1), deprecations={str(count): {}} if deprecated else {})  # type: ignore[call-overload]
        index.apply(f"aliases/{name}", Document(1, state, "op", "e", TIMES[0].isoformat(), ""))
    return index


def meets(name: str, adapter: dict[str, object], wanted: AdapterFilter) -> bool:
    words = " ".join((name, str(adapter["trigger_word"]), str(adapter["description"]))).lower()
    metrics = adapter["metrics"]
    assert isinstance(metrics, dict)
    return all(
        (
            wanted.query.lower() in words,
            not wanted.region or wanted.region in Nesting.chain(str(adapter["region"])),
            wanted.base in ("", adapter["base"]),
            set(wanted.tags) <= set(adapter["tags"]),  # type: ignore[call-overload]
            wanted.trigger_word in ("", adapter["trigger_word"]),
            wanted.alias in ("", *adapter["aliases"]),  # type: ignore[misc]
            wanted.published_after is None or adapter["published"] >= wanted.published_after,  # type: ignore[operator]
            wanted.published_before is None or adapter["published"] < wanted.published_before,  # type: ignore[operator]
            all(b.metric in metrics and (b.minimum is None or metrics[b.metric] >= b.minimum) for b in wanted.metrics),
            wanted.include_deprecated or not adapter["deprecated"],
        )
    )


@given(ADAPTERS, FILTERS, st.integers(1, 5))
def test_pages_of_a_filter_hold_what_meets_it_each_once_in_order(
    adapters: list[dict[str, object]], wanted: AdapterFilter, size: int
) -> None:
    search = Search(filled(adapters), Nesting())
    found: list[str] = []
    token = ""
    while True:
        page = search.adapters(wanted, PageQuery(size, token))
        assert len(page.items) <= size
        found += page.items
        token = page.next_token
        if not token:
            break
    named = {f"adapter-{place:02d}": adapter for place, adapter in enumerate(adapters)}
    assert found == [name for name, adapter in named.items() if meets(name, adapter, wanted)]


@given(st.integers(8, 64), st.integers(0, 2))
def test_a_hash_finds_all_versions_that_begin_with_it_oldest_first(length: int, which: int) -> None:
    index = Index()
    shared = version_body("same file")
    for adapter, day in (("b", 3), ("a", 2), ("c", 1)):
        document = Document(1, shared, "op", "e", TIMES[day].isoformat(), "")
        index.apply(f"adapters/{adapter}", document)
    digest = list(hashes_of(shared))[which]
    assert Search(index, Nesting()).by_hash(digest[:length]) == [("c", 1), ("a", 1), ("b", 1)]


def test_a_new_version_leaves_no_trace_of_the_one_before_in_searches() -> None:
    index = Index()
    index.apply("adapters/a", Document(1, version_body("1", tags=["old"]), "op-1", "e", TIMES[0].isoformat(), ""))
    index.apply("adapters/a", Document(2, version_body("2", tags=["new"]), "op-2", "e", TIMES[1].isoformat(), ""))
    assert index.values("tag") == ["new"]
