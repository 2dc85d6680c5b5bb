"""P12, at random: whatever happens to an owner, the next one has what the last save has.

Owners are killed before and after calls of the store, operations are cancelled at any step, the
store is away before and after its effect, and the server fails. The model of a conversation is its
checkpoint at the moment at which the owner saves: the next owner has the checkpoint of the last
acknowledged save, or of a later one whose outcome the owner did not learn.
"""

import itertools
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import msgspec
import trio
import trio.lowlevel
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.conversation.durable.rig import Canceller, Killed
from tests.conversation.rig import open_steady
from tests.conversation.runs.rig import function_call
from tests.turn.rig import Json, created, ended, item_done
from trio_responses import (
    Conversation,
    ReplayPolicy,
    ResponsesConnection,
    ResponsesError,
    ToolContext,
    function_tool,
)
from trio_responses.stores import (
    ConversationStore,
    LeaseLost,
    MemoryStore,
    RequestSuperseded,
    StoreUnavailable,
)
from trio_responses.testing import Answer, Call, Fail, Reply, Request, open_test_server
from trio_responses.types import OutputItem

TEXT: Final = '{"value": 1}'
FAULTS: Final = ["kill before", "kill after", "away before", "away after", "cancel"]
"""Faults of a call of the store."""
KINDS: Final = ["create", "run", "run", "parse", "stream"]
"""Operations that a request id can name, and a stream."""
OTHERS: Final = [
    *["leave", "steer", "replace", "shorten", "clear", "policy", "fork", "one round"],
    *["repeat", "repeat", "continue", "answer", "warm up", "restart", "restart"],
]
STATE: Final = [
    *["items", "last_response_id", "revision", "replay_policy", "abandoned"],
    *["answers", "interrupted"],
]
"""What two owners have in common, of a checkpoint."""


@dataclass(frozen=True)
class Step:
    """One operation, and what happens to it."""

    kind: str
    named: bool = False
    """Whether the operation has a request id."""
    rounds: Sequence[Sequence[str]] = ()
    """The calls of each response before the last one: the names of their tools."""
    fails_at: int | None = None
    """The number of the response that fails."""
    fault: str | None = None
    fault_at: int = 0
    """The fault of the store, and at which call from now on."""
    cancel_at: int | None = None
    """The number of the step of a task at which the operation is cancelled."""
    pick: int = 0
    """Which of several."""


rarely = st.none() | st.none()
STEPS: Final = st.builds(
    Step,
    kind=st.sampled_from(KINDS) | st.sampled_from(OTHERS),
    named=st.booleans(),
    rounds=st.lists(
        st.lists(st.sampled_from(["work", "work", "handled", "mine", "broken"]), max_size=3),
        max_size=2,
    ),
    fails_at=rarely | st.integers(0, 2),
    fault=st.none() | st.sampled_from(FAULTS),
    fault_at=st.integers(0, 8),
    cancel_at=rarely | st.integers(0, 120),
    pick=st.integers(0, 5),
)


@dataclass
class Known:
    """The states of a conversation that its next owner may have."""

    saved: Json
    """The state at the last acknowledged save."""
    later: list[Json] = field(default_factory=list[Json])
    """The states at later saves, whose outcome is not known."""
    unsent: list[Any] | None = None
    """The unsent input; `None` if the owner did not end well."""


class Owner:
    """The store as one process sees it, with faults."""

    def __init__(self, game: "Game") -> None:
        self._game = game
        self._dead = False
        self.live: dict[str, Conversation] = {}
        """The open conversations by their ids."""

    async def _call(self, name: str, *arguments: Any, **options: Any) -> Any:
        if self._dead:
            raise Killed
        fault = self._game.next_fault()
        conversation = None
        if name == "append":
            conversation_id = arguments[0].conversation_id
            conversation = self.live.get(conversation_id)
            if conversation is not None:
                self._game.known[conversation_id].later.append(state(conversation))
        if fault == "kill before":
            self._dead = True
            raise Killed
        if fault == "cancel":
            self._game.scope.cancel()
        if fault == "away before":
            await trio.lowlevel.checkpoint()
            raise StoreUnavailable(name, 10)
        result = await getattr(self._game.store, name)(*arguments, **options)
        if fault == "kill after":
            self._dead = True
            raise Killed
        if fault == "away after":
            raise StoreUnavailable(name, 10)
        if conversation is not None:
            known = self._game.known[arguments[0].conversation_id]
            known.saved, known.later = known.later[-1], []
        return result

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        if name.startswith("_") or not hasattr(ConversationStore, name):
            raise AttributeError(name)

        async def call(*arguments: Any, **options: Any) -> Any:
            return await self._call(name, *arguments, **options)

        return call


def state(conversation: Conversation) -> Json:
    """Return what the next owner must have."""
    saved = msgspec.json.decode(conversation.checkpoint())
    return {name: saved[name] for name in STATE}


def unsent(conversation: Conversation) -> list[Any]:
    return cast("list[Any]", msgspec.json.decode(conversation.checkpoint())["unsent"])


def texts(items: Sequence[Json]) -> list[str]:
    """Return the inputs of the program in a history."""
    return [item["content"] for item in items if item.get("role") == "user"]


@dataclass
class Asked:
    """A request with an id."""

    kind: str
    text: str
    response_id: str | None = None
    interrupted: bool = False


class Game:
    """Plays the steps of a program, over as many owners as it takes."""

    def __init__(self, connection: ResponsesConnection, store: MemoryStore, mode: Any) -> None:
        self._connection = connection
        self._mode = mode
        self.store = store
        self.known: dict[str, Known] = {}
        self.scope = trio.CancelScope()
        self._canceller = Canceller()
        trio.lowlevel.add_instrument(self._canceller)
        self._fault: str | None = None
        self._fault_at = 0
        self._answers: deque[Answer] = deque()
        self._numbers = itertools.count()
        self._asked: dict[str, Asked] = {}
        self._seen: set[str] = set()
        self._in_fork: str | None = None
        self.sent: Counter[str] = Counter()
        """The requests that the server has got, by their latest input."""
        self.started: Counter[str] = Counter()
        """A ledger of the calls, outside of the conversation."""

        @function_tool
        async def work(context: ToolContext) -> str:
            return await self._work(f"{context.conversation.id}/{context.call_id}")

        async def handle(call: Any) -> str:
            # A fork answers the calls that it was made with as well.
            name = "work" if self._in_fork is None else self._in_fork
            return await self._work(f"{name}/{call.call_id}")

        parameters: Json = {"type": "object", "properties": {}}
        self._tools: list[Any] = [
            work,
            *(
                {"type": "function", "name": name, "parameters": parameters}
                for name in ("handled", "mine")
            ),
        ]
        self._options: dict[str, Any] = {"handlers": {"handled": handle}}

    async def _work(self, key: str) -> str:
        self.started[key] += 1
        await trio.sleep(1)
        return key

    def answer(self, request: Request) -> Answer:
        inputs = texts(request.history)
        assert len(set(inputs)) == len(inputs)
        self.sent[inputs[-1] if inputs else ""] += 1
        return self._answers.popleft() if self._answers else TEXT

    def next_fault(self) -> str | None:
        if self._fault is None:
            return None
        self._fault_at -= 1
        if self._fault_at >= 0:
            return None
        fault, self._fault = self._fault, None
        return fault

    def _prepare(self, step: Step) -> None:
        """Prepare the answers and the faults of a step."""
        self._fault, self._fault_at = step.fault, step.fault_at
        self._answers.clear()
        for number, names in enumerate([*step.rounds, ()]):
            if number == step.fails_at:
                self._answers.append(Fail("server_error", status=400))
            self._answers.append(self._reply(names))

    def _reply(self, names: Sequence[str]) -> Answer:
        number = next(self._numbers)
        if "broken" in names:
            item = function_call("work")
            del item["call_id"]
            response_id = f"resp_broken_{number}"
            return [created(response_id), item_done(item, 0), ended([item], response_id)]
        calls = [Call(name, {}, call_id=f"{number}-{at}") for at, name in enumerate(names)]
        return Reply(None if calls else TEXT, calls=calls)

    # --- Owners --------------------------------------------------------------------------

    async def play(self, steps: Sequence[Step]) -> None:
        left = deque(steps)
        while left:
            await self._own(left)
        self._fault = None
        self._answers.clear()
        self._canceller.start(self.scope, None)
        await self._finish()

    async def _own(self, left: deque[Step]) -> None:
        """Own the conversation until a restart, or until the process is killed."""
        owner = Owner(self)
        clean = False
        try:
            with trio.CancelScope() as self.scope:
                async with self._open(owner, "work") as conversation:
                    clean = await self._take_steps(conversation, owner, left)
                    left_unsent = unsent(conversation)
                if clean and "work" in self.known and not self.known["work"].later:
                    self.known["work"].unsent = left_unsent
        except* (Killed, StoreUnavailable):
            pass
        for name in owner.live:
            if name != "work" and not clean:
                self.known[name].unsent = None

    def _open(self, owner: Owner, name: str) -> Any:
        return self._connection.durable_conversation(
            cast("ConversationStore", owner),
            name,
            model="m",
            tools=self._tools,
            wait=1000,
            on_interrupted_call=self._mode,
        )

    async def _take_steps(
        self, conversation: Conversation, owner: Owner, left: deque[Step]
    ) -> bool:
        self._check(conversation, "work")
        owner.live["work"] = conversation
        self.known["work"] = Known(state(conversation))
        while left:
            step = left.popleft()
            self._prepare(step)
            if step.kind == "restart":
                self._canceller.start(self.scope, step.cancel_at)
                return True
            with trio.CancelScope() as self.scope:
                self._canceller.start(self.scope, step.cancel_at)
                try:
                    await self._take(conversation, owner, step)
                except LeaseLost:
                    raise
                except ResponsesError:
                    pass
            self._canceller.start(self.scope, None)
            self._seen |= {*texts(state(conversation)["items"])}
        self._fault = None
        return True

    def _check(self, conversation: Conversation, name: str) -> None:
        """Check that a new owner has what the one before has saved."""
        found, known = state(conversation), self.known.get(name)
        assert len(set(texts(found["items"]))) == len(texts(found["items"]))
        self._seen |= {*texts(found["items"])}
        if known is None:
            assert (found["items"], found["revision"]) == ([], 0)
            return
        expected = [known.saved, *known.later]
        if self._mode == "rerun":
            for one in [found, *expected]:
                one.pop("answers", None)
                one.pop("interrupted", None)
        assert found in expected
        if known.unsent is not None:
            assert unsent(conversation) == known.unsent

    async def _finish(self) -> None:
        """Check what is left, with an owner to whom nothing happens."""
        for name in list(self.known) or ["work"]:
            owner = Owner(self)
            async with self._open(owner, name) as conversation:
                self._check(conversation, name)
                owner.live[name] = conversation
                self.known[name] = Known(state(conversation))
                if name == "work":
                    for request_id in self._asked:
                        for _ in range(2):
                            await self._repeat(conversation, request_id)
                await conversation.create(f"last {name}", temperature=0.5)  # full input
                items = state(conversation)["items"]
                assert len(set(texts(items))) == len(texts(items))
        if self._mode == "report":
            assert all(count == 1 for count in self.started.values())

    # --- Steps ---------------------------------------------------------------------------

    async def _take(  # noqa: C901, PLR0912 - a table of the steps
        self, conversation: Conversation, owner: Owner, step: Step
    ) -> None:
        """Take one step with a conversation."""
        known, name = self.known["work"], step.kind
        text = f"input {next(self._numbers)}"
        match name:
            case "create" | "run" | "parse":
                if step.named:
                    request_id = f"request {len(self._asked)}"
                    self._asked[request_id] = Asked(name, text)
                    await self._ask(conversation, request_id)
                else:
                    await self._send(conversation, name, text)
                assert text in texts(known.saved["items"])
            case "stream":
                async with conversation.stream(text) as stream:
                    await stream.get_final_response()
                assert text in texts(known.saved["items"])
            case "repeat" if self._asked:
                asked = list(self._asked)
                await self._repeat(conversation, asked[step.pick % len(asked)])
            case "one round":
                await conversation.run(text, max_rounds=1, **self._options)
            case "continue":
                await conversation.run(**self._options)
            case "answer":
                outputs: list[Any] = [
                    {"type": "function_call_output", "call_id": call.call_id, "output": text}
                    for call in mine(conversation.items)
                ]
                if outputs:
                    await conversation.run(outputs, **self._options)
            case "leave":
                async with conversation.stream(text) as stream:
                    async for _ in stream:
                        break
            case "steer":
                async with conversation.stream(text) as stream:
                    steered = False
                    async for event in stream:
                        if event.type == "response.output_text.delta" and not steered:
                            await stream.steer(f"{text}, but soon")
                            steered = True
            case "fork":
                fork_id = f"fork {next(self._numbers)}"
                fork = await conversation.fork(fork_id)
                owner.live[fork_id] = fork
                self.known[fork_id] = Known(state(fork))
                self._in_fork = fork_id
                try:
                    await fork.run(text, **self._options)
                finally:
                    self._in_fork = None
            case _:
                await self._change(conversation, step)

    async def _change(self, conversation: Conversation, step: Step) -> None:
        """Change a conversation without a turn, or with one without output."""
        match step.kind:
            case "replace":
                await conversation.replace_history(conversation.raw_items)
            case "shorten":
                await conversation.replace_history(conversation.input_items[:1])
            case "clear":
                await conversation.clear_history()
            case "policy":
                conversation.replay_policy = ReplayPolicy(max_items=100 + step.pick)
            case "warm up":
                await conversation.warm_up()
            case _:
                pass

    async def _send(
        self, conversation: Conversation, kind: str, text: str, request_id: str | None = None
    ) -> str:
        """Send an input; return the id of the response."""
        match kind:
            case "create":
                response = await conversation.create(text, request_id=request_id)
            case "run":
                response = await conversation.run(text, request_id=request_id, **self._options)
            case _:
                parsed = await conversation.parse(
                    dict[str, int], text, request_id=request_id, **self._options
                )
                response = parsed.response
        return response.id

    async def _ask(self, conversation: Conversation, request_id: str) -> None:
        asked = self._asked[request_id]
        asked.response_id = await self._send(conversation, asked.kind, asked.text, request_id)

    async def _repeat(self, conversation: Conversation, request_id: str) -> None:
        """Repeat a request, and compare with what is known about it."""
        asked = self._asked[request_id]
        sent = self.sent[asked.text]
        before = asked.response_id
        self._seen |= {*texts(state(conversation)["items"])}
        for one in self.known["work"].later:
            self._seen |= {*texts(one["items"])}
        try:
            await self._ask(conversation, request_id)
        except RequestSuperseded:
            assert before is None
            assert asked.text in self._seen
            assert self.sent[asked.text] == sent
            asked.interrupted = True
        except LeaseLost:
            raise
        except ResponsesError:
            asked.response_id = before
        else:
            assert not asked.interrupted
            if before is not None:
                assert (asked.response_id, self.sent[asked.text]) == (before, sent)


def mine(items: Sequence[OutputItem]) -> list[Any]:
    """Return the calls of the program that have no output."""
    answered = {item.call_id for item in items if item.type == "function_call_output"}
    return [
        item
        for item in items
        if item.type == "function_call" and item.name == "mine" and item.call_id not in answered
    ]


@settings(deadline=None, max_examples=40)
@given(steps=st.lists(STEPS, max_size=12), mode=st.sampled_from(["report", "report", "rerun"]))
def test_the_next_owner_has_what_the_last_save_has(steps: list[Step], mode: str) -> None:
    async def bounded() -> None:
        with trio.fail_after(100_000):
            async with (
                open_test_server(max_age=None, lanes=False) as server,
                open_steady(server) as connection,
                MemoryStore() as store,
            ):
                game = Game(connection, store, mode)
                server.respond_with(game.answer)
                await game.play(steps)
                assert server.errors == []

    trio.run(bounded, clock=MockClock(autojump_threshold=0))
