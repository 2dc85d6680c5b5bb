"""An agent with tools: the model calls typed functions and methods until it can answer.

The calls of one response run at the same time. An exception of a tool is sent to the model, which
can try something else. A call starts at most once, also after a reconnect.

Run it: ``python -m examples.agent "Is it warmer in Oslo or in Paris?"``.
"""
# ruff: noqa: T201 - this program prints its results

from argparse import Namespace
from dataclasses import dataclass
from typing import Literal

import trio

from examples.server import argument_parser, open_server
from trio_responses import ModelRetry, ToolFinished, ToolStarted, function_tool, open_responses
from trio_responses.testing import Call, Reply, Request
from trio_responses.types import OutputTextDelta


@dataclass
class Weather:
    """The weather at a station, which is sent to the model as JSON."""

    degrees: float
    sky: str


class Stations:
    """Stations by city. A method is a tool of its object, here of ``STATIONS``."""

    def __init__(self, now: dict[str, Weather]) -> None:
        self.now = now

    @function_tool(max_retries=3)
    async def get_weather(self, city: str) -> Weather:
        """Tell the weather in a city, now.

        :param city: its English name, without the country.
        """
        await trio.sleep(0.2)  # a real tool would send a request
        if city not in self.now:
            raise ModelRetry(f"There is no station in {city}. Choose one of {', '.join(self.now)}.")
        return self.now[city]


STATIONS = Stations({"Oslo": Weather(-4.0, "snow"), "Paris": Weather(12.0, "rain")})


@function_tool
def convert(degrees: float, to: Literal["fahrenheit", "kelvin"]) -> float:
    """Convert degrees Celsius; it runs in a thread, as every function that is not async."""
    return degrees * 9 / 5 + 32 if to == "fahrenheit" else degrees + 273.15


def play_model(request: Request) -> Reply:
    """Return the answers of the embedded server: two calls, one more, then a text."""
    rounds = sum(item.get("type") == "function_call_output" for item in request.history)
    if rounds == 0:
        return Reply(calls=[Call("get_weather", {"city": city}) for city in STATIONS.now])
    if rounds == len(STATIONS.now):
        return Reply(calls=[Call("convert", {"degrees": 12.0, "to": "fahrenheit"})])
    return Reply("In Paris: 12 degrees (53.6 Fahrenheit) and rain; Oslo has -4 and snow.")


async def main(arguments: Namespace) -> None:
    """Run one question to its answer and print the calls and the text."""
    async with (
        open_server(arguments.url, play_model) as options,
        open_responses(**options) as connection,
        connection.conversation(
            model=arguments.model, store=False, tools=[STATIONS.get_weather, convert]
        ) as conversation,
        conversation.run_stream(arguments.question, tool_timeout=10) as run,
    ):
        async for event in run:
            match event:
                case ToolStarted(call=call):
                    print(f"-> {event.name} {getattr(call, 'arguments', '')}")
                case ToolFinished(error=error, seconds=seconds):
                    outcome = "done" if error is None else f"failed: {error}"
                    print(f"<- {event.name} {outcome} in {seconds:.1f} s")
                case OutputTextDelta(delta=text):
                    print(text, end="", flush=True)
                case _:
                    pass
        print(f"\n[{len(run.responses)} responses, {conversation.statistics().items} items]")


def parse() -> Namespace:
    """Return the parsed command line."""
    parser = argument_parser("An agent with tools: the model calls functions until it can answer.")
    default = "Is it warmer in Oslo or in Paris, in Fahrenheit?"
    parser.add_argument("question", nargs="?", default=default)
    return parser.parse_args()


if __name__ == "__main__":
    trio.run(main, parse())
