"""The OpenTelemetry instrument: spans and metrics by the semantic conventions for generative AI.

It needs the extra ``otel``; no other module imports OpenTelemetry. The times of spans are those of
the wall clock; durations in attributes and metrics are those of Trio's clock.
"""

from importlib.util import find_spec

from trio_responses._extras import install_hint

if find_spec("opentelemetry") is None:
    raise ModuleNotFoundError(
        f"trio_responses.otel needs opentelemetry-api: {install_hint('otel')}", name="opentelemetry"
    )

from trio_responses.otel._instrument import OpenTelemetryInstrument
from trio_responses.otel._metrics import MetricNames

__all__ = ["MetricNames", "OpenTelemetryInstrument"]
