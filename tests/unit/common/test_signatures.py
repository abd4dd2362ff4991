"""A signature proves one file with one set of facts by one key, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from terroir.common.signatures import KeyInvalid, Signature, SignatureRefused, SignedFacts, Signer, Verifier
from tests.unit.common.signing_keys import write_key

FILE = bytes(range(256)) * 100
FACTS = SignedFacts("adapters/jiangnan", "b" * 64, "c" * 64, "jiangnan ink")


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_key(tmp_path_factory.mktemp("keys") / "a.pem")


@pytest.fixture(scope="module")
def signed(key: Path) -> Signature:
    return Signer(key).sign(FILE, FACTS)


def refusal(verifier: Verifier, file: bytes, facts: SignedFacts, signature: Signature | None) -> str:
    with pytest.raises(SignatureRefused) as caught:
        verifier.verify(file, facts, signature)
    assert facts.adapter in str(caught.value)
    return caught.value.reason


def test_what_was_signed_is_accepted(key: Path, signed: Signature) -> None:
    Verifier([key.with_suffix(".pub")]).verify(FILE, FACTS, signed)


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()])
def test_other_curves_sign_too(tmp_path: Path, curve: ec.EllipticCurve) -> None:
    key = write_key(tmp_path / "k.pem", curve)
    Verifier([key.with_suffix(".pub")]).verify(FILE, FACTS, Signer(key).sign(FILE, FACTS))


@pytest.mark.parametrize("changed", ["adapter", "base_digest", "tensor_digest", "trigger_word"])
def test_no_fact_can_be_changed(key: Path, signed: Signature, changed: str) -> None:
    other = replace(FACTS, **{changed: "other"})
    assert refusal(Verifier([key.with_suffix(".pub")]), FILE, other, signed) == "SIGNATURE_INVALID"


@pytest.mark.parametrize("file", [FILE[:-1] + b"x", FILE[:-1], FILE + b"x", b""])
def test_no_byte_of_the_file_can_be_changed(key: Path, signed: Signature, file: bytes) -> None:
    assert refusal(Verifier([key.with_suffix(".pub")]), file, FACTS, signed) == "SIGNATURE_INVALID"


def test_a_signature_is_missing_foreign_or_of_another_version(key: Path, signed: Signature, tmp_path: Path) -> None:
    verifier = Verifier([key.with_suffix(".pub")])
    assert refusal(verifier, FILE, FACTS, None) == "SIGNATURE_MISSING"
    stranger = Signer(write_key(tmp_path / "b.pem"))
    foreign = stranger.sign(FILE, FACTS)
    assert refusal(verifier, FILE, FACTS, foreign) == "SIGNATURE_KEY_UNKNOWN"
    assert refusal(verifier, FILE, FACTS, replace(foreign, key_id=signed.key_id)) == "SIGNATURE_INVALID"
    of_other = Signer(key).sign(FILE + b"2", FACTS)
    assert refusal(verifier, FILE, FACTS, of_other) == "SIGNATURE_INVALID"


@pytest.mark.parametrize("bundle", ["", "{", "[]", "null", "{}", "x" * 10_000])
def test_a_bundle_that_is_none_is_refused_not_a_crash(key: Path, signed: Signature, bundle: str) -> None:
    assert (
        refusal(Verifier([key.with_suffix(".pub")]), FILE, FACTS, replace(signed, bundle=bundle)) == "SIGNATURE_INVALID"
    )


def test_every_part_of_the_bundle_matters(key: Path, signed: Signature) -> None:
    """Payload and signature are flipped one character each."""
    verifier = Verifier([key.with_suffix(".pub")])
    envelope = json.loads(signed.bundle)["dsseEnvelope"]
    for text in (envelope["payload"], envelope["signatures"][0]["sig"]):
        at = len(text) // 2
        other = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
        altered = replace(signed, bundle=signed.bundle.replace(text, other))
        assert refusal(verifier, FILE, FACTS, altered) == "SIGNATURE_INVALID"


def test_old_and_new_keys_are_trusted_side_by_side(key: Path, signed: Signature, tmp_path: Path) -> None:
    new = write_key(tmp_path / "new.pem")
    both = Verifier([key.with_suffix(".pub"), new.with_suffix(".pub")])
    both.verify(FILE, FACTS, signed)
    both.verify(FILE, FACTS, Signer(new).sign(FILE, FACTS))


def test_a_file_that_is_no_such_key_is_named_at_start(tmp_path: Path, key: Path) -> None:
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no key")
    other_kind = tmp_path / "rsa.pem"
    other_kind.write_bytes(
        rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    for path in (tmp_path / "missing.pem", garbage, other_kind, key.with_suffix(".pub")):
        with pytest.raises(KeyInvalid, match=path.name):
            Signer(path)
    with pytest.raises(KeyInvalid):
        Verifier([key])  # a private key where a public one belongs
