"""The responses of one connection: from a request in its lane to the frames that go out.

What belongs elsewhere: the socket (``session.py``), the order of requests (``lanes.py``), what
the frames say (``events.py``), and which steering input is accepted (``steering.py``).
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import trio

from trio_responses.testing._events import ResponsePlan, plan_failure, plan_raw, plan_reply
from trio_responses.testing._frames import (
    Frame,
    RequestRefusal,
    error_frame,
    previous_response_not_found,
)
from trio_responses.testing._history import compacted
from trio_responses.testing._records import Request
from trio_responses.testing._request_checks import check_create
from trio_responses.testing._script_checks import unoffered
from trio_responses.testing._scripts import (
    Answer,
    Call,
    DelayedClose,
    Drop,
    Fail,
    Freeze,
    Hold,
    Inject,
    Recorded,
    Reply,
    Script,
    SlowDown,
    Stall,
    Step,
    check_answer,
)
from trio_responses.testing._state import ServerLanes, ServerState, StoredResponse
from trio_responses.testing._steering import (
    FAILED,
    SteeringState,
    SteerTarget,
    required_input,
    succeed,
)

if TYPE_CHECKING:
    from trio_responses.testing._session import Session

_log: Final = logging.getLogger(__name__)

_NOT_BEGUN: Final = ("error", "response.failed")


@dataclass(slots=True)
class _Turn:
    """What is fixed about a request when it starts."""

    request: Request
    script: Script
    cached: int = 0
    """How many items of the history the connection had in its cache."""
    refusal: RequestRefusal | None = None
    steered: SteerTarget | None = None
    """The response whose steering input this request commits or loses."""
    by_itself: bool = False
    """Whether it is a successor that no client asked for."""


class ResponseRunner:
    """Runs the requests of one connection, lane by lane."""

    def __init__(
        self,
        session: "Session",
        state: ServerState,
        lanes: ServerLanes[Request],
        steering: SteeringState,
    ) -> None:
        self._session = session
        self._state = state
        self._lanes = lanes
        self._steering = steering

    def start_waiting(self, nursery: trio.Nursery) -> None:
        """Start the requests whose lanes are free, within the limit of active responses."""
        while (request := self._lanes.start_next()) is not None:
            self._session.record.max_active = self._lanes.max_active
            steered = self._steering.waiting.pop(request.lane, None)
            nursery.start_soon(self._run_lane, self._begin(request, steered), nursery)

    def _begin(
        self, request: Request, steered: SteerTarget | None, *, by_itself: bool = False
    ) -> _Turn:
        """Look up the parent and take the script, in the order in which requests start."""
        self._state.began()
        turn = _Turn(request, Script(), steered=steered, by_itself=by_itself)
        parent_id: str | None = request.get("previous_response_id")
        if steered is not None and parent_id == steered.id:
            request.steers = request.steers or steered.take()
        replayed = self._state.take_replayed(request)
        if replayed is None:
            lenient = self._state.options.unknown_parameters
            turn.refusal = check_create(request.body, unknown_parameters=lenient)
        if turn.refusal is not None:
            return turn
        parent = None if parent_id is None else self._lanes.find(parent_id)
        if parent_id is not None and parent is None and replayed is None:
            turn.refusal = previous_response_not_found(parent_id)
            return turn
        past = () if parent is None else parent.history
        steers = () if by_itself else request.steers
        queued = (item for steer in steers for item in steer.input_items)
        request.history = [*past, *queued, *request.input_items]
        request.response_id = self._state.ids.new("resp")
        turn.script, turn.cached = replayed or self._state.take_script(request), len(past)
        return turn

    async def _run_lane(self, turn: _Turn, nursery: trio.Nursery) -> None:
        """Run a request and then the successors that steering makes: the lane stays theirs."""
        lane = turn.request.lane
        try:
            next_turn: _Turn | None = turn
            while next_turn is not None:
                next_turn = await self._respond(next_turn)
        finally:
            self._lanes.finish(lane)
        self.start_waiting(nursery)
        if turn.script.parting is not None:
            nursery.start_soon(self._part, turn.script.parting)

    async def _part(self, parting: DelayedClose) -> None:
        """End the connection when it has been idle for as long as then."""
        for answered in parting.others:
            await answered.wait()
        requests = self._session.record.requests
        await trio.sleep(parting.seconds)
        if not self._lanes.active and self._session.record.requests == requests:
            await self._session.drop(parting.end.how, parting.end.reason)

    async def _respond(self, turn: _Turn) -> _Turn | None:
        """Answer one request; return its successor, if there is to be one."""
        done = None
        try:
            if turn.steered is not None and turn.steered.steers:
                # The client went on from elsewhere.
                await self._send_all(turn.steered.failures(turn.steered.take(), FAILED))
            if turn.refusal is not None:
                await self._refuse(turn, turn.refusal)
                return None
            plan = await self._plan(turn)
            response_id = plan.response_id or turn.request.response_id or ""
            target = self._steering.begin(response_id, turn.request)
            try:
                done = await self._play(turn, plan, target)
            finally:
                turn.script.finished.set()
        finally:
            self._state.ended(well=done is not None and done.remembered is not None)
        return None if done is None else await self._follow_up(turn, done, target)

    async def _refuse(self, turn: _Turn, refusal: RequestRefusal) -> None:
        request = turn.request
        await self._lose_steers(turn)
        if not turn.by_itself:
            self._lanes.evict(request.lane, request.get("previous_response_id"))
            await self._session.send(error_frame(refusal, lane=request.lane))

    async def _plan(self, turn: _Turn) -> ResponsePlan:
        state, now, request = self._state, self._state.now(), turn.request
        answer = turn.script.answer
        if isinstance(answer, Recorded):
            return plan_raw(answer.on(request.lane))
        if answer is not None:
            mistake = unoffered(_calls_in(answer), request)
            if mistake is not None:
                answer = self._crash(AssertionError(mistake), mistake)
        elif request.is_warm_up:
            answer = Reply()
        else:
            try:
                answer = await state.answer(request)
                check_answer(answer)
            except Exception as error:  # noqa: BLE001 - whatever a test's function raises
                answer = self._crash(error, f"The responder raised {type(error).__name__}.")
        match _in_full(answer):
            case Fail() as fail:
                return plan_failure(request, fail, ids=state.ids, now=now)
            case Reply() as reply:
                return plan_reply(request, reply, ids=state.ids, now=now, cached=turn.cached)
            case frames:
                return plan_raw(frames)

    def _crash(self, error: Exception, message: str) -> Fail:
        """Note a mistake of the test, and say how the request ends over it."""
        _log.debug("there is no answer", exc_info=error)
        self._state.crashes.append(error)
        return Fail(message=message)

    async def _play(
        self, turn: _Turn, plan: ResponsePlan, target: SteerTarget
    ) -> ResponsePlan | None:
        """Send the frames of a plan; return what went out to its end, or None."""
        total, item = len(plan.frames), -1
        for sent, frame in enumerate(plan.frames):
            await self._take_steps(turn.script.steps_at(sent, total))
            if plan.delay and sent:
                await trio.sleep(plan.delay)
            if self._session.is_closed or (
                sent == 0 and not await self._commit(turn, frame, target)
            ):
                return None
            before, item = item, _item_of(frame, item)
            if item > before and plan.cut is not None and _interrupts(turn, target):
                plan = plan.cut(item)
                await self._send_planned(turn, plan, plan.frames[-1], target)
                break
            await self._send_planned(turn, plan, frame, target, last=sent == total - 1)
        await self._take_steps(turn.script.steps_at(total, total))
        return plan

    async def _send_planned(
        self,
        turn: _Turn,
        plan: ResponsePlan,
        frame: Frame,
        target: SteerTarget,
        *,
        last: bool = True,
    ) -> None:
        if last:
            self._settle(turn.request, plan)
            target.end()
        if plan.is_by_hand:
            target.follow(frame)
        else:
            frame = target.number_frame(frame)
        await self._session.send(frame)

    async def _commit(self, turn: _Turn, frame: Frame, target: SteerTarget) -> bool:
        """Settle the steering input of a request with its first event; return whether to go on."""
        if isinstance(frame, Mapping) and frame.get("type") in _NOT_BEGUN:
            await self._lose_steers(turn)
            return not turn.by_itself
        for steer in turn.request.steers:
            steer.state, steer.successor = "committed", target.id
        return True

    async def _lose_steers(self, turn: _Turn) -> None:
        if turn.steered is not None:
            await self._send_all(turn.steered.failures(turn.request.steers, FAILED))

    def _settle(self, request: Request, plan: ResponsePlan) -> None:
        """Remember the response before its last event is out: the next request may be faster."""
        if plan.remembered is None:
            self._lanes.evict(request.lane, request.get("previous_response_id"))
            return
        response_id, output = plan.remembered
        remembered = StoredResponse(response_id, compacted(request.history, output))
        self._lanes.remember(request.lane, remembered, store=request.stores)

    async def _follow_up(
        self, turn: _Turn, plan: ResponsePlan, target: SteerTarget
    ) -> _Turn | None:
        """Say what becomes of the input of a response that has ended; return its successor."""
        lane = turn.request.lane
        if plan.remembered is None or turn.script.steered == "fail":
            await self._send_all(target.failures(target.take(), turn.script.steer_code))
            return None
        if not target.steers:
            return None
        required = required_input(plan.remembered[1])
        if not required:
            request = succeed(target, target.take())
            self._state.requests.append(request)
            return self._begin(request, target, by_itself=True)
        self._steering.waiting[lane] = target
        answered = self._lanes.next_of(lane) is not None
        await self._send_all(target.wait(required, silently=answered))
        return None

    async def _send_all(self, frames: Iterable[Frame]) -> None:
        for frame in frames:
            await self._session.send(frame)

    async def _take_steps(self, steps: Sequence[Step]) -> None:
        for step in steps:
            match step:
                case Drop():
                    await self._session.drop(step.how, step.reason)
                    await trio.sleep_forever()
                case Stall():
                    await trio.sleep(float("inf") if step.seconds is None else step.seconds)
                case Freeze():
                    self._session.freeze()
                    await trio.sleep_forever()
                case SlowDown():
                    self._session.slow_down(step.piece, step.delay)
                case Inject():
                    await self._session.send(step.frame)
                case Hold():
                    await step.until.wait()


def _item_of(frame: Frame, before: int) -> int:
    """Return the index of the output item under way with ``frame``."""
    index = frame.get("output_index") if isinstance(frame, Mapping) else None
    return index if isinstance(index, int) else before


def _interrupts(turn: _Turn, target: SteerTarget) -> bool:
    return bool(target.steers) and turn.script.steered == "interrupt"


def _calls_in(answer: Answer) -> Sequence[Call]:
    full = _in_full(answer)
    return full.calls if isinstance(full, Reply) else ()


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
