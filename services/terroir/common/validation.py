"""Checks of request fields, one place for all services; a failure is an InvalidArgument with field and limit."""

from __future__ import annotations

import base64
import difflib
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from terroir.common.errors import InvalidArgument

_IDENTIFIER: Final = re.compile(r"[a-z][a-z0-9-]{0,62}\Z")
_REGION_CODE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}\Z")
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,8}\Z")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}\Z")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_TOKEN_CHARACTERS: Final = 4096
_PLACEHOLDER: Final = re.compile(r"\{([a-z_]+)\}")


def ensure_identifier(value: str, field: str) -> str:
    """A resource id: lower-case letters, digits and hyphens, at most 63, a letter first."""
    if not _IDENTIFIER.match(value):
        raise InvalidArgument(
            f"{field} {_shown(value)} is not an identifier: use 1 to 63 of a-z, 0-9 and '-', beginning with a letter",
            reason="INVALID_IDENTIFIER",
            field=field,
        )
    return value


def is_region_code(value: str) -> bool:
    """Whether a text is written like a region's code, such as `CN-ZJ`."""
    return _REGION_CODE.match(value) is not None


def ensure_name(value: str, field: str, pattern: str) -> dict[str, str]:
    """Take a resource name apart: `adapters/{adapter}/versions/{version}` gives its placeholders' values.

    A placeholder named version, number, step or attempt takes a positive number, one named region or code a region
    code, any other an identifier.
    """
    expected, given = pattern.split("/"), value.split("/")
    parts: dict[str, str] = {}
    if len(expected) == len(given):
        for want, got in zip(expected, given, strict=True):
            placeholder = _PLACEHOLDER.fullmatch(want)
            if placeholder is None:
                if want != got:
                    break
            elif not _rule(placeholder[1]).match(got):
                break
            else:
                parts[placeholder[1]] = got
        else:
            return parts
    raise InvalidArgument(f"{field} {_shown(value)} is not of the form {pattern}", reason="INVALID_NAME", field=field)


def _rule(placeholder: str) -> re.Pattern[str]:
    if placeholder in ("version", "number", "step", "attempt"):
        return _NUMBER
    return _REGION_CODE if placeholder in ("region", "code") else _IDENTIFIER


def ensure_range(value: float, field: str, low: float, high: float) -> float:
    """A finite number within `low` … `high`."""
    if not low <= value <= high:
        raise InvalidArgument(
            f"{field} {value:.12g} is outside {low:.12g} … {high:.12g}", reason="OUT_OF_RANGE", field=field
        )
    return value


def ensure_text(value: str, field: str, max_length: int, *, min_length: int = 0) -> str:
    """Text of bounded length without control characters other than line ends and tabs."""
    if not min_length <= len(value) <= max_length:
        raise InvalidArgument(
            f"{field} has {len(value)} characters, it needs {min_length} to {max_length}",
            reason="TEXT_TOO_LONG" if len(value) > max_length else "TEXT_MISSING",
            field=field,
        )
    if _CONTROL.search(value):
        raise InvalidArgument(
            f"{field} holds control characters; remove them", reason="CONTROL_CHARACTERS", field=field
        )
    return value


def ensure_digest(value: str, field: str) -> str:
    """A lower-case hexadecimal SHA-256."""
    if not _DIGEST.match(value):
        raise InvalidArgument(
            f"{field} {_shown(value)} is not a SHA-256 in 64 lower-case hexadecimal digits",
            reason="INVALID_DIGEST",
            field=field,
        )
    return value


@dataclass(frozen=True)
class PageRequest:
    """One page of a list: at most `size` items after `after` (the last key of the page before, None at the start)."""

    size: int
    after: str | None
    query: str = ""

    def next_token(self, last: str) -> str:
        """Token of the page that begins behind the item with key `last`."""
        return _encode({"after": last, "query": self.query})


def page(page_size: int, page_token: str, *, default: int, limit: int, query: Any = None) -> PageRequest:
    """Check page size and token; `query` is what the token is bound to (the request's other fields)."""
    if not 0 <= page_size <= limit:
        raise InvalidArgument(
            f"page_size {page_size} is outside 0 … {limit} (0 means {default})",
            reason="OUT_OF_RANGE",
            field="page_size",
        )
    digest = hashlib.sha256(json.dumps(query, sort_keys=True).encode()).hexdigest()[:16]
    after = None
    if page_token:
        state = _decode(page_token)
        if state is None or state.get("query") != digest or not isinstance(state.get("after"), str):
            raise InvalidArgument(
                "page_token is not one that this list gave out for this query; start again without it",
                reason="INVALID_PAGE_TOKEN",
                field="page_token",
            )
        after = state["after"]
    return PageRequest(page_size or default, after, digest)


def _encode(state: dict[str, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(state, separators=(",", ":")).encode()).decode().rstrip("=")


def _decode(token: str) -> dict[str, Any] | None:
    if len(token) > _TOKEN_CHARACTERS:
        return None
    try:
        state = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (ValueError, RecursionError):
        return None
    return state if isinstance(state, dict) else None


def did_you_mean(value: str, known: Iterable[str]) -> str:
    """` (did you mean X?)` for the nearest known word, else nothing; to be put behind the name of an unknown one."""
    nearest = difflib.get_close_matches(value, list(known), n=1, cutoff=0.5)
    return f" (did you mean {nearest[0]}?)" if nearest else ""


def _shown(value: str) -> str:
    """A value as shown in messages: quoted, and short."""
    return repr(value if len(value) <= 80 else value[:77] + "...")
