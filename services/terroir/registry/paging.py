"""Pages of a listing: only the items of the page are loaded."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from terroir.common.errors import InvalidArgument
from terroir.common.validation import page

DEFAULT_PAGE_SIZE: Final = 50
MAX_PAGE_SIZE: Final = 200

Item = TypeVar("Item")


@dataclass(frozen=True)
class PageQuery:
    """What a caller asked of a listing."""

    size: int = 0
    token: str = ""


@dataclass(frozen=True)
class Page(Generic[Item]):
    """Some items, and where to go on; an empty token means that these were the last."""

    items: tuple[Item, ...]
    next_token: str


def page_of(keys: Sequence[str], query: PageQuery, load: Callable[[str], Item], *, listing: str) -> Page[Item]:
    """The page of `keys` (in the listing's order) behind the token's key; tokens are bound to `listing`.

    Keys must never vanish from a listing. Raises InvalidArgument (OUT_OF_RANGE, INVALID_PAGE_TOKEN).
    """
    request = page(query.size, query.token, default=DEFAULT_PAGE_SIZE, limit=MAX_PAGE_SIZE, query=listing)
    rest = keys if request.after is None else keys[_position(keys, request.after) :]
    shown = rest[: request.size]
    return Page(tuple(map(load, shown)), request.next_token(shown[-1]) if len(rest) > len(shown) else "")


def sorted_page_of(keys: Sequence[str], query: PageQuery, load: Callable[[str], Item], *, listing: str) -> Page[Item]:
    """As `page_of` for keys in ascending order, which may come and go between two pages.

    Raises InvalidArgument (OUT_OF_RANGE, INVALID_PAGE_TOKEN).
    """
    request = page(query.size, query.token, default=DEFAULT_PAGE_SIZE, limit=MAX_PAGE_SIZE, query=listing)
    start = 0 if request.after is None else bisect_right(keys, request.after)
    shown = keys[start : start + request.size]
    more = start + len(shown) < len(keys)
    return Page(tuple(map(load, shown)), request.next_token(shown[-1]) if more else "")


def _position(keys: Sequence[str], after: str) -> int:
    try:
        return keys.index(after) + 1
    except ValueError as error:
        raise InvalidArgument(
            "page_token points at an item that this listing does not have; start again without it",
            reason="INVALID_PAGE_TOKEN",
            field="page_token",
        ) from error
