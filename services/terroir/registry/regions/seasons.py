"""Seasons: recipes that replace a region's own for a time of the year, for some days once, or for a campaign."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from terroir.common.errors import InvalidArgument
from terroir.common.validation import ensure_identifier
from terroir.registry.regions.recipes import RecipeChoice

MAX_SEASONS: Final = 32
_YEARLY: Final = re.compile(r"([0-9]{2})-([0-9]{2})")
_ONCE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_LEAP_YEAR: Final = 2000
"""Has every day that a year can have."""


@dataclass(frozen=True)
class Season:
    """A recipe with the days and the campaign that it is for."""

    id: str
    choice: RecipeChoice
    from_date: str = ""
    """`MM-DD` or `YYYY-MM-DD`, inclusive; empty for no bound, which within a year is 1 January."""
    to_date: str = ""
    """In the same form, inclusive; empty for no bound, which within a year is 31 December."""
    campaign: str = ""
    """Empty for all requests."""

    def applies(self, day: date, campaign: str) -> bool:
        """Whether it is for this day and this campaign (empty: none)."""
        return self.campaign in ("", campaign) and self._contains(day)

    def to_body(self) -> dict[str, Any]:
        """As a JSON-able value."""
        return {
            "id": self.id,
            "choice": self.choice.to_body(),
            "from_date": self.from_date,
            "to_date": self.to_date,
            "campaign": self.campaign,
        }

    @staticmethod
    def from_body(body: Mapping[str, Any]) -> Season:
        """Inverse of `to_body`."""
        return Season(**{**body, "choice": RecipeChoice.from_body(body["choice"])})

    def _contains(self, day: date) -> bool:
        # Both forms sort as text in the order of time, so no date is computed: 29 February needs no year.
        yearly = _is_yearly(self.from_date) or _is_yearly(self.to_date)
        at = day.isoformat()[5:] if yearly else day.isoformat()
        begun, lasts = not self.from_date or self.from_date <= at, not self.to_date or at <= self.to_date
        if yearly and self.from_date and self.to_date and self.from_date > self.to_date:
            return begun or lasts  # spans New Year
        return begun and lasts


def ensure_seasons(seasons: Sequence[Season], field: str) -> None:
    """Check names, days and recipes, not whether saved recipes and adapters exist; raises InvalidArgument."""
    if len(seasons) > MAX_SEASONS:
        raise InvalidArgument(
            f"{field} has {len(seasons)} seasons; at most {MAX_SEASONS} are allowed: drop those that are over",
            reason="TOO_MANY_SEASONS",
            field=field,
        )
    seen: set[str] = set()
    for index, season in enumerate(seasons):
        at = f"{field}[{index}]"
        ensure_identifier(season.id, f"{at}.id")
        if season.id in seen:
            raise InvalidArgument(
                f"{at}.id {season.id!r} names an earlier season of this region too; give each its own name",
                reason="SEASON_DUPLICATE",
                field=f"{at}.id",
            )
        seen.add(season.id)
        _ensure_window(season, at)
        if season.campaign:
            ensure_identifier(season.campaign, f"{at}.campaign")
        if season.choice.is_empty:
            raise InvalidArgument(
                f"{at} {season.id!r} has no recipe; give it one or a saved one (an empty recipe means: no style)",
                reason="SEASON_WITHOUT_RECIPE",
                field=f"{at}.recipe",
            )
        season.choice.ensure(at)


def ensure_day(value: str, field: str) -> date:
    """A day of the calendar written `YYYY-MM-DD`; raises InvalidArgument (INVALID_DATE)."""
    if _ONCE.fullmatch(value):
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass
    raise InvalidArgument(
        f"{field} {value[:40]!r} is no day; write it as YYYY-MM-DD, such as 2027-02-06",
        reason="INVALID_DATE",
        field=field,
    )


def _ensure_window(season: Season, at: str) -> None:
    for name, value in (("from_date", season.from_date), ("to_date", season.to_date)):
        if value:
            _ensure_bound(value, f"{at}.{name}")
    if not (season.from_date and season.to_date):
        return
    if _is_yearly(season.from_date) != _is_yearly(season.to_date):
        raise InvalidArgument(
            f"{at} runs from {season.from_date} to {season.to_date}; write both as MM-DD or both as YYYY-MM-DD",
            reason="SEASON_DATES_DIFFER",
            field=f"{at}.to_date",
        )
    if not _is_yearly(season.from_date) and season.from_date > season.to_date:
        raise InvalidArgument(
            f"{at} ends on {season.to_date}, before it begins on {season.from_date}; swap them (only MM-DD may span "
            "New Year)",
            reason="SEASON_NEVER",
            field=f"{at}.to_date",
        )


def _ensure_bound(value: str, field: str) -> None:
    yearly = _YEARLY.fullmatch(value)
    if yearly is None:
        if not _ONCE.fullmatch(value):
            raise InvalidArgument(
                f"{field} {value[:40]!r} is no day; write MM-DD for every year or YYYY-MM-DD",
                reason="INVALID_DATE",
                field=field,
            )
        ensure_day(value, field)
        return
    try:
        date(_LEAP_YEAR, int(yearly[1]), int(yearly[2]))
    except ValueError as error:
        raise InvalidArgument(
            f"{field} {value!r} is a day that no year has", reason="INVALID_DATE", field=field
        ) from error


def _is_yearly(value: str) -> bool:
    return _YEARLY.fullmatch(value) is not None
