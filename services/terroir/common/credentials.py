"""What a caller shows: TLS files and a bearer token, each read again when it changes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, Self

import grpc

from terroir.common.errors import FailedPrecondition, InvalidArgument
from terroir.common.tls import Identity, read_identity

TLS_DIR: Final = "TERROIR_TLS_DIR"
TOKEN_PATH: Final = "TERROIR_TOKEN_PATH"
SERVER_NAME: Final = "TERROIR_TLS_SERVER_NAME"
_LOOK_SECONDS: Final = 1.0


class Named(Protocol):
    """Settings that hold a caller's credentials."""

    tls_dir: Path | None
    token_path: Path | None


@dataclass(frozen=True)
class CallerCredentials:
    """How to dial other services; nothing set: without TLS, as on loopback."""

    tls_dir: Path | None = None
    """Folder with ca.crt, and tls.crt and tls.key where the caller has a certificate."""
    token_path: Path | None = None
    """File with a bearer token."""
    server_name: str = ""
    """Name to expect in servers' certificates; empty: the one dialled. For tunnels such as `kubectl port-forward`."""

    def __post_init__(self) -> None:
        if self.token_path is not None and self.tls_dir is None:
            raise InvalidArgument(
                "a token is only ever sent over TLS: name a folder with ca.crt (TERROIR_TLS_DIR, or tls_dir of a "
                "service), or leave the token out",
                reason="TOKEN_WITHOUT_TLS",
            )

    @classmethod
    def of_environment(cls) -> Self:
        """As TERROIR_TLS_DIR, TERROIR_TOKEN_PATH and TERROIR_TLS_SERVER_NAME say, for programs without settings."""
        tls, token = os.environ.get(TLS_DIR), os.environ.get(TOKEN_PATH)
        return cls(
            Path(tls).expanduser() if tls else None,
            Path(token).expanduser() if token else None,
            os.environ.get(SERVER_NAME, ""),
        )

    @classmethod
    def of_settings(cls, settings: Named) -> Self:
        """A service's own."""
        return cls(settings.tls_dir, settings.token_path)

    def identity(self) -> Identity | None:
        """The TLS files as they are now; raises FailedPrecondition (TLS_FILES_MISSING)."""
        return read_identity(self.tls_dir) if self.tls_dir is not None else None

    def channel_credentials(self, identity: Identity) -> grpc.ChannelCredentials:
        """TLS with this identity, and the token if there is one."""
        tls = grpc.ssl_channel_credentials(identity.authorities, identity.key or None, identity.certificate or None)
        if self.token_path is None:
            return tls
        token = TokenFile(self.token_path)
        token.read()  # a missing file is an error now, not at the first call
        return grpc.composite_channel_credentials(tls, grpc.metadata_call_credentials(token, "terroir-token"))


class TokenFile(grpc.AuthMetadataPlugin):
    """A bearer token in a file that somebody renews, such as a projected service-account token."""

    def __init__(self, path: Path, now: Callable[[], float] = time.monotonic) -> None:
        self._path, self._now = path, now
        self._lock = threading.Lock()
        self._looked = -_LOOK_SECONDS
        self._token = ""

    def read(self) -> str:
        """The token, at most a second old; raises FailedPrecondition (TOKEN_FILE_UNREADABLE)."""
        with self._lock:
            if not self._token or self._now() - self._looked >= _LOOK_SECONDS:
                try:
                    self._token = self._path.read_text(encoding="ascii").strip()
                except (OSError, UnicodeDecodeError) as error:
                    raise FailedPrecondition(
                        f"cannot read the token file {self._path}: {type(error).__name__}",
                        reason="TOKEN_FILE_UNREADABLE",
                    ) from error
                self._looked = self._now()
            return self._token

    def __call__(self, _context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:
        """See grpc.AuthMetadataPlugin."""
        try:
            callback((("authorization", f"Bearer {self.read()}"),), None)
        except FailedPrecondition as error:
            callback((), error)
