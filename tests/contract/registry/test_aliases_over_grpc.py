"""What moves, over gRPC and from the command line: canaries, rollback, deprecation, the audit trail, and roles."""

from __future__ import annotations

import getpass
import json
import math
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from structlog.testing import capture_logs

from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir.common.errors import TerroirError
from terroir.common.principal import Role
from terroir.registry.settings import RegistrySettings
from tests.contract.registry.running import Running, refused, running_registry
from tests.contract.registry.test_region_commands import Shell
from tests.unit.registry.adapter_kit import adapter_bytes
from tests.unit.registry.base_kit import write_base_folder

A = "adapters/jiangnan"
USER = f"local:{getpass.getuser()}"
Call = Callable[[Running], object]


def v(number: int) -> str:
    """Name of a version."""
    return f"{A}/versions/{number}"


def moment(hours: float) -> Timestamp:
    """A time from now."""
    at = Timestamp()
    at.FromDatetime(datetime.now(UTC) + timedelta(hours=hours))
    return at


def setting(number: int = 1, alias: str = "production", **fields: Any) -> pb.SetAliasRequest:
    """A right SetAlias."""
    right = {"adapter": A, "alias": alias, "version": v(number), "reason": "because", "request_id": str(uuid.uuid4())}
    return pb.SetAliasRequest(**{**right, **fields})


def rolling(alias: str = "production", **fields: Any) -> pb.RollbackAliasRequest:
    """A right RollbackAlias."""
    right = {"adapter": A, "alias": alias, "reason": "seams", "request_id": str(uuid.uuid4())}
    return pb.RollbackAliasRequest(**{**right, **fields})


def deleting(alias: str = "production", **fields: Any) -> pb.DeleteAliasRequest:
    """A right DeleteAlias."""
    right = {"adapter": A, "alias": alias, "reason": "unused", "request_id": str(uuid.uuid4())}
    return pb.DeleteAliasRequest(**{**right, **fields})


def deprecating(number: int, **fields: Any) -> pb.DeprecateVersionRequest:
    """A right DeprecateVersion."""
    return pb.DeprecateVersionRequest(**{"name": v(number), "reason": "licence", "request_id": "d1", **fields})


def stock(running: Running) -> Running:
    """Publish three versions."""
    for seed in range(3):
        running.publish(A, adapter_bytes(rank=1, seed=seed))
    return running


@pytest.fixture
def stocked(registry: Running) -> Running:
    """A registry with three versions of one adapter."""
    return stock(registry)


def resolved(running: Running, sticky_key: str = "") -> str:
    """What `production` is for a caller."""
    request = pb.GetVersionRequest(name=f"{A}@production", sticky_key=sticky_key)
    name: str = running.api.GetVersion(request).name
    return name


def test_a_canary_gets_its_share_of_callers_and_ends_with_the_next_move(stocked: Running) -> None:
    canary = pb.Canary(
        version=v(2), percent=30, expire_time=moment(1), guardrails=[pb.Guardrail(metric="error_ratio", maximum=0.01)]
    )
    moved = stocked.api.SetAlias(setting(1, canary=canary))
    assert moved.canary == canary
    assert moved.protected and moved.actor == USER
    share = [resolved(stocked, f"user {number}") for number in range(200)].count(v(2))
    assert 35 <= share <= 85  # 60 expected, 6.5 standard deviation
    assert resolved(stocked) == v(1)
    assert {resolved(stocked, "user 7") for _ in range(5)} == {resolved(stocked, "user 7")}
    assert not stocked.api.SetAlias(setting(1)).HasField("canary")
    assert {resolved(stocked, f"user {number}") for number in range(50)} == {v(1)}


def test_rollbacks_walk_back_end_the_canary_and_stop_at_the_first_version(stocked: Running) -> None:
    for number in (1, 2):
        stocked.api.SetAlias(setting(number))
    stocked.api.SetAlias(setting(3, canary=pb.Canary(version=v(1), percent=5)))
    first = rolling()
    back = stocked.api.RollbackAlias(first)
    assert (back.version, back.reason, back.HasField("canary")) == (v(2), "seams", False)
    assert stocked.api.RollbackAlias(first) == back  # a retry is not a second step
    assert stocked.api.RollbackAlias(rolling()).version == v(1)
    with refused() as error:
        stocked.api.RollbackAlias(rolling())
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "NOTHING_TO_ROLL_BACK")


def test_a_deleted_alias_is_gone_and_its_history_is_not(stocked: Running) -> None:
    stocked.api.SetAlias(setting(1))
    gone = deleting()
    assert stocked.api.DeleteAlias(gone) == stocked.api.DeleteAlias(gone) == pb.DeleteAliasResponse()
    with refused() as error:
        resolved(stocked)
    assert error.reason == "ALIAS_NOT_FOUND"
    events = stocked.api.ListAuditEvents(pb.ListAuditEventsRequest(adapter=A)).events
    assert [(event.action, event.before, event.after) for event in events[:2]] == [
        ("delete_alias", v(1), ""),
        ("set_alias", "", v(1)),
    ]


def test_a_deprecated_version_is_no_target_until_it_is_reinstated(stocked: Running) -> None:
    marked = stocked.api.DeprecateVersion(deprecating(1, replacement=v(2)))
    told = marked.deprecation
    assert (told.reason, told.replacement, told.actor, told.for_cause) == ("licence", v(2), USER, False)
    for canary in (None, pb.Canary(version=v(1), percent=5)):
        with refused() as error:
            stocked.api.SetAlias(setting(1 if canary is None else 2, canary=canary))
        assert (error.code, error.reason) == ("FAILED_PRECONDITION", "VERSION_DEPRECATED")
    assert stocked.api.GetVersion(pb.GetVersionRequest(name=v(1))).deprecation == told
    again = stocked.api.DeprecateVersion(deprecating(1, reinstate=True, request_id="d2"))
    assert not again.HasField("deprecation")
    assert stocked.api.SetAlias(setting(1)).version == v(1)


def test_a_version_in_use_is_deprecated_for_cause_alone(stocked: Running) -> None:
    stocked.api.SetAlias(setting(1, canary=pb.Canary(version=v(2), percent=5)))
    for number in (1, 2):
        with refused() as error:
            stocked.api.DeprecateVersion(deprecating(number, request_id=f"d{number}"))
        assert (error.code, error.reason) == ("FAILED_PRECONDITION", "VERSION_IN_USE")
        assert "production" in error.message
    assert stocked.api.DeprecateVersion(deprecating(1, for_cause=True, request_id="d3")).deprecation.for_cause


def test_the_audit_trail_is_paged_newest_first_with_publishes_and_changes(stocked: Running) -> None:
    for number in (1, 2, 3):
        stocked.api.SetAlias(setting(number, reason=f"move {number}", request_id=f"r{number}"))
    stocked.api.DeprecateVersion(deprecating(1))
    events: list[pb.AuditEvent] = []
    token = ""
    while True:
        page = stocked.api.ListAuditEvents(pb.ListAuditEventsRequest(adapter=A, page_size=2, page_token=token))
        events.extend(page.events)
        assert len(page.events) <= 2
        if not (token := page.next_page_token):
            break
    assert [event.action for event in events] == ["deprecate", *["set_alias"] * 3, *["publish"] * 3]
    assert [(event.reason, event.request_id) for event in events[1:4]] == [
        ("move 3", "r3"),
        ("move 2", "r2"),
        ("move 1", "r1"),
    ]
    assert {event.actor for event in events} == {USER}
    assert [event.name for event in events[4:]] == [v(3), v(2), v(1)]
    times = [event.time.ToNanoseconds() for event in events]
    assert times == sorted(times, reverse=True)


def canary(**fields: Any) -> Call:
    """SetAlias of version 1 with parts of a canary replaced."""
    return lambda registry: registry.api.SetAlias(
        setting(1, canary=pb.Canary(**{"version": v(2), "percent": 5, **fields}))
    )


CASES: list[tuple[str, Call, str, str]] = [
    ("canary of nobody", canary(percent=0), "INVALID_ARGUMENT", "CANARY_INVALID"),
    ("canary of too many", canary(percent=100.5), "INVALID_ARGUMENT", "CANARY_INVALID"),
    ("canary of no number", canary(percent=math.nan), "INVALID_ARGUMENT", "CANARY_INVALID"),
    ("canary of itself", canary(version=v(1)), "INVALID_ARGUMENT", "CANARY_INVALID"),
    ("canary that has ended", canary(expire_time=moment(-1)), "INVALID_ARGUMENT", "CANARY_INVALID"),
    ("canary abroad", canary(version="adapters/b/versions/1"), "INVALID_ARGUMENT", "ALIAS_OUTSIDE_ADAPTER"),
    ("canary to nowhere", canary(version=v(9)), "NOT_FOUND", "VERSION_NOT_FOUND"),
    (
        "nine guardrails",
        canary(guardrails=[pb.Guardrail(metric="a", maximum=1)] * 9),
        "INVALID_ARGUMENT",
        "CANARY_INVALID",
    ),
    (
        "a guardrail without a bound",
        canary(guardrails=[pb.Guardrail(metric="a", maximum=math.inf)]),
        "INVALID_ARGUMENT",
        "CANARY_INVALID",
    ),
    (
        "a guardrail without a name",
        canary(guardrails=[pb.Guardrail(metric="A b", maximum=1)]),
        "INVALID_ARGUMENT",
        "CANARY_INVALID",
    ),
    ("rollback of nothing", lambda r: r.api.RollbackAlias(rolling("none")), "NOT_FOUND", "ALIAS_NOT_FOUND"),
    (
        "rollback without a reason",
        lambda r: r.api.RollbackAlias(rolling(reason="")),
        "INVALID_ARGUMENT",
        "TEXT_MISSING",
    ),
    (
        "rollback abroad",
        lambda r: r.api.RollbackAlias(rolling(adapter="adapters/b")),
        "NOT_FOUND",
        "ADAPTER_NOT_FOUND",
    ),
    ("rollback with an old etag", lambda r: r.api.RollbackAlias(rolling(etag="1-x")), "ABORTED", "STORE_ETAG_MISMATCH"),
    ("deletion of nothing", lambda r: r.api.DeleteAlias(deleting("none")), "NOT_FOUND", "ALIAS_NOT_FOUND"),
    ("deletion without a reason", lambda r: r.api.DeleteAlias(deleting(reason="")), "INVALID_ARGUMENT", "TEXT_MISSING"),
    ("deletion of a bad name", lambda r: r.api.DeleteAlias(deleting("A/b")), "INVALID_ARGUMENT", "INVALID_IDENTIFIER"),
    (
        "deprecation without a reason",
        lambda r: r.api.DeprecateVersion(deprecating(2, reason="")),
        "INVALID_ARGUMENT",
        "TEXT_MISSING",
    ),
    (
        "deprecation of an alias",
        lambda r: r.api.DeprecateVersion(deprecating(2, name=f"{A}@production")),
        "INVALID_ARGUMENT",
        "INVALID_NAME",
    ),
    ("deprecation of nothing", lambda r: r.api.DeprecateVersion(deprecating(9)), "NOT_FOUND", "VERSION_NOT_FOUND"),
    (
        "a replacement that is not there",
        lambda r: r.api.DeprecateVersion(deprecating(2, replacement=v(9))),
        "NOT_FOUND",
        "VERSION_NOT_FOUND",
    ),
    (
        "reinstating what is in use",
        lambda r: r.api.DeprecateVersion(deprecating(2, reinstate=True)),
        "FAILED_PRECONDITION",
        "VERSION_NOT_DEPRECATED",
    ),
    (
        "audit of nothing",
        lambda r: r.api.ListAuditEvents(pb.ListAuditEventsRequest(adapter="adapters/b")),
        "NOT_FOUND",
        "ADAPTER_NOT_FOUND",
    ),
    (
        "audit with a foreign token",
        lambda r: r.api.ListAuditEvents(pb.ListAuditEventsRequest(adapter=A, page_token="x")),
        "INVALID_ARGUMENT",
        "INVALID_PAGE_TOKEN",
    ),
    (
        "audit of too many",
        lambda r: r.api.ListAuditEvents(pb.ListAuditEventsRequest(adapter=A, page_size=201)),
        "INVALID_ARGUMENT",
        "OUT_OF_RANGE",
    ),
]


@pytest.fixture(scope="module")
def unmoved(module_registry: Running) -> Running:
    """A registry that no refused change may touch."""
    stock(module_registry).api.SetAlias(setting(3))
    return module_registry


@pytest.mark.parametrize(("call", "code", "reason"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_refused_change_has_its_reason_and_leaves_no_trace(
    unmoved: Running, call: Call, code: str, reason: str
) -> None:
    with refused() as error:
        call(unmoved)
    assert (error.code, error.reason) == (code, reason)
    assert error.message
    assert len(unmoved.api.ListAuditEvents(pb.ListAuditEventsRequest(adapter=A)).events) == 4


@pytest.mark.parametrize(
    ("role", "call", "needed"),
    [
        (Role.VIEWER, lambda r: r.api.SetAlias(setting(1, alias="staging")), "stylist"),
        (Role.STYLIST, lambda r: r.api.SetAlias(setting(1)), "publisher"),
        (Role.STYLIST, lambda r: r.api.RollbackAlias(rolling()), "publisher"),
        (Role.STYLIST, lambda r: r.api.DeleteAlias(deleting()), "publisher"),
        (Role.STYLIST, lambda r: r.api.DeprecateVersion(deprecating(1)), "publisher"),
        (Role.STYLIST, lambda r: r.publish(A, adapter_bytes(rank=1)), "publisher or service"),
        (Role.SERVICE, lambda r: r.api.SetAlias(setting(1, alias="staging")), "stylist"),
    ],
    ids=["viewer sets", "stylist sets", "stylist rolls back", "stylist deletes", "stylist deprecates",
         "stylist publishes", "service sets"],
)  # fmt: skip
def test_who_lacks_a_role_is_told_which(tmp_path: Path, role: Role, call: Call, needed: str) -> None:
    settings = RegistrySettings(
        data_dir=tmp_path / "data", port=0, base_sources={"tiny": write_base_folder(tmp_path / "tiny")}
    )
    with running_registry(settings) as of_operators:
        stock(of_operators).api.SetAlias(setting(1))
        of_operators.api.SetAlias(setting(2))
    lesser = settings.model_copy(update={"local_roles": frozenset({role})})
    with running_registry(lesser) as running:
        with refused() as error:
            call(running)
        assert (error.code, error.reason) == ("PERMISSION_DENIED", "ROLE_MISSING")
        assert error.found is not None and error.found.metadata == {"principal": USER, "role": needed}
        assert resolved(running) == v(2)


def test_a_stylist_moves_what_is_not_protected(tmp_path: Path) -> None:
    settings = RegistrySettings(
        data_dir=tmp_path / "data",
        port=0,
        base_sources={"tiny": write_base_folder(tmp_path / "tiny")},
        protected_aliases=frozenset({"live"}),
    )
    with running_registry(settings) as of_operators:
        stock(of_operators)
    with running_registry(settings.model_copy(update={"local_roles": frozenset({Role.STYLIST})})) as running:
        moved = running.api.SetAlias(setting(1, reason=""))
        assert (moved.protected, moved.reason) == (False, "")
        with refused() as error:
            running.api.SetAlias(setting(1, alias="live"))
        assert error.reason == "ROLE_MISSING"


@pytest.fixture
def shell(stocked: Running, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    """A command line that finds the three versions."""
    services = ("dataset", "training", "registry", "inference")
    monkeypatch.setenv("TERROIR_ENDPOINTS", ",".join(f"{name}=127.0.0.1:{stocked.port}" for name in services))
    with capture_logs():  # the server logs to the standard output that the commands have here
        yield Shell(stocked)


def test_the_command_line_moves_tries_rolls_back_deprecates_removes_and_tells(shell: Shell) -> None:
    shell.said("adapter", "alias", "jiangnan", "production", "1", "--reason", "first")
    said = shell.said("adapter", "alias", "jiangnan", "production", "2", "--canary", "3=12.5", "--reason", "try")
    assert said == f"{A}@production → {v(2)}, 12.5 % get {v(3)}\n"
    assert shell.said("adapter", "rollback", "jiangnan", "production", "--reason", "seams").endswith(f"→ {v(1)}\n")
    marked = shell.said("adapter", "deprecate", "jiangnan/versions/3", "--reason", "licence")
    assert marked == f"{v(3)} is deprecated\n"
    shell.said("adapter", "deprecate", "jiangnan/versions/3", "--undo", "--reason", "cleared")
    shell.said("adapter", "unalias", "jiangnan", "production", "--reason", "over")
    events = json.loads(shell.said("--json", "adapter", "audit", "jiangnan"))
    assert [event["action"] for event in events[:6]] == [
        "delete_alias", "reinstate", "deprecate", "rollback_alias", "set_alias", "set_alias",
    ]  # fmt: skip
    assert "licence" in shell.said("adapter", "audit", "jiangnan")
    with pytest.raises(TerroirError) as error:
        shell.run("adapter", "alias", "jiangnan", "production", "1", "--canary", "3", "--reason", "x")
    assert error.value.reason == "INVALID_CANARY"
