"""Functions as tools: their definitions, their calls and the encoding of their results."""

from __future__ import annotations

import functools
import inspect
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator  # noqa: TC003 - read at run time
from enum import Enum
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, cast

import msgspec
import pytest
import trio
import trio.lowlevel
from msgspec import Meta
from trio.testing import wait_all_tasks_blocked

from trio_responses import (
    ConfigurationError,
    FunctionTool,
    InvalidArguments,
    InvalidResult,
    ResponsesError,
    function_tool,
    open_responses,
)
from trio_responses._tools.function import encode_output
from trio_responses._tools.namespace import tool_definitions
from trio_responses._wire import FunctionToolParam
from trio_responses.testing import ResponsesServer  # noqa: TC001 - read at run time
from trio_responses.types import (
    FunctionCallOutput,
    InputFile,
    InputImage,
    InputText,
    OutputText,
)

if TYPE_CHECKING:
    from nowhere import Missing  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports, reportUnknownVariableType]


class Unit(Enum):
    CELSIUS = "c"
    KELVIN = "k"


class Place(msgspec.Struct):
    name: str
    country: str = "Norway"


@function_tool
async def forecast(
    place: Place, /, days: int = 1, *, unit: Unit = Unit.CELSIUS, note: str | None = "none"
) -> list[Any]:
    """Forecast the weather.

    :param place: where
    :param days: how many days
    """
    return [place.name, place.country, days, unit, note]


def test_a_definition_has_name_description_and_parameters() -> None:
    definition = json.loads(msgspec.json.encode(forecast.definition))
    parameters = definition.pop("parameters")
    assert definition == {
        "type": "function",
        "name": "forecast",
        "description": "Forecast the weather.",
        "strict": True,
    }
    assert isinstance(forecast.definition, FunctionToolParam)
    assert parameters == forecast.schema.schema
    assert parameters["required"] == ["place", "days", "unit", "note"]
    assert parameters["additionalProperties"] is False
    assert parameters["properties"]["place"]["description"] == "where"
    assert parameters["properties"]["days"] == {
        "anyOf": [{"type": "integer"}, {"type": "null"}],
        "description": "how many days (default: 1)",
    }
    assert parameters["properties"]["unit"]["description"] == 'default: "c"'


async def test_a_tool_can_be_called_like_its_function() -> None:
    assert await forecast(Place("Oslo"), 2) == ["Oslo", "Norway", 2, Unit.CELSIUS, "none"]
    assert (forecast.__name__, forecast.__doc__) == ("forecast", forecast.__wrapped__.__doc__)
    assert list(inspect.signature(forecast).parameters) == ["place", "days", "unit", "note"]
    assert repr(forecast) == "<FunctionTool 'forecast'>"
    assert forecast.is_async


async def test_invoking_a_tool_returns_its_result_as_text() -> None:
    arguments = (
        '{"place": {"name": "Rome", "country": "Italy"}, "days": 2, "unit": "k", "note": "x"}'
    )
    assert await forecast.invoke(arguments) == '["Rome","Italy",2,"k","x"]'
    assert await forecast.invoke(arguments.encode()) == '["Rome","Italy",2,"k","x"]'


async def test_null_and_a_missing_key_mean_the_default_unless_none_is_a_value() -> None:
    nulls = '{"place": {"name": "Oslo", "country": null}, "days": null, "unit": null, "note": null}'
    assert await forecast.invoke(nulls) == '["Oslo","Norway",1,"c",null]'
    assert await forecast.invoke('{"place": {"name": "Oslo"}}') == '["Oslo","Norway",1,"c","none"]'


KEYS = "`place`, `days`, `unit`, `note`; null means the default of a key"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", f"The arguments are empty: write a JSON object with the keys {KEYS}"),
        (" \n", f"The arguments are empty: write a JSON object with the keys {KEYS}"),
        ("{}", f"The arguments are empty: write a JSON object with the keys {KEYS}"),
        ("null", f"The arguments are empty: write a JSON object with the keys {KEYS}"),
        ('{"days": 1}', "Object missing required field `place`"),
        ('"{}"', "Expected `object`, got `str`"),
        ("{", "Input data was truncated"),
        ('{"place": {"name": 1}}', "Expected `str`, got `int` at `$.place.name`"),
        ('{"place": null}', "Expected `object`, got `null` at `$.place`"),
        ('{"place": {"name": "a"}, "unit": "f"}', "Invalid enum value 'f' at `$.unit`"),
        ('{"place": {"name": "a"}, "sauce": 1}', "Object contains unknown field `sauce`"),
    ],
)
async def test_arguments_that_do_not_match_the_parameters_are_rejected(
    arguments: str, message: str
) -> None:
    with pytest.raises(InvalidArguments) as refusal:
        await forecast.invoke(arguments)
    assert refusal.value.message.startswith(message)
    assert refusal.value.tool == "forecast"
    assert isinstance(refusal.value, ResponsesError)
    assert "'f'" not in str(refusal.value)


async def test_empty_text_means_no_arguments() -> None:
    @function_tool
    async def ping() -> str:
        return "pong"

    texts = ("", " \n", "{}", b"", "null", " { } ", b"null\n")
    assert [await ping.invoke(text) for text in texts] == ["pong"] * len(texts)
    assert ping.description is None
    assert ping.schema.schema == {
        "type": "object",
        "properties": {},
        "required": [],
        "additionalProperties": False,
    }


@pytest.mark.parametrize("arguments", ["", " ", "null", "{}", b"{ }"])
async def test_lost_arguments_never_mean_the_defaults_of_a_strict_schema(
    arguments: str | bytes,
) -> None:
    calls: list[tuple[str, bool]] = []

    @function_tool(run_in_thread=False)
    def delete(path: str = "/", *, force: bool = True) -> None:
        calls.append((path, force))

    with pytest.raises(InvalidArguments) as refusal:
        await delete.invoke(arguments)
    assert refusal.value.message == (
        "The arguments are empty: write a JSON object with the keys `path`, `force`;"
        " null means the default of a key"
    )
    assert not calls
    await delete.invoke('{"path": null, "force": false}')
    await delete.invoke('{"path": "/srv/x"}')
    assert calls == [("/", False), ("/srv/x", True)]


def test_without_strict_mode_the_schema_decides_whether_arguments_may_be_empty() -> None:
    def one(options: dict[str, Any] = {}) -> None: ...  # noqa: B006

    def two(options: dict[str, Any], size: int = 1) -> None: ...

    assert FunctionTool(one).bind("").args == ({},)
    with pytest.raises(InvalidArguments) as refusal:
        FunctionTool(two).bind("")
    assert refusal.value.message == (
        "The arguments are empty: write a JSON object with the keys `options`"
    )


async def test_half_a_surrogate_pair_in_arguments_becomes_a_replacement_character() -> None:
    arguments = '{"place": {"name": "a\\ud83d", "country": "\\ude00"}, "note": null}'
    assert await forecast.invoke(arguments) == '["a\ufffd","\ufffd",1,"c",null]'
    assert await forecast.invoke('{"place": {"name": "\ud83d"}}') == (
        '["\ufffd","Norway",1,"c","none"]'
    )


async def test_an_exception_of_the_function_propagates_unchanged() -> None:
    error = InvalidArguments("its own", tool="inner")

    @function_tool(run_in_thread=False)
    def fail() -> None:
        raise error

    with pytest.raises(InvalidArguments) as raised:
        await fail.invoke("{}")
    assert raised.value is error


async def test_a_sync_function_runs_in_a_thread_and_a_cheap_one_does_not() -> None:
    def where() -> bool:
        return threading.current_thread() is threading.main_thread()

    assert await FunctionTool(where).invoke("{}") == "false"
    assert await FunctionTool(where, run_in_thread=False).invoke("{}") == "true"


async def test_the_thread_of_a_cancelled_sync_function_runs_to_its_end() -> None:
    goes_on, done = threading.Event(), threading.Event()

    @function_tool
    def work() -> None:
        goes_on.wait(10)
        done.set()

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work.invoke, "{}")
            await wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    assert not done.is_set()
    goes_on.set()
    await trio.to_thread.run_sync(done.wait)


async def test_a_cheap_function_is_not_called_in_a_cancelled_scope() -> None:
    called: list[int] = []
    tool = FunctionTool(lambda: called.append(1), name="note", run_in_thread=False)
    with trio.CancelScope() as scope:
        scope.cancel()
        await tool.invoke("{}")
    assert scope.cancelled_caught
    assert not called


async def test_a_call_gets_the_same_default_object_as_the_function() -> None:
    own, frozen = [1], Place("Oslo")
    seen: list[Any] = []

    @function_tool(run_in_thread=False)
    def add(to: list[int] = own, at: Place = frozen, more: list[int] = []) -> None:  # noqa: B006
        seen.append((to, at, more))

    await add.invoke('{"to": null}')
    ((to, at, more),) = seen
    assert to is own
    assert at is frozen
    assert more == []
    assert add.schema.schema["properties"]["more"]["description"] == "default: []"


def test_options_replace_what_the_function_declares() -> None:
    @function_tool(name="other-name", description="Other.", timeout=2.5, strict=False)
    def named(x: int = 3) -> int:
        """Text that the description replaces."""
        return x

    assert (named.name, named.description, named.timeout) == ("other-name", "Other.", 2.5)
    assert named.__name__ == "named"
    assert named(2) == 2
    assert not named.is_async
    assert named.definition.strict is False
    assert named.schema.schema == {
        "type": "object",
        "properties": {"x": {"type": "integer", "default": 3}},
        "required": [],
        "additionalProperties": False,
    }


def test_attributes_of_the_function_do_not_replace_those_of_the_tool() -> None:
    def function() -> None: ...

    function.name = "wrong"  # type: ignore[attr-defined]
    function.mine = "kept"  # type: ignore[attr-defined]
    tool: Any = FunctionTool(function)
    assert (tool.name, tool.mine) == ("function", "kept")


def test_a_tool_with_arbitrary_keys_is_not_strict() -> None:
    def search(filters: dict[str, int]) -> None: ...

    tool = FunctionTool(search)
    assert tool.definition.strict is False
    assert tool.schema.reason == "parameters.filters: an object with arbitrary keys"
    assert tool.bind('{"filters": {"a": 1}}').kwargs == {}
    assert tool.bind('{"filters": {"a": 1}}').args == ({"a": 1},)
    with pytest.raises(
        ConfigurationError, match=r"parameters\.filters: an object with arbitrary keys"
    ):
        FunctionTool(search, strict=True)


def test_the_description_of_an_annotation_has_priority_over_the_docstring() -> None:
    def describe(
        a: Annotated[int, "text of a"],
        b: Annotated[int, Meta(description="text of b", ge=1), "not this"],
        c: Annotated[int, Meta(ge=1)],
        d: Annotated[int | None, "text of d"] = None,
    ) -> None:
        """Describe.

        Args:
            a: no
            b: no
            c: text of c
            d: no
        """

    properties = FunctionTool(describe).schema.schema["properties"]
    assert [properties[name]["description"] for name in "abcd"] == [
        "text of a",
        "text of b",
        "text of c",
        "text of d",
    ]
    assert properties["b"]["minimum"] == properties["c"]["minimum"] == 1


def test_a_parameter_can_have_any_name() -> None:
    def odd(__init__: int, self: int, p0: int, größe: int) -> None: ...  # noqa: PLC2401 - any name

    tool = FunctionTool(odd)
    assert tool.bind('{"__init__": 1, "self": 2, "p0": 3, "größe": 4}').args == (1, 2, 3, 4)


def test_a_bound_method_can_be_a_tool() -> None:
    class Shop:
        def buy(self, what: Annotated[str, "a thing"]) -> str:
            return what

    tool = FunctionTool(Shop().buy)
    assert list(tool.schema.schema["properties"]) == ["what"]


def test_a_first_parameter_named_self_outside_a_class_needs_an_annotation() -> None:
    def buy(self, what: str) -> None: ...  # type: ignore[no-untyped-def]  # pyright: ignore  # noqa: ANN001, PGH003

    with pytest.raises(ConfigurationError, match="the parameter 'self' of buy has no annotation"):
        function_tool(cast("Any", buy))


def test_annotations_can_name_a_local_type_of_an_outer_function() -> None:
    class Local(msgspec.Struct):
        x: int

    def make() -> FunctionTool[[Local], None]:
        @function_tool
        def inner(local: Local) -> None:
            """Use a type of the function around the function around this one."""

        return inner

    assert make().bind('{"local": {"x": 1}}').args == (Local(1),)


def test_an_annotation_means_the_innermost_type_of_a_name() -> None:
    class Local(msgspec.Struct):
        far: int

    outer = Local

    def make() -> FunctionTool[..., None]:
        class Local(msgspec.Struct):
            near: int

        @function_tool
        def inner(local: Local) -> None: ...

        return inner

    assert not isinstance(make().bind('{"local": {"near": 1}}').args[0], outer)


def test_a_decorated_function_has_the_signature_of_the_function_inside() -> None:
    def twice(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return [function(*args, **kwargs)] * 2

        return wrapper

    @function_tool
    @twice
    def one(place: Place) -> str:
        return place.name

    assert one(*one.bind('{"place": {"name": "Oslo"}}').args) == ["Oslo", "Oslo"]


def no_annotation(x) -> None: ...  # type: ignore[no-untyped-def]  # pyright: ignore  # noqa: ANN001, PGH003


def many(*args: int) -> None: ...


def many_named(**options: int) -> None: ...


def unknown_type(x: Missing) -> None: ...  # pyright: ignore[reportUnknownParameterType]


def unknown_result(x: int) -> Missing:  # pyright: ignore[reportUnknownParameterType]
    return x


def test_the_return_annotation_of_a_tool_is_ignored() -> None:
    tool: FunctionTool[[int], Any] = FunctionTool(unknown_result)  # pyright: ignore[reportUnknownArgumentType]
    assert tool(1) == 1


def opaque(x: int, y: Iterator[int]) -> None: ...


def unknown_words(x: int, y: Literal[b"a"]) -> None: ...


def generates() -> Iterator[int]:
    yield 1


async def generates_async() -> AsyncIterator[int]:
    yield 1


NO_TOOLS: list[tuple[Any, str]] = [
    (no_annotation, "the parameter 'x' of no_annotation has no annotation"),
    (many, "the parameter 'args' of many accepts any number of arguments"),
    (many_named, "the parameter 'options' of many_named accepts any number of arguments"),
    (
        unknown_type,
        "the parameter 'x' of unknown_type: the annotation 'Missing' cannot be evaluated",
    ),
    (opaque, "parameters.y: the type Iterator has no JSON schema"),
    (unknown_words, "parameters.y: the type has no JSON schema: Literal may only contain None/"),
    (generates, "generates is a generator: a tool must return its result"),
    (generates_async, "generates_async is a generator: a tool must return its result"),
    (functools.partial(many), "a tool must be made from a function, not from functools.partial"),
    (Place, "a tool must be made from a function, not from <class"),
    (lambda: None, "'<lambda>' is not a valid name of a tool"),
    (dict.fromkeys, "the parameter 'iterable' of fromkeys has no annotation"),
    (getattr, "getattr has no signature"),
]


@pytest.mark.parametrize(("function", "message"), NO_TOOLS)
def test_an_object_that_cannot_be_a_tool_is_rejected(function: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        FunctionTool(function)
    assert str(refusal.value).startswith(message)


@pytest.mark.parametrize("name", ["", "a b", "ä", "x" * 65, "a\n"])
def test_a_name_with_invalid_characters_or_length_is_rejected(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"of a tool: pass .* with 1 to 64 of the"):
        FunctionTool(many, name=name)
    assert FunctionTool(unit_of, name="x" * 64).name == "x" * 64


def unit_of(x: int) -> int:
    return x


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_timeout_that_is_not_above_zero_is_rejected(timeout: float) -> None:
    with pytest.raises(ConfigurationError, match="must be a number of seconds above 0, or None"):
        FunctionTool(unit_of, timeout=timeout)


class Word(str, Enum):  # noqa: UP042 - StrEnum differs in str()
    YES = "yes"


class Picture(NamedTuple):
    caption: str
    image: InputImage


IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,AA=="}
NESTED = [
    InputText(text="a"),
    InputImage(file_id="f"),
    InputText(text='["b"]'),
    InputText(text='{"c":1}'),
]
PARTS = [InputText(text="a"), InputImage(file_id="f"), InputFile(file_id="g")]


@pytest.mark.parametrize(
    ("result", "output"),
    [
        ("text", "text"),
        ("", ""),
        (Word.YES, "yes"),
        (None, "null"),
        (True, "true"),
        (Place("Oslo"), '{"name":"Oslo","country":"Norway"}'),
        ([], "[]"),
        ({"a": [1, b"b"]}, '{"a":[1,"Yg=="]}'),
        (PARTS[0], [PARTS[0]]),
        (PARTS, PARTS),
        ((PARTS[0], PARTS[1]), PARTS[:2]),
        (["caption", PARTS[1]], [InputText(text="caption"), PARTS[1]]),
        ([PARTS[0], 1], [PARTS[0], InputText(text="1")]),
        (Picture("caption", InputImage(file_id="f")), [InputText(text="caption"), PARTS[1]]),
        ([["a", [PARTS[1]]], ("b",), {"c": 1}], NESTED),
        (IMAGE, [IMAGE]),
        (("caption", IMAGE, PARTS[2]), [InputText(text="caption"), IMAGE, PARTS[2]]),
        ([{"type": "input_text", "label": "Name"}], '[{"type":"input_text","label":"Name"}]'),
        (["a", ["b"]], '["a",["b"]]'),
        (("a", 1), '["a",1]'),
        ("caf\udce9", "caf\ufffd"),
        ("\ud83d\ude00", "\U0001f600"),
        ({"caf\udce9": ["\ud83d", 1]}, '{"caf\ufffd":["\ufffd",1]}'),
        (["caf\udce9", PARTS[1]], [InputText(text="caf\ufffd"), PARTS[1]]),
        ([OutputText(text="a")], '[{"type":"output_text","text":"a"}]'),
        ({"at": PurePosixPath("a/b")}, '{"at":"a/b"}'),
        ([MappingProxyType({"a": 1}), range(2), {"b": 1}.keys()], '[{"a":1},[0,1],["b"]]'),
    ],
)
def test_a_result_is_encoded_as_output(result: Any, output: Any) -> None:
    made = encode_output(result)
    assert made == output
    assert type(made) is type(output)
    assert msgspec.json.encode(FunctionCallOutput(call_id="c", output=made))


def endless() -> list[Any]:
    inner: list[Any] = []
    inner.append(inner)
    return inner


@pytest.mark.parametrize(
    "result",
    [
        b"a",
        bytearray(b"a"),
        memoryview(b"a"),
        object(),
        [object()],
        10**5000,
        endless(),
        (b"a", InputText(text="a")),
        [{"a": object(), "b": "\ud800"}],
    ],
    ids=range(9),
)
def test_a_result_that_cannot_be_sent_is_rejected(result: Any) -> None:
    with pytest.raises(InvalidResult, match="the tool 'it' returned") as refusal:
        encode_output(result, tool="it")
    assert isinstance(refusal.value, ResponsesError)
    assert isinstance(refusal.value, TypeError)


async def test_the_error_for_a_result_names_the_tool() -> None:
    tool = FunctionTool(lambda: b"", name="raw")
    with pytest.raises(InvalidResult, match="the tool 'raw' returned bytes"):
        await tool.invoke("{}")


# --- Functions that are not tools ----------------------------------------------------------


def get_weather(city: str) -> str:
    return f"sunny in {city}"


class Teller:
    def __call__(self, city: str) -> str:
        return city


@pytest.mark.parametrize(
    ("function", "name"),
    [(get_weather, "get_weather"), (len, "len"), (Teller, "Teller"), (Teller(), "Teller")],
)
async def test_a_plain_function_in_tools_is_rejected(
    function: Any, name: str, server: ResponsesServer
) -> None:
    """Each method that accepts tools raises before it sends a request."""
    message = rf"^tools\[1\] is a plain function: decorate {name} with @function_tool$"
    tools = [forecast, function]
    async with open_responses(server.url, dial=server.dial) as connection:
        with pytest.raises(TypeError, match=message):
            await connection.create(model="m", input="hi", tools=tools)
        with pytest.raises(TypeError, match=message):
            async with connection.conversation(model="m", tools=tools):
                pytest.fail("the block began")  # pragma: no cover
        async with connection.conversation(model="m") as conversation:
            with pytest.raises(TypeError, match=message):
                await conversation.create("hi", tools=tools)
            with pytest.raises(TypeError, match=message):
                await conversation.run("hi", tools=tools)
            assert (await conversation.run("hi", tools=tools[:1])).status == "completed"
    assert server.statistics().requests == 1


def test_definitions_are_sent_unchanged() -> None:
    given: list[Any] = [{"type": "web_search"}, FunctionToolParam(name="f"), forecast]
    assert tool_definitions(given) == [*given[:2], forecast.definition]


@pytest.mark.parametrize("run_in_thread", [False, True])
def test_an_async_function_in_a_sync_decorator_is_awaited(*, run_in_thread: bool) -> None:
    def logged(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return wrapper

    @function_tool(run_in_thread=run_in_thread)
    @logged
    async def double(x: int) -> int:
        await trio.lowlevel.checkpoint()
        return 2 * x

    assert not inspect.iscoroutinefunction(double.__wrapped__)
    assert trio.run(double.invoke, '{"x": 2}') == "4"
