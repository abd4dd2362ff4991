"""The inference server against diffusers and PEFT in the same run, on the same weights and as many threads."""

from __future__ import annotations

import os
from collections.abc import Iterator

from benchmarks.bench import Bench
from benchmarks.inference import churn, hot_load, pictures, step_time, throughput
from benchmarks.rows import Row
from terroir.client import Client
from terroir.embedded import Embedded
from terroir.inference.settings import InferenceSettings


def rows(bench: Bench) -> Iterator[Row]:
    """Requests over gRPC, ticks of the engine in this process, adapters on their way, and what is left behind."""
    threads = InferenceSettings().threads
    bench.say(f"both sides use {threads} threads, OMP_WAIT_POLICY={os.environ.get('OMP_WAIT_POLICY')}; services start")
    with Embedded(bench.work / "data") as running, Client(running.endpoints) as client:
        running.wait_until_serving("inference", 120)
        yield from pictures.rows(bench, client, threads)
        yield from throughput.rows(bench, client, threads)
        yield from throughput.latency_rows(bench, running.endpoints.inference)
    yield from step_time.rows(bench, threads)
    yield from hot_load.rows(bench)
    yield churn.row(bench)
