"""For each alert series under which it fires, and series just below under which it does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

Series = dict[str, str]
"""Values by series, in promtool's notation."""
HERE: Final = {"namespace": "shop"}
REPLICA: Final = {**HERE, "job": "terroir-x", "instance": "10.0.0.1:9090"}
_GENERATE: Final = 'method="/terroir.inference.v1.InferenceService/Generate"'
_READ: Final = 'method="/terroir.registry.v1.RegistryService/GetVersion"'
_BUSY: Final = 600.0
"""Calls a minute."""
_DAY: Final = 24 * 60


@dataclass(frozen=True)
class Look:
    """What an alert does at one moment."""

    series: Series
    at_minutes: int
    """When it is looked at, from the beginning."""
    fires: bool
    labels: Mapping[str, str] = field(default_factory=dict)
    """What the alert says besides name and severity."""
    interval_minutes: int = 1
    """Between two samples; above 1 the rules are evaluated every 5 minutes only, which saves most of the time."""
    why: str = ""


def named(name: str, more: str = "", labels: Mapping[str, str] = HERE) -> str:
    """A series by its name and labels."""
    stated = ",".join(filter(None, [more, *(f'{key}="{value}"' for key, value in labels.items())]))
    return f"{name}{{{stated}}}"


def counter(*stretches: tuple[float, int], interval: int = 1) -> str:
    """A counter that grows by so much a minute for so many minutes, then by so much, ..."""
    tokens, value = ["0"], 0.0
    for per_minute, minutes in stretches:
        step, count = per_minute * interval, minutes // interval
        tokens.append(f"{value + step:.6f}+{step:.6f}x{count - 1}")
        value += step * count
    return " ".join(tokens)


def _since(*points: tuple[int, float]) -> str:
    """A value that holds from each minute on until the next."""
    return " ".join(f"{value:g}x{until - since - 1}" for (since, value), (until, _) in pairwise([*points, (240, 0)]))


def _one(series: str, fires: str, quiet: str, at: int, labels: Mapping[str, str]) -> tuple[Look, ...]:
    return Look({series: fires}, at, True, labels), Look({series: quiet}, at, False)


def _replica(name: str, fires: str, quiet: str, at: int, more: str = "", **labels: str) -> tuple[Look, ...]:
    return _one(named(name, more, REPLICA), fires, quiet, at, {**REPLICA, **labels})


def _shares(bad: str, good: str, *stretches: tuple[float, float, int], interval: int) -> Series:
    """Of so many calls a minute this share fails, for so many minutes."""
    return {
        bad: counter(*((calls * share, minutes) for calls, share, minutes in stretches), interval=interval),
        good: counter(*((calls * (1 - share), minutes) for calls, share, minutes in stretches), interval=interval),
    }


def _burns(name: str, bad: str, good: str, budget: float, more: Series | None = None) -> dict[str, tuple[Look, ...]]:
    """Both windows of the page and of the ticket, each just above and just below its rate."""

    def look(fires: bool, *stretches: tuple[float, float, int], interval: int = 1, why: str) -> Look:
        series = _shares(bad, good, *((calls, rate * budget, m) for calls, rate, m in stretches), interval=interval)
        minutes = sum(minutes for _, _, minutes in stretches)
        # Samples of what never happens, so that a share is not absent for want of them.
        zeros = {one: counter((0, minutes), interval=interval) for one in (more or {})}
        return Look(series | zeros, minutes, fires, HERE, interval, why)

    def hour(rate: float) -> tuple[tuple[float, float, int], ...]:
        return (_BUSY, 0, 600), (_BUSY, rate, 70)

    def day(rate: float) -> tuple[tuple[float, float, int], ...]:
        # Ten times as many calls before it: the three days as a whole are fine.
        return (10 * _BUSY, 0, 2 * _DAY), (_BUSY, rate, _DAY + 60)

    return {
        f"{name}Fast": (
            look(True, *hour(15.0), why="an hour at 15 times"),
            look(False, *hour(13.8), why="an hour at 13.8 times"),
            look(False, *hour(19.0), (_BUSY, 0, 15), why="an hour at 19 times, over for a quarter of an hour"),
            look(True, (_BUSY, 6.2, 400), why="six hours at 6.2 times"),
            look(False, (_BUSY, 5.8, 400), why="six hours at 5.8 times"),
        ),
        f"{name}Slow": (
            look(True, *day(3.1), interval=2, why="a day at 3.1 times"),
            look(False, *day(2.9), interval=2, why="a day at 2.9 times"),
            look(True, (_BUSY, 1.1, 3 * _DAY + 60), interval=2, why="three days at 1.1 times"),
            look(False, (_BUSY, 0.9, 3 * _DAY + 60), interval=2, why="three days at 0.9 times"),
        ),
    }


_ADMITTED: Final[Series] = {
    named("terroir_inference_refused_requests_total", 'reason="QUEUE_FULL",priority="NORMAL"'): "",
    named("terroir_inference_engine_failures_total", 'reason="DEVICE_MEMORY_FULL"'): "",
}


def _histogram_burns(name: str, metric: str, more: str, le: str, budget: float) -> dict[str, tuple[Look, ...]]:
    """The same for a histogram: what is slow is in the count and not in the bucket."""
    made = _burns(name, "slow", "fast", budget)
    for looks in made.values():
        for look in looks:
            fast, slow = look.series.pop("fast"), look.series.pop("slow")
            look.series[named(f"{metric}_bucket", f'{more},le="{le}"')] = fast
            # A second series of the count alone stands for a replica all of whose answers are slow.
            look.series[named(f"{metric}_count", more)] = fast
            look.series[named(f"{metric}_count", f'{more},pod="slow"')] = slow
    return made


def _queue_full() -> tuple[Look, ...]:
    """Refusals for a full queue end as RESOURCE_EXHAUSTED, which alone counts nothing."""
    exhausted = named("terroir_rpc_handled_total", f'{_GENERATE},code="RESOURCE_EXHAUSTED"')
    full, memory = _ADMITTED
    calls = {exhausted: counter((_BUSY, 400)), memory: counter((0, 400))}
    return (
        Look(calls | {full: counter((_BUSY, 400))}, 400, True, HERE, why="all refused for a full queue"),
        Look(calls | {full: counter((0, 400))}, 400, False, why="all refused for what is the caller's own"),
    )


def _all() -> dict[str, tuple[Look, ...]]:
    generate = _burns(
        "TerroirGenerateErrorBudgetBurn",
        named("terroir_rpc_handled_total", f'{_GENERATE},code="UNAVAILABLE"'),
        named("terroir_rpc_handled_total", f'{_GENERATE},code="OK"'),
        0.005,
        _ADMITTED,
    )
    generate["TerroirGenerateErrorBudgetBurnFast"] += _queue_full()
    return {
        **generate,
        **_histogram_burns(
            "TerroirGenerateLatencyBudgetBurn", "terroir_inference_request_seconds", 'priority="NORMAL"', "30.0", 0.05
        ),
        **_burns(
            "TerroirDeadlineErrorBudgetBurn", named("terroir_inference_deadlines_total", 'result="broken"'),
            named("terroir_inference_deadlines_total", 'result="kept"'), 0.01,
        ),
        **_burns(
            "TerroirMetadataErrorBudgetBurn", named("terroir_rpc_handled_total", f'{_READ},code="INTERNAL"'),
            named("terroir_rpc_handled_total", f'{_READ},code="OK"'), 0.001,
        ),
        **_histogram_burns("TerroirMetadataLatencyBudgetBurn", "terroir_rpc_duration_seconds", _READ, "0.25", 0.01),
        "TerroirEngineNotReady": _replica("terroir_inference_engine_ready", "0x30", _since((0, 0), (9, 1)), 12),
        "TerroirEngineRestarts": _replica(
            "terroir_inference_engine_restarts_total", _since((0, 0), (3, 1), (6, 3)), _since((0, 0), (3, 1)), 14
        ),
        "TerroirQueueSaturated": (
            Look(_queue(53, 64), 8, True, REPLICA),
            Look(_queue(51, 64), 8, False),
            Look(_queue(0, 0), 8, False, why="no request may wait there"),
        ),
        "TerroirDeviceMemoryFull": _replica(
            "terroir_inference_engine_failures_total", _since((0, 0), (5, 4)), _since((0, 0), (5, 2)), 14,
            'reason="DEVICE_MEMORY_FULL"', reason="DEVICE_MEMORY_FULL",
        ),
        "TerroirAdapterLoadFailures": (
            Look(_loads(5.5), 25, True, {"instance": REPLICA["instance"], **HERE}),
            Look(_loads(4.5), 25, False),
            Look(_loads(0, asked=0), 25, False, why="nobody asks for an adapter"),
        ),
        "TerroirAdapterDigestMismatch": (
            *(
                Look(_failed(reason), 10, True, {"reason": reason, "instance": REPLICA["instance"], **HERE})
                for reason in ("ADAPTER_CORRUPT", "STORE_BLOB_CORRUPT", "SIGNATURE_INVALID")
            ),
            Look(_failed("REGISTRY_UNREACHABLE"), 10, False),
        ),
        "TerroirDiskCacheDamaged": _replica("terroir_inference_disk_damaged_total", _since((0, 0), (5, 1)), "0x90", 30),
        "TerroirRegistryUnreachable": _replica(
            "terroir_inference_registry_watch_connected", _since((0, 1), (4, 0)), _since((0, 1), (4, 0), (5, 1)), 7
        ),
        "TerroirCoversByDefault": (
            Look(_covers(11), 30, True, HERE),
            Look(_covers(9), 30, False),
            Look(_covers(11), 14, False, why="not for a quarter of an hour"),
            Look(_covers(0, other=0), 30, False, why="nobody asks for a cover"),
        ),
        "TerroirStoreErrors": (
            Look(_store(5.5), 12, True, REPLICA),
            Look(_store(4.5), 12, False),
        ),
        "TerroirStoreSlow": (
            Look(_reads(fast=98, slow=2), 30, True, {**HERE, "job": REPLICA["job"]}),
            Look(_reads(fast=99.5, slow=0.5), 30, False),
        ),
        "TerroirStoredObjectDamaged": _replica(
            "terroir_store_damaged_objects_total", _since((0, 0), (5, 1)), "7x90", 10
        ),
        "TerroirIndexStale": _replica("terroir_registry_index_stale_seconds", "31x30", "29x30", 5),
        "TerroirWatchersNearLimit": (
            Look(_watchers(801), 15, True, REPLICA),
            Look(_watchers(799), 15, False),
        ),
        "TerroirTrainingQueueAsleep": (
            Look(_looks(130, 121), 5, True, HERE),
            Look(_looks(900, 1), 5, False, why="another replica looks"),
        ),
        "TerroirTrainingJobStuck": _one(
            named("terroir_training_heartbeat_age_seconds", "", REPLICA), "901x30", "899x30", 10, HERE
        ),
        "TerroirTrainingQueueNotDraining": (
            Look(_waiting(1801, running=1), 10, True, HERE),
            Look(_waiting(1799, running=1), 10, False),
            Look(_waiting(9999, running=2), 10, False, why="as many run as may"),
        ),
        "TerroirTrainingAttemptsLost": _one(
            named("terroir_training_attempts_lost_total", "", REPLICA), _since((0, 0), (5, 5)), _since((0, 0), (5, 2)),
            58, HERE,
        ),
        "TerroirTrainingPublishFailures": _one(
            named("terroir_training_publish_failures_total", "", REPLICA), _since((0, 0), (5, 1)), "3x90", 58, HERE
        ),
        # promtool's clock begins in 1970.
        "TerroirCertificateExpiresSoon": _replica(
            "terroir_tls_certificate_expiry_timestamp_seconds", f"{14 * 86400}x30", f"{14 * 86400 + 901}x30", 15
        ),
        "TerroirCertificateExpiresNow": _replica(
            "terroir_tls_certificate_expiry_timestamp_seconds", f"{3 * 86400}x30", f"{3 * 86400 + 901}x30", 15
        ),
        "TerroirCertificateNotTaken": _replica(
            "terroir_tls_reload_failures_total", _since((0, 0), (5, 1)), "1x90", 10
        ),
        "TerroirAccessFileNotTaken": _replica(
            "terroir_access_file_reload_failures_total", _since((0, 0), (5, 1)), "1x90", 10
        ),
        "TerroirAuthRefusals": _rates(
            "terroir_auth_refusals_total", 20, 'reason="TOKEN_EXPIRED"', reason="TOKEN_EXPIRED"
        ),
        "TerroirHandshakeFailures": _rates("terroir_tls_handshake_failures_total", 20),
        "TerroirCallsRateLimited": _rates("terroir_rate_limited_total", 25),
        "TerroirTargetDown": _replica("up", _since((0, 1), (3, 0)), _since((0, 1), (3, 0), (7, 1)), 9),
        "TerroirTracesLost": _rates("terroir_trace_spans_lost_total", 45),
    }  # fmt: skip


def _rates(name: str, at: int, more: str = "", **labels: str) -> tuple[Look, ...]:
    """Just above and just below one a second."""
    series, said = named(name, more, REPLICA), {**HERE, "job": REPLICA["job"], **labels}
    return _one(series, counter((63, 60)), counter((57, 60)), at, said)


def _queue(depth: int, capacity: int) -> Series:
    return {
        named("terroir_inference_queue_depth", "", REPLICA): f"{depth}x30",
        named("terroir_inference_queue_capacity", "", REPLICA): f"{capacity}x30",
    }


def _loads(failed: float, asked: float = 95) -> Series:
    return {
        named("terroir_inference_adapter_load_failures_total", 'reason="X"', REPLICA): counter((failed, 40)),
        named("terroir_inference_adapter_queries_total", 'tier="device"', REPLICA): counter((asked, 40)),
    }


def _covers(default: float, other: float | None = None) -> Series:
    """Of a hundred answers a minute so many are the callers' own pictures."""
    rest = 100 - default if other is None else other
    return {
        named("terroir_inference_covers_answered_total", 'rung="default"', REPLICA): counter((default, 60)),
        named("terroir_inference_covers_answered_total", 'rung="region"', REPLICA): counter((rest, 60)),
    }


def _failed(reason: str) -> Series:
    failures = named("terroir_inference_adapter_load_failures_total", f'reason="{reason}"', REPLICA)
    return {failures: _since((0, 0), (5, 1))}


def _store(failed: float) -> Series:
    return {
        named("terroir_store_errors_total", 'operation="read",reason="STORE_UNREACHABLE"', REPLICA): counter(
            (failed, 30)
        ),
        named("terroir_store_request_seconds_count", 'operation="read"', REPLICA): counter((100, 30)),
    }


def _reads(*, fast: float, slow: float) -> Series:
    series = {"1.0": fast, "2.5": fast, "5.0": fast + slow, "+Inf": fast + slow}
    return {
        named("terroir_store_request_seconds_bucket", f'operation="read",le="{le}"', REPLICA): counter((rate, 60))
        for le, rate in series.items()
    }


def _watchers(number: int) -> Series:
    return {
        named("terroir_registry_watchers", "", REPLICA): f"{number}x30",
        named("terroir_registry_watchers_limit", "", REPLICA): "1000x30",
    }


def _looks(*ages: int) -> Series:
    return {
        named("terroir_training_queue_look_age_seconds", f'instance="{number}"'): f"{age}x30"
        for number, age in enumerate(ages)
    }


def _waiting(seconds: int, *, running: int) -> Series:
    return {
        named("terroir_training_oldest_queued_seconds", "", REPLICA): f"{seconds}x30",
        named("terroir_training_jobs", 'state="running"', REPLICA): f"{running}x30",
        named("terroir_training_running_limit", "", REPLICA): "2x30",
    }


CASES: Final = _all()
