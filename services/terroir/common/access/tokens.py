"""Bearer tokens: JSON Web Tokens (RFC 7519) of issuers whose keys are published as a JWK set (RFC 7517).

Algorithms are pinned by the issuer's entry, never taken from the token (RFC 8725 §3.1). Keys rotate: an unknown key id
has the set fetched again, and a provider that is down keeps nobody out as long as its last keys are not too old.
"""

from __future__ import annotations

import hashlib
import json
import threading
import urllib.request
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jwt
import structlog

from terroir.common.access.access_file import AccessRules, Issuer
from terroir.common.clock import Clock
from terroir.common.errors import Unauthenticated, Unavailable
from terroir.common.principal import Principal, Role

LEEWAY_SECONDS: Final = 30
"""What clocks may differ by."""
REFRESH_SECONDS: Final = 300.0
"""Age at which keys are fetched again, so that a revoked one does not stay."""
PAUSE_SECONDS: Final = 10.0
"""Between two fetches: neither invented key ids nor an outage may turn us against the provider."""
STALE_SECONDS: Final = 24 * 3600.0
"""Keys that could not be fetched anew hold this long."""
_FETCH_SECONDS: Final = 5.0
_SET_BYTES: Final = 1024 * 1024
_TOKEN_BYTES: Final = 16 * 1024
_REMEMBERED: Final = 1024
"""Verified tokens kept at once."""
_log = structlog.get_logger()

_REASONS: Final[tuple[tuple[type[jwt.PyJWTError], str, str], ...]] = (
    (jwt.ExpiredSignatureError, "TOKEN_EXPIRED", "the token has expired; get a new one"),
    (jwt.ImmatureSignatureError, "TOKEN_NOT_YET_VALID", "the token is not valid yet; compare the clocks"),
    (jwt.InvalidAudienceError, "TOKEN_AUDIENCE_WRONG", "the token is for another audience; ask its issuer for ours"),
    (jwt.InvalidIssuerError, "TOKEN_ISSUER_UNKNOWN", "the token is of another issuer"),
    (jwt.MissingRequiredClaimError, "TOKEN_CLAIM_MISSING", "the token lacks a claim: it needs iss, sub, aud and exp"),
    (jwt.InvalidAlgorithmError, "TOKEN_ALGORITHM_REFUSED", "the token is signed in a way that is not accepted"),
    (jwt.InvalidSignatureError, "TOKEN_SIGNATURE_INVALID", "the token's signature does not hold"),
)


def fetch(location: str) -> bytes:
    """A JWK set from an address or a file; raises OSError."""
    if not location.startswith(("https://", "http://")):
        return Path(location).read_bytes()
    with urllib.request.urlopen(location, timeout=_FETCH_SECONDS) as answer:  # the access file allows https alone
        data: bytes = answer.read(_SET_BYTES + 1)
    if len(data) > _SET_BYTES:
        raise OSError(f"{location} holds more than {_SET_BYTES} bytes")
    return data


class KeySet:
    """The public keys of one issuer, by key id."""

    def __init__(self, location: str, clock: Clock, fetch: Callable[[str], bytes] = fetch) -> None:
        self._location, self._clock, self._fetch = location, clock, fetch
        self._keys: dict[str, jwt.PyJWK] = {}
        self._good_at: float | None = None
        self._tried_at: float | None = None
        self._lock = threading.Lock()
        self.generation = 0
        """Grows with each set that was read: what was verified before is verified again."""

    def key(self, key_id: str) -> jwt.PyJWK:
        """A key; raises Unauthenticated (TOKEN_KEY_UNKNOWN) or Unavailable (KEYS_UNAVAILABLE). May fetch: blocks."""
        if self.due(key_id):
            with self._lock:
                if self.due(key_id):
                    self._read()
        if self._good_at is None or self._age(self._good_at) > STALE_SECONDS:
            raise Unavailable(
                "the issuer's keys cannot be had, so nobody's token can be checked; try again, and tell an operator",
                reason="KEYS_UNAVAILABLE",
                retry_after_seconds=_FETCH_SECONDS,
            )
        if found := self._keys.get(key_id):
            return found
        raise Unauthenticated(
            "the token names a key that its issuer does not publish; get a new token", reason="TOKEN_KEY_UNKNOWN"
        )

    def due(self, key_id: str) -> bool:
        """Whether `key` would ask the issuer: keys are old or lack this one, and it was not asked a moment ago."""
        wanted = self._age(self._good_at) >= REFRESH_SECONDS or key_id not in self._keys
        return wanted and self._age(self._tried_at) >= PAUSE_SECONDS

    def _age(self, at: float | None) -> float:
        return float("inf") if at is None else self._clock.monotonic() - at

    def _read(self) -> None:
        self._tried_at = self._clock.monotonic()
        try:
            stated = json.loads(self._fetch(self._location))
            keys = {key.key_id: key for key in jwt.PyJWKSet.from_dict(stated).keys if key.key_id}
        except (OSError, ValueError, TypeError, AttributeError, jwt.PyJWTError) as error:
            _log.error("keys of an issuer could not be read", location=self._location, error=type(error).__name__)
            return
        self._keys, self._good_at = keys, self._clock.monotonic()
        self.generation += 1


@dataclass(frozen=True)
class _Verified:
    """What a token said, once its signature was seen to hold."""

    issuer: Issuer
    key_id: str
    generation: int
    claims: Mapping[str, Any]


class TokenVerifier:
    """Tokens of every issuer of the access file.

    A verified token is remembered, by digest, as long as it and its issuer's keys last: checking a signature costs as
    much as the rest of a small call.
    """

    def __init__(self, clock: Clock, fetch: Callable[[str], bytes] = fetch) -> None:
        self._clock, self._fetch = clock, fetch
        self._sets: dict[str, KeySet] = {}
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()

    def remembered(self, token: str, rules: AccessRules) -> Principal | None:
        """The principal of a token that `verify` has seen and that still holds; None if it must be verified."""
        known = self._verified.get(_digest(token))
        if known is None or known.issuer not in rules.issuers:
            return None
        keys = self._key_set(known.issuer)
        if keys.generation != known.generation or keys.due(known.key_id):
            return None
        if known.claims["exp"] + LEEWAY_SECONDS <= self._clock.now().timestamp():
            return None
        return _principal(known.issuer, known.claims, rules)

    def needs_keys(self, token: str, rules: AccessRules) -> bool:
        """Whether `verify` would ask the issuer for keys, and so block."""
        issuer, header = _issuer(token, rules)
        return self._key_set(issuer).due(str(header.get("kid", "")))

    def verify(self, token: str, rules: AccessRules) -> Principal:
        """The principal of a token; raises Unauthenticated (a TOKEN_… reason), or Unavailable (KEYS_UNAVAILABLE)."""
        issuer, header = _issuer(token, rules)
        if header.get("alg") not in issuer.algorithms:
            raise Unauthenticated(
                f"the token is signed by an algorithm that is not accepted; {', '.join(issuer.algorithms)} are",
                reason="TOKEN_ALGORITHM_REFUSED",
            )
        key_id, keys = str(header.get("kid", "")), self._key_set(issuer)
        key, generation = keys.key(key_id), keys.generation
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=list(issuer.algorithms),
                audience=issuer.audience,
                issuer=issuer.issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.PyJWTError as error:
            raise _refusal(error) from None  # its text may quote the token
        self._verified[_digest(token)] = _Verified(issuer, key_id, generation, claims)
        if len(self._verified) > _REMEMBERED:
            self._verified.popitem(last=False)
        return _principal(issuer, claims, rules)

    def _key_set(self, issuer: Issuer) -> KeySet:
        if issuer.jwks not in self._sets:
            self._sets[issuer.jwks] = KeySet(issuer.jwks, self._clock, self._fetch)
        return self._sets[issuer.jwks]


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _principal(issuer: Issuer, claims: Mapping[str, Any], rules: AccessRules) -> Principal:
    stated = _strings(claims.get(issuer.roles_claim)) if issuer.roles_claim else frozenset()
    limits = _strings(claims[issuer.regions_claim]) if issuer.regions_claim in claims else None
    roles = frozenset(role for role in Role if role.value in stated)
    return rules.principal(f"oidc:{issuer.issuer}#{claims['sub']}", roles, limits)


def _issuer(token: str, rules: AccessRules) -> tuple[Issuer, dict[str, Any]]:
    """Whose keys to look the token up with, and its header; nothing of either is believed yet."""
    try:
        if len(token) > _TOKEN_BYTES:
            raise jwt.DecodeError
        header = jwt.get_unverified_header(token)
        claimed = jwt.decode(token, options={"verify_signature": False}).get("iss")
    except jwt.PyJWTError:
        raise Unauthenticated("the bearer token is no JSON Web Token", reason="TOKEN_MALFORMED") from None
    for issuer in rules.issuers:
        if issuer.issuer == claimed:
            return issuer, header
    raise Unauthenticated("the token is of an issuer that is not accepted here", reason="TOKEN_ISSUER_UNKNOWN")


def _refusal(error: jwt.PyJWTError) -> Unauthenticated:
    for kind, reason, text in _REASONS:
        if isinstance(error, kind):
            return Unauthenticated(text, reason=reason)
    return Unauthenticated("the token does not hold", reason="TOKEN_INVALID")


def _strings(claim: object) -> frozenset[str]:
    """A claim of one string (separated by spaces, as `scope` is) or of a list of them."""
    if isinstance(claim, str):
        return frozenset(claim.split())
    return frozenset(part for part in claim if isinstance(part, str)) if isinstance(claim, list) else frozenset()
