"""What the tests of runs are written in: models that call, raw calls, what was answered."""

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
    """A tool that counts how often each of its calls runs; calls of one round end in reverse."""

    def __init__(self) -> None:
        self.runs: Counter[tuple[int, int]] = Counter()
        self.active = 0
        self.most = 0
        """The most that were active at once."""

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
    """Give the calls of one round."""
    return [
        Call("work", {"round": round_number, "number": number}, call_id=f"{round_number}-{number}")
        for number in range(at_once)
    ]


def keep_calling(rounds: int, at_once: int) -> Callable[[Request], Answer]:
    """Play a model that calls for some rounds, and answers then. It knows the history alone."""

    def answer(request: Request) -> Answer:
        answered = sum(item["type"] == "function_call_output" for item in request.history)
        done = answered // at_once
        return calls_of(done, at_once) if done < rounds else DONE

    return answer


def outputs(request: Request) -> list[Any]:
    """Give the outputs that a request carries, in order."""
    return [item["output"] for item in request.input_items if item["type"].endswith("_output")]


def answers(request: Request) -> list[Json]:
    """Give the items of a request that answer calls."""
    return [item for item in request.input_items if item["type"].endswith(("_output", "_response"))]


def is_paired(items: Sequence[Json]) -> bool:
    """Say whether each call of a history is answered once, in order, before the model goes on."""
    owed: list[str] = []
    for item in items:
        match item["type"]:
            case "function_call":
                owed.append(item["call_id"])
            case "function_call_output":
                if not owed or owed.pop(0) != item["call_id"]:
                    return False
            case _:
                if owed:
                    return False
    return not owed


def say_raw(
    server: ResponsesServer, *output: Json, status: str = "completed", reason: str | None = None
) -> None:
    """Answer the next request with these very items: on the default lane, under a new id."""
    response_id = "_".join(["resp_raw", *(str(item.get("id")) for item in output)])
    done = [item_done(item, index) for index, item in enumerate(output)]
    last = ended(output, response_id, status)
    if reason is not None:
        last["response"]["incomplete_details"] = {"reason": reason}
    server.answer([created(response_id), *done, last])


def function_call(name: str, arguments: str = "{}", call_id: str = "call_1", **more: Any) -> Json:
    """Give a call as an item."""
    fields = {"id": f"fc_{call_id}", "call_id": call_id, "name": name, "arguments": arguments}
    return {"type": "function_call", "status": "completed", **fields, **more}
