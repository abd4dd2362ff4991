"""The chart for all tests here; without Helm they are skipped loudly, or fail under TERROIR_REQUIRE_TOOLS=helm."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from tests.chart.rendering import NEWEST, OLDEST, Chart
from tests.chart.scenarios import ALL

_MANY = 200
"""Tests of a run that will ask for every scenario."""


@pytest.fixture(scope="session")
def _charts(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Chart]]:
    made: dict[str, Chart] = {}

    def chart(helm: str) -> Chart:
        if helm not in made:
            made[helm] = Chart(helm)
            # Workers of pytest-xdist have a few files each, and each other.
            if request.session.testscollected > _MANY and "PYTEST_XDIST_WORKER" not in os.environ:
                for version in (OLDEST, NEWEST):
                    for values in ALL.values():
                        made[helm].begin(values, version)
        return made[helm]

    yield chart
    for one in made.values():
        one.end()


@pytest.fixture
def chart(_charts: Callable[[str], Chart], tool: Callable[[str], str]) -> Chart:
    return _charts(tool("helm"))
