"""The response object, which ``response.created``, the terminal events and others contain."""

import functools
from collections.abc import Iterable, Sequence
from typing import Final, Protocol, TypeVar

import msgspec

from trio_responses._wire import lenient
from trio_responses._wire.base import JSON, Record
from trio_responses._wire.items import FunctionCall, Message, OutputItem, decode_item
from trio_responses._wire.retry_hints import parse_retry_hint

COMMENTARY: Final = "commentary"
FINAL_ANSWER: Final = "final_answer"


class HasPhase(Protocol):
    """A message, or a part of one, with the phase that the model gave it."""

    @property
    def phase(self) -> str | None:
        """The phase: ``commentary``, ``final_answer``, another word, or `None`."""
        ...


Phased = TypeVar("Phased", bound=HasPhase)


def select_answers(messages: Sequence[Phased]) -> list[Phased]:
    """Return the messages that are the answer: final ones if there are any, else no commentary."""
    final = [message for message in messages if message.phase == FINAL_ANSWER]
    return final or [message for message in messages if message.phase != COMMENTARY]


class ResponseError(Record, frozen=True, kw_only=True):
    """The error of a failed response: why the response failed.

    Known codes: ``server_error``, ``rate_limit_exceeded``, ``invalid_prompt``,
    ``data_residency_mismatch``, ``bio_policy``, ``misalignment_policy_violation``,
    ``vector_store_timeout`` and several about images. Servers may send other codes.
    """

    code: str | None = None
    message: str = ""
    param: str | None = None
    """The field of the request that the error is about."""
    type: str | None = None
    misalignment: JSON = None
    """The server's misalignment finding, if the server made one."""

    @property
    def retry_after(self) -> float | None:
        """The delay in seconds that the message of a rate limit asks for."""
        return parse_retry_hint(self.message, code=self.code, error_type=self.type)

    def __repr__(self) -> str:
        """Return the fields without the message, which may quote the request."""
        return f"ResponseError(code={self.code!r}, param={self.param!r}, type={self.type!r})"


class IncompleteDetails(Record, frozen=True, kw_only=True):
    """The details of an incomplete response: why the response ended early.

    Known reasons: ``max_output_tokens``, ``max_messages``, ``content_filter``, ``steered``.
    """

    reason: str | None = None


class InputTokensDetails(Record, frozen=True, kw_only=True):
    """The share of the prompt cache in the input tokens of a response."""

    cached_tokens: int = 0
    """Tokens read from the prompt cache; ``input_tokens`` includes them."""
    cache_write_tokens: int = 0
    """Tokens written to the prompt cache."""
    cache_write_tokens_details: JSON = None


class OutputTokensDetails(Record, frozen=True, kw_only=True):
    """The share of reasoning in the output tokens of a response."""

    reasoning_tokens: int = 0
    """Tokens of reasoning; ``output_tokens`` includes them."""


class Usage(Record, frozen=True, kw_only=True):
    """The token usage of a response, or of several: ``usage + other`` is their sum."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    input_tokens_details: InputTokensDetails = msgspec.field(default_factory=InputTokensDetails)
    output_tokens_details: OutputTokensDetails = msgspec.field(default_factory=OutputTokensDetails)

    def __add__(self, other: "Usage") -> "Usage":
        """Return the sum of two usages, without ``cache_write_tokens_details``."""
        read, other_read = self.input_tokens_details, other.input_tokens_details
        written, other_written = self.output_tokens_details, other.output_tokens_details
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            total_tokens=self.total_tokens + other.total_tokens,
            input_tokens_details=InputTokensDetails(
                cached_tokens=read.cached_tokens + other_read.cached_tokens,
                cache_write_tokens=read.cache_write_tokens + other_read.cache_write_tokens,
            ),
            output_tokens_details=OutputTokensDetails(
                reasoning_tokens=written.reasoning_tokens + other_written.reasoning_tokens
            ),
        )


def sum_usages(usages: Iterable[Usage]) -> Usage | None:
    """Return the sum of usages; `None` if there are none."""
    total = None
    for usage in usages:
        total = usage if total is None else total + usage
    return total


class Response(Record, frozen=True, kw_only=True, gc=True, dict=True):
    """A response of the model, as its lifecycle events contain it.

    ``status`` is ``queued``, ``in_progress``, ``completed``, ``failed``, ``incomplete`` or
    ``cancelled``. Fields of type ``JSON`` echo settings of the request.

    ``raw_output`` holds the output items as received, so that they can be sent again unchanged.
    ``None``, other than an empty list, means that the server did not send the output: the items of
    the ``response.output_item.done`` events are the output.
    """

    id: str = ""
    """The id that the ``previous_response_id`` of the next request names."""
    status: str | None = None
    model: str = ""
    raw_output: list[msgspec.Raw] | None = msgspec.field(default=None, name="output")
    usage: Usage | None = None
    """Token usage; only present after the response has ended."""
    error: ResponseError | None = None
    """Why the response failed."""
    incomplete_details: IncompleteDetails | None = None
    """Why the response ended early."""
    previous_response_id: str | None = None
    created_at: int | float | None = None
    """Seconds since 1970."""
    completed_at: int | float | None = None
    """Seconds since 1970."""
    object: str = "response"
    metadata: dict[str, str] | None = None
    service_tier: str | None = None
    """The service tier in use: the request may have left the choice to the server."""
    store: bool | None = None
    background: bool | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    parallel_tool_calls: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    truncation: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    access_programs: JSON = None
    conversation: JSON = None
    image: JSON = None
    input_transformations: JSON = None
    instructions: JSON = None
    moderation: JSON = None
    prompt: JSON = None
    prompt_cache_diagnostics: JSON = None
    prompt_cache_options: JSON = None
    reasoning: JSON = None
    text: JSON = None
    tool_choice: JSON = None
    tool_usage: JSON = None
    tools: JSON = None

    @property
    def raw(self) -> msgspec.Raw | None:
        """The JSON as received; `None` for a Response that was made by a program."""
        return self.__dict__.get("raw_json")

    def with_output(self, raw_output: list[msgspec.Raw]) -> "Response":
        """Return the Response with other output items, and with all its other fields."""
        other = msgspec.structs.replace(self, raw_output=raw_output)
        if self.raw is not None:
            fields = msgspec.json.decode(self.raw, type=dict[str, msgspec.Raw])
            output = msgspec.Raw(msgspec.json.encode(raw_output))
            raw = msgspec.json.encode(fields | {"output": output})
            vars(other)["raw_json"] = msgspec.Raw(raw)
        return other

    def with_status(self, status: str) -> "Response":
        """Return the Response with another status, and with its JSON as received."""
        other = msgspec.structs.replace(self, status=status)
        vars(other).update(vars(self))
        return other

    def to_json(self) -> str:
        """Return the Response as JSON text: as received, fields of later API versions included.

        Output items that the server sent in events alone are in ``output``.

        :raises ValueError: if the JSON is not UTF-8.
        """
        raw = self.raw
        return super().to_json() if raw is None else bytes(raw).decode()

    def to_dict(self) -> dict[str, JSON]:
        """Return the Response as a dict, with the content of `to_json`."""
        return super().to_dict()

    @functools.cached_property
    def output(self) -> tuple[OutputItem, ...]:
        """The output items, decoded on first access."""
        return tuple(decode_item(raw) for raw in self.raw_output or ())

    @property
    def output_text(self) -> str:
        """The text of all messages, concatenated, commentary included.

        `final_text` is the text of the answer alone.
        """
        return "".join(item.output_text for item in self.output if isinstance(item, Message))

    @property
    def final_text(self) -> str:
        """The text of the answer, without commentary: of all `answer_messages`, concatenated."""
        return "".join(message.output_text for message in self.answer_messages)

    @property
    def answer_messages(self) -> tuple[Message, ...]:
        """The messages that are the answer, in order.

        They are the messages of the phase ``final_answer``. If the output has none of these, they
        are all messages that are not of the phase ``commentary``.
        """
        return tuple(select_answers([item for item in self.output if isinstance(item, Message)]))

    @property
    def refusal(self) -> str:
        """The refusals of all messages, concatenated, or ``""``."""
        return "".join(item.refusal for item in self.output if isinstance(item, Message))

    @property
    def function_calls(self) -> tuple[FunctionCall, ...]:
        """The function calls in the output, in order."""
        return tuple(item for item in self.output if isinstance(item, FunctionCall))

    def __repr__(self) -> str:
        """Return the id, status, model and number of items; their content may be private."""
        count = None if self.raw_output is None else len(self.raw_output)
        return (
            f"Response(id={self.id!r}, status={self.status!r}, model={self.model!r}, items={count})"
        )


_decoder = msgspec.json.Decoder(Response)


def decode_response(raw: msgspec.Raw) -> Response:
    """Decode a response, which keeps its JSON.

    :raises msgspec.DecodeError: or another of ``DECODE_ERRORS``, if the JSON is no object.
    """
    try:
        response: Response = lenient.decode_strictly(_decoder, raw)
    except lenient.DECODE_ERRORS:
        response = lenient.decode(raw, Response)
    vars(response)["raw_json"] = raw
    return response


class CompactedResponse(Record, frozen=True, kw_only=True, gc=True, dict=True):
    """The answer to ``compact``: the items with which a conversation goes on."""

    id: str = ""
    object: str = "response.compaction"
    created_at: int | float | None = None
    """Seconds since 1970."""
    raw_output: list[msgspec.Raw] = msgspec.field(default_factory=list[msgspec.Raw], name="output")
    """The items as received, so that they can be sent unchanged."""
    usage: Usage | None = None

    @functools.cached_property
    def output(self) -> tuple[OutputItem, ...]:
        """The items, decoded on first access."""
        return tuple(decode_item(raw) for raw in self.raw_output)


class InputItemsPage(Record, frozen=True, kw_only=True, gc=True, dict=True):
    """One page of the input items of a stored response."""

    object: str = "list"
    raw_data: list[msgspec.Raw] = msgspec.field(default_factory=list[msgspec.Raw], name="data")
    """The items as received."""
    has_more: bool = False
    """Whether another page follows."""
    first_id: str | None = None
    last_id: str | None = None
    """The id of the last item, for ``after`` of the next page."""

    @functools.cached_property
    def data(self) -> tuple[OutputItem, ...]:
        """The items, decoded on first access."""
        return tuple(decode_item(raw) for raw in self.raw_data)
