"""Helpers for the tests of runs: models that call tools, raw calls, and the outputs sent."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import trio

from tests.turn.rig import Json, created, ended, item_done
from trio_responses import function_tool
from trio_responses.testing import Answer, Call, Request, ResponsesServer

if TYPE_CHECKING:
    from trio_responses import FunctionTool

WEATHER = Call("weather", {"city": "Oslo"}, call_id="call_1")
DONE = "All done."


class Worker:
    """A tool that counts how often each call runs. Calls of one round end in reverse order."""

    def __init__(self) -> None:
        self.runs: Counter[tuple[int, int]] = Counter()
        self.active = 0
        self.most = 0
        """The largest number of calls that were active at the same time."""

        @function_tool
        async def work(round: int, number: int) -> str:  # noqa: A002 - the model's word
            self.runs[round, number] += 1
            self.active += 1
            self.most = max(self.most, self.active)
            try:
                await trio.sleep((10 - number) / 100)
            finally:
                self.active -= 1
            return f"{round}/{number}"

        self.tool: FunctionTool[..., Any] = work


def calls_of(round_number: int, at_once: int) -> list[Call]:
    """Return the calls of one round."""
    return [
        Call("work", {"round": round_number, "number": number}, call_id=f"{round_number}-{number}")
        for number in range(at_once)
    ]


def keep_calling(rounds: int, at_once: int) -> Callable[[Request], Answer]:
    """Return a responder that calls for some rounds, then answers. It has no state."""

    def answer(request: Request) -> Answer:
        answered = sum(item["type"] == "function_call_output" for item in request.history)
        done = answered // at_once
        return calls_of(done, at_once) if done < rounds else DONE

    return answer


def outputs(request: Request) -> list[Any]:
    """Return the outputs in the input of a request, in order."""
    return [item["output"] for item in request.input_items if item["type"].endswith("_output")]


def answers(request: Request) -> list[Json]:
    """Return the output items in the input of a request, in order."""
    return [item for item in request.input_items if item["type"].endswith(("_output", "_response"))]


def is_paired(items: Sequence[Json]) -> bool:
    """Whether each call has one output, in order, before the next item of the model."""
    pending: list[str] = []
    for item in items:
        match item["type"]:
            case "function_call":
                pending.append(item["call_id"])
            case "function_call_output":
                if not pending or pending.pop(0) != item["call_id"]:
                    return False
            case _:
                if pending:
                    return False
    return not pending


def say_raw(
    server: ResponsesServer, *output: Json, status: str = "completed", reason: str | None = None
) -> None:
    """Answer the next request with these raw items, on the default lane."""
    response_id = "_".join(["resp_raw", *(str(item.get("id")) for item in output)])
    done = [item_done(item, index) for index, item in enumerate(output)]
    last = ended(output, response_id, status)
    if reason is not None:
        last["response"]["incomplete_details"] = {"reason": reason}
    server.answer([created(response_id), *done, last])


def function_call(name: str, arguments: str = "{}", call_id: str = "call_1", **more: Any) -> Json:
    """Return a function call as an item."""
    fields = {"id": f"fc_{call_id}", "call_id": call_id, "name": name, "arguments": arguments}
    return {"type": "function_call", "status": "completed", **fields, **more}
