"""The OpenTelemetry instrument: spans and metrics by the semantic conventions for generative AI.

It needs the extra ``otel``; no other module imports OpenTelemetry. The times of spans are those of
the wall clock; durations in attributes and metrics are those of Trio's clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from opentelemetry import context, metrics, trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from trio_responses._errors import APIError, HandshakeRejected
from trio_responses._instruments.instrument import Instrument

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextvars import Token

    from opentelemetry.context import Context
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider
    from opentelemetry.util.types import AttributeValue

    from trio_responses._errors import ResponsesError
    from trio_responses._instruments.records import SocketRecord, ToolRecord, TurnRecord
    from trio_responses._wire import Response

__all__ = ["OpenTelemetryInstrument"]

SCOPE: Final = "trio_responses"
SECONDS: Final = tuple(0.01 * 2**step for step in range(14))
"""The bucket bounds of the conventions for histograms of seconds: 0.01 to 81.92."""
TOKENS: Final = tuple(4**step for step in range(14))
"""The bucket bounds of the conventions for histograms of tokens: 1 to 67,108,864."""
PROVIDERS: Final = {
    "api.openai.com": "openai",
    ".openai.azure.com": "azure.ai.openai",
    ".services.ai.azure.com": "azure.ai.openai",
    "api.x.ai": "x_ai",
}
"""The ends of servers' host names, with the ``gen_ai.provider.name`` of the conventions."""
REASONS: Final = {"max_output_tokens": "length", "content_filter": "content_filter"}
CALLS_OF_THE_CLIENT: Final = frozenset({"function_call", "custom_tool_call"})


class OpenTelemetryInstrument(Instrument):
    """An instrument that makes spans and metrics for OpenTelemetry, without content.

    A turn is a span ``chat {model}``, a child of the span that is current where the turn starts. A
    call of a tool is a span ``execute_tool {name}``, which is current while the tool runs. A
    handshake is a span ``connect {host}``. The metrics are token usage, durations and times to the
    first event.

    :param tracer_provider: by default the global tracer provider.
    :param meter_provider: by default the global meter provider.
    :param provider: the ``gen_ai.provider.name``; by default it depends on the host, and is
        ``openai`` for a host that is not known.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        *,
        provider: str | None = None,
    ) -> None:
        self._tracer = trace.get_tracer(SCOPE, tracer_provider=tracer_provider)
        self._provider = provider
        self._turns: dict[TurnRecord, Span] = {}
        self._sockets: dict[SocketRecord, Span] = {}
        self._tools: dict[ToolRecord, tuple[Span, Token[Context]]] = {}
        meter = metrics.get_meter(SCOPE, meter_provider=meter_provider)
        self._duration = meter.create_histogram(
            "gen_ai.client.operation.duration",
            unit="s",
            description="GenAI operation duration.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self._first_event = meter.create_histogram(
            "gen_ai.client.operation.time_to_first_chunk",
            unit="s",
            description="Time to the first event of a response.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            description="Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=TOKENS,
        )

    # --- Turns ---------------------------------------------------------------------------

    def turn_started(self, turn: TurnRecord) -> None:
        """Start the span of a turn."""
        name = "chat" if turn.model is None else f"chat {turn.model}"
        span = self._tracer.start_span(
            name,
            kind=SpanKind.CLIENT,
            attributes={**self._start_attributes(turn), "gen_ai.request.stream": True},
        )
        self._turns[turn] = span

    def turn_sent(self, turn: TurnRecord) -> None:
        """Add the attempt to the turn's span, as an event."""
        lane = {"trio_responses.lane": turn.lane} if turn.lane is not None else {}
        self._turns[turn].add_event(
            "request sent",
            {
                "trio_responses.attempt": turn.attempts,
                "trio_responses.request.bytes": turn.request_bytes,
                "trio_responses.request.full": turn.previous_response_id is None,
                **lane,
            },
        )

    def turn_first_event(self, turn: TurnRecord) -> None:
        """Add the first event to the turn's span, as an event."""
        self._turns[turn].add_event("first event")

    def turn_retrying(
        self, turn: TurnRecord, attempt: int, delay: float, error: ResponsesError
    ) -> None:
        """Add the retry to the turn's span, as an event."""
        code = error.code if isinstance(error, APIError) else None
        self._turns[turn].add_event(
            "retry",
            {
                "trio_responses.attempt": attempt,
                "trio_responses.delay": delay,
                "error.type": code or type(error).__name__,
            },
        )

    def turn_ended(self, turn: TurnRecord) -> None:
        """End the span of a turn, and record its metrics."""
        span = self._turns.pop(turn)
        common = self._start_attributes(turn)
        if turn.sent_at is not None and turn.first_event_at is not None:
            seconds = turn.first_event_at - turn.sent_at
            span.set_attribute("gen_ai.response.time_to_first_chunk", seconds)
            self._first_event.record(seconds, common)
        span.set_attribute("trio_responses.attempts", turn.attempts)
        span.set_attributes(_end_attributes(turn))
        if turn.error_code is not None:
            common["error.type"] = turn.error_code
            span.set_status(Status(StatusCode.ERROR))
        if turn.response is not None and turn.response.model:
            common["gen_ai.response.model"] = turn.response.model
        if turn.ended_at is not None:
            self._duration.record(turn.ended_at - turn.started_at, common)
        for usage in turn.usages:
            self._tokens.record(usage.input_tokens, {**common, "gen_ai.token.type": "input"})
            self._tokens.record(usage.output_tokens, {**common, "gen_ai.token.type": "output"})
        span.end()

    def _start_attributes(self, turn: TurnRecord) -> dict[str, AttributeValue]:
        """Return the attributes that spans and metrics of a turn have from its start."""
        common: dict[str, AttributeValue] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": self._provider or _provider_name(turn.host),
            "server.address": turn.host,
            "server.port": turn.port,
        }
        if turn.model is not None:
            common["gen_ai.request.model"] = turn.model
        return common

    # --- Tools ---------------------------------------------------------------------------

    def tool_started(self, tool: ToolRecord) -> None:
        """Start the span of a tool's call, as the current span of the tool's task."""
        attributes: dict[str, AttributeValue] = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": tool.name,
        }
        if tool.kind in CALLS_OF_THE_CLIENT:
            attributes["gen_ai.tool.type"] = "function"
        if tool.call_id is not None:
            attributes["gen_ai.tool.call.id"] = tool.call_id
        span = self._tracer.start_span(f"execute_tool {tool.name}", attributes=attributes)
        self._tools[tool] = span, context.attach(trace.set_span_in_context(span))

    def tool_finished(self, tool: ToolRecord) -> None:
        """End the span of a tool's call."""
        span, token = self._tools.pop(tool)
        context.detach(token)
        if tool.error is not None:
            _mark_failed(span, tool.error)
        if tool.cancelled:
            span.set_attribute("trio_responses.cancelled", value=True)
        span.end()

    # --- Sockets -------------------------------------------------------------------------

    def socket_opening(self, socket: SocketRecord) -> None:
        """Start the span of a handshake."""
        self._sockets[socket] = self._tracer.start_span(
            f"connect {socket.host}",
            kind=SpanKind.CLIENT,
            attributes={
                "network.protocol.name": "websocket",
                "server.address": socket.host,
                "server.port": socket.port,
                "trio_responses.attempt": socket.attempt,
                "trio_responses.rotation": socket.rotation,
            },
        )

    def socket_opened(self, socket: SocketRecord) -> None:
        """End the span of a handshake that succeeded."""
        self._sockets.pop(socket).end()

    def socket_failed(self, socket: SocketRecord) -> None:
        """End the span of a handshake that failed, with its error and HTTP status."""
        span = self._sockets.pop(socket)
        if socket.error is not None:
            _mark_failed(span, socket.error)
        if isinstance(socket.error, HandshakeRejected):
            span.set_attribute("http.response.status_code", socket.error.status)
        span.end()


def _mark_failed(span: Span, error: Exception) -> None:
    """Set a span's status and the type of the error; the message may hold content."""
    span.set_attribute("error.type", type(error).__name__)
    span.set_status(Status(StatusCode.ERROR))


def _provider_name(host: str) -> str:
    """Return the ``gen_ai.provider.name`` for a host."""
    return next((name for end, name in PROVIDERS.items() if host.endswith(end)), "openai")


def _end_attributes(turn: TurnRecord) -> Mapping[str, AttributeValue]:
    """Return the attributes that a turn's span gets at its end."""
    attributes: dict[str, AttributeValue] = {}
    if turn.response_id is not None:
        attributes["gen_ai.response.id"] = turn.response_id
    if turn.error_code is not None:
        attributes["error.type"] = turn.error_code
    if turn.left_early:
        attributes["trio_responses.left_early"] = True
    if turn.lane is not None:
        attributes["trio_responses.lane"] = turn.lane
    if turn.response is not None:
        attributes["gen_ai.response.finish_reasons"] = [_finish_reason(turn.response)]
        if turn.response.model:
            attributes["gen_ai.response.model"] = turn.response.model
    if turn.usages:
        attributes |= {
            "gen_ai.usage.input_tokens": sum(one.input_tokens for one in turn.usages),
            "gen_ai.usage.output_tokens": sum(one.output_tokens for one in turn.usages),
            "gen_ai.usage.cache_read.input_tokens": sum(
                one.input_tokens_details.cached_tokens for one in turn.usages
            ),
            "gen_ai.usage.reasoning.output_tokens": sum(
                one.output_tokens_details.reasoning_tokens for one in turn.usages
            ),
        }
    return attributes


class _ItemType(msgspec.Struct):
    """The ``type`` of an output item, the only field that is decoded here."""

    type: str | None = None


def _finish_reason(response: Response) -> str:
    """Return the reason why a model stopped, as a value of the semantic conventions."""
    if response.status == "failed":
        return "error"
    if response.incomplete_details is not None:
        reason: Any = response.incomplete_details.reason
        return REASONS.get(reason, str(reason))
    types = {msgspec.json.decode(raw, type=_ItemType).type for raw in response.raw_output or ()}
    return "tool_call" if types & CALLS_OF_THE_CLIENT else "stop"
