"""The instrument that makes spans, and records metrics."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from weakref import ref

import msgspec
from opentelemetry import context, trace
from opentelemetry.metrics import Observation
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from trio_responses._errors import APIError, ConfigurationError, HandshakeRejected
from trio_responses._instruments.instrument import Instrument
from trio_responses._wire import sum_usages
from trio_responses._wire.nesting import MAX_SKIPPED_LEVELS, check_nesting
from trio_responses.otel._content import (
    arguments_of,
    output_messages,
    request_content,
    result_of,
)
from trio_responses.otel._metrics import SCOPE, Metrics, few_values

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextvars import Token

    from opentelemetry.context import Context
    from opentelemetry.metrics import CallbackOptions, MeterProvider
    from opentelemetry.trace import Span, SpanContext, TracerProvider

    from trio_responses._errors import ResponsesError
    from trio_responses._instruments.records import (
        ConnectionRecord,
        LeaseRecord,
        RunRecord,
        SocketRecord,
        StoreOperationRecord,
        ToolRecord,
        TurnRecord,
    )
    from trio_responses._wire import Response, Usage
    from trio_responses.otel._metrics import Attributes, MetricNames

__all__ = ["OpenTelemetryInstrument"]

PROVIDERS: Final = {
    "api.openai.com": "openai",
    ".openai.azure.com": "azure.ai.openai",
    ".services.ai.azure.com": "azure.ai.openai",
    "api.x.ai": "x_ai",
}
"""The ends of servers' host names, with the ``gen_ai.provider.name`` of the conventions."""
REASONS: Final = {"max_output_tokens": "length", "content_filter": "content_filter"}
CALLS_OF_THE_CLIENT: Final = frozenset({"function_call", "custom_tool_call"})
SWITCHED: Final = 101
"""The status of a handshake that succeeded."""
OK: Final = 200


@dataclass(frozen=True, slots=True)
class _Turn:
    """The span of a turn, with the attributes that its metrics began with."""

    span: Span
    place: Attributes


class OpenTelemetryInstrument(Instrument):
    """An instrument that makes spans and metrics for OpenTelemetry.

    A turn is a span ``chat {model}``, and a run is a span ``invoke_agent``, which is current in the
    block of the run. A call of a tool is a span ``execute_tool {name}``, which is current while the
    tool runs. A handshake, waiting for a lease, and each operation of a store are spans as well.
    The other instruments and the log are independent of this one. One instrument may be passed to
    any number of connections (docs/instruments.md).

    :param tracer_provider: by default the global tracer provider.
    :param meter_provider: by default the global meter provider.
    :param provider: the ``gen_ai.provider.name``; by default it depends on the host, and is
        ``openai`` for a host that is not known.
    :param metric_names: the names of the metrics of turns: those of the conventions for generative
        AI 0.1, those of the semantic conventions 1.41, which most backends read, or both.
    :param capture_content: whether spans hold the instructions, the input, the output, and the
        arguments and results of tools. Metrics never do.
    :raises ConfigurationError: for unknown ``metric_names``.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        *,
        provider: str | None = None,
        metric_names: MetricNames = "both",
        capture_content: bool = False,
    ) -> None:
        if metric_names not in {"genai-0.1", "1.41", "both"}:
            raise ConfigurationError(
                f"metric_names must be 'genai-0.1', '1.41' or 'both', not {metric_names!r}"
            )
        self._tracer = trace.get_tracer(SCOPE, tracer_provider=tracer_provider)
        self._metrics = Metrics(meter_provider, metric_names, self._observe_buffers)
        self._provider = provider
        self._captures_content = capture_content
        self._values: defaultdict[str, set[str]] = defaultdict(set)
        """The values of each attribute of metrics that users, models or servers choose."""
        self._connections: dict[int, ref[ConnectionRecord]] = {}
        self._turns: dict[TurnRecord, _Turn] = {}
        self._runs: dict[RunRecord, tuple[Span, Token[Context]]] = {}
        self._tools: dict[ToolRecord, tuple[Span, Token[Context]]] = {}
        self._sockets: dict[SocketRecord, Span] = {}
        self._lease_requests: dict[LeaseRecord, tuple[Span, Token[Context]]] = {}
        self._leases: dict[LeaseRecord, SpanContext] = {}
        """The span in which each lease that is held was acquired."""
        self._operations: dict[StoreOperationRecord, Span] = {}

    # --- Turns ---------------------------------------------------------------------------

    def turn_started(self, turn: TurnRecord) -> None:
        """Start the span of a turn."""
        attributes = self._attributes("chat", turn.host, turn.port, turn.model)
        if turn.conversation_id is not None:
            attributes["gen_ai.conversation.id"] = turn.conversation_id
        attributes |= {"gen_ai.request.stream": True, "openai.api.type": "responses"}
        name = "chat" if turn.model is None else f"chat {turn.model}"
        span = self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes)
        place = _server(turn.host, turn.port)
        self._turns[turn] = _Turn(span, place)
        self._metrics.active_turns.add(1, place)

    def turn_delayed(self, turn: TurnRecord, seconds: float) -> None:
        """Add the wait for a rate limiter to the turn's span, as an event, and record it."""
        span = self._turns[turn].span
        span.add_event("rate limited", {"trio_responses.delay": seconds})
        self._metrics.limiter_wait.record(
            seconds, _server(turn.host, turn.port), trace.set_span_in_context(span)
        )

    def turn_sent(self, turn: TurnRecord) -> None:
        """Add the attempt to the turn's span: its server, its parameters, and an event."""
        span = self._turns[turn].span
        lane = {"trio_responses.lane": turn.lane} if turn.lane is not None else {}
        if span.is_recording():
            span.set_attributes(
                {
                    **_server(turn.host, turn.port),
                    "network.protocol.name": turn.transport,
                    **_request_attributes(turn),
                    **lane,
                }
            )
            if self._captures_content:
                span.set_attributes(request_content(turn.request))
            span.add_event(
                "request sent",
                {
                    "trio_responses.attempt": turn.attempts,
                    "trio_responses.request.bytes": turn.request_bytes,
                    "trio_responses.request.full": turn.previous_response_id is None,
                    **lane,
                },
            )
        if turn.attempts == 1 and turn.sent_at is not None:
            self._metrics.queue_duration.record(
                turn.sent_at - turn.started_at,
                _server(turn.host, turn.port),
                trace.set_span_in_context(span),
            )

    def turn_first_event(self, turn: TurnRecord) -> None:
        """Add the first event to the turn's span, as an event."""
        self._turns[turn].span.add_event("first event")

    def turn_retrying(
        self, turn: TurnRecord, attempt: int, delay: float, error: ResponsesError
    ) -> None:
        """Add the retry to the turn's span, as an event, and count it."""
        code = (error.code if isinstance(error, APIError) else None) or type(error).__name__
        self._turns[turn].span.add_event(
            "retry",
            {
                "trio_responses.attempt": attempt,
                "trio_responses.delay": delay,
                "error.type": code,
            },
        )
        self._metrics.retries.add(
            1, {**_server(turn.host, turn.port), **self._few({"error.type": code})}
        )

    def turn_ended(self, turn: TurnRecord) -> None:
        """End the span of a turn, and record its metrics."""
        started = self._turns.pop(turn)
        self._metrics.active_turns.add(-1, started.place)
        common = self._attributes("chat", turn.host, turn.port, turn.model)
        if turn.response is not None and turn.response.model:
            common["gen_ai.response.model"] = turn.response.model
        first = None
        if turn.sent_at is not None and turn.first_event_at is not None:
            first = turn.first_event_at - turn.sent_at
        if started.span.is_recording():
            self._finish_span(started.span, turn, common, first)
        self._record_turn(turn, common, first, trace.set_span_in_context(started.span))
        started.span.end()

    def _finish_span(
        self, span: Span, turn: TurnRecord, common: Attributes, first: float | None
    ) -> None:
        """Set the attributes and the status that the span of a turn has at its end."""
        span.set_attributes({**common, **_end_attributes(turn)})
        if first is not None:
            span.set_attribute("gen_ai.response.time_to_first_chunk", first)
        if self._captures_content and turn.responses:
            reasons = [(one, _finish_reason(one)) for one in turn.responses]
            span.set_attribute("gen_ai.output.messages", output_messages(reasons))
        if turn.error_code is not None:
            span.set_status(Status(StatusCode.ERROR))

    def _record_turn(
        self, turn: TurnRecord, common: Attributes, first: float | None, within: Context
    ) -> None:
        """Record the metrics of a turn that has ended.

        :param within: the context with the turn's span, to which exemplars refer.
        """
        common = self._few(common)
        ended = common
        if turn.error_code is not None:
            ended = {**common, **self._few({"error.type": turn.error_code})}
        for layout in self._metrics.turns:
            if first is not None:
                layout.record_first_event(first, common, within)
            for usage in turn.usages:
                layout.record_usage(usage, common, within)
            if turn.ended_at is not None:
                layout.record_end(turn.ended_at - turn.started_at, ended, within)

    def _attributes(self, operation: str, host: str, port: int, model: str | None) -> Attributes:
        """Return the attributes that spans and metrics of turns and runs have from the start."""
        common: Attributes = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": self._provider or _provider_name(host),
            **_server(host, port),
        }
        if model is not None:
            common["gen_ai.request.model"] = model
        return common

    def _few(self, attributes: Attributes) -> Attributes:
        """Return attributes for metrics, of which each has a limited number of values."""
        return {
            name: few_values(self._values[name], value) if isinstance(value, str) else value
            for name, value in attributes.items()
        }

    # --- Runs and tools ------------------------------------------------------------------

    def run_started(self, run: RunRecord) -> None:
        """Start the span of a run, as the current span of the block of the run."""
        attributes = self._attributes("invoke_agent", run.host, run.port, run.model)
        if run.conversation_id is not None:
            attributes["gen_ai.conversation.id"] = run.conversation_id
        span = self._tracer.start_span("invoke_agent", attributes=attributes)
        self._runs[run] = span, _make_current(span)

    def run_ended(self, run: RunRecord) -> None:
        """End the span of a run, and record its metrics."""
        span, token = self._runs.pop(run)
        context.detach(token)
        common = self._few(self._attributes("invoke_agent", run.host, run.port, run.model))
        self._metrics.run_turns.record(run.turns, common)
        self._metrics.run_tools.record(run.tool_calls, common)
        if run.error is not None:
            _mark_failed(span, run.error)
            common |= self._few({"error.type": _type_of(run.error)})
        elif not run.completed:
            span.set_attribute("trio_responses.left_early", value=True)
        span.set_attributes(_usage_attributes(run.usages))
        if run.ended_at is not None:
            self._metrics.run_duration.record(
                run.ended_at - run.started_at, common, trace.set_span_in_context(span)
            )
        span.end()

    def tool_started(self, tool: ToolRecord) -> None:
        """Start the span of a tool's call, as the current span of the tool's task."""
        attributes = _tool_attributes(tool)
        if tool.call_id is not None:
            attributes["gen_ai.tool.call.id"] = tool.call_id
        if self._captures_content and (arguments := arguments_of(tool)) is not None:
            attributes["gen_ai.tool.call.arguments"] = arguments
        span = self._tracer.start_span(f"execute_tool {tool.name}", attributes=attributes)
        self._tools[tool] = span, _make_current(span)

    def tool_finished(self, tool: ToolRecord) -> None:
        """End the span of a tool's call, and record its duration."""
        span, token = self._tools.pop(tool)
        context.detach(token)
        common = self._few(_tool_attributes(tool))
        if tool.error is not None:
            _mark_failed(span, tool.error)
            common |= self._few({"error.type": type(tool.error).__name__})
        if tool.cancelled:
            span.set_attribute("trio_responses.cancelled", value=True)
        if self._captures_content and (result := result_of(tool)) is not None:
            span.set_attribute("gen_ai.tool.call.result", result)
        if tool.ended_at is not None:
            self._metrics.tool_duration.record(
                tool.ended_at - tool.started_at, common, trace.set_span_in_context(span)
            )
        span.end()

    # --- Connections and sockets ---------------------------------------------------------

    def connection_started(self, connection: ConnectionRecord) -> None:
        """Observe the unread events of a connection for as long as it lives."""
        for number, known in list(self._connections.items()):
            if known() is None:
                del self._connections[number]
        self._connections[id(connection)] = ref(connection)

    def _observe_buffers(self, options: CallbackOptions) -> Iterable[Observation]:  # noqa: ARG002
        """Return the unread bytes for each server. The thread of an exporter calls this."""
        unread: Counter[tuple[str, int]] = Counter()
        for known in list(self._connections.values()):
            connection = known()
            if connection is not None:
                unread[connection.host, connection.port] += connection.count_unread()
        return [Observation(size, _server(*place)) for place, size in unread.items()]

    def socket_opening(self, socket: SocketRecord) -> None:
        """Start the span of a handshake."""
        self._sockets[socket] = self._tracer.start_span(
            f"connect {socket.host}",
            kind=SpanKind.CLIENT,
            attributes={
                "network.protocol.name": socket.transport,
                **_server(socket.host, socket.port),
                "trio_responses.attempt": socket.attempt,
                "trio_responses.rotation": socket.rotation,
            },
        )

    def socket_opened(self, socket: SocketRecord) -> None:
        """End the span of a handshake that succeeded, and count the socket."""
        span = self._sockets.pop(socket)
        span.set_attribute("http.response.status_code", SWITCHED)
        span.end()
        place = _server(socket.host, socket.port)
        if socket.opened_at is not None:
            self._metrics.connect_duration.record(socket.opened_at - socket.started_at, place)
        self._metrics.open_sockets.add(1, place)

    def socket_failed(self, socket: SocketRecord) -> None:
        """End the span of a handshake that failed, with its error and HTTP status."""
        span = self._sockets.pop(socket)
        common = _server(socket.host, socket.port)
        if socket.error is not None:
            _mark_failed(span, socket.error)
            common |= self._few({"error.type": type(socket.error).__name__})
        if isinstance(socket.error, HandshakeRejected):
            span.set_attribute("http.response.status_code", socket.error.status)
        span.end()
        if socket.ended_at is not None:
            self._metrics.connect_duration.record(socket.ended_at - socket.started_at, common)

    def socket_ended(self, socket: SocketRecord) -> None:
        """Count that a socket is not open any more, and whether it was lost."""
        place = _server(socket.host, socket.port)
        self._metrics.open_sockets.add(-1, place)
        if socket.error is not None:
            lost = self._few({"error.type": type(socket.error).__name__})
            self._metrics.lost_sockets.add(1, {**place, **lost})

    def reconnecting(self, attempt: int, delay: float, error: ResponsesError) -> None:  # noqa: ARG002
        """Count an attempt to connect after a delay."""
        self._metrics.reconnects.add(1, self._few({"error.type": type(error).__name__}))

    def transport_changed(self, transport: str, error: ResponsesError | None) -> None:  # noqa: ARG002
        """Count a change of the transport."""
        self._metrics.transport_changes.add(1, {"network.protocol.name": transport})

    def endpoint_changed(self, endpoint: str, error: ResponsesError | None) -> None:  # noqa: ARG002
        """Count a change of the endpoint."""
        attributes: Attributes = {"trio_responses.endpoint": endpoint}
        self._metrics.endpoint_changes.add(1, self._few(attributes))

    # --- Leases and stores ---------------------------------------------------------------

    def lease_requested(self, lease: LeaseRecord) -> None:
        """Start the span of waiting for a lease, as the current span."""
        span = self._tracer.start_span("acquire_lease", attributes=_lease_attributes(lease))
        self._lease_requests[lease] = span, _make_current(span)

    def lease_acquired(self, lease: LeaseRecord) -> None:
        """End the span of waiting for a lease that was acquired."""
        span = self._end_request(lease)
        self._leases[lease] = span.get_span_context()
        self._metrics.held_leases.add(1, {"db.system.name": lease.system})

    def lease_failed(self, lease: LeaseRecord) -> None:
        """End the span of waiting for a lease that was not acquired."""
        self._end_request(lease)

    def _end_request(self, lease: LeaseRecord) -> Span:
        span, token = self._lease_requests.pop(lease)
        context.detach(token)
        common: Attributes = {
            "db.system.name": lease.system,
            "trio_responses.lease.taken_over": lease.taken_over,
        }
        span.set_attributes({**common, "trio_responses.lease.attempts": lease.attempts})
        if lease.error is not None:
            _mark_failed(span, lease.error)
            common |= self._few({"error.type": type(lease.error).__name__})
        until = lease.acquired_at if lease.acquired_at is not None else lease.ended_at
        if until is not None:
            self._metrics.lease_wait.record(
                until - lease.started_at, common, trace.set_span_in_context(span)
            )
        span.end()
        return span

    def lease_ended(self, lease: LeaseRecord) -> None:
        """Make a span for a lease that was lost, with a link to that of its acquisition."""
        common: Attributes = {"db.system.name": lease.system}
        self._metrics.held_leases.add(-1, common)
        acquired = self._leases.pop(lease)
        if lease.error is not None:
            span = self._tracer.start_span(
                "lose_lease", links=[Link(acquired)], attributes=_lease_attributes(lease)
            )
            _mark_failed(span, lease.error)
            span.end()
            self._metrics.lost_leases.add(1, common)

    def store_started(self, operation: StoreOperationRecord) -> None:
        """Start the span of an operation of a store."""
        summary = f"{operation.operation} conversation"
        attributes: Attributes = {
            "db.system.name": operation.system,
            "db.operation.name": operation.operation,
            "db.query.summary": summary,
        }
        if operation.conversation_id is not None:
            attributes["gen_ai.conversation.id"] = operation.conversation_id
        kind = SpanKind.INTERNAL if operation.system == "memory" else SpanKind.CLIENT
        self._operations[operation] = self._tracer.start_span(
            summary, kind=kind, attributes=attributes
        )

    def store_finished(self, operation: StoreOperationRecord) -> None:
        """End the span of an operation of a store, and record its duration."""
        span = self._operations.pop(operation)
        common: Attributes = {
            "db.system.name": operation.system,
            "db.operation.name": operation.operation,
        }
        if operation.error is not None:
            _mark_failed(span, operation.error)
            common |= self._few({"error.type": type(operation.error).__name__})
        if operation.cancelled:
            span.set_attribute("trio_responses.cancelled", value=True)
        if operation.ended_at is not None:
            self._metrics.store_duration.record(
                operation.ended_at - operation.started_at, common, trace.set_span_in_context(span)
            )
        span.end()


def _make_current(span: Span) -> Token[Context]:
    """Make a span the current one of the task."""
    return context.attach(trace.set_span_in_context(span))


def _mark_failed(span: Span, error: Exception) -> None:
    """Set a span's status and the type of the error; the message may hold content."""
    span.set_attribute("error.type", _type_of(error))
    span.set_status(Status(StatusCode.ERROR))


def _type_of(error: Exception) -> str:
    """Return the server's code of an error of the API, or else the type of the error."""
    code = error.code if isinstance(error, APIError) else None
    return code if code and not isinstance(error, HandshakeRejected) else type(error).__name__


def _provider_name(host: str) -> str:
    """Return the ``gen_ai.provider.name`` for a host."""
    return next((name for end, name in PROVIDERS.items() if host.endswith(end)), "openai")


def _server(host: str, port: int) -> Attributes:
    return {"server.address": host, "server.port": port}


def _tool_attributes(tool: ToolRecord) -> Attributes:
    """Return the attributes that the span and the metric of a tool's call share."""
    attributes: Attributes = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": tool.name,
    }
    if tool.kind in CALLS_OF_THE_CLIENT:
        attributes["gen_ai.tool.type"] = "function"
    return attributes


def _lease_attributes(lease: LeaseRecord) -> Attributes:
    return {"db.system.name": lease.system, "gen_ai.conversation.id": lease.conversation_id}


def _end_attributes(turn: TurnRecord) -> Attributes:
    """Return the attributes that a turn's span gets at its end."""
    attributes: Attributes = {
        "trio_responses.attempts": turn.attempts,
        # A generation that has no Response ended abnormally.
        "gen_ai.response.finish_reasons": [_finish_reason(one) for one in turn.responses]
        or ["error"],
        **_usage_attributes(turn.usages),
    }
    if turn.response_id is not None:
        attributes["gen_ai.response.id"] = turn.response_id
    if turn.error_code is not None:
        attributes["error.type"] = turn.error_code
    if turn.left_early:
        attributes["trio_responses.left_early"] = True
    if turn.transport == "http":
        if isinstance(turn.error, APIError | HandshakeRejected) and turn.error.status:
            attributes["http.response.status_code"] = turn.error.status
        elif turn.first_event_at is not None:
            attributes["http.response.status_code"] = OK
    if turn.response is not None and isinstance(turn.response.service_tier, str):
        attributes["openai.response.service_tier"] = turn.response.service_tier
    return attributes


def _usage_attributes(usages: Iterable[Usage]) -> Attributes:
    """Return the attributes for the tokens of a turn or a run; none if no server counted any."""
    usage = sum_usages(usages)
    if usage is None:
        return {}
    read = usage.input_tokens_details
    written: Attributes = {}
    if read.cache_write_tokens:  # few servers count them
        written["gen_ai.usage.cache_write.input_tokens"] = read.cache_write_tokens
    return {
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": read.cached_tokens,
        "gen_ai.usage.reasoning.output_tokens": usage.output_tokens_details.reasoning_tokens,
        **written,
    }


class _Named(msgspec.Struct):
    """An object with an id, such as the ``conversation`` of a request."""

    id: str | None = None


class _Reasoning(msgspec.Struct):
    effort: str | None = None


class _Format(msgspec.Struct):
    type: str | None = None


class _Text(msgspec.Struct):
    format: _Format | None = None


class _Request(msgspec.Struct):
    """The parameters of a request that are attributes; other fields are skipped."""

    conversation: str | _Named | None = None
    max_output_tokens: int | None = None
    reasoning: _Reasoning | None = None
    service_tier: str | None = None
    temperature: float | None = None
    text: _Text | None = None
    top_p: float | None = None


def _request_attributes(turn: TurnRecord) -> Attributes:
    """Return the attributes for the parameters of a request; none if they have other types."""
    try:
        check_nesting(turn.request, MAX_SKIPPED_LEVELS)
        given = msgspec.json.decode(turn.request, type=_Request)
    except (msgspec.DecodeError, RecursionError):
        given = _Request()
    known = given.conversation
    form = given.text.format if given.text is not None else None
    found = {
        "gen_ai.conversation.id": known.id if isinstance(known, _Named) else known,
        "gen_ai.request.max_tokens": given.max_output_tokens,
        "gen_ai.request.previous_response.id": turn.previous_response_id,
        "gen_ai.request.reasoning.level": given.reasoning.effort if given.reasoning else None,
        "gen_ai.request.temperature": given.temperature,
        "gen_ai.request.top_p": given.top_p,
        "gen_ai.output.type": _output_type(form) if form is not None else None,
        "openai.request.service_tier": given.service_tier,
    }
    return {name: value for name, value in found.items() if value is not None}


def _output_type(form: _Format) -> str | None:
    return "json" if form.type in {"json_schema", "json_object"} else form.type


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
    objects = [raw for raw in response.raw_output or () if bytes(memoryview(raw)[:1]) == b"{"]
    types = {msgspec.json.decode(raw, type=_ItemType).type for raw in objects}
    return "tool_call" if types & CALLS_OF_THE_CLIENT else "stop"
