"""Who calls, as the server derived it. No request field ever names the actor."""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

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
    """Such as `local:ana`; kept in audit trails."""
    roles: frozenset[Role]

    def has(self, role: Role) -> bool:
        """Whether a role of the principal is, or includes, this one."""
        if role not in _LADDER:
            return role in self.roles
        return any(held in _LADDER and _LADDER.index(held) >= _LADDER.index(role) for held in self.roles)

    def require(self, role: Role, what: str) -> None:
        """Raise PermissionDenied (ROLE_MISSING) unless the principal has the role; `what` is the refused act."""
        if not self.has(role):
            held = ", ".join(sorted(self.roles)) or "none"
            raise PermissionDenied(
                f"{self.name} may not {what}: it needs the role {role} and has {held}; ask an operator",
                reason="ROLE_MISSING",
                metadata={"principal": self.name, "role": role.value},
            )


class PrincipalSource(Protocol):
    """Tells who makes a call."""

    def of(self, context: Any) -> Principal:
        """The principal of a call, from its servicer context."""
        ...


class LocalPrincipals:
    """While nobody authenticates, every caller is the operating system's user who runs the server.

    That is true where it is allowed: a server without authentication listens on loopback alone, unless a setting whose
    name says `insecure` opened it.
    """

    def __init__(self, roles: frozenset[Role]) -> None:
        self._principal = Principal(f"local:{getpass.getuser()}", roles)

    def of(self, context: Any) -> Principal:  # noqa: ARG002 (the protocol's)
        """The user who runs this process."""
        return self._principal
