"""The runner of the responses of one connection: sends the frames that answer each request.

Requests of a lane run one after another. When a request starts, the runner looks up its parent and
takes its script, so that scripts go to requests in the order in which they start. A response is
stored before its last frame goes out, since the next request may arrive right after that frame.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import trio

from trio_responses._wire import qualified_name
from trio_responses.testing._frames import (
    Frame,
    RequestRefusal,
    error_frame,
    previous_response_not_found,
)
from trio_responses.testing._history import EMPTY_HISTORY, History, history_after
from trio_responses.testing._item_checks import learn_names
from trio_responses.testing._item_order_checks import check_order
from trio_responses.testing._records import Request
from trio_responses.testing._request_checks import check_create
from trio_responses.testing._response_plans import (
    ResponsePlan,
    iterate_output_items,
    plan_failure,
    plan_raw,
    plan_reply,
)
from trio_responses.testing._script_checks import describe_unoffered_call
from trio_responses.testing._scripts import (
    AddHeaders,
    Answer,
    Call,
    Cut,
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
from trio_responses.testing._state import ResponseSink, ServerLanes, ServerState
from trio_responses.testing._steering import (
    FAILED,
    SteeringState,
    SteerTarget,
    make_successor,
    required_input,
)
from trio_responses.testing._stored import RetrievableResponse, StoredResponse

_log: Final = logging.getLogger(__name__)

_NOT_STARTED: Final = ("error", "response.failed")
"""A response whose first event is one of these never starts."""


@dataclass(slots=True)
class _StartedRequest:
    """A request that has left its queue, with the script or refusal that was chosen for it."""

    request: Request
    script: Script
    cached: int = 0
    """The number of words of the history that are in the cache of the connection."""
    refusal: RequestRefusal | None = None
    parent: SteerTarget | None = None
    """The response whose steering input this request commits or makes fail."""
    is_successor: bool = False
    """Whether steering created the request, without a ``response.create`` by the client."""
    kept: RetrievableResponse = field(init=False)
    """The response, to be retrieved if the request stores it."""

    def __post_init__(self) -> None:
        self.kept = RetrievableResponse(self.request)


class ResponseRunner:
    """The runner of the requests of one connection, one at a time in each lane (``stream_id``)."""

    def __init__(
        self,
        connection: ResponseSink,
        state: ServerState,
        lanes: ServerLanes[Request],
        steering: SteeringState,
    ) -> None:
        self._connection = connection
        self._state = state
        self._lanes = lanes
        self._steering = steering

    def start_queued_requests(self, nursery: trio.Nursery) -> None:
        """Start the queued requests whose lanes (``stream_id``) are free, up to the limit."""
        while (request := self._lanes.start_next()) is not None:
            self._connection.record.max_active = self._lanes.max_active
            parent = self._steering.waiting.pop(request.lane, None)
            outlives = self._state.outlives_connection(request)
            home = self._state.nursery if outlives else nursery
            home.start_soon(self._run_lane, self._start(request, parent), nursery)

    async def run_alone(self, request: Request) -> None:
        """Answer a request that shares no connection with others, as over HTTP."""
        self._lanes.enqueue(request.lane, request)
        self._lanes.start_next()
        await self._respond(self._start(request, None))

    def _start(
        self, request: Request, parent: SteerTarget | None, *, is_successor: bool = False
    ) -> _StartedRequest:
        self._state.count_start()
        started = _StartedRequest(request, Script(), parent=parent, is_successor=is_successor)
        parent_id: str | None = request.get("previous_response_id")
        if parent is not None and parent_id == parent.id:
            request.steers = request.steers or parent.take_steers()
        replayed = self._state.take_replay_script(request)
        if replayed is None:
            options = self._state.options
            started.refusal = check_create(
                request.body,
                strict=options.strict,
                unknown_parameters=options.unknown_parameters,
                names=self._state.sent_names,
                transport=request.transport,
            )
        if started.refusal is not None:
            return started
        stored = None if parent_id is None else self._lanes.find(parent_id)
        if parent_id is not None and stored is None and replayed is None:
            hint = self._state.stored.has_dropped
            started.refusal = previous_response_not_found(parent_id, may_be_dropped=hint)
            return started
        past = EMPTY_HISTORY if stored is None else stored.history
        steers = () if is_successor else request.steers
        queued = [item for steer in steers for item in steer.input_items]
        conversation = History([*queued, *request.input_items], past)
        if replayed is None and self._state.options.strict:
            started.refusal = check_order(request.body, past, conversation)
            if started.refusal is not None:
                return started
        request.conversation = conversation
        request.response_id = self._state.ids.new("resp")
        started.script = replayed or self._state.take_script(request)
        started.cached = past.words
        return started

    async def _run_lane(self, started: _StartedRequest, nursery: trio.Nursery) -> None:
        """Run a request and the successors that steering creates, then free the lane."""
        lane = started.request.lane
        try:
            current: _StartedRequest | None = started
            while current is not None:
                current = await self._respond(current)
        finally:
            self._lanes.finish(lane)
        if self._connection.is_closed:
            return
        self.start_queued_requests(nursery)
        if started.script.delayed_close is not None:
            nursery.start_soon(self._close_later, started.script.delayed_close)

    async def _close_later(self, delayed: DelayedClose) -> None:
        """End the connection after some idle time, unless another request arrives."""
        for answered in delayed.others:
            await answered.wait()
        requests = self._connection.record.requests
        await trio.sleep(delayed.seconds)
        if not self._lanes.active and self._connection.record.requests == requests:
            await self._connection.drop(delayed.end.how, delayed.end.reason)

    async def _respond(self, started: _StartedRequest) -> _StartedRequest | None:
        """Answer one request, and return the successor that steering creates, or None."""
        is_cancelled = True
        try:
            with started.kept.scope:
                successor = await self._send_response(started)
                is_cancelled = False
                return successor
        finally:
            started.kept.end(cancelled=is_cancelled)
        return None

    async def _send_response(self, started: _StartedRequest) -> _StartedRequest | None:
        sent = None
        try:
            if started.parent is not None and started.parent.steers:
                # The request does not continue the response that the inputs wait for.
                await self._send_all(
                    started.parent.failed_events(started.parent.take_steers(), FAILED)
                )
            if started.refusal is not None:
                await self._refuse(started, started.refusal)
                return None
            plan = await self._plan(started)
            response_id = plan.response_id or started.request.response_id or ""
            target = self._steering.add_target(response_id, started.request)
            try:
                sent = await self._send_plan(started, plan, target)
            finally:
                started.script.finished.set()
        finally:
            self._state.count_end(succeeded=sent is not None and sent.stored is not None)
        return None if sent is None else await self._settle_steers(started, sent, target)

    async def _refuse(self, started: _StartedRequest, refusal: RequestRefusal) -> None:
        request = started.request
        await self._fail_steers(started)
        if not started.is_successor:
            self._lanes.evict(request.lane, request.get("previous_response_id"))
            await self._connection.send(error_frame(refusal, lane=request.lane))

    async def _plan(self, started: _StartedRequest) -> ResponsePlan:
        state, now, request = self._state, self._state.now(), started.request
        answer = started.script.answer
        if isinstance(answer, Recorded):
            return self._plan_raw(answer.on(request.lane))
        if answer is not None:
            calls = [call for call in _calls_in(answer) if not call.unoffered]
            names = [qualified_name(call.name, call.namespace) for call in calls]
            mistake = describe_unoffered_call(names, request)
            if mistake is not None:
                answer = self._record_crash(AssertionError(mistake), mistake)
        elif request.is_warm_up:
            answer = Reply()
        else:
            try:
                answer = await state.respond(request)
                check_answer(answer)
            except Exception as error:  # noqa: BLE001 - a responder is code of the test
                answer = self._record_crash(error, f"The responder raised {type(error).__name__}.")
        match _expand_answer(answer):
            case Fail() as fail:
                return plan_failure(request, fail, ids=state.ids, now=now)
            case Reply() as reply:
                return plan_reply(request, reply, ids=state.ids, now=now, cached=started.cached)
            case frames:
                return self._plan_raw(frames)

    def _plan_raw(self, frames: Sequence[Frame]) -> ResponsePlan:
        """Return the plan that sends raw frames, and learn the names in their output items."""
        for item in iterate_output_items(frames):
            learn_names(item, self._state.sent_names)
        return plan_raw(frames)

    def _record_crash(self, error: Exception, message: str) -> Fail:
        """Record a mistake of the test, and return the answer to its request: an error."""
        _log.debug("the request ends in an error: its responder or script failed", exc_info=error)
        self._state.errors.append(error)
        return Fail(message=message)

    async def _send_plan(
        self, started: _StartedRequest, plan: ResponsePlan, target: SteerTarget
    ) -> ResponsePlan | None:
        """Send the frames of a plan, and return the plan as sent, or None if cut off."""
        total, item = len(plan.frames), -1
        for sent, frame in enumerate(plan.frames):
            await self._run_steps(started.request, started.script.steps_at(sent, total))
            if plan.delay and sent:
                await trio.sleep(plan.delay)
            if self._is_lost(started.request) or (
                sent == 0 and not await self._commit_steers(started, frame, target)
            ):
                return None
            before, item = item, _output_index(frame, item)
            if item > before and plan.cut is not None and _is_interrupted(started, target):
                plan = plan.cut(item)
                await self._send_planned(started, plan, plan.frames[-1], target)
                break
            await self._send_planned(started, plan, frame, target, last=sent == total - 1)
        await self._run_steps(started.request, started.script.steps_at(total, total))
        return plan

    def _is_lost(self, request: Request) -> bool:
        """Whether a response ends here because its connection has ended."""
        return self._connection.is_closed and not self._state.outlives_connection(request)

    async def _send_planned(
        self,
        started: _StartedRequest,
        plan: ResponsePlan,
        frame: Frame,
        target: SteerTarget,
        *,
        last: bool = True,
    ) -> None:
        if last:
            self._store(started.request, plan)
            target.close_unless_steered()
        if plan.is_raw:
            target.continue_numbers_after(frame)
        else:
            frame = target.number_frame(frame)
        self._keep(started, frame)
        await self._connection.send(frame)

    def _keep(self, started: _StartedRequest, frame: Frame) -> None:
        """Record an event of a response; from the first one on, the response can be retrieved."""
        kept = started.kept
        is_new = kept.response is None
        kept.add(frame)
        if is_new and kept.response is not None and started.request.stores:
            self._state.stored.keep(str(kept.response.get("id")), kept)

    async def _commit_steers(
        self, started: _StartedRequest, frame: Frame, target: SteerTarget
    ) -> bool:
        """Commit the steering input of a request or make it fail, depending on its first event.

        :return: Whether to send the response.
        """
        if isinstance(frame, Mapping) and frame.get("type") in _NOT_STARTED:
            await self._fail_steers(started)
            return not started.is_successor
        for steer in started.request.steers:
            steer.state, steer.successor = "committed", target.id
        return True

    async def _fail_steers(self, started: _StartedRequest) -> None:
        if started.parent is not None:
            await self._send_all(started.parent.failed_events(started.request.steers, FAILED))

    def _store(self, request: Request, plan: ResponsePlan) -> None:
        if plan.stored is None:
            self._lanes.evict(request.lane, request.get("previous_response_id"))
            return
        response_id, output = plan.stored
        response = StoredResponse(response_id, history_after(request.conversation, output))
        self._lanes.save(request.lane, response, store=request.stores)

    async def _settle_steers(
        self, started: _StartedRequest, plan: ResponsePlan, target: SteerTarget
    ) -> _StartedRequest | None:
        """Send the steering events at the end of a response, and return its successor or None."""
        lane = started.request.lane
        if plan.stored is None or started.script.steered == "fail":
            await self._send_all(
                target.failed_events(target.take_steers(), started.script.steer_code)
            )
            return None
        if not target.steers:
            return None
        required = required_input(plan.stored[1])
        if not required:
            request = make_successor(target, target.take_steers())
            self._state.requests.append(request)
            return self._start(request, target, is_successor=True)
        self._steering.waiting[lane] = target
        # The server sends no event for inputs whose tool outputs have arrived already.
        is_answered = self._lanes.next_request(lane) is not None
        await self._send_all(target.start_waiting(required, silently=is_answered))
        return None

    async def _send_all(self, frames: Iterable[Frame]) -> None:
        for frame in frames:
            await self._connection.send(frame)

    async def _run_steps(self, request: Request, steps: Sequence[Step]) -> None:
        for step in steps:
            match step:
                case Drop():
                    await self._connection.drop(step.how, step.reason)
                    if not self._state.outlives_connection(request):
                        await trio.sleep_forever()
                case Stall():
                    await trio.sleep(float("inf") if step.seconds is None else step.seconds)
                case Freeze():
                    self._connection.freeze()
                    if not self._state.outlives_connection(request):
                        await trio.sleep_forever()
                case Inject():
                    await self._connection.send(step.frame)
                case Hold():
                    await step.until.wait()
                case _:
                    _change(self._connection, step)


def _change(connection: ResponseSink, step: Cut | AddHeaders | SlowDown) -> None:
    """Take a step that changes how the next events are written."""
    match step:
        case Cut():
            connection.cut_after(step.size, step.how)
        case AddHeaders():
            connection.add_headers(step.headers)
        case SlowDown():
            connection.slow_down(step.piece, step.delay)


def _output_index(frame: Frame, before: int) -> int:
    """Return the ``output_index`` of ``frame``, or ``before`` if the frame has none."""
    index = frame.get("output_index") if isinstance(frame, Mapping) else None
    return index if isinstance(index, int) else before


def _is_interrupted(started: _StartedRequest, target: SteerTarget) -> bool:
    return bool(target.steers) and started.script.steered == "interrupt"


def _calls_in(answer: Answer) -> Sequence[Call]:
    full = _expand_answer(answer)
    return full.calls if isinstance(full, Reply) else ()


def _expand_answer(answer: Answer) -> Reply | Fail | Sequence[Frame]:
    """Return an answer without its short forms: text, a call, and a list of calls."""
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
