"""What codes tell about where places lie."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terroir.registry.regions.codes import PROVINCES, fold, folds, same

CODES = st.one_of(
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}", fullmatch=True),
    st.from_regex(r"[0-9]{6}", fullmatch=True),
    st.from_regex(r"[A-Z]{2}-[A-Z0-9]{1,3}", fullmatch=True),
)


@pytest.mark.parametrize(
    ("code", "chain"),
    [
        ("CN-ZJ", ["CN"]),
        ("FR-69M", ["FR"]),
        ("us-ca", ["US"]),
        ("330106", ["330100", "330000", "CN-ZJ", "CN"]),
        ("330113", ["330100", "330000", "CN-ZJ", "CN"]),
        ("330100", ["330000", "CN-ZJ", "CN"]),
        ("330000", ["CN-ZJ", "CN"]),
        ("110001", ["110000", "CN-BJ", "CN"]),
        ("820000", ["CN-MO", "CN"]),
        ("990106", []),
        ("000000", []),
        ("33010", []),
        ("3301061", []),
        ("CN", []),
        ("CHN", []),
        ("CN-ZJ-HZ", []),
        ("ab-area", []),
        ("x-jiangnan", []),
        ("٣٣٠١٠٦", []),
    ],
)
def test_a_code_folds_as_far_as_its_spelling_tells(code: str, chain: list[str]) -> None:
    assert list(folds(code)) == chain


def test_the_provinces_are_the_34_of_the_standard_each_with_letters_of_its_own() -> None:
    assert len(PROVINCES) == len(set(PROVINCES.values())) == 34


@given(CODES)
def test_folding_ends_after_at_most_four_steps_and_never_meets_a_code_again(code: str) -> None:
    chain = [same(code), *map(same, folds(code))]
    assert len(chain) <= 5
    assert len(set(chain)) == len(chain)


@given(CODES)
def test_codes_that_are_the_same_lie_in_the_same_place(code: str) -> None:
    assert fold(code.upper()) == fold(code.lower())
    assert same(code.upper()) == same(code.lower()) == same(code)
