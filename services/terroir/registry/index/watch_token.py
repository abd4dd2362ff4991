"""Resume tokens of a watch: a place in the journal, the same on every replica."""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass
from typing import Final

from terroir.registry.errors import WatchTokenInvalid

_MAX_PENDING: Final = 256
_MAX_CHARACTERS: Final = 8192
_FORM: Final = re.compile(r"j([0-9]{1,18})((?:\.[0-9]{1,18})*)")


@dataclass(frozen=True)
class WatchPosition:
    """Everything up to entry `number` of the journal was told, except what the entries `pending` announced."""

    number: int
    pending: frozenset[int] = frozenset()
    """Entries up to `number` with a hint whose document could not be seen yet."""

    @staticmethod
    def of(number: int, pending: Set[int]) -> WatchPosition:
        """A position that fits a token: with too many pending entries the one before the oldest, to be told twice."""
        if len(pending) <= _MAX_PENDING:
            return WatchPosition(number, frozenset(pending))
        return WatchPosition(min(pending) - 1)

    def token(self) -> str:
        """As text, opaque to callers."""
        return ".".join((f"j{self.number}", *(str(self.number - each) for each in sorted(self.pending))))

    @staticmethod
    def parse(token: str) -> WatchPosition:
        """Inverse of `token`; raises WatchTokenInvalid."""
        match = _FORM.fullmatch(token) if len(token) <= _MAX_CHARACTERS else None
        if match is not None:
            number = int(match[1])
            behind = [int(each) for each in match[2].split(".")[1:]]
            if len(behind) <= _MAX_PENDING and all(each < number for each in behind):
                return WatchPosition(number, frozenset(number - each for each in behind))
        raise WatchTokenInvalid(
            f"resume_token {token[:40]!r} is not one that a watch gave out; use the token of the last response that "
            "was seen, or none to hear only of what changes from now on",
            field="resume_token",
        )
