"""The metrics of the OpenTelemetry instrument.

Attributes of metrics have few values: no id, no content, and at most `MOST_VALUES` models, names of
tools and types of errors, whatever users, models and servers make up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from opentelemetry import metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from opentelemetry.context import Context
    from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation
    from opentelemetry.util.types import AttributeValue

    from trio_responses._wire import Usage

__all__ = ["Attributes", "MetricNames", "Metrics", "few_values"]

MetricNames: TypeAlias = Literal["genai-0.1", "1.41", "both"]
"""The names of the metrics of turns: those of the conventions for generative AI 0.1, those of the
semantic conventions 1.41, which most backends read, or both."""
Attributes: TypeAlias = "dict[str, AttributeValue]"

SCOPE: Final = "trio_responses"
SECONDS: Final = tuple(0.01 * 2**step for step in range(14))
"""The bucket bounds of the conventions for seconds of turns and tools: 0.01 to 81.92."""
RUN_SECONDS: Final = tuple(0.1 * 2**step for step in range(13))
"""The bucket bounds of the conventions for seconds of runs: 0.1 to 409.6. A rate limiter, too, may
take minutes."""
STORE_SECONDS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
"""The bucket bounds of the conventions for seconds of operations of a database."""
TOKENS: Final = tuple(4**step for step in range(14))
"""The bucket bounds of the conventions for histograms of tokens: 1 to 67,108,864."""
COUNTS: Final = tuple(2**step for step in range(8))
"""The bucket bounds of the conventions for calls in a run: 1 to 128."""
MOST_VALUES: Final = 100
OTHER: Final = "_OTHER"
"""The value of the conventions for an error without a known type."""


def few_values(known: set[str], value: str) -> str:
    """Return a value that one of the attributes of metrics may have.

    :param known: the values so far, to which the value is added.
    :return: the value, or `OTHER` if there are too many values, or the value is too long.
    """
    if value in known:
        return value
    if len(known) >= MOST_VALUES or len(value) > MOST_VALUES:
        return OTHER
    known.add(value)
    return value


class Metrics:
    """The metrics of one instrument.

    :param names: which names the metrics of turns have.
    :param observe_buffers: returns the bytes of unread events.
    """

    def __init__(
        self,
        meter_provider: MeterProvider | None,
        names: MetricNames,
        observe_buffers: Callable[[CallbackOptions], Iterable[Observation]],
    ) -> None:
        meter = metrics.get_meter(SCOPE, meter_provider=meter_provider)
        layouts: list[_TurnMetrics] = []
        if names != "1.41":
            layouts.append(_CurrentMetrics(meter))
        if names != "genai-0.1":
            layouts.append(_EarlierMetrics(meter))
        self.turns: tuple[_TurnMetrics, ...] = tuple(layouts)
        self.run_duration = meter.create_histogram(
            "gen_ai.invoke_agent.duration",
            unit="s",
            description="Duration of a run: turns, and calls of tools between them.",
            explicit_bucket_boundaries_advisory=RUN_SECONDS,
        )
        self.run_turns = meter.create_histogram(
            "gen_ai.invoke_agent.inference_calls",
            unit="{inference_call}",
            description="Turns of a run.",
            explicit_bucket_boundaries_advisory=COUNTS,
        )
        self.run_tools = meter.create_histogram(
            "gen_ai.invoke_agent.tool_calls",
            unit="{tool_call}",
            description="Calls of tools in a run.",
            explicit_bucket_boundaries_advisory=COUNTS,
        )
        self.tool_duration = meter.create_histogram(
            "gen_ai.execute_tool.duration",
            unit="s",
            description="Duration of a tool's call.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self.store_duration = meter.create_histogram(
            "db.client.operation.duration",
            unit="s",
            description="Duration of an operation of a store.",
            explicit_bucket_boundaries_advisory=STORE_SECONDS,
        )
        self.active_turns = meter.create_up_down_counter(
            "trio_responses.turn.active",
            unit="{turn}",
            description="Turns that wait for a place or have not ended.",
        )
        self.queue_duration = meter.create_histogram(
            "trio_responses.turn.queue.duration",
            unit="s",
            description="Time that a turn waits for a socket, a lane and a rate limiter.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self.limiter_wait = meter.create_histogram(
            "trio_responses.rate_limiter.wait.duration",
            unit="s",
            description="Time that the request of a turn waits for a rate limiter, if it does.",
            explicit_bucket_boundaries_advisory=RUN_SECONDS,
        )
        self.retries = meter.create_counter(
            "trio_responses.turn.retries",
            unit="{retry}",
            description="Requests that are sent again after a failed attempt.",
        )
        self.open_sockets = meter.create_up_down_counter(
            "trio_responses.socket.open", unit="{socket}", description="Open WebSockets."
        )
        self.connect_duration = meter.create_histogram(
            "trio_responses.socket.connect.duration",
            unit="s",
            description="Duration of an attempt to open a WebSocket.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self.lost_sockets = meter.create_counter(
            "trio_responses.socket.lost", unit="{socket}", description="WebSockets that were lost."
        )
        self.reconnects = meter.create_counter(
            "trio_responses.reconnects",
            unit="{attempt}",
            description="Delayed attempts to connect, after a failure or a loss.",
        )
        self.transport_changes = meter.create_counter(
            "trio_responses.transport.changes",
            unit="{change}",
            description="Changes from a WebSocket to HTTP, and back.",
        )
        self.endpoint_changes = meter.create_counter(
            "trio_responses.endpoint.changes",
            unit="{change}",
            description="Changes of a pool to another endpoint.",
        )
        self.lease_wait = meter.create_histogram(
            "trio_responses.lease.wait.duration",
            unit="s",
            description="Time until a lease was acquired or refused.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self.held_leases = meter.create_up_down_counter(
            "trio_responses.lease.held", unit="{lease}", description="Leases that are held."
        )
        self.lost_leases = meter.create_counter(
            "trio_responses.lease.lost",
            unit="{lease}",
            description="Leases that were lost while a conversation was open.",
        )
        meter.create_observable_up_down_counter(
            "trio_responses.buffer.unread",
            [observe_buffers],
            unit="By",
            description="Bytes of events that wait to be read.",
        )


class _TurnMetrics:
    """The metrics of turns under one set of names."""

    def __init__(self, meter: Meter, duration: str, first_chunk: str) -> None:
        self._duration = meter.create_histogram(
            duration,
            unit="s",
            description="Duration of a turn with all its attempts.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self._first_chunk = meter.create_histogram(
            first_chunk,
            unit="s",
            description="Time from the request to the first event of its response.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )

    def record_first_event(
        self, seconds: float, attributes: Mapping[str, AttributeValue], context: Context
    ) -> None:
        """Record the time to the first event of a response."""
        self._first_chunk.record(seconds, attributes, context)

    def record_end(
        self, seconds: float, attributes: Mapping[str, AttributeValue], context: Context
    ) -> None:
        """Record the duration of a turn."""
        self._duration.record(seconds, attributes, context)

    def record_usage(
        self, usage: Usage, attributes: Mapping[str, AttributeValue], context: Context
    ) -> None:
        """Record the tokens of a Response."""
        raise NotImplementedError


class _CurrentMetrics(_TurnMetrics):
    """The metrics of turns by the conventions for generative AI 0.1."""

    def __init__(self, meter: Meter) -> None:
        super().__init__(
            meter,
            "gen_ai.client.inference.duration",
            "gen_ai.client.inference.time_to_first_chunk",
        )
        self._input, self._read, self._written, self._output, self._reasoning = (
            meter.create_counter(
                f"gen_ai.client.inference.usage.{name}", unit="{token}", description=description
            )
            for name, description in (
                ("input_tokens", "Input tokens."),
                ("cache_read.input_tokens", "Input tokens that were read from the server's cache."),
                ("cache_write.input_tokens", "Input tokens that were written to that cache."),
                ("output_tokens", "Output tokens."),
                ("reasoning.output_tokens", "Output tokens of reasoning."),
            )
        )

    def record_usage(
        self, usage: Usage, attributes: Mapping[str, AttributeValue], context: Context
    ) -> None:
        """Count the tokens of a Response."""
        details = usage.input_tokens_details
        self._input.add(usage.input_tokens, attributes, context)
        self._read.add(details.cached_tokens, attributes, context)
        self._written.add(details.cache_write_tokens, attributes, context)
        self._output.add(usage.output_tokens, attributes, context)
        self._reasoning.add(usage.output_tokens_details.reasoning_tokens, attributes, context)


class _EarlierMetrics(_TurnMetrics):
    """The metrics of turns by the semantic conventions 1.41."""

    def __init__(self, meter: Meter) -> None:
        super().__init__(
            meter,
            "gen_ai.client.operation.duration",
            "gen_ai.client.operation.time_to_first_chunk",
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            description="Input and output tokens of a Response.",
            explicit_bucket_boundaries_advisory=TOKENS,
        )

    def record_usage(
        self, usage: Usage, attributes: Mapping[str, AttributeValue], context: Context
    ) -> None:
        """Record the tokens of a Response."""
        for kind, tokens in (("input", usage.input_tokens), ("output", usage.output_tokens)):
            self._tokens.record(tokens, {**attributes, "gen_ai.token.type": kind}, context)
