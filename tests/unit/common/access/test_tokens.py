"""Attack table of bearer tokens (RFC 8725): each is refused by a reason of its own, and no message quotes a token."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terroir.common.access.access_file import AccessRules
from terroir.common.access.tokens import LEEWAY_SECONDS, PAUSE_SECONDS, REFRESH_SECONDS, STALE_SECONDS, TokenVerifier
from terroir.common.clock import FixedClock
from terroir.common.errors import TerroirError, Unauthenticated, Unavailable
from terroir.common.principal import Role
from tests.tools.authority import AUDIENCE, ISSUER, Issuer


class House:
    """A verifier whose issuer can be down, and which counts how often it is asked."""

    def __init__(self, *grants: dict[str, Any], **fields: Any) -> None:
        self.issuer, self.clock = Issuer(), FixedClock()
        self.asked, self.down = 0, False
        self.rules = AccessRules.model_validate({"issuers": [self.issuer.rules(**fields)], "grants": list(grants)})
        self.verifier = TokenVerifier(self.clock, self._fetch)

    def _fetch(self, _location: str) -> bytes:
        self.asked += 1
        if self.down:
            raise OSError("connection refused")
        return self.issuer.jwks()

    def verify(self, token: str) -> Any:
        """As the server does: what is remembered is not verified again."""
        return self.verifier.remembered(token, self.rules) or self.verifier.verify(token, self.rules)

    def reason(self, token: str) -> str:
        with pytest.raises(TerroirError) as refused:
            self.verify(token)
        assert not any(part and part in str(refused.value) for part in (token, *token.split(".")))
        assert refused.value.__cause__ is None, "a cause could quote the token in a log"
        return refused.value.reason


def test_a_token_brings_name_roles_and_regions() -> None:
    house = House()
    principal = house.verify(house.issuer.token(terroir_roles=["stylist", "admin"], terroir_regions=["CN-ZJ"]))
    assert principal.name == f"oidc:{ISSUER}#ana"
    assert (principal.roles, principal.regions) == ({Role.STYLIST}, {"CN-ZJ"})


def test_roles_in_one_string_are_read_as_scope_is() -> None:
    house = House()
    assert house.verify(house.issuer.token(terroir_roles="viewer publisher")).roles == {Role.VIEWER, Role.PUBLISHER}


def test_a_grant_adds_roles_to_those_of_the_token() -> None:
    house = House({"principals": [f"oidc:{ISSUER}#ana"], "roles": ["operator"]})
    assert house.verify(house.issuer.token(terroir_roles=["viewer"])).roles == {Role.VIEWER, Role.OPERATOR}


def test_a_token_without_roles_names_somebody_who_may_nothing() -> None:
    house = House()
    assert house.verify(house.issuer.token()).roles == frozenset()


CLAIMS = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ana", "exp": 4_000_000_000}


def _part(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _forged(house: House, algorithm: str) -> str:
    header = {"alg": algorithm, "typ": "JWT", "kid": house.issuer.key_id}
    return f"{_part(json.dumps(header).encode())}.{_part(json.dumps(CLAIMS).encode())}"


def _unsigned(house: House) -> str:
    return f"{_forged(house, 'none')}."


def _signed_with_the_public_key(house: House) -> str:
    """The confusion attack: the published key taken as the secret of an HMAC (CVE-2016-10555 and its kin)."""
    text = _forged(house, "HS256")
    return f"{text}.{_part(hmac.digest(house.issuer.jwks(), text.encode(), 'sha256'))}"


def _tampered(house: House) -> str:
    head, body, signature = house.issuer.token(terroir_roles=["viewer"]).split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    raised = base64.urlsafe_b64encode(json.dumps(claims | {"terroir_roles": ["operator"]}).encode()).rstrip(b"=")
    return f"{head}.{raised.decode()}.{signature}"


def _by_another_key_of_the_same_name(house: House) -> str:
    return Issuer().token(headers={"kid": house.issuer.key_id})


NOW = datetime.now(UTC)
ATTACKS: dict[str, tuple[Callable[[House], str], str]] = {
    "no token at all": (lambda _: "hello", "TOKEN_MALFORMED"),
    "far too long": (lambda h: h.issuer.token(filler="x" * 20_000), "TOKEN_MALFORMED"),
    "algorithm none": (_unsigned, "TOKEN_ALGORITHM_REFUSED"),
    "HMAC with the public key": (_signed_with_the_public_key, "TOKEN_ALGORITHM_REFUSED"),
    "claims changed": (_tampered, "TOKEN_SIGNATURE_INVALID"),
    "another key under a known id": (_by_another_key_of_the_same_name, "TOKEN_SIGNATURE_INVALID"),
    "unknown key id": (lambda h: h.issuer.token(headers={"kid": "invented"}), "TOKEN_KEY_UNKNOWN"),
    "another issuer": (lambda _: Issuer("https://evil.example.com").token(), "TOKEN_ISSUER_UNKNOWN"),
    "another audience": (lambda h: h.issuer.token(aud="billing"), "TOKEN_AUDIENCE_WRONG"),
    "no audience": (lambda h: h.issuer.token(aud=None), "TOKEN_CLAIM_MISSING"),
    "expired": (lambda h: h.issuer.token(exp=NOW - timedelta(minutes=1)), "TOKEN_EXPIRED"),
    "never expires": (lambda h: h.issuer.token(exp=None), "TOKEN_CLAIM_MISSING"),
    "of the future": (lambda h: h.issuer.token(nbf=NOW + timedelta(hours=1)), "TOKEN_NOT_YET_VALID"),
    "of nobody": (lambda h: h.issuer.token(sub=None), "TOKEN_CLAIM_MISSING"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_refuses_by_its_own_reason_a_token_that_is(attack: str) -> None:
    forge, reason = ATTACKS[attack]
    house = House()
    assert house.reason(forge(house)) == reason


def test_a_few_seconds_between_clocks_are_forgiven() -> None:
    house = House()
    assert house.verify(house.issuer.token(exp=datetime.now(UTC) - timedelta(seconds=5))).name.endswith("#ana")


def test_a_rotated_key_is_found_without_a_restart() -> None:
    house = House()
    house.verify(house.issuer.token())
    house.clock.advance(PAUSE_SECONDS)
    house.issuer.rotate()
    house.verify(house.issuer.token())
    assert house.asked == 2


def test_a_withdrawn_key_stops_working_at_the_next_refresh() -> None:
    house = House()
    old = house.issuer.token()
    house.verify(old)
    house.issuer.forget(house.issuer.key_id)
    house.issuer.rotate()
    house.verify(old)  # the keys are not five minutes old
    house.clock.advance(REFRESH_SECONDS)
    assert house.reason(old) == "TOKEN_KEY_UNKNOWN"


def test_a_remembered_token_is_not_verified_again_and_ends_with_itself() -> None:
    house = House()
    house.clock = FixedClock(datetime.now(UTC))
    house.verifier = TokenVerifier(house.clock, house._fetch)
    token = house.issuer.token(exp=datetime.now(UTC) + timedelta(seconds=100), terroir_roles=["viewer"])
    house.verify(token)
    assert house.verifier.remembered(token, house.rules) == house.verify(token)
    house.clock.advance(100 + LEEWAY_SECONDS)
    assert house.verifier.remembered(token, house.rules) is None


def test_what_is_remembered_heeds_the_rules_as_they_are_now() -> None:
    house = House()
    token = house.issuer.token(terroir_roles=["viewer"])
    house.verify(token)
    granted = {"principals": [f"oidc:{ISSUER}#ana"], "roles": ["operator"]}
    house.rules = AccessRules.model_validate({"issuers": [house.issuer.rules()], "grants": [granted]})
    assert Role.OPERATOR in house.verify(token).roles
    house.rules = AccessRules.model_validate({"issuers": [house.issuer.rules(audience="other")]})
    assert house.reason(token) == "TOKEN_AUDIENCE_WRONG"


def test_memory_of_tokens_is_bounded() -> None:
    house = House()
    for number in range(1100):
        house.verify(house.issuer.token(jti=str(number)))
    assert len(house.verifier._verified) == 1024


def test_invented_key_ids_do_not_turn_us_against_the_issuer() -> None:
    house = House()
    for number in range(100):
        assert house.reason(house.issuer.token(headers={"kid": f"invented-{number}"})) == "TOKEN_KEY_UNKNOWN"
    assert house.asked == 1


def test_an_issuer_that_is_down_keeps_nobody_out_for_a_day() -> None:
    house = House()
    house.verify(house.issuer.token())
    house.down = True
    house.clock.advance(STALE_SECONDS)
    house.verify(house.issuer.token(exp=datetime.now(UTC) + timedelta(days=2)))
    house.clock.advance(1)
    with pytest.raises(Unavailable, match="keys cannot be had") as refused:
        house.verify(house.issuer.token())
    assert refused.value.reason == "KEYS_UNAVAILABLE" and refused.value.retry_after_seconds
    assert house.asked == 2, "a provider that is down is asked at most every ten seconds"


def test_an_issuer_that_was_never_reached_is_unavailable_not_a_refusal() -> None:
    house = House()
    house.down = True
    assert house.reason(house.issuer.token()) == "KEYS_UNAVAILABLE"


@pytest.mark.parametrize("answer", [b"", b"[]", b'{"keys": 3}', b'{"keys": [{"kty": "EC"}]}', b"\xff\xfe", b"{}"])
def test_keys_that_are_no_keys_leave_the_old_ones(answer: bytes) -> None:
    house = House()
    token = house.issuer.token()
    house.verify(token)
    house.issuer.jwks = lambda: answer  # type: ignore[method-assign]
    house.clock.advance(REFRESH_SECONDS)
    assert house.verify(token).name.endswith("#ana")


@given(st.text(max_size=200))
def test_any_text_is_refused_as_unauthenticated(text: str) -> None:
    with pytest.raises(Unauthenticated):
        House().verify(text)
