"""Who calls: a bearer token, a client certificate, or on loopback the user who runs the server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

from terroir.common.access.access_file import AccessFile
from terroir.common.access.tokens import TokenVerifier
from terroir.common.errors import Unauthenticated
from terroir.common.principal import Principal

_BEARER: Final = "bearer "
_CERTIFICATE_NAMES: Final = ("peer_uri", "peer_dns", "x509_subject_alternative_name", "x509_common_name")
"""Names that gRPC reads from a verified client certificate, the most specific first."""


class Authenticator(Protocol):
    """Tells who calls."""

    async def principal(self, context: Any) -> Principal:
        """The caller of this call; raises Unauthenticated, or Unavailable where it cannot be told now."""
        ...


class Local:
    """Nobody authenticates: everybody is one principal."""

    def __init__(self, principal: Principal) -> None:
        self._principal = principal

    async def principal(self, context: Any) -> Principal:  # noqa: ARG002 (the protocol's)
        """See Authenticator."""
        return self._principal


class Credentials:
    """Tokens of the access file's issuers, else client certificates that the TLS handshake has verified.

    A token that does not hold is refused even where a certificate would do: the caller meant somebody.
    """

    def __init__(self, access: AccessFile, verifier: TokenVerifier) -> None:
        self._access, self._verifier = access, verifier

    async def principal(self, context: Any) -> Principal:
        """See Authenticator."""
        rules = self._access.rules
        if (token := _token(context.invocation_metadata())) is not None:
            if (known := self._verifier.remembered(token, rules)) is not None:
                return known
            if self._verifier.needs_keys(token, rules):
                return await asyncio.to_thread(self._verifier.verify, token, rules)
            return self._verifier.verify(token, rules)
        names = list(_certificate_names(context.auth_context()))
        if not names:
            raise Unauthenticated(
                "this call has no credentials: bring a token (TERROIR_TOKEN_PATH) or a client certificate "
                "(TERROIR_TLS_DIR)",
                reason="CREDENTIALS_MISSING",
            )
        named = next((name for name in names if rules.grants_for(name)), names[0])
        return rules.principal(named)


def _token(metadata: Iterable[tuple[str, str | bytes]] | None) -> str | None:
    for key, value in metadata or ():
        if key == "authorization":
            text = value.decode("ascii", "replace") if isinstance(value, bytes) else value
            if not text.lower().startswith(_BEARER):
                raise Unauthenticated("authorization holds no bearer token", reason="TOKEN_MALFORMED")
            return text[len(_BEARER) :].strip()
    return None


def _certificate_names(properties: Mapping[str, Iterable[bytes]]) -> Iterable[str]:
    for kind in _CERTIFICATE_NAMES:
        for value in properties.get(kind, ()):
            yield f"cert:{value.decode('utf-8', 'replace')}"
