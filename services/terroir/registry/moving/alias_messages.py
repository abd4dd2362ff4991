"""Between the contract's messages of aliases, deprecations and audit events and the domain's values."""

from __future__ import annotations

from datetime import UTC

from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir.common.errors import InvalidArgument
from terroir.common.validation import ensure_identifier
from terroir.registry.moving.aliases import Alias, Move
from terroir.registry.moving.audit import AuditEvent
from terroir.registry.moving.deprecation import DeprecationRequest
from terroir.registry.moving.state import Canary, Deprecation, Guardrail
from terroir.registry.names import adapter_name, parse_adapter, parse_version, version_name
from terroir.registry.timestamps import timestamp


def alias_message(alias: Alias) -> pb.Alias:
    """An alias as the contract shows it."""
    entry = alias.entry
    return pb.Alias(
        adapter=adapter_name(alias.adapter),
        alias=alias.alias,
        version=version_name(alias.adapter, entry.number),
        actor=entry.actor,
        reason=entry.reason,
        update_time=timestamp(entry.updated_at),
        etag=alias.etag,
        canary=_canary_message(alias.adapter, entry.canary),
        protected=alias.protected,
    )


def alias_move(request: pb.SetAliasRequest) -> Move:
    """The wish in a request; raises InvalidArgument (INVALID_NAME, ALIAS_OUTSIDE_ADAPTER)."""
    adapter = parse_adapter(request.adapter, "adapter")
    canary = None
    if request.HasField("canary"):
        asked = request.canary
        expires = asked.expire_time.ToDatetime(UTC).isoformat() if asked.HasField("expire_time") else ""
        canary = Canary(
            number=_own_version(adapter, asked.version, "canary.version"),
            percent=asked.percent,
            expires_at=expires,
            guardrails=tuple(Guardrail(each.metric, each.maximum) for each in asked.guardrails),
        )
    return Move(
        adapter=adapter,
        alias=ensure_identifier(request.alias, "alias"),
        number=_own_version(adapter, request.version, "version"),
        reason=request.reason,
        canary=canary,
    )


def deprecation_request(request: pb.DeprecateVersionRequest) -> DeprecationRequest:
    """The wish in a request; raises InvalidArgument (INVALID_NAME)."""
    adapter, number = parse_version(request.name, "name")
    if request.replacement:
        parse_version(request.replacement, "replacement")
    return DeprecationRequest(
        adapter, number, request.reason, request.for_cause, request.replacement, request.reinstate
    )


def deprecation_message(deprecation: Deprecation | None) -> pb.Deprecation | None:
    """A deprecation as the contract shows it."""
    if deprecation is None:
        return None
    return pb.Deprecation(
        reason=deprecation.reason,
        for_cause=deprecation.for_cause,
        actor=deprecation.actor,
        create_time=timestamp(deprecation.created_at),
        replacement=deprecation.replacement,
    )


def audit_message(event: AuditEvent) -> pb.AuditEvent:
    """An audit event as the contract shows it."""
    return pb.AuditEvent(
        time=timestamp(event.time),
        actor=event.actor,
        action=event.action,
        name=event.name,
        reason=event.reason,
        before=event.before,
        after=event.after,
        request_id=event.request_id,
    )


def _canary_message(adapter: str, canary: Canary | None) -> pb.Canary | None:
    if canary is None:
        return None
    return pb.Canary(
        version=version_name(adapter, canary.number),
        percent=canary.percent,
        expire_time=timestamp(canary.expires_at) if canary.expires_at else None,
        guardrails=[pb.Guardrail(metric=each.metric, maximum=each.maximum) for each in canary.guardrails],
    )


def _own_version(adapter: str, name: str, field: str) -> int:
    target, number = parse_version(name, field)
    if target != adapter:
        raise InvalidArgument(
            f"{name} is no version of {adapter_name(adapter)}; an alias points into its own adapter",
            reason="ALIAS_OUTSIDE_ADAPTER",
            field=field,
        )
    return number
