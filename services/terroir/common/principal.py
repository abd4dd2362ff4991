"""Who calls, as the server derived it. No request field ever names the actor."""

from __future__ import annotations

import getpass
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Protocol

from terroir.common.errors import PermissionDenied


class Role(StrEnum):
    """What a principal may do; each of the first four includes those before it."""

    VIEWER = "viewer"
    STYLIST = "stylist"
    PUBLISHER = "publisher"
    OPERATOR = "operator"
    SERVICE = "service"


_LADDER = (Role.VIEWER, Role.STYLIST, Role.PUBLISHER, Role.OPERATOR)


@dataclass(frozen=True)
class Principal:
    """A caller."""

    name: str
    """Such as `local:ana`, `cert:terroir-inference` or `oidc:https://login.example.com#ana`; kept in audit trails."""
    roles: frozenset[Role]
    regions: frozenset[str] | None = None
    """Codes of the regions that what it changes must lie in or below; None: everywhere."""

    def has(self, role: Role) -> bool:
        """Whether a role of the principal is, or includes, this one."""
        if role not in _LADDER:
            return role in self.roles
        return any(held in _LADDER and _LADDER.index(held) >= _LADDER.index(role) for held in self.roles)

    def require(self, role: Role, what: str, *, or_service: bool = False) -> None:
        """Raise PermissionDenied (ROLE_MISSING) unless the principal has the role; `what` is the refused act."""
        if not self.has(role) and not (or_service and self.has(Role.SERVICE)):
            raise self.lacks((role, Role.SERVICE) if or_service else (role,), what)

    def lacks(self, roles: tuple[Role, ...], what: str) -> PermissionDenied:
        """The refusal of `what`, which needs one of these roles."""
        held, wanted = ", ".join(sorted(self.roles)) or "none", " or ".join(roles)
        return PermissionDenied(
            f"{self.name} may not {what}: it needs the role {wanted} and has {held}; ask an operator",
            reason="ROLE_MISSING",
            metadata={"principal": self.name, "role": wanted},
        )

    def require_region(self, region: str, what: str) -> None:
        """Raise PermissionDenied (REGION_OUT_OF_SCOPE) unless the region's code is within those of the principal.

        `CN-ZJ` lies below `CN`, by its name: codes are ISO 3166-2's. An empty code is outside of every limit.
        """
        if self.regions is None or any(region == own or region.startswith(f"{own}-") for own in self.regions):
            return
        limits = ", ".join(sorted(self.regions)) or "no region"
        raise PermissionDenied(
            f"{self.name} may not {what}: it lies in {region or 'no region'} and the caller is limited to {limits}; "
            "ask an operator",
            reason="REGION_OUT_OF_SCOPE",
            metadata={"principal": self.name, "region": region},
        )


class PrincipalSource(Protocol):
    """Tells who makes a call."""

    def of(self, context: Any) -> Principal:
        """The principal of a call, from its servicer context."""
        ...


_calling: Final[ContextVar[Principal]] = ContextVar("principal")


def set_principal(principal: Principal) -> None:
    """Name the caller for the rest of this call, its threads included."""
    _calling.set(principal)


class CallPrincipals:
    """The principal that the server's gate admitted to the call that runs."""

    def of(self, context: Any) -> Principal:  # noqa: ARG002 (the protocol's)
        """Raises LookupError outside of a call: no code may act for nobody."""
        return _calling.get()


def local_principal(roles: frozenset[Role]) -> Principal:
    """While nobody authenticates, every caller is the operating system's user who runs the server.

    That is true where it is allowed: a server without authentication listens on loopback alone, unless a setting whose
    name says `insecure` opened it.
    """
    return Principal(f"local:{getpass.getuser()}", roles)
