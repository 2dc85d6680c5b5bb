"""The journal of a durable conversation: records each change, and saves the records in order.

A change of the history is recorded at once, in memory (`record_turn` and the like), and saved
before its effect is seen from outside (`Journal.save`): a turn before the caller gets its last
event, the start of a call before the call runs. If the store cannot be reached, the records are
kept, and the next save begins with them. So the store always has a beginning of what happened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import msgspec

from trio_responses._concurrency import FastLock
from trio_responses._conversation.checkpoint import Checkpoint
from trio_responses._conversation.history import ActiveRequest
from trio_responses._conversation.records import (
    AnswerRecord,
    BaseRecord,
    OutputRecord,
    RerunRecord,
    SavedRequest,
    SavedResponse,
    SettingsRecord,
    SettledRecord,
    StartRecord,
    TurnRecord,
    UnsentRecord,
    check_reused,
    decode_record,
    encode_record,
    input_digest,
    without_secrets,
)
from trio_responses._protocol.calls import call_key
from trio_responses._stores.base import check_id
from trio_responses._stores.errors import ConversationTooLarge, LeaseLost, RequestSuperseded
from trio_responses._stores.interface import Record

if TYPE_CHECKING:
    from trio_responses._conversation.history import CommittedTurn, History
    from trio_responses._conversation.lease import LeaseKeeper
    from trio_responses._conversation.records import LogRecord
    from trio_responses._conversation.settings import TurnSettings
    from trio_responses._protocol.calls import CallKey
    from trio_responses._protocol.raw_items import RawItems
    from trio_responses._stores.interface import ConversationStore
    from trio_responses._wire import Response

__all__ = ["Journal"]


@final
class Journal:
    """The journal of one conversation, for one lease.

    :param position: the number of records that the store has.
    :param unfinished: the request whose run was interrupted, with its last Response.
    :param output_records: the record of each output of a call that no turn contains yet.
    """

    def __init__(
        self,
        store: ConversationStore,
        keeper: LeaseKeeper,
        history: History,
        settings: TurnSettings,
        *,
        position: int = 0,
        unfinished: tuple[SavedRequest, Response] | None = None,
        output_records: dict[CallKey, tuple[int, bytes]] | None = None,
    ) -> None:
        self._store = store
        self._keeper = keeper
        self._history = history
        self.settings: TurnSettings = settings
        """The settings of the conversation."""
        self._position = position
        self._unfinished = unfinished
        self._output_records = output_records if output_records is not None else {}
        self._unsaved: list[Record] = []
        self._base: int | None = None
        """The number of the latest unsaved record that is a base."""
        self._refused = False
        """Whether the store has refused the unsaved records for their size."""
        self._saved_unsent = history.unsent
        self._lock = FastLock()

    @property
    def conversation_id(self) -> str:
        """The id of the conversation in the store."""
        return self._keeper.lease.conversation_id

    @property
    def fencing_token(self) -> int:
        """The token of the present lease."""
        return self._keeper.lease.token

    # --- Changes -------------------------------------------------------------------------

    def record_turn(self, turn: CommittedTurn) -> None:
        """Record a turn that was appended to the history."""
        response = turn.response
        assert response is not None  # noqa: S101 - the turn was just made
        request = self._progress_of(turn.request, response)
        self._settle_unfinished(unless=request)
        *before, output = turn.items
        point = turn.server
        key = request.id if request is not None and request.ended else None
        record = TurnRecord(
            input=[self._reference(item) for items in before for item in items],
            output=list(output),
            response=SavedResponse.of(response),
            origin=turn.origin,
            stored=(
                point is not None and point.stored and point.settings == self.settings.canonical
            ),
            clears_unsent=turn.clears_unsent,
            left_out=sorted(turn.left_out),
            request=request,
        )
        self._add(record, key)
        self._output_records.clear()
        if turn.clears_unsent:
            self._saved_unsent = self._history.unsent
        if request is not None:
            self._unfinished = None if request.ended else (request, response)

    def _progress_of(self, active: ActiveRequest | None, response: Response) -> SavedRequest | None:
        """Return a request as it is saved with a turn, and note whether it has ended."""
        if active is None:
            return None
        active.latest, active.ended = response, active.ends_with(response)
        return SavedRequest(id=active.id, digest=active.digest, ended=active.ended)

    def _settle_unfinished(self, unless: SavedRequest | None = None) -> None:
        """Record that the unfinished request will not go on."""
        if self._unfinished is None:
            return
        request, _ = self._unfinished
        if unless is None or unless.id != request.id:
            self._add(SettledRecord(request=request), request.id)
            self._unfinished = None

    def _reference(self, item: msgspec.Raw) -> msgspec.Raw:
        """Return the number of the record that has an output already, or else the item."""
        if not self._output_records:
            return item
        key = call_key(item)
        number, known = self._output_records.get(key, (0, b"")) if key is not None else (0, b"")
        return msgspec.Raw(b"%d" % number) if known == bytes(item) else item

    def record_replacement(self) -> None:
        """Record the whole conversation as it is, at its beginning and when it was replaced."""
        self._settle_unfinished()
        self._output_records.clear()
        self._base = self._next_number
        self._add(self._base_record())

    def _base_record(self) -> BaseRecord:
        checkpoint = Checkpoint.of(
            without_secrets(self.settings.plain), self._history, self.conversation_id
        )
        self._saved_unsent = self._history.unsent
        return BaseRecord(checkpoint=msgspec.Raw(checkpoint.encode()))

    def record_settings(self) -> None:
        """Record the settings and the replay policy, of which one has changed."""
        settings = without_secrets(self.settings.plain)
        self._add(SettingsRecord(settings=settings, replay_policy=self._history.policy))

    def record_start(self, key: CallKey) -> None:
        """Record that a call starts to run."""
        self._add(StartRecord(call=key))

    def record_output(self, key: CallKey, output: msgspec.Raw) -> None:
        """Record the output of a call."""
        self._output_records[key] = (self._next_number, bytes(output))
        self._add(OutputRecord(call=key, item=output))

    def record_rerun(self, key: CallKey) -> None:
        """Record that a call that had started may start again."""
        self._add(RerunRecord(call=key))

    @property
    def _next_number(self) -> int:
        return self._position + len(self._unsaved)

    def _add(self, record: LogRecord, key: str | None = None) -> None:
        self._unsaved.append(Record(encode_record(record), key))

    # --- Saving --------------------------------------------------------------------------

    async def save(self) -> None:
        """Save what was recorded. Not a checkpoint if nothing was.

        If cancelled, the records are kept for the next save, and may have been saved already.

        :raises LeaseLost: when another owner has the conversation; its block is cancelled.
        :raises StoreUnavailable: when the store cannot be reached; the records are kept.
        :raises ConversationTooLarge: when a limit of the store is exceeded; the records are kept
            until the history is replaced.
        """
        if not self._unsaved:
            return
        async with self._lock:
            self._keeper.check()
            if self._refused and self._base is not None:
                await self._begin_again()
            records = tuple(self._unsaved)
            if not records:
                return
            try:
                await self._store.append(
                    self._keeper.lease, self._position, records, base=self._base
                )
            except LeaseLost as error:
                self._keeper.lose(error)
                raise
            except ConversationTooLarge:
                self._refused = True
                raise
            self._position += len(records)
            del self._unsaved[: len(records)]
            if self._base is not None and self._base < self._position:
                self._base = None

    async def _begin_again(self) -> None:
        """Discard the records that were refused, because the base after them replaces them.

        A save that is still under way could use their numbers. So this needs a new lease. Kept is
        which requests will not go on: the base does not say so.
        """
        await self._keeper.acquire_anew()
        stored = await self._store.get(self.conversation_id)
        self._position = stored.length if stored is not None else 0
        keyed = [record for record in self._unsaved if record.key is not None]
        self._unsaved = [
            record
            for record in keyed
            if isinstance(decode_record(record.data, place="a settled request"), SettledRecord)
        ]
        self._output_records.clear()
        self._refused, self._base = False, self._next_number
        self._add(self._base_record())

    async def close(self) -> None:
        """Save what was recorded, and the input of a run whose first turn has not ended well."""
        unsent = self._history.unsent
        if unsent.json != self._saved_unsent.json:
            self._add(UnsentRecord(items=list(unsent)))
            self._saved_unsent = unsent
        await self.save()

    # --- Requests ------------------------------------------------------------------------

    async def begin_request(self, request_id: str, given: RawItems) -> ActiveRequest:
        """Begin or repeat a request; return what it has so far. A checkpoint.

        :raises ConfigurationError: for an unsuitable id, and for one that was used with another
            input.
        :raises RequestSuperseded: when the request was interrupted, and other turns have followed.
        """
        check_id("request_id", request_id)
        request = ActiveRequest(id=request_id, digest=input_digest(given))
        await self.save()
        if self._unfinished is not None and self._unfinished[0].id == request_id:
            saved, request.latest = self._unfinished
            check_reused(saved, request.digest)
            return request
        found = await self._store.find(self.conversation_id, request_id)
        if found is None:
            if self._unfinished is not None:
                self._history.settle_calls()
            return request
        record = decode_record(found.data, place=f"the request {request_id!r}")
        if isinstance(record, TurnRecord | AnswerRecord) and record.request is not None:
            check_reused(record.request, request.digest)
            request.latest = record.response.rebuild(record.output)
            request.ended = True
            return request
        raise RequestSuperseded(request_id)

    def continue_request(self) -> ActiveRequest | None:
        """Return the interrupted request, for a run without an input; `None` if there is none."""
        if self._unfinished is None:
            return None
        saved, latest = self._unfinished
        return ActiveRequest(id=saved.id, digest=saved.digest, latest=latest)

    def record_answer(self, request: ActiveRequest) -> None:
        """Record that the last Response of a request is its answer, if no turn says so."""
        if request.ended or request.latest is None:
            return
        request.ended = True
        saved = SavedRequest(id=request.id, digest=request.digest, ended=True)
        record = AnswerRecord(
            request=saved,
            response=SavedResponse.of(request.latest),
            output=list(request.latest.raw_output or ()),
        )
        self._add(record, request.id)
        self._unfinished = None
