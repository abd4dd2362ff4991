"""Prometheus metrics of the training service."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from terroir.store.metrics import StoreMetrics
from terroir.training.config.scheduling_keys import Priority
from terroir.training.jobs.census import ENDS, JobCensus, JobPlace, Totals


class TrainingMetrics:
    """Jobs, the queue, and the store; pass a registry of its own in tests."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.store = StoreMetrics(registry)
        self._created = Counter(
            "terroir_training_jobs_created", "Requests that queued a job or found it queued.", registry=registry
        )
        self._jobs = Gauge("terroir_training_jobs", "Jobs by where they are.", ["state"], registry=registry)
        self._depth = Gauge(
            "terroir_training_queue_depth", "Jobs without a worker: queued, or waiting in Ray.", registry=registry
        )
        self._limit = Gauge("terroir_training_running_limit", "Jobs that Ray may have at once.", registry=registry)
        self._oldest = Gauge(
            "terroir_training_oldest_queued_seconds",
            "How long the job has waited that has waited longest for a worker; 0 if none waits.",
            registry=registry,
        )
        self._heartbeat = Gauge(
            "terroir_training_heartbeat_age_seconds",
            "Time since the running job that is silent longest reported something new; 0 if none runs.",
            registry=registry,
        )
        self._look = Gauge(
            "terroir_training_queue_look_age_seconds", "Time since the queue looked at all jobs.", registry=registry
        )
        self._figures = _Figures(Totals())
        registry.register(self._figures)
        for place in JobPlace:
            self._jobs.labels(place.value)

    def watch(self, census: JobCensus) -> None:
        """Read what the queue has seen, at each scrape."""
        self._figures.totals = census.totals
        for place in JobPlace:
            self._jobs.labels(place.value).set_function(partial(census.count, place))
        self._depth.set_function(lambda: census.count(JobPlace.QUEUED) + census.count(JobPlace.SUBMITTED))
        self._limit.set_function(lambda: census.limit)
        self._oldest.set_function(census.oldest_queued_seconds)
        self._heartbeat.set_function(census.heartbeat_seconds)
        self._look.set_function(census.look_seconds)

    def created(self) -> None:
        """Count a queued job."""
        self._created.inc()


class _Figures(Collector):
    """The census' totals as counters: prometheus_client's own can't be read from elsewhere."""

    def __init__(self, totals: Totals) -> None:
        self.totals = totals

    def collect(self) -> Iterator[Metric]:
        """One family a figure."""
        totals = self.totals
        for name, text, value in (
            ("attempts_submitted", "Attempts given to Ray by this replica.", totals.submitted),
            ("attempts_lost", "Attempts that ended without a result.", totals.lost),
            ("publish_failures", "Trained adapters that the registry did not take.", totals.publish_failures),
            ("steps", "Optimiser steps that running jobs reported.", totals.steps),
        ):
            yield CounterMetricFamily(f"terroir_training_{name}", text, value=value)
        preemptions = CounterMetricFamily(
            "terroir_training_preemptions",
            "Attempts that were seen to be asked to make room, by the class of their job.",
            labels=["priority"],
        )
        for priority in Priority:
            preemptions.add_metric([priority.value], totals.preemptions[priority])
        yield preemptions
        ended = CounterMetricFamily("terroir_training_jobs_ended", "Jobs that were seen to end.", labels=["state"])
        for place in ENDS:
            ended.add_metric([place.value], totals.ended[place])
        yield ended
