"""Typed functions as tools: what the model is told of them, and how its calls are run.

The signature makes the schema, the docstring the descriptions, and the arguments of a call are
decoded by the same types before the function is called::

    @function_tool
    async def get_weather(city: str, days: int = 1) -> Forecast:
        '''Forecast the weather.

        :param city: the city, with its country.
        '''

    arguments = '{"city": "Oslo, Norway", "days": null}'
    output = await get_weather.invoke(arguments)

What belongs elsewhere: schemas (`typed/schema.py`), and the rounds of a conversation with tools
(`conversation/run.py`): which calls run at once, for how long, and what the model is told of a
failure.
"""

from __future__ import annotations

import functools
import inspect
import math
import re
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    ParamSpec,
    TypeAlias,
    TypeVar,
    cast,
    final,
    overload,
)

import msgspec
import trio

from trio_responses import _wire as wire
from trio_responses._errors import ConfigurationError, ResponsesError
from trio_responses._tools.schema import InvalidJSON, JSONType
from trio_responses._wire import InputFile, InputImage, InputText

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_responses._tools.schema import Schema
    from trio_responses._wire import ContentPart

__all__ = [
    "FunctionTool",
    "InvalidArguments",
    "InvalidResult",
    "ToolOutput",
    "encode_output",
    "function_tool",
]

P = ParamSpec("P")
R = TypeVar("R")

if TYPE_CHECKING:
    ToolOutput: TypeAlias = str | list[ContentPart]
else:
    ToolOutput: TypeAlias = str | list
"""The ``output`` of a ``function_call_output``: text, or content parts."""

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
PARTS = (InputText, InputImage, InputFile)


class InvalidArguments(InvalidJSON):
    """The arguments of a call are no JSON, or do not fit the parameters of the tool.

    :ivar tool: the name of the tool.
    :ivar message: what is wrong, and where: for the model. It may quote the arguments, so it is
        not in ``str()``.
    :ivar place: the place as a path (``$.city``), where one is known.
    """

    def __init__(self, message: str, *, tool: str) -> None:
        super().__init__(message, subject=f"what the model gave to the tool {tool!r}")
        self.tool = tool


class InvalidResult(ResponsesError, TypeError):
    """A function returned what cannot be sent to the model."""


@final
class FunctionTool(Generic[P, R]):
    """A typed function that the model can call. It can still be called as the function it is.

    A parameter with a default may be left out by the model, or be ``null``: then the function gets
    its default. ``null`` is `None` where the annotation admits `None`. Keys that are no parameter
    are refused. Strict mode is used where every parameter has a strict form (see `JSONType`).

    :param function: a function, sync or async, with an annotation at each parameter. ``*args`` and
        ``**kwargs`` are refused: a list or a dict as a parameter says more to the model.
    :param name: the name for the model, of the letters ``[a-zA-Z0-9_-]``, at most 64; the
        function's own by default.
    :param description: the description for the model; the docstring's text by default.
    :param strict: `True` to insist on strict mode, `False` to go without it.
    :param timeout: seconds that one call may take, for whoever runs the calls.
    :param cheap: call a sync function in the event loop itself. It must return at once: every
        other sync function runs in a thread.
    :raises ConfigurationError: if the function cannot be a tool: the message names the parameter.

    :ivar name: the name for the model.
    :ivar description: the description for the model; `None` if there is none.
    :ivar schema: the schema of the parameters, and why it is not strict if it is not.
    :ivar timeout: seconds that one call may take; `None` for no limit.
    :ivar cheap: whether a sync function is called in the event loop.
    :ivar is_async: whether the function is async.
    """

    name: str
    description: str | None
    schema: Schema
    timeout: float | None
    cheap: bool
    is_async: bool
    __wrapped__: Callable[P, R]
    __name__: str

    def __init__(
        self,
        function: Callable[P, R],
        *,
        name: str | None = None,
        description: str | None = None,
        strict: bool | None = None,
        timeout: float | None = None,
        cheap: bool = False,
    ) -> None:
        from trio_responses._tools.docstrings import (  # noqa: PLC0415 - many use no tools
            parse_docstring,
        )
        from trio_responses._tools.signatures import arguments_type  # noqa: PLC0415 - likewise

        signature = _signature_of(function)
        functools.update_wrapper(cast("Callable[P, R]", self), function)
        docstring = parse_docstring(inspect.getdoc(function))
        self.name = _checked_name(function.__name__ if name is None else name)
        self.description = description if description is not None else docstring.text or None
        self.timeout = _checked_timeout(timeout)
        self.cheap = cheap
        self.is_async = inspect.iscoroutinefunction(function)
        self._signature = signature
        self._arguments = JSONType[Any](
            arguments_type(function, signature, docstring.parameters),
            strict=strict,
            place="parameters",
        )
        self.schema = self._arguments.schema

    @property
    def definition(self) -> wire.FunctionToolParam:
        """The tool as it is sent in ``tools``."""
        return wire.FunctionToolParam(
            name=self.name,
            description=self.description,
            parameters=self.schema.schema,
            strict=self.schema.strict,
        )

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself."""
        return self.__wrapped__(*args, **kwargs)

    async def invoke(self, arguments: str | bytes) -> ToolOutput:
        """Call the function with the arguments of a function call, and encode its result.

        A cancelled sync function is left to itself: its thread runs on to its end.

        :param arguments: JSON, as the model wrote it.
        :returns: the ``output`` for the model, as `encode_output` makes it.
        :raises InvalidArguments: if they do not fit: the function was not called.
        :raises InvalidResult: if the function returned what cannot be sent.

        What the function raises comes out as it is.
        """
        return encode_output(await self.call(self.bind(arguments)), tool=self.name)

    def bind(self, arguments: str | bytes) -> inspect.BoundArguments:
        """Decode the arguments of a function call. No text at all is no arguments.

        :raises InvalidArguments: if they do not fit.
        """
        try:
            decoded = self._arguments.decode(arguments if arguments.strip() else b"{}")
        except InvalidJSON as error:
            raise InvalidArguments(error.message, tool=self.name) from error
        values = map(functools.partial(getattr, decoded), decoded.__struct_fields__)
        named = dict(zip(self._signature.parameters, values, strict=True))
        return inspect.BoundArguments(self._signature, cast("Any", named))

    async def call(self, bound: inspect.BoundArguments) -> Any:
        """Call the function with arguments that `bind` has decoded, and give what it returns.

        What the function raises comes out as it is. When cancelled, an async function is cancelled
        with it, and a sync one in a thread runs on to its end, which nobody hears of.
        """
        function: Callable[..., Any] = self.__wrapped__
        if self.is_async:
            return await function(*bound.args, **bound.kwargs)
        call = functools.partial(function, *bound.args, **bound.kwargs)
        if self.cheap:
            await trio.lowlevel.checkpoint()
            result = call()
        else:  # in a list, since Trio refuses a coroutine
            (result,) = await trio.to_thread.run_sync(lambda: [call()], abandon_on_cancel=True)
        # A plain decorator around an async function gives a coroutine.
        return await result if inspect.iscoroutine(result) else result

    def __repr__(self) -> str:
        """Show its name."""
        return f"<FunctionTool {self.name!r}>"


@overload
def function_tool(function: Callable[P, R], /) -> FunctionTool[P, R]: ...
@overload
def function_tool(
    *,
    name: str | None = None,
    description: str | None = None,
    strict: bool | None = None,
    timeout: float | None = None,
    cheap: bool = False,
) -> Callable[[Callable[P, R]], FunctionTool[P, R]]: ...
def function_tool(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a tool of a function: ``@function_tool`` or ``@function_tool(name=..., ...)``.

    The options are those of `FunctionTool`.

    :raises ConfigurationError: if the function cannot be a tool.
    """
    if function is None:
        return functools.partial(FunctionTool[..., Any], **options)
    return FunctionTool[..., Any](function, **options)


def encode_output(result: Any, *, tool: str = "tool") -> ToolOutput:
    """Make the ``output`` for the model of what a function returned.

    Text is sent as it is. `InputText`, `InputImage` and `InputFile`, one or a list of them alone,
    are sent as content parts. Everything else is sent as JSON: `None` is ``null``.

    :param tool: the name of the tool, for the message.
    :raises InvalidResult: for bytes, for text that is not Unicode, and for what has no JSON.
    """
    parts = _parts(result)
    if parts:
        return parts
    if issubclass(type(result), (bytes, bytearray, memoryview)):
        raise InvalidResult(f"the tool {tool!r} returned bytes: make text or a content part of it")
    try:
        if issubclass(type(result), str):
            result.encode()
            return str.__str__(result)
        return msgspec.json.encode(result).decode()
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        kind = type(result).__name__
        raise InvalidResult(f"the tool {tool!r} returned a {kind} that is no JSON") from error


def _parts(result: Any) -> list[Any]:
    """Give a result that is made of content parts alone as a list."""
    if isinstance(result, PARTS):
        return [result]
    if not issubclass(type(result), list) or not all(isinstance(each, PARTS) for each in result):
        return []
    return list(result)


# --- The parts of a definition -------------------------------------------------------------


def _signature_of(function: Any) -> inspect.Signature:
    if not inspect.isroutine(function):
        raise ConfigurationError(f"a tool is made of a function, and not of {function!r}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(f"{function.__name__}: a tool returns its result, it cannot yield")
    try:
        return inspect.signature(function)
    except ValueError as error:
        raise ConfigurationError(f"{function.__name__} has no signature") from error


def _checked_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ConfigurationError(
            f"the name {name!r} of a tool: 1 to 64 of the characters a-z, A-Z, 0-9, _ and -"
        )
    return name


def _checked_timeout(timeout: float | None) -> float | None:
    if timeout is not None and (math.isnan(timeout) or timeout <= 0):
        raise ConfigurationError(f"the timeout of a tool is {timeout}: it must be above 0 seconds")
    return timeout
