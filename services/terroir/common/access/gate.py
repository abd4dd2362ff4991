"""What every call passes before its handler: authentication, rate limit, the method's policy, limits to regions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry, Counter

from terroir.common.access.authentication import Authenticator
from terroir.common.access.policy import policy_of, scoped_names
from terroir.common.access.rate_limit import RateLimit
from terroir.common.errors import NotFound, PermissionDenied, ResourceExhausted, TerroirError, Unauthenticated
from terroir.common.principal import Principal, set_principal
from terroir.store import errors as store_errors

RegionOf = Callable[[str], str]
"""The region code of a resource name, empty if it has none; raises NotFound for what does not exist. May block."""
_log = structlog.get_logger()
_REGION: Final = "regions/"


def no_regions(name: str) -> str:  # noqa: ARG001 (of type RegionOf)
    """Of services whose resources lie in no region."""
    return ""


class AccessMetrics:
    """Counts what the gate did not let pass."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.refusals = Counter(
            "terroir_auth_refusals", "Calls refused for who called, by reason.", ["reason"], registry=registry
        )
        self.limited = Counter("terroir_rate_limited", "Calls refused by the rate limit.", registry=registry)


class Gate:
    """Admits calls."""

    def __init__(self, authenticator: Authenticator, limit: RateLimit, metrics: AccessMetrics) -> None:
        self._authenticator, self._limit, self._metrics = authenticator, limit, metrics
        self.region_of: RegionOf = no_regions
        """A service that keeps resources of regions sets it."""

    async def admit(self, method: str, context: Any) -> Principal:
        """Who calls, once it is clear that they may call this method; raises what refuses them."""
        try:
            principal = await self._authenticator.principal(context)
            set_principal(principal)
            structlog.contextvars.bind_contextvars(principal=principal.name)
            self._limit.spend(principal.name)
            self._ensure_role(principal, method)
        except TerroirError as error:
            self._count(error)
            raise
        return principal

    async def check(self, principal: Principal, method: str, message: Any) -> None:
        """Refuse a request message of a principal who is limited to regions that it reaches beyond."""
        policy = policy_of(method)
        if policy.any_region:
            return
        verb = method.rpartition("/")[2]
        try:
            if not policy.scope:
                principal.require_region("", f"call {verb}, which concerns every region")
            for name in scoped_names(policy, message):
                if (region := await self._region(name)) is not None:
                    principal.require_region(region, f"call {verb} on {name or 'what has no region'}")
        except TerroirError as error:
            self._count(error)
            raise

    async def checked(self, principal: Principal, method: str, messages: Any) -> AsyncIterator[Any]:
        """The messages of a request stream, each checked."""
        async for message in messages:
            await self.check(principal, method, message)
            yield message

    async def _region(self, name: str) -> str | None:
        if name.startswith(_REGION) or "/" not in name:
            return name.removeprefix(_REGION)
        try:
            return await asyncio.to_thread(self.region_of, name)
        except (NotFound, store_errors.NotFound):
            return None  # the handler says so itself

    def _ensure_role(self, principal: Principal, method: str) -> None:
        roles = policy_of(method).roles
        verb = method.rpartition("/")[2]
        if not roles:
            raise PermissionDenied(f"nobody may call {verb}: its contract states no policy", reason="METHOD_CLOSED")
        if not any(principal.has(role) for role in roles):
            raise principal.lacks(roles, f"call {verb}")

    def _count(self, error: TerroirError) -> None:
        if isinstance(error, ResourceExhausted):
            self._metrics.limited.inc()
        elif isinstance(error, Unauthenticated | PermissionDenied):
            self._metrics.refusals.labels(error.reason).inc()
            _log.warning("refused", reason=error.reason)
