"""Seasons: which days and campaigns they are for."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terroir.common.errors import InvalidArgument
from terroir.registry.regions.recipes import RecipeChoice, StyleRecipe
from terroir.registry.regions.seasons import MAX_SEASONS, Season, ensure_day, ensure_seasons
from terroir.registry.regions.tree import RegionSpec

OWN = RecipeChoice(StyleRecipe())
SPRING = Season("spring-festival", OWN, "01-20", "02-20")
LEAP = [date(2024, 1, 1) + timedelta(days) for days in range(366)]
DAYS = st.dates(date(1999, 1, 1), date(2030, 12, 31))
YEARLY = st.sampled_from(["", *(day.isoformat()[5:] for day in LEAP)])


def contains(from_date: str, to_date: str, day: date) -> bool:
    """The naive reference: walk every day of two years from the window's first day."""
    first, last = from_date or "01-01", to_date or "12-31"
    walk = [*(day.isoformat()[5:] for day in LEAP)] * 2
    begin = walk.index(first)
    return day.isoformat()[5:] in walk[begin : walk.index(last, begin) + 1]


@given(YEARLY, YEARLY, DAYS)
def test_a_yearly_window_holds_the_days_that_walking_from_its_first_to_its_last_meets(
    from_date: str, to_date: str, day: date
) -> None:
    season = Season("s", OWN, from_date, to_date)
    ensure_seasons([season], "seasons")
    assert season.applies(day, "") == contains(from_date, to_date, day)


@given(st.none() | DAYS, st.none() | DAYS, DAYS)
def test_a_window_with_years_holds_the_days_between_its_bounds(
    first: date | None, last: date | None, day: date
) -> None:
    season = Season("s", OWN, first.isoformat() if first else "", last.isoformat() if last else "")
    if first and last and first > last:
        with pytest.raises(InvalidArgument) as refused:
            ensure_seasons([season], "seasons")
        assert refused.value.reason == "SEASON_NEVER"
        return
    ensure_seasons([season], "seasons")
    assert season.applies(day, "") == ((first or date.min) <= day <= (last or date.max))


@pytest.mark.parametrize(
    ("from_date", "to_date", "inside", "outside"),
    [
        ("12-20", "01-10", [date(2026, 12, 31), date(2027, 1, 1), date(2027, 1, 10)], [date(2027, 1, 11)]),
        ("02-29", "02-29", [date(2028, 2, 29)], [date(2027, 2, 28), date(2027, 3, 1)]),
        ("02-29", "03-02", [date(2027, 3, 1), date(2028, 2, 29)], [date(2027, 2, 28)]),
        ("02-20", "02-29", [date(2027, 2, 28), date(2028, 2, 29)], [date(2027, 3, 1), date(2028, 3, 1)]),
        ("11-01", "", [date(2026, 12, 31)], [date(2027, 1, 1)]),
        ("", "02-01", [date(2026, 1, 1)], [date(2026, 12, 31)]),
        ("2027-02-06", "2027-02-22", [date(2027, 2, 6), date(2027, 2, 22)], [date(2028, 2, 6), date(2027, 2, 5)]),
    ],
)
def test_windows_are_inclusive_may_span_new_year_and_know_29_february(
    from_date: str, to_date: str, inside: list[date], outside: list[date]
) -> None:
    season = Season("s", OWN, from_date, to_date)
    ensure_seasons([season], "seasons")
    assert all(season.applies(day, "") for day in inside)
    assert not any(season.applies(day, "") for day in outside)


def test_a_season_with_a_campaign_is_only_for_requests_that_name_it() -> None:
    sale = Season("sale", OWN, campaign="double-eleven")
    day = date(2026, 11, 11)
    assert sale.applies(day, "double-eleven")
    assert not sale.applies(day, "")
    assert not sale.applies(day, "other")
    assert SPRING.applies(date(2026, 2, 1), "double-eleven")


def test_the_first_season_that_applies_wins_and_without_one_the_plain_recipe() -> None:
    sale = Season("sale", OWN, "2026-02-01", "2026-02-03")
    spec = RegionSpec("CN", seasons=(sale, SPRING))
    assert spec.choice_on(date(2026, 2, 2), "") == (OWN, "sale")
    assert spec.choice_on(date(2026, 2, 4), "") == (OWN, "spring-festival")
    assert spec.choice_on(date(2026, 7, 1), "") == (RecipeChoice(), None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"id": "Spring"}, "INVALID_IDENTIFIER"),
        ({"id": ""}, "INVALID_IDENTIFIER"),
        ({"from_date": "02-30"}, "INVALID_DATE"),
        ({"from_date": "13-01"}, "INVALID_DATE"),
        ({"from_date": "1-20"}, "INVALID_DATE"),
        ({"to_date": "2026-02-29", "from_date": ""}, "INVALID_DATE"),
        ({"to_date": "0000-01-01", "from_date": ""}, "INVALID_DATE"),
        ({"to_date": "20260220"}, "INVALID_DATE"),
        ({"to_date": "2026-W07-5"}, "INVALID_DATE"),
        ({"to_date": "٠٢-٢٠"}, "INVALID_DATE"),
        ({"to_date": "02-20\n"}, "INVALID_DATE"),
        ({"to_date": "2026-02-20"}, "SEASON_DATES_DIFFER"),
        ({"from_date": "2026-03-01", "to_date": "2026-02-20"}, "SEASON_NEVER"),
        ({"campaign": "Double Eleven"}, "INVALID_IDENTIFIER"),
        ({"choice": RecipeChoice()}, "SEASON_WITHOUT_RECIPE"),
        ({"choice": RecipeChoice(StyleRecipe(), "tea")}, "RECIPE_AMBIGUOUS"),
        ({"choice": RecipeChoice(StyleRecipe((), "x" * 201))}, "TEXT_TOO_LONG"),
    ],
)
def test_a_bad_season_is_refused_with_its_reason(change: dict[str, object], reason: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        ensure_seasons([replace(SPRING, **change)], "seasons")  # type: ignore[arg-type]  # one row, one field
    assert refused.value.reason == reason
    assert (refused.value.field or "").startswith("seasons[0]")


def test_seasons_are_few_and_have_names_of_their_own() -> None:
    with pytest.raises(InvalidArgument) as refused:
        ensure_seasons([SPRING, SPRING], "seasons")
    assert refused.value.reason == "SEASON_DUPLICATE"
    many = [replace(SPRING, id=f"s{number}") for number in range(MAX_SEASONS + 1)]
    ensure_seasons(many[:-1], "seasons")
    with pytest.raises(InvalidArgument) as refused:
        ensure_seasons(many, "seasons")
    assert refused.value.reason == "TOO_MANY_SEASONS"


@given(st.text(max_size=12))
def test_any_text_is_a_day_or_an_error_with_its_reason(text: str) -> None:
    try:
        assert ensure_day(text, "date").isoformat() == text
    except InvalidArgument as error:
        assert error.reason == "INVALID_DATE"
