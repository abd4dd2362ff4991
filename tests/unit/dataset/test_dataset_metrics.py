"""What operators see of imports: what gates found, and how many streams are open."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from terroir.dataset.metrics import DatasetMetrics
from terroir.dataset.model import Finding, Gate, Verdict


def test_findings_are_counted_by_gate_and_passed_gates_are_none() -> None:
    registry = CollectorRegistry()
    findings = [Finding(Gate.BLUR, Verdict.WARN, 1.0, 2.0, "blurred"), Finding(Gate.TOO_DARK, Verdict.PASS, 9, 1, "")]
    DatasetMetrics(registry).imported(Verdict.WARN, findings)
    seen = {gate: registry.get_sample_value("terroir_dataset_findings_total", {"gate": gate}) for gate in Gate}
    assert {gate for gate, count in seen.items() if count} == {Gate.BLUR}
    assert registry.get_sample_value("terroir_dataset_images_imported_total", {"verdict": "warn"}) == 1


def test_open_streams_are_read_where_they_are() -> None:
    registry = CollectorRegistry()
    metrics, streams = DatasetMetrics(registry), [object()]
    metrics.watch_imports(lambda: len(streams), 8)
    streams.append(object())
    names = ("running", "limit")
    assert [registry.get_sample_value(f"terroir_dataset_imports_{name}") for name in names] == [2, 8]
