"""Aliases move, versions do not, and every move can be explained later."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta

import pytest

from terroir.common.errors import InvalidArgument, PermissionDenied
from terroir.common.principal import Principal, Role
from terroir.registry.errors import (
    AdapterNotFound,
    AliasNotFound,
    NothingToRollBack,
    VersionDeprecated,
    VersionInUse,
    VersionNotDeprecated,
    VersionNotFound,
)  # fmt: skip
from terroir.registry.moving.aliases import Move
from terroir.registry.moving.deprecation import DeprecationRequest
from terroir.registry.moving.state import Canary, Guardrail
from terroir.registry.names import parse_reference
from terroir.registry.paging import PageQuery
from terroir.store.errors import EtagMismatch, OperationConflict
from tests.unit.registry.domain_kit import Domain

ANA = Principal("local:ana", frozenset({Role.PUBLISHER}))
BO = Principal("local:bo", frozenset({Role.STYLIST}))
VI = Principal("local:vi", frozenset({Role.VIEWER}))


def move(number: int, alias: str = "production", reason: str = "looks right", canary: Canary | None = None) -> Move:
    """A wish to move an alias of `jiangnan`."""
    return Move("jiangnan", alias, number, reason, canary)


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
    published.adapters.set_alias(move(2), ANA, op_id="a")
    published.publish("jiangnan", "op-4")
    assert published.adapters.resolve(parse_reference("adapters/jiangnan@production")).number == 2


def test_every_change_is_told_newest_first_with_who_and_why(published: Domain) -> None:
    published.clock.advance(60)
    published.adapters.set_alias(move(2, reason="first look"), ANA, op_id="a")
    published.clock.advance(60)
    published.adapters.set_alias(move(3, reason="warmer reds"), ANA, op_id="b")
    published.clock.advance(60)
    published.adapters.roll_back("jiangnan", "production", "too warm", ANA, op_id="c")
    told = published.audit.page("jiangnan", PageQuery(4)).items
    assert [(event.actor, event.action, event.reason, event.before[-1:], event.after[-1:]) for event in told] == [
        ("local:ana", "rollback_alias", "too warm", "3", "2"),
        ("local:ana", "set_alias", "warmer reds", "2", "3"),
        ("local:ana", "set_alias", "first look", "", "2"),
        ("", "publish", "", "", "3"),
    ]
    assert [event.request_id for event in told[:3]] == ["c", "b", "a"]


def test_pages_of_the_trail_hold_every_event_once(published: Domain) -> None:
    for turn in range(7):
        published.clock.advance(1)
        published.adapters.set_alias(move(turn % 3 + 1), ANA, op_id=f"op-{turn}")
    whole = published.audit.page("jiangnan", PageQuery(200)).items
    paged, token = [], ""
    while True:
        page = published.audit.page("jiangnan", PageQuery(3, token))
        paged += page.items
        token = page.next_token
        if not token:
            break
    assert len(whole) == 10
    assert tuple(paged) == whole
    with pytest.raises(InvalidArgument, match="page_token"):
        published.audit.page("jiangnan", PageQuery(3, "x"))
    with pytest.raises(AdapterNotFound):
        published.audit.page("nobody", PageQuery())


def test_rolling_back_again_goes_one_further(published: Domain) -> None:
    for turn, number in enumerate((1, 3, 2)):
        published.adapters.set_alias(move(number), ANA, op_id=f"set-{turn}")
    back = [published.adapters.roll_back("jiangnan", "production", "r", ANA, op_id=f"back-{n}").number for n in (1, 2)]
    assert back == [3, 1]
    with pytest.raises(NothingToRollBack):
        published.adapters.roll_back("jiangnan", "production", "r", ANA, op_id="back-3")
    assert published.adapters.roll_back("jiangnan", "production", "r", ANA, op_id="back-1").number == 3
    assert published.aliases.get("jiangnan", "production").number == 1


def test_a_removed_alias_is_gone_and_its_history_stays(published: Domain) -> None:
    published.adapters.set_alias(move(2, alias="staging"), ANA, op_id="a")
    published.adapters.delete_alias("jiangnan", "staging", "not needed", BO, op_id="b")
    with pytest.raises(AliasNotFound):
        published.aliases.get("jiangnan", "staging")
    published.adapters.delete_alias("jiangnan", "staging", "not needed", BO, op_id="b")
    actions = {event.action for event in published.audit.page("jiangnan", PageQuery()).items}
    assert actions == {"publish", "set_alias", "delete_alias"}


def test_a_protected_alias_needs_a_publisher_and_a_reason(published: Domain) -> None:
    with pytest.raises(PermissionDenied, match="publisher"):
        published.adapters.set_alias(move(1), BO, op_id="a")
    with pytest.raises(InvalidArgument, match="reason"):
        published.adapters.set_alias(move(1, reason=""), ANA, op_id="a")
    published.adapters.set_alias(move(1, alias="staging", reason=""), BO, op_id="a")
    with pytest.raises(PermissionDenied, match="stylist"):
        published.adapters.set_alias(move(1, alias="staging"), VI, op_id="b")
    published.adapters.set_alias(move(1), ANA, op_id="c")
    for change in (published.adapters.roll_back, published.adapters.delete_alias):
        with pytest.raises(PermissionDenied):
            change("jiangnan", "production", "because", BO, op_id="d")
    assert [alias.protected for alias in published.adapters.get("jiangnan").aliases] == [True, False]


def test_a_canary_splits_callers_and_keeps_each_on_its_side(published: Domain) -> None:
    share = Canary(3, 20.0)
    published.adapters.set_alias(move(2, canary=share), ANA, op_id="a")
    reference = parse_reference("adapters/jiangnan@production")
    keys = [f"user-{n}" for n in range(2000)]
    got = {key: published.adapters.resolve(reference, sticky_key=key).number for key in keys}
    assert set(got.values()) == {2, 3}
    assert 0.17 < sum(number == 3 for number in got.values()) / len(keys) < 0.23
    assert published.adapters.resolve(reference).number == 2, "a caller without a key is never tried on"
    published.adapters.set_alias(move(2, canary=replace(share, percent=60)), ANA, op_id="b")
    wider = {key: published.adapters.resolve(reference, sticky_key=key).number for key in keys}
    assert all(wider[key] == 3 for key in keys if got[key] == 3), "a growing share lost a caller that it had"


def test_a_canary_ends_by_its_time_by_a_set_and_by_a_rollback(published: Domain) -> None:
    reference = parse_reference("adapters/jiangnan@production")
    published.adapters.set_alias(move(1), ANA, op_id="z")
    ends = (published.clock.now() + timedelta(hours=1)).isoformat()

    def seen() -> int:
        return published.adapters.resolve(reference, sticky_key="anybody").number

    published.adapters.set_alias(move(2, canary=Canary(3, 100.0, ends)), ANA, op_id="a")
    assert seen() == 3
    published.clock.advance(3600)
    assert seen() == 2
    retried = published.adapters.set_alias(move(2, canary=Canary(3, 100.0, ends)), ANA, op_id="a")
    assert retried.entry.canary is not None, "a retry of what was done is answered, whatever ended since"
    published.adapters.set_alias(move(2, canary=Canary(3, 100.0)), ANA, op_id="b")
    assert seen() == 3
    published.adapters.set_alias(move(2), ANA, op_id="c")
    assert seen() == 2
    published.adapters.set_alias(move(2, canary=Canary(3, 100.0)), ANA, op_id="d")
    assert published.adapters.roll_back("jiangnan", "production", "bad", ANA, op_id="e").entry.canary is None
    assert seen() == 1


@pytest.mark.parametrize(
    "canary",
    [
        Canary(2, 5), Canary(3, 0), Canary(3, -1), Canary(3, 100.1), Canary(3, math.nan),
        Canary(3, 5, "2000-01-01T00:00:00+00:00"), Canary(3, 5, guardrails=(Guardrail("Bad Name", 1),)),
        Canary(3, 5, guardrails=(Guardrail("error_ratio", math.inf),)),
        Canary(3, 5, guardrails=(Guardrail("error_ratio", 1),) * 9),
    ],
)  # fmt: skip
def test_a_canary_that_makes_no_sense_is_refused(published: Domain, canary: Canary) -> None:
    with pytest.raises(InvalidArgument) as caught:
        published.adapters.set_alias(move(2, canary=canary), ANA, op_id="a")
    assert caught.value.reason == "CANARY_INVALID"
    with pytest.raises(VersionNotFound):
        published.adapters.set_alias(move(2, canary=Canary(9, 5)), ANA, op_id="a")
    assert published.states.number("jiangnan") == 0


def test_a_deprecated_version_is_readable_marked_and_no_target(published: Domain, replica: Domain) -> None:
    wish = DeprecationRequest("jiangnan", 2, "smears faces", replacement="adapters/jiangnan/versions/3")
    version = published.adapters.deprecate(wish, ANA, op_id="a")
    assert version.deprecation is not None
    assert (version.deprecation.reason, version.deprecation.actor) == ("smears faces", "local:ana")
    assert replica.adapters.resolve(parse_reference("adapters/jiangnan/versions/2")) == version
    with pytest.raises(VersionDeprecated, match="smears faces"):
        published.adapters.set_alias(move(2), ANA, op_id="b")
    with pytest.raises(VersionDeprecated):
        published.adapters.set_alias(move(1, canary=Canary(2, 5)), ANA, op_id="b")
    published.adapters.deprecate(replace(wish, reinstate=True, reason="faces are fine"), ANA, op_id="c")
    assert published.adapters.set_alias(move(2), ANA, op_id="d").number == 2
    with pytest.raises(VersionNotDeprecated):
        published.adapters.deprecate(replace(wish, reinstate=True), ANA, op_id="e")


def test_what_an_alias_uses_is_deprecated_for_cause_alone(published: Domain) -> None:
    published.adapters.set_alias(move(2, canary=Canary(3, 5)), ANA, op_id="a")
    for number in (2, 3):
        with pytest.raises(VersionInUse, match="production"):
            published.adapters.deprecate(DeprecationRequest("jiangnan", number, "old"), ANA, op_id=f"b{number}")
    stopped = published.adapters.deprecate(DeprecationRequest("jiangnan", 2, "illegal", for_cause=True), ANA, op_id="c")
    assert stopped.deprecation is not None
    assert stopped.deprecation.for_cause


def test_deprecating_needs_a_publisher_a_reason_and_versions_that_exist(published: Domain) -> None:
    wish = DeprecationRequest("jiangnan", 1, "old")
    with pytest.raises(PermissionDenied):
        published.adapters.deprecate(wish, BO, op_id="a")
    with pytest.raises(InvalidArgument):
        published.adapters.deprecate(replace(wish, reason=""), ANA, op_id="a")
    with pytest.raises(VersionNotFound):
        published.adapters.deprecate(replace(wish, number=9), ANA, op_id="a")
    with pytest.raises(AdapterNotFound):
        published.adapters.deprecate(replace(wish, replacement="adapters/none/versions/1"), ANA, op_id="a")
    assert published.states.number("jiangnan") == 0


def test_moving_one_alias_leaves_the_others(published: Domain) -> None:
    published.adapters.set_alias(move(2), ANA, op_id="a")
    published.adapters.set_alias(move(3, alias="staging"), ANA, op_id="b")
    assert {entry.alias: entry.number for entry in published.adapters.get("jiangnan").aliases} == {
        "production": 2,
        "staging": 3,
    }


def test_a_stale_etag_refuses_the_move_and_a_fresh_one_allows_it(published: Domain, replica: Domain) -> None:
    first = published.adapters.set_alias(move(1), ANA, op_id="a")
    second = replica.adapters.set_alias(move(2), ANA, op_id="b", etag=first.etag)
    with pytest.raises(EtagMismatch):
        published.adapters.set_alias(move(3), ANA, op_id="c", etag=first.etag)
    assert published.aliases.get("jiangnan", "production") == second


def test_a_retried_move_is_done_once_even_after_later_moves(published: Domain, replica: Domain) -> None:
    first = published.adapters.set_alias(move(1), ANA, op_id="a")
    published.adapters.set_alias(move(2), ANA, op_id="b")
    assert replica.adapters.set_alias(move(1), ANA, op_id="a") == first
    assert replica.aliases.get("jiangnan", "production").number == 2


def test_one_request_id_for_two_moves_is_an_error(published: Domain) -> None:
    published.adapters.set_alias(move(1), ANA, op_id="a")
    with pytest.raises(OperationConflict):
        published.adapters.set_alias(move(2), ANA, op_id="a")


def test_what_is_not_there_is_named_with_what_is(published: Domain) -> None:
    published.adapters.set_alias(move(1), ANA, op_id="a")
    with pytest.raises(AliasNotFound, match="production"):
        published.adapters.resolve(parse_reference("adapters/jiangnan@staging"))
    with pytest.raises(VersionNotFound, match="newest is 3"):
        published.adapters.set_alias(move(4), ANA, op_id="b")
    with pytest.raises(AdapterNotFound, match="adapters/sichuan"):
        published.adapters.resolve(parse_reference("adapters/sichuan@production"))


def test_a_refused_move_leaves_no_trace(published: Domain) -> None:
    with pytest.raises(VersionNotFound):
        published.adapters.set_alias(move(9), ANA, op_id="a")
    assert published.states.number("jiangnan") == 0
    assert published.adapters.get("jiangnan").aliases == ()


def test_adapters_are_listed_once_they_have_a_version(published: Domain, replica: Domain) -> None:
    replica.publish("hebei", "op")
    assert published.versions.adapters() == ["hebei", "jiangnan"]
