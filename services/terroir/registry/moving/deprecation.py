"""Deprecation: a version that must no longer be used stays readable, and says why."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from terroir.common.clock import Clock
from terroir.common.principal import Principal, Role
from terroir.common.validation import ensure_text
from terroir.registry.errors import VersionInUse, VersionNotDeprecated
from terroir.registry.moving.state import AdapterState, Deprecation, StateChange, States
from terroir.registry.names import adapter_name, version_name


@dataclass(frozen=True)
class DeprecationRequest:
    """A wish to deprecate a version, or to take that back."""

    adapter: str
    number: int
    reason: str
    for_cause: bool = False
    replacement: str = ""
    """`adapters/{id}/versions/{number}`, or empty."""
    reinstate: bool = False


class Deprecations:
    """Deprecates and reinstates; that the versions exist is the caller's concern."""

    def __init__(self, states: States, clock: Clock) -> None:
        self._states = states
        self._clock = clock

    def change(self, request: DeprecationRequest, principal: Principal, *, op_id: str) -> Deprecation | None:
        """The deprecation as it is now; None once it is taken back.

        Raises PermissionDenied, InvalidArgument, VersionInUse when an alias points at the version and it is not for
        cause, and VersionNotDeprecated when there is nothing to take back.
        """
        principal.require(Role.PUBLISHER, "deprecate or reinstate a version")
        reason = ensure_text(request.reason, "reason", 500, min_length=1)
        name = version_name(request.adapter, request.number)

        def update(state: AdapterState) -> tuple[AdapterState, StateChange]:
            before = state.deprecations.get(request.number)
            others = {number: each for number, each in state.deprecations.items() if number != request.number}
            told = before.reason if before is not None else ""
            if request.reinstate:
                if before is None:
                    raise VersionNotDeprecated(f"{name} is not deprecated: there is nothing to take back")
                change = StateChange("reinstate", name, principal.name, reason, op_id, told)
                return replace(state, deprecations=others), change
            if not request.for_cause:
                _ensure_unused(state, request)
            now = self._clock.now().isoformat()
            entry = Deprecation(reason, request.for_cause, principal.name, now, request.replacement)
            change = StateChange("deprecate", name, principal.name, reason, op_id, told, reason)
            return replace(state, deprecations={**others, request.number: entry}), change

        held = self._states.change(request.adapter, update, op_id=op_id, request={"deprecate": asdict(request)})
        return held.state.deprecations.get(request.number)


def _ensure_unused(state: AdapterState, request: DeprecationRequest) -> None:
    pointing = [
        alias
        for alias, entry in sorted(state.aliases.items())
        if request.number in (entry.number, entry.canary.number if entry.canary is not None else None)
    ]
    if pointing:
        raise VersionInUse(
            f"{version_name(request.adapter, request.number)} is what {', '.join(pointing)} of "
            f"{adapter_name(request.adapter)} points at; move them first, or say for_cause to stop it at once",
            metadata={"aliases": ",".join(pointing)},
        )
