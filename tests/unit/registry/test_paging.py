"""Pages: every item once, in order, whatever the page size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terroir.common.errors import InvalidArgument
from terroir.registry.paging import DEFAULT_PAGE_SIZE, page_of
from tests.unit.registry.domain_kit import Domain


@given(st.sets(st.integers(1, 500)), st.integers(1, 200))
def test_following_the_tokens_shows_every_item_once_in_order(keys: set[int], size: int) -> None:
    ordered = sorted(keys, reverse=True)
    shown: list[int] = []
    token, pages = "", 0
    while pages == 0 or token:
        page = page_of(ordered, size, token, parse=int, load=lambda key: key)
        assert len(page.items) <= size
        shown, token, pages = [*shown, *page.items], page.next_token, pages + 1
    assert shown == ordered
    assert pages == max(1, -(-len(ordered) // size))


def test_zero_means_the_default_size() -> None:
    assert len(page_of(range(1000), 0, "", parse=int, load=str).items) == DEFAULT_PAGE_SIZE


@pytest.mark.parametrize(
    ("size", "token", "reason"),
    [
        (-1, "", "PAGE_SIZE_OUT_OF_RANGE"),
        (201, "", "PAGE_SIZE_OUT_OF_RANGE"),
        (5, "nonsense", "INVALID_PAGE_TOKEN"),
        (5, "77", "INVALID_PAGE_TOKEN"),
    ],
)
def test_a_bad_size_or_token_is_refused(size: int, token: str, reason: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        page_of(range(10), size, token, parse=int, load=str)
    assert refused.value.reason == reason


def test_versions_come_newest_first_and_stay_put_while_new_ones_are_published(domain: Domain) -> None:
    for number in range(5):
        domain.publish("jiangnan", f"op-{number}")
    first = domain.adapters.versions("jiangnan", 2, "")
    domain.publish("jiangnan", "late")
    second = domain.adapters.versions("jiangnan", 2, first.next_token)
    assert [version.number for version in (*first.items, *second.items)] == [5, 4, 3, 2]


def test_adapters_are_paged_by_identifier(domain: Domain) -> None:
    for adapter in ("sichuan", "hebei", "jiangnan"):
        domain.publish(adapter, "op")
    first = domain.adapters.page(2, "")
    second = domain.adapters.page(2, first.next_token)
    assert [found.adapter for found in (*first.items, *second.items)] == ["hebei", "jiangnan", "sichuan"]
    assert second.next_token == ""
