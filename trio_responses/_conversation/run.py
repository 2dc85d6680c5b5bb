"""A run: the model's turns and the calls of its tools in turn, until it answers.

The reader's task reads the model's events itself, as from any stream; between two turns the calls
of a response run side by side in the nursery of the run's block, and tell of themselves through a
channel. An answer belongs to the conversation as soon as it is there: whatever happens to the
run, a call that was begun is not run again.

What belongs elsewhere: one turn (`exchange.py`), who answers which call (`tools/toolbox.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast, final

import trio

from trio_responses._concurrency import Notifier, open_collapsing_nursery
from trio_responses._conversation.turn import ConversationRequest, TurnStream
from trio_responses._errors import (
    ConfigurationError,
    MaxRoundsExceeded,
    failed_response_error,
)
from trio_responses._instruments.instrument import Instruments
from trio_responses._lifecycle import StreamEvent
from trio_responses._protocol.calls import make_refusal
from trio_responses._protocol.raw_items import RawItems
from trio_responses._tools.toolbox import INTERRUPTED, ToolFinished, ToolStarted
from trio_responses._turn.request_builder import TurnSettings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from typing import Self

    import msgspec

    from trio_responses import _wire as wire
    from trio_responses._conversation.history import History
    from trio_responses._conversation.turn import TurnLock
    from trio_responses._protocol.calls import Key
    from trio_responses._protocol.delivery import DeliveryMode
    from trio_responses._tools.toolbox import Toolbox
    from trio_responses._turn.stream import AbandonChoice, ResponseStream, TurnSender
    from trio_responses._wire import Response

__all__ = ["RunConfig", "RunEvent", "RunStream", "open_run"]

StartTurn: TypeAlias = "Callable[[RawItems, TurnSettings], TurnStream]"
RunEvent: TypeAlias = StreamEvent | ToolStarted | ToolFinished
"""What happens in a run: the model's events, and what becomes of its calls."""

Told: TypeAlias = ToolStarted | ToolFinished | Exception
"""What tools tell of themselves; an exception ends the run."""

FORCED: Final = frozenset({"required", "any"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """How a run goes."""

    toolbox: Toolbox
    max_rounds: int
    max_concurrency: float
    settings: TurnSettings
    delivery: DeliveryMode
    abandon: AbandonChoice
    snapshot: bool
    instruments: Instruments = field(default_factory=Instruments, repr=False)


@final
class RunStream:
    """The events of a run, for the length of an ``async with`` block.

    Made by ``conversation.run_stream()``. Iterate over it once, in one task, and leave whenever
    you like: what is still to come of a response is dropped then, and tools are cancelled.
    """

    def __init__(
        self,
        start_turn: StartTurn,
        floor: TurnLock,
        ledger: History,
        nursery: trio.Nursery,
        *,
        config: RunConfig,
        new: RawItems,
    ) -> None:
        self._start_turn = start_turn
        self._floor = floor
        self._ledger = ledger
        self._nursery = nursery
        self._config = config
        self._new = new
        self._limiter = trio.CapacityLimiter(config.max_concurrency)
        self._events = self._go()
        self._reading = False
        self._scope = trio.CancelScope()
        self._idle = Notifier()
        self._response: Response | None = None
        self.responses: list[Response] = []
        """The responses of all rounds that have ended, in order."""
        self.stream: ResponseStream | None = None
        """The turn under way: to steer it, for one. `None` while tools run."""

    def __aiter__(self) -> Self:
        """Iterate over the events."""
        return self

    async def __anext__(self) -> RunEvent:
        """Wait for the next event. A checkpoint; a cancellation ends the run.

        :raises MaxRoundsExceeded: when the model goes on calling; the conversation is intact.
        :raises ResponseFailedError: when a response failed.
        :raises ResponsesError: when a turn ended without a Response.
        :raises Exception: what a tool raised, with ``on_tool_error="raise"``.
        :raises trio.BusyResourceError: while another task waits for the next event.
        """
        if self._reading:
            raise trio.BusyResourceError("another task is reading this run")
        self._reading = True
        try:
            with self._scope:
                return await self._events.__anext__()
            raise RuntimeError("a run is iterated over inside its async with block")
        finally:
            self._reading = False
            self._scope = trio.CancelScope()
            self._idle.notify()

    async def until_done(self) -> Response:
        """Run to the end, and give the last `Response`.

        A cancellation ends the run, as everywhere in it.
        """
        async for _ in self:
            pass
        return self.response

    @property
    def response(self) -> Response:
        """The last `Response`: the model's answer, or one with calls that nobody here answers.

        :raises RuntimeError: when the run has not ended well, or not yet.
        """
        if self._response is None:
            raise RuntimeError("the run is not finished: read it to its end first")
        return self._response

    async def aclose(self) -> None:
        """End it: nothing more comes. A task that waits for an event is told so."""
        with trio.CancelScope(shield=True):
            while self._reading:
                self._scope.cancel()
                await self._idle.wait()
        await self._events.aclose()

    async def _go(self) -> AsyncGenerator[RunEvent, None]:
        """Take turns and run tools, until a response has no call that is answered here."""
        ledger, config = self._ledger, self._config
        settings = config.settings
        ledger.unsent = new = self._new or ledger.unsent
        if not new and ledger.owes:  # it goes on behind the turn that was forced
            settings = _unforced(settings)
        while True:
            owed = ledger.pending_calls(but=new)
            for_us = {key: call for key, call in owed.items() if config.toolbox.handles(call)}
            if len(self.responses) >= config.max_rounds and len(for_us) == len(owed):
                raise MaxRoundsExceeded(config.max_rounds, self.responses[-1])
            calls = trio.CancelScope()
            try:
                async for told in self._run_calls(for_us, calls):
                    if isinstance(told, Exception):
                        raise told
                    yield told
            finally:
                calls.cancel()
            answers = ledger.outputs_for(owed)
            if self.responses and len(answers) < len(owed):  # or the history was taken away
                break
            input_items, new = RawItems.join(answers) + new, RawItems()
            if not input_items and not ledger.length and "prompt" not in settings.plain:
                raise ConfigurationError("there is nothing to go on from: the run needs an input")
            async with self._start_turn(input_items, settings) as stream:
                self.stream = stream
                async for event in stream:
                    yield event
            self.stream = None
            self.responses.append(_checked(stream.response))
            settings = _unforced(settings)
            if stream.response.status != "completed" or not ledger.owes:
                break
        self._response = self.responses[-1]

    def _run_calls(
        self, calls: Mapping[Key, wire.OutputItem], scope: trio.CancelScope
    ) -> trio.MemoryReceiveChannel[Told]:
        """Begin to run calls, side by side; what comes of them is told on the channel."""
        tell, told = trio.open_memory_channel[Told](3 * len(calls))
        self._nursery.start_soon(self._run_together, calls, tell, scope)
        return told

    async def _run_together(
        self,
        calls: Mapping[Key, wire.OutputItem],
        tell: trio.MemorySendChannel[Told],
        scope: trio.CancelScope,
    ) -> None:
        """Run calls until all are answered, or until the first of them raises.

        They begin in their order, also where they have to wait for one another.
        """
        with tell, scope:
            async with open_collapsing_nursery() as nursery:
                for key, call in calls.items():
                    if not self._ledger.is_answered(key):
                        answer = partial(self._answer_or_fail, key, call, tell, scope)
                        await nursery.start(answer)

    async def _answer_or_fail(
        self,
        key: Key,
        call: wire.OutputItem,
        tell: trio.MemorySendChannel[Told],
        scope: trio.CancelScope,
        *,
        task_status: trio.TaskStatus,
    ) -> None:
        """Answer one call; what it raises ends the others, and goes on in the reader's task."""
        task_status.started()
        try:
            with self._floor.barred():
                await self._answer(key, call, tell)
        except Exception as error:  # noqa: BLE001 - the reader raises it
            tell.send_nowait(error)
            scope.cancel()

    async def _answer(
        self,
        key: Key,
        call: wire.OutputItem,
        tell: trio.MemorySendChannel[Told],
    ) -> None:
        """Answer one call, as soon as it may run; it is noted before it begins."""
        toolbox, keep = self._config.toolbox, self._ledger.store_output
        decided = await toolbox.output_without_running(call)
        if decided is not None:
            keep(key, decided)
            tell.send_nowait(ToolFinished(call=call, answer=decided, error=None, seconds=0.0))
            return
        async with self._limiter:
            tell.send_nowait(ToolStarted(call=call))
            since = trio.current_time()
            interrupted = make_refusal(call, INTERRUPTED)
            if interrupted is not None:
                keep(key, interrupted)
            with self._config.instruments.observe_call(call) as record:
                answer, failure = await self._try(call)
                if record is not None:
                    record.error = failure
            keep(key, answer)
            seconds = trio.current_time() - since
        tell.send_nowait(ToolFinished(call=call, answer=answer, error=failure, seconds=seconds))
        if failure is not None and toolbox.ends_run(failure):
            raise failure

    async def _try(self, call: wire.OutputItem) -> tuple[msgspec.Raw, Exception | None]:
        """Run a call; give its answer, and the error that the answer tells of."""
        try:
            return await self._config.toolbox.run(call), None
        except Exception as error:
            answer = self._config.toolbox.error_output(call, error)
            if answer is None:
                raise
            return answer, error


def _unforced(settings: TurnSettings) -> TurnSettings:
    """Give the settings of later turns: a choice that forces a call is for the first one."""
    choice = settings.plain.get("tool_choice")
    free = _free(choice)
    return (
        settings if free == choice else TurnSettings({**settings.plain, "tool_choice": free}, "run")
    )


def _free(choice: Any) -> Any:
    """Give a ``tool_choice`` that forces no call, and allows the same tools."""
    if isinstance(choice, Mapping):
        named = cast("Mapping[str, Any]", choice)
        return {**named, "mode": "auto"} if named.get("type") == "allowed_tools" else "auto"
    return "auto" if choice in FORCED else choice


def _checked(response: Response) -> Response:
    """Give a Response back, if it did not fail."""
    if response.status == "failed":
        raise failed_response_error(response)
    return response


@asynccontextmanager
async def open_run(
    floor: TurnLock, sender: TurnSender, ledger: History, config: RunConfig, new: RawItems
) -> AsyncGenerator[RunStream, None]:
    """Have the floor of a conversation for a run, and a nursery for its tools."""

    def start_turn(items: RawItems, settings: TurnSettings) -> TurnStream:
        return TurnStream(
            floor,
            sender,
            ConversationRequest(ledger, items, settings),
            delivery=config.delivery,
            abandon=config.abandon,
            snapshot=config.snapshot,
            within_run=True,
        )

    async with floor.held(), open_collapsing_nursery() as nursery:
        run = RunStream(start_turn, floor, ledger, nursery, config=config, new=new)
        try:
            yield run
        finally:
            await run.aclose()
            nursery.cancel_scope.cancel()
