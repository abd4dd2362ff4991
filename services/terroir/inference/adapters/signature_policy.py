"""What inference asks of an adapter's signature before it loads the file."""

from __future__ import annotations

from typing import Literal

import structlog

from terroir.common.signatures import SignatureRefused, Verifier
from terroir.inference.adapters.sources import VersionInfo

_log = structlog.get_logger()

Strictness = Literal["off", "warn", "require"]


class SignaturePolicy:
    """Refuses, reports, or lets pass what no trusted key has signed."""

    def __init__(self, strictness: Strictness, verifier: Verifier) -> None:
        self._strictness = strictness
        self._verifier = verifier

    @property
    def asks(self) -> bool:
        """Whether signatures matter at all."""
        return self._strictness != "off"

    def check(self, version: VersionInfo, file: bytes) -> None:
        """Raise SignatureRefused if the policy is `require` and no trusted key signed this file and its facts.

        Takes tens of milliseconds: keep it off an event loop.
        """
        if self._strictness == "off":
            return
        try:
            self._verifier.verify(file, version.facts, version.signature)
        except SignatureRefused as error:
            if self._strictness == "require":
                raise
            _log.warning("adapter not proved", version=version.name, reason=error.reason, error=str(error))
