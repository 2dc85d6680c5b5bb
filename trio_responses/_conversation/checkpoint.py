"""The checkpoint of a conversation: versioned JSON that another process or release can read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from trio_responses._conversation.history import History
from trio_responses._conversation.settings import TurnSettings
from trio_responses._errors import ConfigurationError
from trio_responses._protocol.continuation import ContinuationPoint, Placement
from trio_responses._protocol.raw_items import RawItems

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Checkpoint"]

T = TypeVar("T")

FORMAT: Final = "trio-responses conversation"
VERSION: Final = 1
HINT: Final = "pass the return value of conversation.checkpoint()"
NOT_SETTINGS: Final = frozenset(
    {"conversation", "input", "previous_response_id", "stream_id", "generate"}
)
"""Fields of a request that a conversation sets itself, or that exclude its own history."""


class _CheckpointHeader(msgspec.Struct, frozen=True, kw_only=True):
    """The format and version of a saved checkpoint, which are checked first."""

    format: str
    version: int


class Checkpoint(_CheckpointHeader, frozen=True, kw_only=True):
    """The saved state of a conversation: settings, history and unsent input."""

    format: str = FORMAT
    version: int = VERSION
    settings: dict[str, Any]
    items: list[msgspec.Raw]
    """The history. To be encoded, an element may also be several items, separated by commas."""
    last_response_id: str | None = None
    answers: list[msgspec.Raw] = msgspec.field(default_factory=list[msgspec.Raw])
    """Outputs of tools that have not been sent."""
    interrupted: list[tuple[str, str]] = msgspec.field(default_factory=list[tuple[str, str]])
    """The type and the id of each call that has started and not ended."""
    unsent: list[msgspec.Raw] = msgspec.field(default_factory=list[msgspec.Raw])
    """The input of a run whose first turn did not end well."""

    def encode(self) -> bytes:
        """Return the checkpoint as JSON."""
        return msgspec.json.encode(self)

    def history(self) -> History:
        """Return the history of the checkpoint.

        The next turn has full input, unless the server stored the last response.

        :raises ConfigurationError: for a field that is not a setting of a conversation.
        """
        wrong = NOT_SETTINGS.intersection(self.settings)
        if wrong:
            raise ConfigurationError(
                f"not a checkpoint: not a setting of a conversation: {', '.join(sorted(wrong))}"
            )
        settings = TurnSettings(self.settings)
        server = None
        if self.last_response_id:
            server = ContinuationPoint(
                placement=Placement(socket=None, lane=None),  # no socket holds it in memory
                response_id=self.last_response_id,
                settings=settings.canonical,
                stored=settings.stored,
            )
        return History(
            RawItems.join(self.items),
            server=server,
            last_response_id=self.last_response_id or None,
            unsent_outputs=self.answers,
            interrupted_calls=self.interrupted,
            unsent=RawItems.join(self.unsent),
        )

    @classmethod
    def decode(cls, saved: bytes) -> Self:
        """Decode the JSON of a saved checkpoint.

        :raises ConfigurationError: if the bytes are not a checkpoint, or have a later version.
        """
        heading = _decode(saved, _CheckpointHeader)
        if heading.format != FORMAT:
            raise ConfigurationError(
                f"not a checkpoint: the format of the JSON is {heading.format!r}, not"
                f" {FORMAT!r}; {HINT}"
            )
        if heading.version > VERSION:
            raise ConfigurationError(
                f"the checkpoint has version {heading.version}, which a later release wrote;"
                f" this release reads versions up to {VERSION}: upgrade trio-responses"
            )
        checkpoint = _decode(saved, cls)
        for raw in (*checkpoint.items, *checkpoint.answers, *checkpoint.unsent):
            _decode(raw, dict)
        answers = [raw.copy() for raw in checkpoint.answers]  # they do not keep `saved` in memory
        return msgspec.structs.replace(checkpoint, answers=answers)


def _decode(saved: bytes | msgspec.Raw, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(saved, type=kind)
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        raise ConfigurationError(f"not a checkpoint: {error}; {HINT}") from None
