"""The checkpoint of a conversation: versioned JSON that another process or release can read."""

from __future__ import annotations

from itertools import groupby, islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from trio_responses._conversation.history import History
from trio_responses._conversation.settings import TurnSettings, copy_settings
from trio_responses._errors import ConfigurationError
from trio_responses._protocol.calls import CallKey
from trio_responses._protocol.continuation import ContinuationPoint, Placement, ServerTraits
from trio_responses._protocol.raw_items import RawItems
from trio_responses._protocol.replay import Origin, Piece
from trio_responses._settings import ReplayPolicy
from trio_responses._wire.nesting import MAX_SKIPPED_LEVELS, check_nesting
from trio_responses._wire.param_checks import check_params
from trio_responses._wire.params import ConversationParams

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Checkpoint"]

T = TypeVar("T")

FORMAT: Final = "trio-responses conversation"
VERSION: Final = 1
HINT: Final = "pass the return value of conversation.checkpoint()"


class _SavedOrigin(msgspec.Struct, frozen=True, array_like=True):
    """The origin of so many items."""

    count: int
    model: str | None
    stored: bool
    endpoint: str | None = None


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
    origins: list[_SavedOrigin] = msgspec.field(default_factory=list[_SavedOrigin])
    """The origins of all items, in their order."""
    abandoned: list[CallKey] = msgspec.field(default_factory=list[CallKey])
    """The calls without output that the server does not have."""
    replay_policy: ReplayPolicy = msgspec.field(default_factory=ReplayPolicy)
    conversation_id: str = ""
    """The id of the conversation; empty if an earlier release wrote the checkpoint."""
    full_input: bool = False
    """Whether the next turn has full input: the server may hold what the policy leaves out."""
    revision: int = 0
    """The revision of the history: a later checkpoint of the conversation has no smaller one."""

    @classmethod
    def of(cls, settings: dict[str, Any], history: History, conversation_id: str) -> Self:
        """Return the checkpoint of a conversation."""
        sources = history.sources
        origins = [
            _SavedOrigin(sum(piece.items.count for piece in pieces), *origin)
            for origin, pieces in groupby(sources, key=attrgetter("origin"))
        ]
        return cls(
            settings=settings,
            items=[msgspec.Raw(piece.items.json) for piece in sources],
            last_response_id=history.last_response_id,
            answers=history.unsent_outputs,
            interrupted=history.interrupted_calls,
            unsent=list(history.unsent),
            origins=origins,
            abandoned=sorted(history.abandoned),
            replay_policy=history.policy,
            conversation_id=conversation_id,
            full_input=history.needs_full_input,
            revision=history.revision,
        )

    def encode(self) -> bytes:
        """Return the checkpoint as JSON."""
        return msgspec.json.encode(self)

    def history(self) -> History:
        """Return the history of the checkpoint.

        The next turn has full input, unless the server stored the last response.

        :raises ConfigurationError: for settings that no turn can have.
        """
        settings = self._read_settings()
        server = None
        if self.last_response_id and not self.full_input:
            made_by = ServerTraits(name=self.origins[-1].endpoint if self.origins else None)
            server = ContinuationPoint(
                # No socket holds it in memory.
                placement=Placement(socket=None, lane=None, server=made_by),
                response_id=self.last_response_id,
                settings=settings.canonical,
                stored=settings.stored,
            )
        return History(
            self._sources(),
            server=server,
            last_response_id=self.last_response_id or None,
            unsent_outputs=self.answers,
            interrupted_calls=self.interrupted,
            unsent=RawItems.join(self.unsent),
            abandoned=self.abandoned,
            policy=self.replay_policy,
            revision=self.revision,
        )

    def check_items(self) -> None:
        """Check that all items are objects.

        :raises ConfigurationError: if one is not.
        """
        for name, items in (
            ("items", self.items),
            ("answers", self.answers),
            ("unsent", self.unsent),
        ):
            for index, raw in enumerate(items):
                if not bytes(raw).startswith(b"{"):
                    raise ConfigurationError(
                        f"not a checkpoint: Expected `object` - at `$.{name}[{index}]`; {HINT}"
                    )

    def _read_settings(self) -> TurnSettings:
        """Return the settings, of which a turn can be made."""
        try:
            if "extra" in self.settings:
                raise TypeError("'extra' is not a setting of a conversation")
            fields = {"extra_body": self.settings}
            check_params(fields, of="a conversation", allowed=ConversationParams)
            return TurnSettings(copy_settings(self.settings))
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigurationError(f"not a checkpoint: settings: {error}; {HINT}") from None

    def _sources(self) -> list[Piece]:
        """Return the items and their origins, which are unknown if they do not fit the items."""
        origins = self.origins
        if sum(one.count for one in origins) != len(self.items) or any(
            one.count < 0 for one in origins
        ):
            origins = [_SavedOrigin(len(self.items), None, stored=True)]
        items = iter(self.items)
        return [
            Piece(
                RawItems.join(list(islice(items, one.count))),
                Origin(one.model, one.stored, one.endpoint),
            )
            for one in origins
            if one.count
        ]

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
        _check_settings(saved)
        checkpoint = _decode(saved, cls)
        checkpoint.check_items()
        answers = [raw.copy() for raw in checkpoint.answers]  # they do not keep `saved` in memory
        return msgspec.structs.replace(checkpoint, answers=answers)


def _decode(saved: bytes, kind: type[T]) -> T:
    """Decode a checkpoint, whose items stay raw JSON.

    :raises ConfigurationError: if that is not possible.
    """
    try:
        check_nesting(saved, MAX_SKIPPED_LEVELS)
        str(saved, "utf-8")  # msgspec does not look at the texts of raw items
        return msgspec.json.decode(saved, type=kind)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
        raise ConfigurationError(f"not a checkpoint: {error}; {HINT}") from None


class _Settings(msgspec.Struct):
    """The settings of a checkpoint, as raw JSON."""

    settings: msgspec.Raw


def _check_settings(saved: bytes) -> None:
    """Check that no setting nests too deeply to be decoded.

    :raises ConfigurationError: if one does.
    """
    try:
        check_nesting(_decode(saved, _Settings).settings)
    except RecursionError as error:
        raise ConfigurationError(f"not a checkpoint: settings: {error}; {HINT}") from None
