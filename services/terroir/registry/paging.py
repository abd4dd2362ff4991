"""Pages of a listing whose token is the key of the last item shown, so that new items never shift a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from terroir.common.errors import InvalidArgument

DEFAULT_PAGE_SIZE: Final = 50
MAX_PAGE_SIZE: Final = 200

Item = TypeVar("Item")
Key = TypeVar("Key", str, int)


@dataclass(frozen=True)
class Page(Generic[Item]):
    """Some items, and where to go on; an empty token means that these were the last."""

    items: tuple[Item, ...]
    next_token: str


def page_of(
    keys: Sequence[Key], page_size: int, page_token: str, *, parse: Callable[[str], Key], load: Callable[[Key], Item]
) -> Page[Item]:
    """The page of `keys` (in the order of the listing) that follows the token's key; only its items are loaded.

    `parse` reads a token back into a key. Raises InvalidArgument (PAGE_SIZE_OUT_OF_RANGE, INVALID_PAGE_TOKEN).
    """
    size = _size(page_size)
    rest = keys[_position(keys, page_token, parse) :] if page_token else keys
    shown = rest[:size]
    return Page(tuple(load(key) for key in shown), str(shown[-1]) if len(rest) > size else "")


def _size(page_size: int) -> int:
    if not 0 <= page_size <= MAX_PAGE_SIZE:
        raise InvalidArgument(
            f"page_size {page_size} is outside 0 … {MAX_PAGE_SIZE} (0 means {DEFAULT_PAGE_SIZE})",
            reason="PAGE_SIZE_OUT_OF_RANGE",
            field="page_size",
        )
    return page_size or DEFAULT_PAGE_SIZE


def _position(keys: Sequence[Key], page_token: str, parse: Callable[[str], Key]) -> int:
    try:
        return keys.index(parse(page_token)) + 1
    except ValueError as error:
        raise InvalidArgument(
            f"page_token {page_token[:80]!r} is not from this listing; begin without a token",
            reason="INVALID_PAGE_TOKEN",
            field="page_token",
        ) from error
