"""A certificate authority and an identity provider of a test's own."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ISSUER, AUDIENCE = "https://login.example.com", "terroir"


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


class Authority:
    """Signs certificates and writes them as a Kubernetes TLS secret is mounted."""

    def __init__(self, common: str = "tests") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = (
            self._builder(_name(common), _name(common), self._key, timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def pem(self) -> bytes:
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def write(
        self, folder: Path, common: str, *, uri: str = "", life: timedelta = timedelta(days=1), trusted: bytes = b""
    ) -> Path:
        """Certificate, key and `ca.crt` for a name, localhost and 127.0.0.1; `trusted` replaces the authority."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.DNSName(common), x509.DNSName("localhost")]
        names += [x509.IPAddress(ip_address("127.0.0.1")), *([x509.UniformResourceIdentifier(uri)] if uri else [])]
        certificate = (
            self._builder(_name(common), self._certificate.subject, key, life)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        folder.mkdir(parents=True, exist_ok=True)
        files = {
            "tls.crt": certificate.public_bytes(serialization.Encoding.PEM),
            "tls.key": key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
            "ca.crt": trusted or self.pem,
        }
        for name, data in files.items():
            partial = folder / f".{name}"
            partial.write_bytes(data)
            partial.replace(folder / name)
        return folder

    @staticmethod
    def _builder(
        subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, life: timedelta
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=2))
            .not_valid_after(now + life)
        )


class Issuer:
    """Signs tokens; publishes its keys as a JWK set."""

    def __init__(self, issuer: str = ISSUER) -> None:
        self.issuer = issuer
        self._keys: dict[str, ec.EllipticCurvePrivateKey] = {}
        self._made = 0
        self.rotate()

    def rotate(self) -> str:
        """A new key beside the old ones; returns its id."""
        self._made += 1
        self.key_id = f"key-{self._made}"
        self._keys[self.key_id] = ec.generate_private_key(ec.SECP256R1())
        return self.key_id

    def forget(self, key_id: str) -> None:
        """Publish a key no more."""
        del self._keys[key_id]

    def jwks(self) -> bytes:
        """The public keys."""
        keys = [
            json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key())) | {"kid": key_id, "use": "sig"}
            for key_id, key in self._keys.items()
        ]
        return json.dumps({"keys": keys}).encode()

    def token(self, subject: str = "ana", *, headers: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token that holds for an hour; a claim of None is left out."""
        now = datetime.now(UTC)
        stated = {
            "iss": self.issuer, "aud": AUDIENCE, "sub": subject, "iat": now, "exp": now + timedelta(hours=1), **claims,
        }  # fmt: skip
        stated = {name: value for name, value in stated.items() if value is not None}
        key = self._keys[self.key_id]
        return jwt.encode(stated, key, algorithm="ES256", headers={"kid": self.key_id} | (headers or {}))

    def rules(self, jwks: str = "", **fields: Any) -> dict[str, Any]:
        """An entry of an access file."""
        return {
            "issuer": self.issuer, "audience": AUDIENCE, "jwks": jwks or f"{self.issuer}/jwks.json",
            "algorithms": ["ES256"], "roles_claim": "terroir_roles", "regions_claim": "terroir_regions", **fields,
        }  # fmt: skip
