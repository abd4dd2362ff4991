from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import structlog

from terroir.common.tracing import use_tracing
from tests.integration.tracing.collector import Collector, collecting


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    yield
    structlog.reset_defaults()
    logging.getLogger("terroir").handlers = []
    use_tracing(None)


@pytest.fixture
def in_loop() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Run a coroutine in an event loop of its own."""
    return lambda work: asyncio.run(asyncio.wait_for(work, 60))


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as started:
        yield started
