"""Thousands of adapters with a long tail: ten minutes of load, and how replicas share it."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.bench import Bench
from benchmarks.katz import load
from benchmarks.katz.simulation import POLICIES, simulate
from benchmarks.katz.trace import ADAPTERS
from benchmarks.rows import Row, Target
from terroir._proto.inference.v1 import inference_pb2 as pb


def rows(bench: Bench) -> Iterator[Row]:
    """The load, then the simulation."""
    yield from load_rows(bench, bench.count(ADAPTERS, 40), bench.count(600, 4))
    yield from simulation_rows(bench)


def load_rows(bench: Bench, count: int, seconds: float) -> Iterator[Row]:
    """One server; its host memory holds a tenth of the adapters, its device memory a fiftieth."""
    report = load.run(bench.work, count, seconds, bench.say)
    what = (
        f"{count} adapters, {load.CLIENTS} clients, {load.SIDE}×{load.SIDE}, {load.STEPS} steps without guidance, "
        f"{seconds:.0f} s"
    )
    yield bench.row(f"errors, {what}", "requests", float(report.errors.total()), target=Target(0))
    yield bench.row("requests served", "1/s", report.requests / seconds)
    tiers = {
        "device": (pb.TIER_DEVICE,),
        "host": (pb.TIER_HOST,),
        "disk": (pb.TIER_DISK,),
        "registry": (pb.TIER_REGISTRY,),
    }
    for name, numbers in tiers.items():
        yield bench.row(f"wanted adapters found in tier {name}", "share", report.share(*numbers))
    yield bench.row("loading hidden behind waiting, share of load seconds", "share", report.hidden_share)
    yield bench.row("load seconds a request, mean", "s", report.load_seconds / max(1, report.requests))
    yield bench.row(
        "memory of server and engine, growth from the second tenth of the run to the last", "MiB", report.growth,
        target=Target(at_most=50),
    )  # fmt: skip
    yield bench.row("memory of server and engine, most", "MiB", max(report.memory))


def simulation_rows(bench: Bench) -> Iterator[Row]:
    """Against random placement in the same simulation."""
    for replicas in (2, 4, 8, 16, 32):
        found = {policy: simulate(policy, replicas, replicas * bench.count(4000, 200)) for policy in POLICIES}
        peer = found["random"]
        for policy in POLICIES[1:]:
            ours, name = found[policy], f"simulated, {replicas} replicas, {policy}"
            figures = (
                ("adapters fetched a request", "", ours.loads, peer.loads),
                ("found in device memory", "share", ours.device_hits, peer.device_hits),
                ("found in device or host memory", "share", ours.host_hits, peer.host_hits),
                ("busiest replica over the mean", "", ours.imbalance, peer.imbalance),
                ("p99 wait, in drawings", "", ours.waited, peer.waited),
            )
            for figure, unit, value, other in figures:
                yield bench.row(f"{name}: {figure}", unit, value, peer=other, peer_name="random")
