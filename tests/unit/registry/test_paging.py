"""Pages: every item once, in order, whatever the page size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terroir.common.errors import InvalidArgument
from terroir.registry.index.search import AdapterFilter
from terroir.registry.paging import DEFAULT_PAGE_SIZE, PageQuery, page_of
from tests.unit.registry.domain_kit import Domain


@given(st.sets(st.integers(1, 500)), st.integers(1, 200))
def test_following_the_tokens_shows_every_item_once_in_order(numbers: set[int], size: int) -> None:
    keys = [str(number) for number in sorted(numbers, reverse=True)]
    shown: list[str] = []
    token, pages = "", 0
    while pages == 0 or token:
        page = page_of(keys, PageQuery(size, token), str, listing="numbers")
        assert len(page.items) <= size
        shown, token, pages = [*shown, *page.items], page.next_token, pages + 1
    assert shown == keys
    assert pages == max(1, -(-len(keys) // size))


def test_zero_means_the_default_size() -> None:
    keys = [str(number) for number in range(1000)]
    assert len(page_of(keys, PageQuery(), str, listing="numbers").items) == DEFAULT_PAGE_SIZE


@pytest.mark.parametrize("size", [-1, 201])
def test_a_size_outside_the_contract_is_refused(size: int) -> None:
    with pytest.raises(InvalidArgument) as refused:
        page_of(["a"], PageQuery(size), str, listing="letters")
    assert (refused.value.reason, refused.value.field) == ("OUT_OF_RANGE", "page_size")


def test_a_token_of_another_listing_or_of_nobody_is_refused() -> None:
    token = page_of(["a", "b"], PageQuery(1), str, listing="letters").next_token
    for keys, given_token, listing in (
        (["a", "b"], token, "others"),
        (["x"], token, "letters"),
        (["a"], "!", "letters"),
    ):
        with pytest.raises(InvalidArgument) as refused:
            page_of(keys, PageQuery(1, given_token), str, listing=listing)
        assert refused.value.reason == "INVALID_PAGE_TOKEN"


def test_versions_come_newest_first_and_stay_put_while_new_ones_are_published(domain: Domain) -> None:
    for number in range(5):
        domain.publish("jiangnan", f"op-{number}")
    first = domain.adapters.versions("jiangnan", PageQuery(2))
    domain.publish("jiangnan", "late")
    second = domain.adapters.versions("jiangnan", PageQuery(2, first.next_token))
    assert [version.number for version in (*first.items, *second.items)] == [5, 4, 3, 2]


def test_adapters_are_paged_by_identifier(domain: Domain) -> None:
    for adapter in ("sichuan", "hebei", "jiangnan"):
        domain.publish(adapter, "op")
    first = domain.search.page(AdapterFilter(), PageQuery(2))
    second = domain.search.page(AdapterFilter(), PageQuery(2, first.next_token))
    assert [found.adapter for found in (*first.items, *second.items)] == ["hebei", "jiangnan", "sichuan"]
    assert second.next_token == ""
