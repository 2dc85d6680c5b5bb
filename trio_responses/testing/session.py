"""One WebSocket of the server: frames in, lanes, scripts, frames out."""

import contextlib
import logging
from collections.abc import Sequence
from typing import Any, Final, cast

import msgspec
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from trio_responses.testing.checks import check_create, check_lane, parse_frame
from trio_responses.testing.errors import (
    Json,
    Refusal,
    connection_limit_reached,
    error_frame,
    previous_response_not_found,
    stream_limit_reached,
)
from trio_responses.testing.events import Plan, plan_failure, plan_raw, plan_reply
from trio_responses.testing.lanes import MAX_NAMES, Lanes, Remembered
from trio_responses.testing.request import Connection, Request
from trio_responses.testing.scripts import (
    Answer,
    Call,
    Drop,
    Fail,
    Frame,
    Freeze,
    Hold,
    How,
    Inject,
    Reply,
    Script,
    SlowDown,
    Stall,
    Step,
    WireBytes,
)
from trio_responses.testing.state import ServerState
from trio_responses.testing.streams import FaultyStream

_log: Final = logging.getLogger(__name__)

AGE_CLOSE_CODE: Final = 1000
"""What the socket is closed with at its maximum age. The real code is not known: clients have
to go by the error frame before it."""

_PING_CLOSE: Final = (1011, "keepalive ping timeout")


class Session:
    """Serves one accepted WebSocket until it ends."""

    def __init__(
        self,
        state: ServerState,
        record: Connection,
        websocket: WebSocketConnection,
        stream: FaultyStream,
    ) -> None:
        self.record = record
        self._state = state
        self._websocket = websocket
        self._stream = stream
        self._lanes: Lanes[Request] = Lanes(state.stored)
        self._commands = {"response.create": self._create}
        self._dropping = trio.Lock()

    async def run(self) -> None:
        """Read frames until the socket ends, then cut what still runs."""
        state, record = self._state, self.record
        state.sessions.append(self)
        state.max_open = max(state.max_open, len(state.sessions))
        record.is_open = True
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._grow_old)
                nursery.start_soon(self._ping)
                with contextlib.suppress(ConnectionClosed):
                    while True:
                        await self._receive(await self._websocket.get_message(), nursery)
                async with self._dropping:  # a close handshake of ours comes to its end first
                    nursery.cancel_scope.cancel()
        finally:
            record.is_open = False
            state.sessions.remove(self)
            self._note_close()
        await self._stream.end()

    async def send(self, frame: Frame) -> None:
        """Send one frame; on a socket that has ended, do nothing.

        Cancelled, part of the frame may be on the wire, and the socket is of no more use.
        """
        gone = (ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError)
        with contextlib.suppress(*gone):
            match frame:
                case WireBytes():
                    await self._stream.send_all(frame.data)
                case str() | bytes():
                    await self._websocket.send_message(frame)
                case _:
                    await self._websocket.send_message(msgspec.json.encode(frame).decode())

    def freeze(self) -> None:
        """Go half-open, see :meth:`FaultyStream.freeze`."""
        self._stream.freeze()

    async def drop(self, how: How, reason: str = "") -> None:
        """End the connection: by close code (bounded by ``close_timeout``), end or reset."""
        async with self._dropping:
            if how == "reset":
                self._note_close()
                self._stream.reset()
            elif how == "fin":
                self._note_close()
                await self._stream.hang_up()
            elif self._websocket.closed is None:
                self.record.close_code, self.record.close_reason = how, reason or None
                with trio.move_on_after(self._state.options.close_timeout):
                    await self._websocket.aclose(how, reason or None)

    def _note_close(self) -> None:
        if self.record.close_code is None:
            closed = self._websocket.closed
            self.record.close_code = 1006 if closed is None else int(closed.code)
            self.record.close_reason = None if closed is None else closed.reason

    async def _grow_old(self) -> None:
        age = self._state.options.max_age
        if age is None:
            return
        await trio.sleep(age)
        await self.send(error_frame(connection_limit_reached(age / 60)))
        await self.drop(AGE_CLOSE_CODE)

    async def _ping(self) -> None:
        interval = self._state.options.ping_interval
        if interval is None:
            return
        with contextlib.suppress(ConnectionClosed):
            while True:
                await trio.sleep(interval)
                with trio.move_on_after(self._state.options.ping_timeout) as scope:
                    await self._websocket.ping()
                if scope.cancelled_caught:
                    await self.drop(*_PING_CLOSE)

    async def _receive(self, frame: str | bytes, nursery: trio.Nursery) -> None:
        body = parse_frame(frame)
        if isinstance(body, Refusal):
            await self.send(error_frame(body))
            return
        refusal = check_lane(body, lanes=self._state.options.lanes)
        if refusal is not None:
            await self.send(error_frame(refusal))
            return
        lane: str | None = body.get("stream_id")
        command = self._commands.get(str(body.get("type")))
        if command is None:
            refusal = Refusal(message=f"Unknown event type: {body.get('type')!r}.", param="type")
        elif not self._lanes.knows(lane):
            refusal = stream_limit_reached(MAX_NAMES)
        else:
            command(body, lane, nursery)
            return
        await self.send(error_frame(refusal, lane=lane))

    def _create(self, body: Json, lane: str | None, nursery: trio.Nursery) -> None:
        request = Request(body, self.record.number, lane)
        self._state.requests.append(request)
        self.record.requests += 1
        self._lanes.add(lane, request)
        self._start_waiting(nursery)

    def _start_waiting(self, nursery: trio.Nursery) -> None:
        while (request := self._lanes.start_next()) is not None:
            self.record.max_active = self._lanes.max_active
            self._state.began()
            nursery.start_soon(self._respond, request, self._find_context(request), nursery)

    def _find_context(self, request: Request) -> "Refusal | _Context":
        """Look up the parent and take the script, in the order in which requests start."""
        refusal = check_create(request.body)
        if refusal is not None:
            return refusal
        parent_id: str | None = request.get("previous_response_id")
        parent = None if parent_id is None else self._lanes.find(parent_id)
        if parent_id is not None and parent is None:
            return previous_response_not_found(parent_id)
        past = () if parent is None else parent.history
        request.history = [*past, *request.input_items]
        request.response_id = self._state.ids.new("resp")
        return _Context(self._state.take_script(request), len(past))

    async def _respond(
        self, request: Request, context: "Refusal | _Context", nursery: trio.Nursery
    ) -> None:
        well = False
        try:
            if isinstance(context, Refusal):
                self._lanes.evict(request.lane, request.get("previous_response_id"))
                await self.send(error_frame(context, lane=request.lane))
            else:
                plan = await self._plan(request, context)
                try:
                    well = await self._play(request, plan, context.script)
                finally:
                    context.script.finished.set()
        finally:
            self._state.ended(well=well)
            self._lanes.finish(request.lane)
        self._start_waiting(nursery)

    async def _plan(self, request: Request, context: "_Context") -> Plan:
        state, now = self._state, self._state.now()
        answer = context.script.answer
        if answer is None and request.is_warm_up:
            answer = Reply()
        elif answer is None:
            try:
                answer = await state.answer(request)
            except Exception as error:  # noqa: BLE001 - whatever a test's function raises
                _log.debug("the responder failed", exc_info=error)
                state.crashes.append(error)
                answer = Fail(message=f"The responder raised {type(error).__name__}.")
        match _in_full(answer):
            case Fail() as fail:
                return plan_failure(request, fail, ids=state.ids, now=now)
            case Reply() as reply:
                cached = context.cached
                return plan_reply(request, reply, ids=state.ids, now=now, cached=cached)
            case frames:
                return plan_raw(frames)

    async def _play(self, request: Request, plan: Plan, script: Script) -> bool:
        """Send the frames of a plan; return whether a whole response went out."""
        total = len(plan.frames)
        for sent, frame in enumerate(plan.frames):
            await self._take_steps(script.steps_at(sent, total))
            if plan.delay and sent:
                await trio.sleep(plan.delay)
            if self._websocket.closed is not None:
                return False
            if sent == total - 1:
                self._settle(request, plan)
            await self.send(frame)
        await self._take_steps(script.steps_at(total, total))
        return plan.remembered is not None

    def _settle(self, request: Request, plan: Plan) -> None:
        """Remember the response before its last event is out: the next request may be faster."""
        if plan.remembered is None:
            self._lanes.evict(request.lane, request.get("previous_response_id"))
            return
        response_id, output = plan.remembered
        remembered = Remembered(response_id, (*request.history, *output))
        self._lanes.remember(request.lane, remembered, store=request.stores)

    async def _take_steps(self, steps: Sequence[Step]) -> None:
        for step in steps:
            match step:
                case Drop():
                    await self.drop(step.how, step.reason)
                    await trio.sleep_forever()
                case Stall():
                    await trio.sleep(float("inf") if step.seconds is None else step.seconds)
                case Freeze():
                    self._stream.freeze()
                    await trio.sleep_forever()
                case SlowDown():
                    self._stream.slow_down(step.piece, step.delay)
                case Inject():
                    await self.send(step.frame)
                case Hold():
                    await step.until.wait()


class _Context:
    """What is fixed about a request when it starts."""

    __slots__ = ("cached", "script")

    def __init__(self, script: Script, cached: int) -> None:
        self.script = script
        self.cached = cached


def _in_full(answer: Answer) -> Reply | Fail | Sequence[Frame]:
    match answer:
        case Reply() | Fail():
            return answer
        case str():
            return Reply(answer)
        case Call():
            return Reply(calls=[answer])
        case _:
            parts: Sequence[Any] = answer
            if parts and all(isinstance(part, Call) for part in parts):
                return Reply(calls=cast("Sequence[Call]", parts))
            return cast("Sequence[Frame]", parts)
