"""Identifiers under which a change happens once, however often it is asked for."""

from __future__ import annotations

import uuid

from terroir.common.validation import ensure_text


def operation_id(request_id: str) -> str:
    """The caller's identifier; a caller that sends none can't repeat safely and gets a fresh one."""
    return ensure_text(request_id, "request_id", 128) or str(uuid.uuid4())
