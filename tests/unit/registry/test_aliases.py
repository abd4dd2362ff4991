"""Aliases move, versions do not, and every move can be explained later."""

from __future__ import annotations

import pytest

from terroir.registry.aliases import Move
from terroir.registry.errors import AdapterNotFound, AliasNotFound, VersionNotFound
from terroir.registry.names import parse_reference
from terroir.store.errors import EtagMismatch, OperationConflict
from tests.unit.registry.domain_kit import Domain


def move(number: int, alias: str = "production", reason: str = "looks right") -> Move:
    """Ana's wish to move an alias of `jiangnan`."""
    return Move("jiangnan", alias, number, "ana", reason)


@pytest.fixture
def published(domain: Domain) -> Domain:
    """`jiangnan` with three versions."""
    for number in (1, 2, 3):
        domain.publish("jiangnan", f"op-{number}")
    return domain


def test_numbers_count_from_one_and_the_newest_is_the_default(published: Domain) -> None:
    assert published.adapters.resolve(parse_reference("adapters/jiangnan")).number == 3
    assert published.adapters.resolve(parse_reference("adapters/jiangnan/versions/2")).number == 2
    assert published.adapters.get("jiangnan").newest_version == 3


def test_what_a_manifest_says_is_read_back_unchanged(published: Domain, replica: Domain) -> None:
    written = published.publish("jiangnan", "op-4", label="fourth")
    assert replica.versions.get("jiangnan", 4) == written


def test_an_alias_stays_where_it_was_put_when_a_version_is_published(published: Domain) -> None:
    published.adapters.set_alias(move(2), op_id="a")
    published.publish("jiangnan", "op-4")
    assert published.adapters.resolve(parse_reference("adapters/jiangnan@production")).number == 2


def test_every_move_keeps_actor_and_reason_oldest_first(published: Domain) -> None:
    published.adapters.set_alias(move(2, reason="first look"), op_id="a")
    published.clock.advance(60)
    published.adapters.set_alias(move(3, reason="warmer reds"), op_id="b")
    trail = published.aliases.trail("jiangnan")
    assert [(entry.number, entry.actor, entry.reason) for entry in trail] == [
        (2, "ana", "first look"),
        (3, "ana", "warmer reds"),
    ]
    assert trail[0].updated_at < trail[1].updated_at


def test_moving_one_alias_leaves_the_others(published: Domain) -> None:
    published.adapters.set_alias(move(2), op_id="a")
    published.adapters.set_alias(move(3, alias="staging"), op_id="b")
    assert {entry.alias: entry.number for entry in published.adapters.get("jiangnan").aliases} == {
        "production": 2,
        "staging": 3,
    }


def test_a_stale_etag_refuses_the_move_and_a_fresh_one_allows_it(published: Domain, replica: Domain) -> None:
    first = published.adapters.set_alias(move(1), op_id="a")
    second = replica.adapters.set_alias(move(2), op_id="b", etag=first.etag)
    with pytest.raises(EtagMismatch):
        published.adapters.set_alias(move(3), op_id="c", etag=first.etag)
    assert published.aliases.get("jiangnan", "production") == second


def test_a_retried_move_is_done_once_even_after_later_moves(published: Domain, replica: Domain) -> None:
    first = published.adapters.set_alias(move(1), op_id="a")
    published.adapters.set_alias(move(2), op_id="b")
    assert replica.adapters.set_alias(move(1), op_id="a") == first
    assert replica.aliases.get("jiangnan", "production").number == 2


def test_one_request_id_for_two_moves_is_an_error(published: Domain) -> None:
    published.adapters.set_alias(move(1), op_id="a")
    with pytest.raises(OperationConflict):
        published.adapters.set_alias(move(2), op_id="a")


def test_what_is_not_there_is_named_with_what_is(published: Domain) -> None:
    published.adapters.set_alias(move(1), op_id="a")
    with pytest.raises(AliasNotFound, match="production"):
        published.adapters.resolve(parse_reference("adapters/jiangnan@staging"))
    with pytest.raises(VersionNotFound, match="newest is 3"):
        published.adapters.set_alias(move(4), op_id="b")
    with pytest.raises(AdapterNotFound, match="adapters/sichuan"):
        published.adapters.resolve(parse_reference("adapters/sichuan@production"))


def test_a_refused_move_leaves_no_trace(published: Domain) -> None:
    with pytest.raises(VersionNotFound):
        published.adapters.set_alias(move(9), op_id="a")
    assert published.aliases.trail("jiangnan") == []
    assert published.adapters.get("jiangnan").aliases == ()


def test_adapters_are_listed_once_they_have_a_version(published: Domain, replica: Domain) -> None:
    replica.publish("hebei", "op")
    assert published.versions.adapters() == ["hebei", "jiangnan"]
