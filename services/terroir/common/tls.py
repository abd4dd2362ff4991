"""Certificates of a service or caller: a folder as a Kubernetes TLS secret mounts it, read again when it changes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import grpc
import structlog

from terroir.common.errors import FailedPrecondition

CERTIFICATE: Final = "tls.crt"
KEY: Final = "tls.key"
AUTHORITIES: Final = "ca.crt"
_log = structlog.get_logger()


@dataclass(frozen=True)
class Identity:
    """A certificate chain with its key, and the authorities that others' certificates must come from. All PEM."""

    certificate: bytes
    key: bytes
    authorities: bytes

    def expires(self, folder: Path) -> datetime:
        """When the certificate ends; raises FailedPrecondition (TLS_FILES_INVALID) unless key and certificate match."""
        from cryptography import x509  # a caller that only dials needs none of it
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            first = x509.load_pem_x509_certificates(self.certificate)[0]
            x509.load_pem_x509_certificates(self.authorities)
            if load_pem_private_key(self.key, None).public_key() != first.public_key():
                raise ValueError("the key is not the certificate's")
        except (ValueError, TypeError) as error:
            raise FailedPrecondition(
                f"{CERTIFICATE}, {KEY} and {AUTHORITIES} of {folder} do not make a TLS identity: {error}",
                reason="TLS_FILES_INVALID",
            ) from error
        return first.not_valid_after_utc


def read_identity(folder: Path) -> Identity:
    """What a folder holds; raises FailedPrecondition (TLS_FILES_MISSING). `ca.crt` alone makes a caller without a name.

    An identity without a certificate can dial servers, and cannot serve.
    """
    parts = {}
    for name in (CERTIFICATE, KEY, AUTHORITIES):
        try:
            parts[name] = (folder / name).read_bytes()
        except FileNotFoundError:
            parts[name] = b""
        except OSError as error:
            raise _missing(folder, f"{name} cannot be read ({error.strerror})") from error
    if not parts[AUTHORITIES]:
        raise _missing(folder, f"it has no {AUTHORITIES}")
    if bool(parts[CERTIFICATE]) != bool(parts[KEY]):
        raise _missing(folder, f"it has {CERTIFICATE if parts[CERTIFICATE] else KEY} without the other")
    return Identity(parts[CERTIFICATE], parts[KEY], parts[AUTHORITIES])


def _missing(folder: Path, what: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"{folder} is no TLS folder: {what}; it needs {CERTIFICATE}, {KEY} and {AUTHORITIES}, as a Kubernetes TLS "
        "secret mounts them",
        reason="TLS_FILES_MISSING",
    )


class ServerIdentity:
    """The identity that new connections are answered with. Files that are wrong leave the last good one in place."""

    def __init__(self, folder: Path, on_failure: Callable[[], None] = lambda: None) -> None:
        """Raises FailedPrecondition (TLS_FILES_MISSING, TLS_FILES_INVALID); `on_failure` hears of later ones."""
        self._folder = folder
        self._on_failure = on_failure
        self._lock = threading.Lock()
        self._identity = read_identity(folder)
        if not self._identity.certificate:
            raise _missing(folder, f"a server needs {CERTIFICATE} and {KEY}")
        self._refused: Identity | None = None
        self.expires = self._identity.expires(folder)

    def current(self) -> Identity:
        """The identity as the files are now; called at every handshake, on gRPC's threads."""
        with self._lock:
            try:
                found = read_identity(self._folder)
                if found not in (self._identity, self._refused):
                    self._take(found)
            except FailedPrecondition as error:
                _log.error("certificate files not taken; the last good ones stay", error=str(error))
                self._on_failure()
            return self._identity

    def _take(self, found: Identity) -> None:
        self._refused = found  # looked at once, if it is wrong
        if not found.certificate:
            raise _missing(self._folder, f"a server needs {CERTIFICATE} and {KEY}")
        self.expires, self._identity = found.expires(self._folder), found
        _log.info("certificate read again", expires=self.expires.astimezone(UTC).isoformat())

    def credentials(self, *, require_client_certificate: bool) -> grpc.ServerCredentials:
        """Credentials of a server that takes up changed files at the next handshake."""
        given = self._identity

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            nonlocal given
            if (now := self.current()) == given:
                return None
            given = now
            return _configuration(now)

        return grpc.dynamic_ssl_server_credentials(
            _configuration(given),
            fetch,  # type: ignore[arg-type]  # None, for `unchanged`, is documented and missing from the stubs
            require_client_certificate,
        )


def _configuration(identity: Identity) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(identity.key, identity.certificate)], root_certificates=identity.authorities
    )
