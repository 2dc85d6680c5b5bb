"""A fixture with OpenTelemetry's SDK that keeps spans and metrics in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from trio_responses.otel import OpenTelemetryInstrument

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import Tracer

__all__ = ["Telemetry", "attributes", "is_child", "make_telemetry", "shown_spans", "telemetry"]


@dataclass
class Telemetry:
    instrument: OpenTelemetryInstrument
    tracer: Tracer
    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader

    def spans(self, name: str) -> list[ReadableSpan]:
        return [one for one in self.exporter.get_finished_spans() if one.name.startswith(name)]

    def metrics(self) -> dict[str, Any]:
        data = self.reader.get_metrics_data()
        assert data is not None
        (resource,) = data.resource_metrics
        (scope,) = resource.scope_metrics
        return {metric.name: metric for metric in scope.metrics}

    def points(self) -> dict[str, list[Any]]:
        return {name: list(one.data.data_points) for name, one in self.metrics().items()}


def make_telemetry(**options: Any) -> Telemetry:
    """Make an instrument with providers of its own."""
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    meters = MeterProvider([reader])
    instrument = OpenTelemetryInstrument(tracers, meters, **options)
    return Telemetry(instrument, tracers.get_tracer("test"), exporter, reader)


@pytest.fixture
def telemetry() -> Telemetry:
    """Return an instrument with providers of its own."""
    return make_telemetry()


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def is_child(span: ReadableSpan, parent: Any) -> bool:
    return span.parent is not None and span.parent.span_id == parent.get_span_context().span_id


def shown_spans(telemetry: Telemetry) -> str:
    """Return all that the spans say."""
    return "".join(str(one.to_json()) for one in telemetry.exporter.get_finished_spans())
