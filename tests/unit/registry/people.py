"""Callers of tests."""

from __future__ import annotations

from terroir.common.principal import Principal, Role

ANA = Principal("local:ana", frozenset({Role.STYLIST}))
GUEST = Principal("local:guest", frozenset({Role.VIEWER}))
