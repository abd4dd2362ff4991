"""A service of somebody else's that uses OpenTelemetry and asks Terroir for a cover; run as a process of its own.

python -m tests.integration.tracing.recommender COLLECTOR DATA_DIR REGION PICTURE < prompt
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from terroir.client import Client, Endpoints


def main() -> None:
    collector, data_dir, region, path = sys.argv[1:]
    provider = TracerProvider(resource=Resource.create({"service.name": "recommender"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(collector)))
    trace.set_tracer_provider(provider)
    tracer, terroir = trace.get_tracer("recommender"), Client(Endpoints.discover(Path(data_dir)))
    with terroir, tracer.start_as_current_span("recommend cover") as span:
        drawn = terroir.generate(sys.stdin.read(), region=region, seeds=[7], width=64, height=64, steps=4)
    provider.shutdown()
    picture = drawn.pictures[0]
    picture.save(path)
    found = [adapter.found for adapter in drawn.done.adapters]
    trace_id = trace.format_trace_id(span.get_span_context().trace_id)
    print(json.dumps({"trace": trace_id, "picture_id": picture.picture_id, "found": found}))


if __name__ == "__main__":
    main()
