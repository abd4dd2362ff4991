"""Canaries: which side of an alias a caller gets, and what a canary may say."""

from __future__ import annotations

import math
import re
from datetime import datetime
from typing import Final

from terroir.common.clock import Clock
from terroir.common.errors import InvalidArgument
from terroir.common.sticky import takes_canary
from terroir.registry.moving.state import AliasEntry, Canary

MAX_GUARDRAILS: Final = 8
_METRIC: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")


def side(adapter: str, alias: str, entry: AliasEntry, sticky_key: str, now: datetime) -> int:
    """Number of the version that a caller gets (see `takes_canary`); the alias's own once the canary has ended."""
    canary = running(entry, now)
    if canary is not None and takes_canary(f"{adapter}@{alias}", canary.number, canary.percent, sticky_key):
        return canary.number
    return entry.number


def running(entry: AliasEntry, now: datetime) -> Canary | None:
    """The canary of an alias, unless there is none or it has ended."""
    canary = entry.canary
    ended = canary is not None and canary.expires_at and now >= datetime.fromisoformat(canary.expires_at)
    return None if ended else canary


def ensure_begins(canary: Canary | None, clock: Clock) -> None:
    """Check that a wished canary has not ended before it began; raises InvalidArgument (CANARY_INVALID)."""
    if canary is not None and canary.expires_at and datetime.fromisoformat(canary.expires_at) <= clock.now():
        raise _invalid(f"canary.expire_time {canary.expires_at} has passed; name a later one", "canary.expire_time")


def ensure_canary(canary: Canary | None, number: int) -> None:
    """Check a wished canary beside version `number`; raises InvalidArgument (CANARY_INVALID)."""
    if canary is None:
        return
    if canary.number == number:
        raise _invalid(f"canary.version {number} is the alias's own version; name another", "canary.version")
    if not 0 < canary.percent <= 100:
        raise _invalid(f"canary.percent {canary.percent:g} is outside 0 … 100", "canary.percent")
    if len(canary.guardrails) > MAX_GUARDRAILS:
        raise _invalid(
            f"canary.guardrails has {len(canary.guardrails)} entries; at most {MAX_GUARDRAILS} are allowed",
            "canary.guardrails",
        )
    for index, guardrail in enumerate(canary.guardrails):
        at = f"canary.guardrails[{index}]"
        if not _METRIC.fullmatch(guardrail.metric):
            raise _invalid(f"{at}.metric {guardrail.metric[:64]!r} is no name; use {_METRIC.pattern}", f"{at}.metric")
        if not math.isfinite(guardrail.maximum):
            raise _invalid(f"{at}.maximum {guardrail.maximum} is no bound; name a finite number", f"{at}.maximum")


def _invalid(message: str, field: str) -> InvalidArgument:
    return InvalidArgument(message, reason="CANARY_INVALID", field=field)
