"""Request fields are checked in one place; what passes is safe to use, what fails names field and limit."""

from __future__ import annotations

import base64
import json
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terroir.common.errors import InvalidArgument
from terroir.common.validation import (
    did_you_mean,
    ensure_digest,
    ensure_identifier,
    ensure_name,
    ensure_range,
    ensure_text,
    page,
)

IDENTIFIERS = st.from_regex(r"[a-z][a-z0-9-]{0,62}", fullmatch=True)


@given(IDENTIFIERS)
def test_an_identifier_passes_unchanged(value):
    assert ensure_identifier(value, "adapter_id") == value


@given(st.text())
def test_what_passes_as_an_identifier_cannot_leave_a_folder(value):
    try:
        ensure_identifier(value, "adapter_id")
    except InvalidArgument as error:
        assert (error.reason, error.field) == ("INVALID_IDENTIFIER", "adapter_id")
        assert len(str(error)) < 500
    else:
        assert set(value) <= set(string.ascii_lowercase + string.digits + "-")
        assert 1 <= len(value) <= 63


@pytest.mark.parametrize("value", ["", "..", "a/b", "a\n", "1a", "-a", "A", "ä", "a" * 64, "a\x00"])
def test_no_identifier(value):
    with pytest.raises(InvalidArgument, match="adapter_id"):
        ensure_identifier(value, "adapter_id")


@given(IDENTIFIERS, st.integers(1, 999_999_999))
def test_a_name_is_taken_apart_and_put_together_again(adapter, version):
    name = f"adapters/{adapter}/versions/{version}"
    parts = ensure_name(name, "name", "adapters/{adapter}/versions/{version}")
    assert parts == {"adapter": adapter, "version": str(version)}


@pytest.mark.parametrize(
    "value",
    ["", "adapters/", "adapters/a/versions/0", "adapters/a/versions/01", "adapters/a/versions/x", "adapters/a",
     "adapters/a/versions/1/", "datasets/a/versions/1", "adapters/../versions/1", "adapters/a/versions/1\n"],
)  # fmt: skip
def test_a_name_of_another_form_is_refused_with_the_form(value):
    with pytest.raises(InvalidArgument, match=re.escape("adapters/{adapter}/versions/{version}")) as refused:
        ensure_name(value, "name", "adapters/{adapter}/versions/{version}")
    assert refused.value.reason == "INVALID_NAME"


@pytest.mark.parametrize("code", ["CN-ZJ", "CN", "840", "ZJ-hangzhou"])
def test_region_codes_may_be_upper_case(code):
    assert ensure_name(f"regions/{code}", "name", "regions/{region}") == {"region": code}


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_only_finite_numbers_within_the_limits_pass(value):
    try:
        assert ensure_range(value, "weight", -2, 2) == value
    except InvalidArgument as error:
        assert (error.reason, error.field) == ("OUT_OF_RANGE", "weight")
        assert not -2 <= value <= 2
    else:
        assert -2 <= value <= 2


def test_a_message_tells_a_value_from_its_limit():
    """Six digits, as `:g` prints them, would say that 1048577 is outside 0 … 1.04858e+06."""
    with pytest.raises(InvalidArgument, match=r"size 1048577 is outside 0 … 1048576"):
        ensure_range(1048577, "size", 0, 1048576)


@given(st.text())
def test_text_that_passes_is_bounded_and_has_no_control_characters(value):
    try:
        assert ensure_text(value, "caption", 20, min_length=1) == value
    except InvalidArgument as error:
        assert error.reason in {"TEXT_TOO_LONG", "TEXT_MISSING", "CONTROL_CHARACTERS"}
    else:
        assert 1 <= len(value) <= 20
        assert all(ord(c) >= 32 or c in "\r\n\t" for c in value)


@pytest.mark.parametrize(
    ("value", "reason"), [("", "TEXT_MISSING"), ("x" * 21, "TEXT_TOO_LONG"), ("a\x1b[0m", "CONTROL_CHARACTERS")]
)
def test_each_defect_of_a_text_has_its_reason(value, reason):
    with pytest.raises(InvalidArgument) as refused:
        ensure_text(value, "caption", 20, min_length=1)
    assert refused.value.reason == reason


def test_a_digest_is_64_lower_case_hexadecimal_digits():
    assert ensure_digest("0a" * 32, "digest") == "0a" * 32
    for value in ("0A" * 32, "0a" * 31, "0a" * 32 + "\n", "../" * 21 + "0"):
        with pytest.raises(InvalidArgument) as refused:
            ensure_digest(value, "digest")
        assert refused.value.reason == "INVALID_DIGEST"


@given(st.text(), st.integers(1, 50))
def test_a_page_token_leads_behind_the_item_that_it_was_made_for(last, size):
    token = page(size, "", default=10, limit=50, query={"parent": "a"}).next_token(last)
    following = page(0, token, default=10, limit=50, query={"parent": "a"})
    assert (following.size, following.after) == (10, last)


def test_a_page_token_is_bound_to_its_query():
    token = page(5, "", default=10, limit=50, query={"parent": "a"}).next_token("x")
    with pytest.raises(InvalidArgument) as refused:
        page(5, token, default=10, limit=50, query={"parent": "b"})
    assert (refused.value.reason, refused.value.field) == ("INVALID_PAGE_TOKEN", "page_token")


@given(st.text(min_size=1) | st.binary(min_size=1).map(lambda data: base64.urlsafe_b64encode(data).decode()))
def test_a_foreign_page_token_is_refused_and_never_crashes(token):
    with pytest.raises(InvalidArgument) as refused:
        page(5, token, default=10, limit=50)
    assert refused.value.reason == "INVALID_PAGE_TOKEN"


@pytest.mark.parametrize("state", ["[" * 3000, "[" * 100_000, json.dumps({"after": 1, "query": ""}), "null", "3"])
def test_a_forged_page_token_is_refused(state):
    """Deep nesting once ended as an internal error: the parser raises RecursionError, which is no ValueError."""
    with pytest.raises(InvalidArgument):
        page(5, base64.urlsafe_b64encode(state.encode()).decode(), default=10, limit=50)


@pytest.mark.parametrize("size", [-1, 51])
def test_a_page_size_outside_its_limits_is_refused(size):
    with pytest.raises(InvalidArgument) as refused:
        page(size, "", default=10, limit=50)
    assert refused.value.field == "page_size"


def test_the_nearest_known_word_is_named_and_no_far_one():
    assert did_you_mean("lora_rnk", ["lora_rank", "seed"]) == " (did you mean lora_rank?)"
    assert did_you_mean("qqqq", ["lora_rank", "seed"]) == ""
