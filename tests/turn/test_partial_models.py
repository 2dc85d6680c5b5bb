"""Partial values of models of pydantic, over both transports and in runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
import trio
from pydantic import BaseModel, Field, PrivateAttr, TypeAdapter, computed_field, field_validator

from tests.testing.driver import NO_WAITING
from trio_responses import ParseMismatchError, function_tool
from trio_responses.testing import Call

if TYPE_CHECKING:
    from trio_responses import ResponseStream, RunStream
    from trio_responses.testing import ResponsesServer

pytestmark = NO_WAITING


class Day(BaseModel, frozen=True):
    name: str = Field(alias="dayName")
    degrees: Annotated[float, Field(le=60)]


class Rain(BaseModel):
    kind: Literal["rain"]
    millimetres: float


class Snow(BaseModel):
    kind: Literal["snow"]
    centimetres: float


class Fog(BaseModel):
    metres: int


class Weather(BaseModel):
    """The weather at a place."""

    city: str = Field(alias="cityName", min_length=3)
    days: list[Day] = Field(default_factory=list[Day])
    falls: Rain | Snow | None = Field(None, discriminator="kind")
    _source: str = PrivateAttr("model")

    @field_validator("city")
    @classmethod
    def check(cls, city: str) -> str:
        """Fail for a value that is not complete."""
        assert city == "Oslo"
        return city

    @computed_field  # type: ignore[prop-decorator]
    @property
    def title(self) -> str:
        """The city and where the weather is from."""
        return f"{self.city} by {self._source}"


DAYS = '[{"dayName": "Mon", "degrees": 3}, {"dayName": "Tue", "degrees": 4.5}]'
SNOW = '{"kind": "snow", "centimetres": 12}'
OSLO = f'{{"cityName": "Oslo", "days": {DAYS}, "falls": {SNOW}}}'
FORECAST = Weather.model_validate_json(OSLO)


@function_tool
async def look(where: Day) -> Weather:
    """Return the weather."""
    await trio.lowlevel.checkpoint()
    assert where.name == "Mon"
    return FORECAST


async def read_all(stream: ResponseStream | RunStream, answer: Any) -> list[Any]:
    return [partial async for partial in stream.partials(answer)]


def check_weather(seen: list[Weather]) -> None:
    """Check values of `OSLO` that filled in."""
    assert {type(one) for one in seen} == {Weather}
    assert [*dict.fromkeys(one.city for one in seen)] == [None, "Os", "Oslo"]
    days = dict.fromkeys(tuple(day.name for day in one.days or ()) for one in seen)
    assert [*days] == [(), (None,), ("M",), ("Mon",), ("Mon", None), ("Mon", "Tue")]
    assert [*dict.fromkeys(repr(one.falls) for one in seen)] == [
        "None",
        "{}",
        "{'kind': ''}",
        "{'kind': 'snow'}",
        "Snow(kind='snow', centimetres=None)",
        "Snow(kind='snow', centimetres=12.0)",
    ]
    assert [*dict.fromkeys(one.title for one in seen)][-2:] == ["Os by model", "Oslo by model"]
    assert all(one.model_dump(warnings=False) for one in seen)
    assert seen[-1] == seen[-2] == FORECAST


@pytest.mark.parametrize("transport", ["websocket", "http"])
async def test_a_model_fills_in(
    server: ResponsesServer, transport: Literal["websocket", "http"]
) -> None:
    server.reply(OSLO, chunk_size=4, delay=1)
    async with (
        server.open_client(transport=transport) as connection,
        connection.stream("hi", model="m", text_format=Weather) as stream,
    ):
        check_weather(await read_all(stream, Weather))
        parsed = await stream.get_parsed_response(Weather)
    assert parsed.parsed == FORECAST
    schema = server.last_request.body["text"]["format"]["schema"]
    assert [*schema["properties"]] == ["cityName", "days", "falls"]


async def test_a_model_fills_in_during_a_run_with_tools(server: ResponsesServer) -> None:
    server.reply(calls=[Call("look", {"where": {"dayName": "Mon", "degrees": 1}})])
    server.reply(OSLO, chunk_size=4, delay=1)
    async with (
        server.open_client() as connection,
        connection.conversation(model="m", tools=[look]) as conversation,
        conversation.run_stream("hi", text_format=Weather) as run,
    ):
        check_weather(await read_all(run, Weather))
        assert (await run.get_parsed_response(Weather)).parsed == FORECAST
    (output,) = (item for item in server.last_request.body["input"] if "output" in item)
    assert Weather.model_validate_json(output["output"], by_name=True) == FORECAST


OTHERS: list[tuple[Any, str, list[str]]] = [
    (
        TypeAdapter(list[Day]),
        '[{"dayName": "Mon", "degrees": 3}]',
        ["[]", "[Day(name=None, degrees=None)]", "[Day(name='Mon', degrees=None)]"],
    ),
    (Fog | Rain, '{"metres": 50}', ["{}"]),
    (
        Annotated[Snow | Rain, Field(discriminator="kind")],
        '{"kind": "snow", "centimetres": 3}',
        ["{}", "{'kind': 'sn'}", "Snow(kind='snow', centimetres=None)"],
    ),
]


@pytest.mark.parametrize(("answer", "written", "before"), OTHERS)
async def test_other_types_of_pydantic_fill_in(
    server: ResponsesServer, answer: Any, written: str, before: list[str]
) -> None:
    server.reply(f'{{"value": {written}}}', chunk_size=11, delay=1)
    async with (
        server.open_client() as connection,
        connection.stream("hi", model="m", text_format=answer) as stream,
    ):
        *seen, final = await read_all(stream, answer)
    assert [*dict.fromkeys(map(repr, seen)), repr(final)][: len(before)] == before
    validate = getattr(answer, "validate_json", None) or TypeAdapter[Any](answer).validate_json
    assert final == validate(written)


async def test_a_validator_that_fails_is_an_error_after_the_last_value(
    server: ResponsesServer,
) -> None:
    server.reply(OSLO.replace("Oslo", "Bergen"), chunk_size=8, delay=1)
    async with (
        server.open_client() as connection,
        connection.stream("hi", model="m", text_format=Weather) as stream,
    ):
        partials = stream.partials(Weather)
        seen = [await anext(partials)]
        with pytest.raises(ParseMismatchError, match=r"at \$\.cityName"):  # noqa: PT012 - an end
            while True:
                seen.append(await anext(partials))
    assert seen[-1].city == "Bergen"
    assert len(seen[-1].days) == 2
