"""The OpenTelemetry instrument: spans and metrics by the semantic conventions for generative AI.

It needs the extra ``otel``; no other module imports OpenTelemetry. The times of spans are those of
the wall clock; durations in attributes and metrics are those of Trio's clock.
"""

from trio_responses._errors import install_command

try:
    from trio_responses.otel._instrument import OpenTelemetryInstrument
    from trio_responses.otel._metrics import MetricNames
except ModuleNotFoundError as error:
    needed = f"trio_responses.otel needs opentelemetry-api: {install_command('otel')}"
    raise ModuleNotFoundError(needed, name=error.name) from error

__all__ = ["MetricNames", "OpenTelemetryInstrument"]
