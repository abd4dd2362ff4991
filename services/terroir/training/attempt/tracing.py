"""Where an attempt's driver and worker send their spans: on with the trace that the job's creation belongs to."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from terroir.common.errors import InvalidArgument
from terroir.common.tracing import Span, following, open_tracing
from terroir.training.attempt.order import DriverOrder
from terroir.training.settings import TrainingSettings

if TYPE_CHECKING:
    from terroir.common.otel import Tracing


@dataclass(frozen=True)
class _Settings:
    otlp_endpoint: str
    trace_sample_ratio: float = 1.0
    """Never asked: whoever created the job has decided."""


@contextmanager
def traced_part(order: DriverOrder, part: str, name: str) -> Iterator[Span]:
    """One process of an attempt as a span that is current inside; delivered at the end."""
    tracing = _open(order, part)
    try:
        job = f"jobs/{order.job_id}"
        with following(tracing, order.traceparent, name, "consumer", job=job, attempt=order.attempt) as span:
            yield span
    finally:
        if tracing is not None:
            tracing.close()


def _open(order: DriverOrder, part: str) -> Tracing | None:
    """To the collector that this machine's settings name, or else the service's."""
    if not order.traceparent:
        return None
    endpoint = TrainingSettings.load().otlp_endpoint or order.otlp_endpoint
    try:
        return open_tracing(_Settings(endpoint), f"training-{part}", lambda _lost: None)
    except InvalidArgument as error:  # no reason to lose a training
        sys.stderr.write(f"not traced: {error}\n")
        return None
