"""The history of a durable conversation, as it is read from its log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

import msgspec
import trio

from trio_responses._conversation.checkpoint import Checkpoint
from trio_responses._conversation.history import CommittedTurn, History
from trio_responses._conversation.records import (
    AnswerRecord,
    BaseRecord,
    OutputRecord,
    RerunRecord,
    SettingsRecord,
    SettledRecord,
    StartRecord,
    TurnRecord,
    UnsentRecord,
    decode_record,
    find_output_record,
    place_of,
    without_secrets,
)
from trio_responses._conversation.settings import TurnSettings, copy_settings
from trio_responses._protocol.calls import make_error_output
from trio_responses._protocol.continuation import ContinuationPoint, Placement, ServerTraits
from trio_responses._protocol.raw_items import RawItems
from trio_responses._stores.errors import StoreError
from trio_responses._tools.toolbox import INTERRUPTED

if TYPE_CHECKING:
    from trio_responses._conversation.records import LogRecord, SavedRequest
    from trio_responses._protocol.calls import CallKey
    from trio_responses._stores.interface import ConversationStore
    from trio_responses._wire import Response

__all__ = ["StoredHistory", "read_history"]

RECORDS_AT_ONCE: Final = 100
"""How many records are read before other tasks run: about a millisecond."""


@final
class StoredHistory:
    """A conversation that is read from its log, record by record.

    :param conversation_id: for errors.
    """

    def __init__(self, conversation_id: str) -> None:
        self._conversation_id = conversation_id
        self.history: History = History()
        """The history so far."""
        self.settings: dict[str, Any] = {}
        """The settings of the conversation, without secrets."""
        self.is_empty: bool = True
        """Whether the log has no records."""
        self.unfinished: tuple[SavedRequest, Response] | None = None
        """The request whose run was interrupted, with its last Response."""
        self.outputs: dict[CallKey, tuple[int, bytes]] = {}
        """The record of each output that no turn contains yet, and the output."""
        self._numbers: dict[int, bytes] = {}
        self._latest: TurnRecord | None = None
        """The turn that the next one may continue: no other settings followed it."""

    def apply(self, number: int, data: bytes) -> None:
        """Apply the next record.

        :raises UnsupportedVersion: if a later release wrote the record.
        :raises StoreError: if the record is damaged.
        """
        place = place_of(self._conversation_id, number)
        record = decode_record(data, place=place)
        if self.is_empty and not isinstance(record, BaseRecord):
            raise StoreError(f"{place} is damaged: the log begins with another record than a base")
        self.is_empty = False
        try:
            self._apply(number, record)
        except (ValueError, KeyError) as error:
            raise StoreError(f"{place} is damaged: {error}") from None

    def _apply(self, number: int, record: LogRecord) -> None:
        match record:
            case BaseRecord():
                self.replace(Checkpoint.decode(bytes(record.checkpoint)))
            case SettingsRecord():
                self.settings = record.settings
                self.history.policy = record.replay_policy
                self._latest = None
            case TurnRecord():
                self._apply_turn(record)
            case AnswerRecord() | SettledRecord():
                self.unfinished = None
            case UnsentRecord():
                self.history.unsent = RawItems.join(record.items)
            case _:
                self._apply_call(number, record)

    def _apply_call(self, number: int, record: StartRecord | OutputRecord | RerunRecord) -> None:
        calls, key = self.history.track_calls(), record.call
        match record:
            case StartRecord():
                call = calls.pending_calls().get(key)
                if call is not None:
                    calls.start_call(key, make_error_output(call, INTERRUPTED))
            case OutputRecord():
                calls.store_output(key, record.item)
                self.outputs[key] = number, bytes(record.item)
                self._numbers[number] = bytes(record.item)
            case RerunRecord() if key in calls.interrupted_calls:
                calls.forget_interruption(key)
            case RerunRecord():
                pass

    def replace(self, checkpoint: Checkpoint) -> None:
        """Let a checkpoint take the place of what was read."""
        self.history, self.settings = checkpoint.history(), checkpoint.settings
        self.unfinished = self._latest = None
        self._forget_outputs()

    def _apply_turn(self, record: TurnRecord) -> None:
        history = self.history
        history.commit(
            CommittedTurn(
                base_revision=history.revision,
                items=(
                    RawItems.join([self._resolve(item) for item in record.input]),
                    RawItems.join(record.output),
                ),
                server=None,
                pending_steers=(),
                clears_unsent=record.clears_unsent,
                origin=record.origin,
                left_out=record.left_out,
            )
        )
        history.counters.turns = 0  # the counters are those of this process
        history.last_response_id = record.response.id or None
        self._latest, self.unfinished = record, None
        if record.request is not None and not record.request.ended:
            self.unfinished = record.request, record.response.rebuild(record.output)
        self._forget_outputs()

    def finish(self, settings: TurnSettings) -> None:
        """Let the next turn continue from the latest Response, where a server has stored it.

        :param settings: the settings of the conversation from now on.
        """
        latest = self._latest
        if latest is None or not latest.response.id:
            return
        if without_secrets(settings.plain) != self.settings:
            settings = TurnSettings(copy_settings(self.settings))
        self.history.restore_continuation_point(
            ContinuationPoint(
                # No socket holds it in memory.
                placement=Placement(
                    socket=None, lane=None, server=ServerTraits(name=latest.origin.endpoint)
                ),
                response_id=latest.response.id,
                settings=settings.canonical,
                stored=latest.stored,
            )
        )

    def _resolve(self, item: msgspec.Raw) -> msgspec.Raw:
        """Return an item, or the output that the record with its number has."""
        number = find_output_record(item)
        return item if number is None else msgspec.Raw(self._numbers[number])

    def _forget_outputs(self) -> None:
        self.outputs.clear()
        self._numbers.clear()


async def read_history(store: ConversationStore, conversation_id: str) -> tuple[StoredHistory, int]:
    """Read a conversation, and return it with the number of records of its log.

    :raises StoreError: as the store does, and for damaged records and those of later releases.
    """
    stored = await store.get(conversation_id)
    read = StoredHistory(conversation_id)
    if stored is None:
        return read, 0
    number = stored.base
    while number < stored.length:
        records = await store.read(conversation_id, number)
        if not records:
            raise StoreError(f"{place_of(conversation_id, number)} is missing")
        for number, record in enumerate(records, number):  # noqa: B020 - continues the count
            read.apply(number, record.data)
            if number % RECORDS_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        number += 1
    return read, number
