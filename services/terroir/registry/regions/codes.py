"""Region codes: which two are the same, and what a code's spelling tells about where it lies.

ISO 3166-2 (`CN-ZJ`) lies in its country (`CN`). GB/T 2260 (`330106`) has two digits each for province, prefecture and
county, and a province of it is the ISO subdivision of the table below. Nothing here needs a list of places, so a county
that is founded tomorrow folds like the old ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

PROVINCES: Final = {
    "11": "BJ", "12": "TJ", "13": "HE", "14": "SX", "15": "NM",
    "21": "LN", "22": "JL", "23": "HL",
    "31": "SH", "32": "JS", "33": "ZJ", "34": "AH", "35": "FJ", "36": "JX", "37": "SD",
    "41": "HA", "42": "HB", "43": "HN", "44": "GD", "45": "GX", "46": "HI",
    "50": "CQ", "51": "SC", "52": "GZ", "53": "YN", "54": "XZ",
    "61": "SN", "62": "GS", "63": "QH", "64": "NX", "65": "XJ",
    "71": "TW", "81": "HK", "82": "MO",
}  # fmt: skip
"""First two digits of GB/T 2260 to the letters of ISO 3166-2:CN."""

_SUBDIVISION: Final = re.compile(r"([A-Za-z]{2})-[A-Za-z0-9]{1,3}")
_DIVISION: Final = re.compile(r"([0-9]{2})([0-9]{2})([0-9]{2})")


def same(code: str) -> str:
    """The key under which a code is kept: equal for codes that differ only by case."""
    return code.lower()


def fold(code: str) -> str | None:
    """The code of the place that `code` lies in, as far as its spelling tells; None where it tells nothing."""
    division = _DIVISION.fullmatch(code)
    if division is not None and division[1] in PROVINCES:
        province, prefecture, county = division.groups()
        if county != "00":
            return f"{province}{prefecture}00"
        return f"{province}0000" if prefecture != "00" else f"CN-{PROVINCES[province]}"
    subdivision = _SUBDIVISION.fullmatch(code)
    return subdivision[1].upper() if subdivision is not None else None


def folds(code: str) -> Iterator[str]:
    """All folds of `code`, nearest first; at most four."""
    at = fold(code)
    while at is not None:
        yield at
        at = fold(at)
