"""Resource names: what is written is what is meant, and nothing else gets through."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terroir.common.errors import InvalidArgument
from terroir.registry.names import (
    VersionRef,
    parse_adapter,
    parse_base,
    parse_reference,
    parse_region,
    parse_version,
    region_name,
)

identifiers = st.from_regex(r"[a-z][a-z0-9-]{0,62}", fullmatch=True)
numbers = st.integers(min_value=1, max_value=999_999_999)
references = st.one_of(
    st.builds(VersionRef, identifiers),
    st.builds(VersionRef, identifiers, number=numbers),
    st.builds(VersionRef, identifiers, alias=identifiers),
)
ATTACKS = [
    "",
    "adapters/",
    "adapters/..",
    "adapters/../bases/x",
    "adapters/a/..",
    "adapters/a/versions/..",
    "adapters/a/versions/0",
    "adapters/a/versions/-1",
    "adapters/a/versions/01",
    "adapters/a/versions/1/",
    "adapters/a@",
    "adapters/a@../b",
    "adapters/a@b@c",
    "adapters/A",
    "adapters/a\n",
    "adapters/a\x00",
    "adapters/" + "a" * 64,
    "/adapters/a",
    "a",
]


def outcome(text: str) -> str:
    """The reference written again, or the reason of the refusal."""
    try:
        return str(parse_reference(text))
    except InvalidArgument as error:
        return error.reason


@given(references)
def test_a_reference_survives_being_written_and_read(reference: VersionRef) -> None:
    assert parse_reference(str(reference)) == reference


@given(st.text(max_size=80))
def test_any_text_is_either_a_reference_in_its_only_spelling_or_an_error_with_a_reason(text: str) -> None:
    assert outcome(text) in (text, "INVALID_NAME")


@pytest.mark.parametrize("attack", ATTACKS)
def test_names_that_could_leave_their_place_are_refused(attack: str) -> None:
    for parse in (parse_reference, parse_adapter, parse_base, parse_region):
        with pytest.raises(InvalidArgument) as refused:
            parse(attack, "name")
        assert refused.value.reason == "INVALID_NAME"


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}", fullmatch=True))
def test_every_region_code_of_the_contract_is_accepted(code: str) -> None:
    assert parse_region(region_name(code)) == code


@pytest.mark.parametrize("code", ["CN ZJ", "-CN", "CN/ZJ", "..", "C" * 64, "長三角"])
def test_other_region_codes_are_refused(code: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_region(region_name(code))


def test_a_version_must_be_a_number_where_an_alias_would_point_at_an_alias() -> None:
    assert parse_version("adapters/a/versions/7") == ("a", 7)
    for name in ("adapters/a@production", "adapters/a"):
        with pytest.raises(InvalidArgument):
            parse_version(name)


def test_a_very_long_name_is_shortened_in_the_message() -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_adapter("x" * 100_000)
    assert len(str(refused.value)) < 400
