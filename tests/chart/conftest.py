"""The chart for all tests here; without Helm they are skipped loudly (TERROIR_REQUIRE_TOOLS=helm makes it a failure)."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import pytest

from tests.chart.rendering import Chart


@lru_cache
def _chart(helm: str) -> Chart:
    return Chart(helm)


@pytest.fixture
def chart(tool: Callable[[str], str]) -> Chart:
    return _chart(tool("helm"))
