"""The records of a durable conversation, as a store keeps them: versioned JSON.

A log begins with a `BaseRecord`. The records after it say what has changed since, in order:

======== ================================================================================
type     meaning
======== ================================================================================
base     the whole conversation: its settings, its history, and what has not been sent
settings other settings, or another replay policy, from here on
turn     a turn that has ended well: its new items and its output
start    a call starts to run
output   a call has its output
rerun    a call that had started may start again
answer   a request (``request_id``) has ended after calls that the program answers itself
settled  a request has ended without an answer, because other turns followed
unsent   the input of a run whose first turn has not ended well
======== ================================================================================

A turn contains the items that the log does not have yet. For an output of a call that an `output`
record has, it names this record.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast, get_args

import msgspec

from trio_responses._errors import ConfigurationError
from trio_responses._protocol.calls import CallKey
from trio_responses._protocol.replay import Origin  # noqa: TC001 - msgspec reads the annotations
from trio_responses._settings import ReplayPolicy
from trio_responses._stores.errors import StoreError, UnsupportedVersion
from trio_responses._wire import (
    IncompleteDetails,  # noqa: TC001
    Response,
    Usage,  # noqa: TC001
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trio_responses._protocol.raw_items import RawItems

__all__ = [
    "AnswerRecord",
    "BaseRecord",
    "LogRecord",
    "OutputRecord",
    "RerunRecord",
    "SavedRequest",
    "SavedResponse",
    "SettingsRecord",
    "SettledRecord",
    "StartRecord",
    "TurnRecord",
    "UnsentRecord",
    "check_reused",
    "decode_record",
    "encode_record",
    "find_output_record",
    "input_digest",
    "place_of",
    "without_secrets",
]

VERSION: Final = 1
"""The version of all records. A release refuses records of a later version."""


class _Record(msgspec.Struct, frozen=True, tag_field="type"):
    """A record. Fields with their defaults are left out."""


class SavedResponse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept of a Response. Its output is among the items of the turn."""

    id: str = ""
    status: str | None = None
    model: str = ""
    usage: Usage | None = None
    incomplete_details: IncompleteDetails | None = None

    @classmethod
    def of(cls, response: Response) -> SavedResponse:
        """Return what is kept of a Response."""
        return cls(
            id=response.id,
            status=response.status,
            model=response.model,
            usage=response.usage,
            incomplete_details=response.incomplete_details,
        )

    def rebuild(self, output: Sequence[msgspec.Raw]) -> Response:
        """Return the Response with its output; what was not kept has its default."""
        return Response(
            id=self.id,
            status=self.status,
            model=self.model,
            usage=self.usage,
            incomplete_details=self.incomplete_details,
            raw_output=list(output),
        )


class SavedRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The request (``request_id``) that a turn belongs to."""

    id: str
    digest: str
    """The digest of the input of the request."""
    ended: bool = False
    """Whether the turn was the last one of the request."""


class BaseRecord(_Record, frozen=True, kw_only=True, omit_defaults=True, tag="base"):
    """The whole conversation. The records before it do not matter any more."""

    checkpoint: msgspec.Raw
    """The JSON of a `Checkpoint`."""


class SettingsRecord(_Record, frozen=True, kw_only=True, omit_defaults=True, tag="settings"):
    """Other settings, from here on."""

    settings: dict[str, Any]
    replay_policy: ReplayPolicy = msgspec.field(default_factory=ReplayPolicy)


class TurnRecord(_Record, frozen=True, kw_only=True, omit_defaults=True, tag="turn"):
    """A turn that has ended well."""

    input: list[msgspec.Raw]
    """All items before the output of the last Response. In place of an item: the number of the
    `OutputRecord` that has it."""
    output: list[msgspec.Raw]
    """The output of the last Response."""
    response: SavedResponse
    origin: Origin
    stored: bool = False
    """Whether any process can continue the Response with the settings of the conversation."""
    clears_unsent: bool = True
    left_out: list[CallKey] = msgspec.field(default_factory=list[CallKey])
    request: SavedRequest | None = None


class StartRecord(_Record, frozen=True, kw_only=True, omit_defaults=True, tag="start"):
    """A call starts to run."""

    call: CallKey


class OutputRecord(_Record, frozen=True, kw_only=True, omit_defaults=True, tag="output"):
    """A call has its output."""

    call: CallKey
    item: msgspec.Raw
    """The output item."""


class RerunRecord(_Record, frozen=True, kw_only=True, omit_defaults=True, tag="rerun"):
    """A call that had started may start again."""

    call: CallKey


class AnswerRecord(_Record, frozen=True, kw_only=True, omit_defaults=True, tag="answer"):
    """A request has ended: its last turn has calls that the program answers itself."""

    request: SavedRequest
    response: SavedResponse
    output: list[msgspec.Raw]


class SettledRecord(_Record, frozen=True, kw_only=True, omit_defaults=True, tag="settled"):
    """A request has ended without an answer, because other turns followed its last turn."""

    request: SavedRequest


class UnsentRecord(_Record, frozen=True, kw_only=True, omit_defaults=True, tag="unsent"):
    """The input of a run whose first turn has not ended well; no items: there is none any more."""

    items: list[msgspec.Raw] = msgspec.field(default_factory=list[msgspec.Raw])


LogRecord: TypeAlias = (
    BaseRecord
    | SettingsRecord
    | TurnRecord
    | StartRecord
    | OutputRecord
    | RerunRecord
    | AnswerRecord
    | SettledRecord
    | UnsentRecord
)


class _Heading(msgspec.Struct, frozen=True):
    """What is read of a record first."""

    type: str
    version: int = VERSION


_heading_decoder: Final = msgspec.json.Decoder(_Heading)
_decoder: Final = msgspec.json.Decoder(LogRecord)
_KNOWN: Final = frozenset(record.__struct_config__.tag for record in get_args(LogRecord))


def encode_record(record: LogRecord) -> bytes:
    """Return a record as JSON. The present version is the default, and is left out."""
    return msgspec.json.encode(record)


def decode_record(data: bytes, *, place: str) -> LogRecord:
    """Return a record from its JSON.

    :param place: the conversation and the number of the record, for errors.
    :raises UnsupportedVersion: if a later release wrote the record.
    :raises StoreError: if the bytes are no record.
    """
    try:
        heading = _heading_decoder.decode(data)
        if heading.version > VERSION or heading.type not in _KNOWN:
            version = max(heading.version, VERSION + 1)
            raise UnsupportedVersion(f"{place} ({heading.type!r})", version, VERSION)
        record: LogRecord = _decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise StoreError(f"{place} is damaged: {error}") from None
    return record


def place_of(conversation_id: str, number: int) -> str:
    """Return the place of a record, for errors."""
    return f"the record {number} of the conversation {conversation_id!r}"


def find_output_record(item: msgspec.Raw) -> int | None:
    """Return the number of the record that an element of ``input`` names; `None` for an item."""
    text = bytes(item)
    return None if text.startswith(b"{") else int(text)


def input_digest(items: RawItems) -> str:
    """Return the digest of the input of a request, which does not depend on spelling."""
    canonical = msgspec.json.encode(msgspec.json.decode(items.array), order="deterministic")
    return hashlib.sha256(canonical).hexdigest()[:32]


# --- Secrets -----------------------------------------------------------------------------

SECRET_FIELDS: Final = frozenset({"authorization", "headers", "domain_secrets"})
"""The fields of tools that hold secrets: of MCP servers, and of the network of containers."""
SCHEMA_FIELDS: Final = frozenset({"parameters", "format", "output_schema"})
"""The fields of tools that describe arguments, whose names mean something else."""


def without_secrets(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a conversation without the secrets of its tools."""
    if not settings.get("tools"):
        return dict(settings)
    return {**settings, "tools": [_without_secrets(tool) for tool in settings["tools"]]}


def _without_secrets(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_secrets(each) for each in value]  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(value, dict):
        return value
    return {
        name: each if name in SCHEMA_FIELDS else _without_secrets(each)
        for name, each in cast("dict[str, Any]", value).items()
        if name not in SECRET_FIELDS
    }


def check_reused(request: SavedRequest, digest: str) -> None:
    """Check that a request is repeated with its own input.

    :raises ConfigurationError: if the input is another one.
    """
    if request.digest != digest:
        raise ConfigurationError(
            f"request_id {request.id!r} was used before with another input: each request needs an"
            " id of its own, and is repeated with the same input"
        )
