"""The property of response shapes: a conversation does what the reference model says.

Each turn is taken with the library and in the model. The Response, the calls that ran, the history,
and the input of each request have to be equal, and every history has to be accepted by a strict
server on a new socket: as it is, from a checkpoint, and in a fork.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio
from trio.testing import MockClock

from tests.fuzz import model as book
from tests.fuzz.shapes import ItemShape, ResponseShape, text_part
from tests.turn.rig import STEADY
from trio_responses import Namespace, ResponsesError, function_tool
from trio_responses.testing import open_test_server
from trio_responses.types import CustomTool

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fuzz.shapes import ConversationShape, TurnShape
    from trio_responses import Conversation, ResponsesConnection
    from trio_responses.testing import Request, ResponsesServer
    from trio_responses.types import Response

Json = Any
A_LONG_TIME: Final = 10_000.0
NO_RESPONSE: Final = ("ResponseFailedError", "UndecodableCall")


class Answer(msgspec.Struct):
    """The answer that ``parse`` asks for."""

    n: int


class Plain:
    """Responses without calls, for requests after those that the shape has."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self) -> ResponseShape:
        """Return the next response."""
        self.number += 1
        item: Json = {
            "type": "message",
            "id": f"msg_plain_{self.number}",
            "role": "assistant",
            "content": [text_part('{"n":3}')],
            "status": "completed",
        }
        shape = ItemShape(item, done=item, final=item)
        return ResponseShape(f"resp_plain_{self.number}", (shape,))


class Play:
    """One conversation over a strict server, beside its model."""

    def __init__(self, server: ResponsesServer, shape: ConversationShape) -> None:
        self.server = server
        self.shape = shape
        self.left = list(shape.responses)
        self.plain = Plain()
        self.served: list[book.Served] = []
        self.ran: list[tuple[str, Json]] = []
        self.ended: set[tuple[int, str | None]] = set()
        """The sockets and lanes on which a response has ended."""
        server.respond_with(self.respond)

        @function_tool
        async def delete(path: str, force: bool = True) -> str:  # noqa: FBT001, FBT002 - a tool
            self.ran.append(("delete", {"path": path, "force": force}))
            return "ran delete"

        @function_tool
        async def add(number: int) -> str:
            self.ran.append(("add", {"number": number}))
            return "ran add"

        @function_tool(name="delete")
        async def delete_customer(number: int) -> str:
            self.ran.append(("crm.delete", {"number": number}))
            return "ran crm.delete"

        self.tools: list[Any] = [
            delete,
            add,
            Namespace("crm", [delete_customer]),
            CustomTool(name="sql"),
        ]
        self.handlers = {
            "sql": self.handler("sql", "ran sql"),
            "shell_call": self.handler("shell_call", book.SHELL),
            "computer_call": self.handler("computer_call", book.SCREENSHOT),
            "mcp_approval_request": self.handler("mcp_approval_request", True),  # noqa: FBT003
        }

    def handler(self, name: str, result: Json) -> Callable[[Any], Any]:
        """Return a handler that records its calls."""

        async def handle(call: Any) -> Json:
            self.ran.append((name, call.input if name == "sql" else None))
            return result

        return handle

    def respond(self, request: Request) -> Json:
        """Return the frames for the next request that the server accepts."""
        shape = self.left.pop(0) if self.left else self.plain()
        self.served.append((shape, request.get("previous_response_id") is not None))
        place = (request.connection, request.lane)
        follows = place in self.ended
        if shape.created:
            self.ended.add(place)
        return shape.frames(request.lane, follows=follows)

    # --- Turns ------------------------------------------------------------------------------

    async def take_turn(
        self, conversation: Conversation, expected: book.Model, turn: TurnShape, text: str
    ) -> None:
        """Take one turn on both sides, and compare."""
        self.served.clear()
        self.ran.clear()
        expected.ran.clear()
        expected.sent.clear()
        already = len(self.server.requests)
        failure: ResponsesError | None = None
        response: Response | None = None
        value: Json = None
        try:
            response, value = await self.call(conversation, turn, text)
        except ResponsesError as error:
            failure = error
            response = getattr(error, "response", None)
        shapes = iter(list(self.served))
        output: list[Json] = []
        last: ResponseShape | None = None
        reason = ""
        try:
            if turn.method in {"run", "parse"}:
                output, last = expected.run(text, lambda: next(shapes), turn.model)
            else:
                served = next(shapes)
                last = served[0]
                output = expected.turn([book.user(text)], served, turn.model)
            if turn.method == "parse":
                reason, number = book.parsed(output, complete=last.outcome == "completed")
                assert reason or value == number
        except book.Failed as failed:
            reason = failed.kind
        except StopIteration:
            raise AssertionError(f"the server refused it, or no request: {failure!r}") from failure
        found = type(failure).__name__ if failure is not None else ""
        assert found == reason, (found, reason, failure)
        assert next(shapes, None) is None, "more requests than expected"
        assert self.ran == expected.ran
        if last is not None and response is not None and reason not in NO_RESPONSE:
            compare_response(response, output, last)
        assert decoded(conversation.raw_items) == expected.items
        requests = self.server.requests[already:]
        assert len(requests) == len(expected.sent)
        for request, sent in zip(requests, expected.sent, strict=True):
            parent = request.get("previous_response_id")
            assert parent in {None, sent.parent}
            right = sent.new if parent is not None else sent.full + sent.new
            assert request.input_items == right, f"{request.input_items}\n{right}"

    async def call(self, conversation: Conversation, turn: TurnShape, text: str) -> Json:
        """Take a turn with the library; return the Response and the value of ``parse``."""
        if turn.method == "create":
            return await conversation.create(text, model=turn.model), None
        if turn.method == "stream":
            async with conversation.stream(text, model=turn.model) as stream:
                return await stream.get_final_response(), None
        options: Json = {"handlers": self.handlers, "tools": self.tools, "model": turn.model}
        if turn.method == "run":
            return await conversation.run(text, **options), None
        answer = await conversation.parse(Answer, text, **options)
        return answer.response, answer.parsed.n

    # --- The conversation -------------------------------------------------------------------

    async def play(self, connection: ResponsesConnection) -> None:
        """Take all turns, and compare after each one."""
        store = self.shape.store
        expected = book.Model(store)
        async with connection.conversation(
            model="m", store=store, tools=self.tools
        ) as conversation:
            for number, turn in enumerate(self.shape.turns):
                if turn.before == "reset":
                    await self.server.reset_all()
                if turn.before == "fork":
                    fork, copied = await conversation.fork(), expected.copy()
                    await self.take_turn(fork, copied, turn, f"fork {number}")
                    continue
                if turn.before == "restore":
                    saved = conversation.checkpoint()
                    async with connection.restore_conversation(saved) as restored:
                        copied = expected.copy()
                        assert decoded(restored.raw_items) == copied.items
                        await self.take_turn(restored, copied, turn, f"restored {number}")
                    continue
                await self.take_turn(conversation, expected, turn, f"turn {number}")
            await self.check_replays(connection, conversation)

    async def check_replays(
        self, connection: ResponsesConnection, conversation: Conversation
    ) -> None:
        """Check that a strict server accepts the history on a new socket, in all three ways."""
        self.left.clear()
        fork = await conversation.fork()
        saved = conversation.checkpoint()
        replaced = await conversation.fork()
        await replaced.replace_history(conversation.raw_items)
        async with connection.restore_conversation(saved) as restored:
            await self.server.reset_all()
            if self.shape.store:
                self.server.forget_all()
            for each in (conversation, fork, restored, replaced):
                await each.create("And now?")
                assert self.server.requests[-1].get("previous_response_id") is None
            await conversation.create("And then?")
            assert self.server.requests[-1].get("previous_response_id") is not None


def decoded(items: tuple[msgspec.Raw, ...]) -> list[Json]:
    """Return raw items as JSON values."""
    return [json.loads(bytes(raw)) for raw in items]


def compare_response(response: Response, output: list[Json], shape: ResponseShape) -> None:
    """Compare a Response with the one of the model."""
    assert response.status == shape.outcome
    assert decoded(tuple(response.raw_output or ())) == output
    messages = [item for item in output if book.is_message(item)]
    assert response.output_text == "".join(map(book.text_of, messages))
    assert response.final_text == "".join(map(book.text_of, book.answers_in(output)))


def check_conversation(shape: ConversationShape) -> None:
    """P7: whatever shapes the responses have, the conversation does what the model says."""

    async def bounded() -> None:
        with trio.fail_after(A_LONG_TIME):
            async with open_test_server(max_age=None) as server:
                play = Play(server, shape)
                async with server.open_client(reconnect=STEADY) as connection:
                    await play.play(connection)
                assert server.errors == []

    trio.run(bounded, clock=MockClock(autojump_threshold=0))
