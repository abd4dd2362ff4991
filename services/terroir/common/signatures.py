"""Signatures over adapter files: OpenSSF model-signing with keys on an elliptic curve.

What is signed is a folder of two files as model-signing sees it: `adapter.safetensors`, the kohya file, and
`facts.json`, what the registry says of it. So neither can be exchanged alone, and a signature of one adapter proves
nothing of another. Version numbers are not signed: the write that makes a version allocates its number.

    openssl ecparam -name prime256v1 -genkey -noout -out signing.pem
    openssl ec -in signing.pem -pubout -out signing.pub.pem
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from terroir.common.errors import FailedPrecondition


@dataclass(frozen=True)
class SignedFacts:
    """What a signature says of a file beside its bytes."""

    adapter: str
    """`adapters/{id}`."""
    base_digest: str
    tensor_digest: str
    trigger_word: str

    def to_json(self) -> bytes:
        """One spelling for equal facts."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Signature:
    """A signature as versions carry it."""

    key_id: str
    """SHA-256 (hex) of the public key's DER."""
    bundle: str
    """Sigstore bundle, JSON."""


class KeyInvalid(FailedPrecondition):
    """A configured key file is missing, no key, or of another kind."""

    reason = "SIGNING_KEY_INVALID"


class SignatureRefused(FailedPrecondition):
    """The file is unsigned or not what was signed: SIGNATURE_MISSING, SIGNATURE_KEY_UNKNOWN, SIGNATURE_INVALID."""

    reason = "SIGNATURE_INVALID"


class Signer:
    """Signs with one private key."""

    def __init__(self, key: Path) -> None:
        """Raises KeyInvalid unless `key` is an unencrypted PEM of a private key on P-256, P-384 or P-521."""
        loaded = _load(key, private=True)
        self._key = key
        self.key_id = _key_id(loaded.public_key())

    def sign(self, file: bytes, facts: SignedFacts) -> Signature:
        """Sign a file with what is said of it."""
        # Loaded when it is used: it takes half a second, and most registries sign nothing.
        from model_signing import signing

        with tempfile.TemporaryDirectory(prefix="terroir-signing-") as scratch:
            folder = lay_out(Path(scratch) / "adapter", file, facts)
            target = Path(scratch) / "bundle.json"
            config: Any = signing.Config  # its constructor has no types
            config().use_elliptic_key_signer(private_key=self._key).sign(folder, target)
            return Signature(self.key_id, target.read_text(encoding="utf-8"))


class Verifier:
    """Verifies against a set of public keys, so that an old and a new one may be trusted while keys change."""

    def __init__(self, keys: Iterable[Path]) -> None:
        """Raises KeyInvalid unless each is a PEM of a public key on P-256, P-384 or P-521."""
        self._keys: Mapping[str, Path] = {_key_id(_load(key, private=False)): key for key in keys}

    def verify(self, file: bytes, facts: SignedFacts, signature: Signature | None) -> None:
        """Raise SignatureRefused unless a trusted key signed exactly this file and these facts."""
        if signature is None:
            raise SignatureRefused(
                f"{facts.adapter}: the version is not signed; publish it again at a registry that signs "
                "(TERROIR_REGISTRY_SIGNING_KEY), or loosen TERROIR_INFERENCE_SIGNATURE_POLICY",
                reason="SIGNATURE_MISSING",
            )
        key = self._keys.get(signature.key_id)
        if key is None:
            raise SignatureRefused(
                f"{facts.adapter}: signed with key {signature.key_id[:16]}, which is not trusted here "
                f"({len(self._keys)} are); if it should be, name its public part too (TERROIR_INFERENCE_TRUSTED_KEYS)",
                reason="SIGNATURE_KEY_UNKNOWN",
            )
        from model_signing import verifying

        with tempfile.TemporaryDirectory(prefix="terroir-signing-") as scratch:
            folder = lay_out(Path(scratch) / "adapter", file, facts)
            bundle = Path(scratch) / "bundle.json"
            bundle.write_text(signature.bundle, encoding="utf-8")
            try:
                config: Any = verifying.Config  # its constructor has no types
                config().use_elliptic_key_verifier(public_key=key).verify(folder, bundle)
            except Exception as error:  # of several libraries; whatever it is, the file is not proved
                raise SignatureRefused(
                    f"{facts.adapter}: the signature does not fit the file or what is said of it; the registry's copy "
                    "was changed: restore it or publish it again"
                ) from error


def lay_out(folder: Path, file: bytes, facts: SignedFacts) -> Path:
    """Write what is signed into a new folder, as model-signing's own command reads it too; returns the folder."""
    folder.mkdir()
    (folder / "adapter.safetensors").write_bytes(file)
    (folder / "facts.json").write_bytes(facts.to_json())
    return folder


def _load(path: Path, *, private: bool) -> Any:
    try:
        data = path.expanduser().read_bytes()
        key = (
            serialization.load_pem_private_key(data, password=None)
            if private
            else serialization.load_pem_public_key(data)
        )
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        kind = "private" if private else "public"
        raise KeyInvalid(f"{path} is no readable {kind} key ({error}); name an unencrypted PEM file") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey if private else ec.EllipticCurvePublicKey):
        raise KeyInvalid(f"{path} is no key on an elliptic curve; make one with openssl ecparam -name prime256v1")
    return key


def _key_id(public: Any) -> str:
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()
