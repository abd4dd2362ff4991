from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import structlog


@pytest.fixture(autouse=True)
def log_configuration() -> Iterator[None]:
    """Logging is configured once a process, as services do: undone after each test."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def in_loop() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Run a coroutine in an event loop of its own."""

    def run(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run(asyncio.wait_for(work, 60))

    return run
