"""Typed functions as tools: the definition for the model, and the execution of a call.

The signature gives the schema and the docstring gives the descriptions. The arguments of a call are
decoded by the types of the signature before the function is called::

    @function_tool
    async def get_weather(city: str, days: int = 1) -> Forecast:
        '''Forecast the weather.

        :param city: the city, with its country.
        '''

    arguments = '{"city": "Oslo, Norway", "days": null}'
    output = await get_weather.invoke(arguments)

A method in the body of a class works like a function: ``shop.buy`` is a tool whose calls run the
method of ``shop``, and ``Shop.buy`` belongs to no object, so that the model cannot call it.
"""

from __future__ import annotations

import functools
import inspect
import math
import re
from collections.abc import Awaitable, Callable
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    TypeAlias,
    TypeVar,
    cast,
    final,
    overload,
)

import trio

from trio_responses import _wire as wire
from trio_responses._errors import ConfigurationError, ResponsesError
from trio_responses._json_types.encoding import encode_json
from trio_responses._json_types.json_type import InvalidJSON, JSONType
from trio_responses._tools.context import CallContext  # noqa: TC001 - get_type_hints reads it
from trio_responses._wire import InputFile, InputImage, InputText
from trio_responses._wire.lenient import replace_surrogates

if TYPE_CHECKING:
    from trio_responses._json_types.json_type import Schema
    from trio_responses._wire import ContentPart

__all__ = [
    "FunctionTool",
    "InvalidArguments",
    "InvalidResult",
    "IsEnabled",
    "ToolOutput",
    "encode_output",
    "function_tool",
]

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")

IsEnabled: TypeAlias = Callable[[Any], bool | Awaitable[bool]]
"""Called with a `ToolContext` before each turn of a run: whether the model sees the tool."""

if TYPE_CHECKING:
    ToolOutput: TypeAlias = str | list[ContentPart]
else:
    ToolOutput: TypeAlias = str | list
"""The ``output`` of a ``function_call_output``: text, or content parts."""

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
CONTENT_PARTS = (InputText, InputImage, InputFile)
PART_KEYS = {
    "input_text": ("text",),
    "input_image": ("image_url", "file_id"),
    "input_file": ("file_data", "file_id", "file_url"),
}
"""The types of content parts, and the keys of which a part as a dict has one."""
NO_ARGUMENTS = re.compile(r"\s*(?:null|\{\s*\})?\s*")


class InvalidArguments(InvalidJSON):
    """Arguments of a call that are not JSON, or do not match the parameters of the tool.

    :ivar tool: the name of the tool.
    :ivar message: the error and its place, to send to the model. The message may quote the
        arguments, so ``str()`` has its ``summary`` instead.
    :ivar summary: the message without the arguments; `None` if it is not known what it quotes.
    :ivar place: the path of the value (``$.city``); `None` if unknown.
    """

    def __init__(
        self,
        message: str,
        *,
        tool: str,
        summary: str | None = None,
        place: str | None = None,
    ) -> None:
        subject = f"the argument JSON for the tool {tool!r}"
        super().__init__(message, subject=subject, summary=summary, place=place)
        self.tool = tool


class InvalidResult(ResponsesError, TypeError):
    """A function returned a value that cannot be sent to the model, such as bytes."""


@final
class FunctionTool(Generic[P, R]):
    """A typed function that the model can call, and that a program can still call directly.

    If the model leaves out a parameter with a default, or passes ``null``, the function gets its
    default. ``null`` is `None` where the annotation admits `None`. Unknown keys are rejected. The
    schema is strict if strict mode can express every parameter (see `JSONType`). A strict schema
    requires every key, so arguments without any key are rejected: they got lost, and the defaults
    are not what the model chose.

    A parameter with the annotation `ToolContext` gets what a run knows about the call; the model
    does not see the parameter.

    As an attribute of a class, a method is bound like any method: the tool of an object has the
    parameters after ``self``. Tools of the same method of the same object are equal.

    :param function: a function, sync or async, with an annotation at each parameter. ``*args`` and
        ``**kwargs`` are rejected: a list or a dict as a parameter gives the model a schema. In the
        body of a class also a method, a ``classmethod`` or a ``staticmethod``.
    :param name: the name for the model: 1 to 64 of the characters ``[a-zA-Z0-9_-]``; by default the
        name of the function.
    :param description: the description for the model; by default the text of the docstring.
    :param strict: `True` to require strict mode, `False` to turn strict mode off.
    :param timeout: the limit of a call in a run, in seconds; `None` for the run's ``tool_timeout``.
    :param run_in_thread: whether a sync function runs in a thread. With `False` the function is
        called in the event loop, and must return quickly.
    :param max_retries: how often the model may call the tool again in a run after calls that
        failed; `None` for the run's ``max_tool_retries``.
    :param is_enabled: whether the model sees the tool. A function, sync or async, is called with a
        `ToolContext` before each turn of a run.
    :raises ConfigurationError: if the function cannot be a tool; the message names the parameter.

    :ivar name: the name for the model.
    :ivar description: the description for the model, or `None`.
    :ivar schema: the schema of the parameters; ``reason`` in it is why a schema is not strict.
    :ivar timeout: the limit of a call in a run, in seconds; `None` for the run's ``tool_timeout``.
    :ivar run_in_thread: whether a sync function runs in a thread.
    :ivar max_retries: how often the model may call the tool again after calls that failed; `None`
        for the run's ``max_tool_retries``.
    :ivar is_enabled: whether the model sees the tool, or the function that decides it.
    :ivar is_async: whether the function is async.
    """

    name: str
    description: str | None
    schema: Schema
    timeout: float | None
    run_in_thread: bool
    max_retries: int | None
    is_enabled: bool | IsEnabled
    is_async: bool
    __wrapped__: Callable[P, R]
    __name__: str
    __qualname__: str

    def __init__(
        self,
        function: Callable[P, R],
        *,
        name: str | None = None,
        description: str | None = None,
        strict: bool | None = None,
        timeout: float | None = None,
        run_in_thread: bool = True,
        max_retries: int | None = None,
        is_enabled: bool | IsEnabled = True,
    ) -> None:
        # Imported with the first tool, since many programs use no tools.
        from trio_responses._tools.docstrings import parse_docstring  # noqa: PLC0415
        from trio_responses._tools.signatures import parameter_types, signature_of  # noqa: PLC0415

        given: Any = function
        if isinstance(given, (classmethod, staticmethod)):
            function = cast("Any", given).__func__
        signature = signature_of(function)
        self._unbound: Any = given if _is_method(given, function, signature) else None
        """The function or the class method that `__get__` binds; `None` if there is none."""
        if self._unbound is not None:
            signature = signature.replace(parameters=[*signature.parameters.values()][1:])
        self._identity = object()
        """Shared by the tools of one method that are bound to different objects."""
        functools.update_wrapper(cast("Callable[P, R]", self), function)
        docstring = parse_docstring(inspect.getdoc(function))
        self.name = _check_name(function.__name__ if name is None else name)
        self.description = description if description is not None else docstring.text or None
        self.timeout = _check_timeout(timeout)
        self.run_in_thread = run_in_thread
        self.max_retries = check_max_retries("max_retries", max_retries)
        self.is_enabled = _check_is_enabled(is_enabled)
        self.is_async = inspect.iscoroutinefunction(function)
        types = parameter_types(function, signature, docstring.parameters)
        self._context = types.context
        self._signature = signature
        self._visible_signature = signature.replace(
            parameters=[one for one in signature.parameters.values() if one.name != types.context]
        )
        self._arguments = JSONType[Any](types.arguments, strict=strict, place="parameters")
        self.schema = self._arguments.schema

    @overload
    def __get__(self, instance: None, owner: type, /) -> FunctionTool[P, R]: ...
    @overload
    def __get__(
        self: FunctionTool[Concatenate[Any, Q], R], instance: object, owner: type | None = None, /
    ) -> FunctionTool[Q, R]: ...
    def __get__(self, instance: object, owner: type | None = None, /) -> FunctionTool[..., Any]:
        """Return the tool of an object whose class has the tool as a method."""
        if self._unbound is None or (instance is None and not self._is_class_method):
            return self
        bound = cast("FunctionTool[..., Any]", object.__new__(FunctionTool))
        method = self._unbound.__get__(instance, owner)
        bound.__dict__.update(self.__dict__, __wrapped__=method, _unbound=None)
        return bound

    @property
    def _is_class_method(self) -> bool:
        return isinstance(self._unbound, classmethod)

    def __eq__(self, other: object) -> bool:
        """Whether this is the same tool: of the same method of the same object, if it has one."""
        if not isinstance(other, FunctionTool):
            return NotImplemented
        return self._key == other._key

    def __hash__(self) -> int:
        """Return the hash of the tool."""
        return hash(self._key)

    def __reduce__(self) -> Any:
        """Return what `copy` and `pickle` need, as for a function: its name, or object and name."""
        instance = getattr(self.__wrapped__, "__self__", None)
        if getattr(instance, self.__name__, None) == self:
            return getattr, (instance, self.__name__)
        return self.__qualname__

    @property
    def _key(self) -> tuple[object, object]:
        return self._identity, self.__wrapped__

    def _check_is_bound(self) -> None:
        """Check that a call has an object to run on, if the tool is a method.

        :raises ConfigurationError: if it has none.
        """
        if self._unbound is not None:
            raise ConfigurationError(
                f"{self.__qualname__} is a method, and the model cannot give its object: use the"
                f" tool of an object, as in tools=[instance.{self.__name__}]"
            )

    @property
    def definition(self) -> wire.FunctionToolParam:
        """The definition of the tool, as sent in ``tools``.

        :raises ConfigurationError: if the tool is a method without an object, as in ``Shop.buy``.
        """
        self._check_is_bound()
        return wire.FunctionToolParam(
            name=self.name,
            description=self.description,
            parameters=self.schema.schema,
            strict=self.schema.strict,
        )

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function directly, without JSON."""
        return self.__wrapped__(*args, **kwargs)

    async def invoke(
        self, arguments: str | bytes, *, context: CallContext | None = None
    ) -> ToolOutput:
        """Call the function with JSON arguments, and return its result encoded for the model.

        Exceptions of the function propagate unchanged. When cancelled, an async function is
        cancelled too; the thread of a sync function runs to its end, and its result is discarded.

        :param arguments: the arguments as JSON, as the model wrote them.
        :param context: the `ToolContext` for a function that has a parameter for it.
        :returns: the ``output`` for the model, as `encode_output` returns it.
        :raises InvalidArguments: if the arguments do not match the parameters; the function was not
            called.
        :raises InvalidResult: if the result cannot be sent.
        :raises ConfigurationError: if the function needs a context, or is a method without an
            object.
        """
        return encode_output(await self.call(self.bind(arguments), context), tool=self.name)

    def bind(self, arguments: str | bytes) -> inspect.BoundArguments:
        """Decode the arguments of a function call.

        Empty text and ``null`` mean no arguments, as ``{}`` does. A tool whose schema requires keys
        rejects all three.

        :raises InvalidArguments: if the arguments do not match the parameters.
        :raises ConfigurationError: if the function is a method without an object.
        """
        self._check_is_bound()
        if _is_empty(arguments):
            self._check_nothing_is_required()
            arguments = b"{}"
        try:
            decoded = self._arguments.decode(arguments)
        except InvalidJSON as error:
            raise InvalidArguments(
                error.message, tool=self.name, summary=error.summary, place=error.place
            ) from error
        values = map(functools.partial(getattr, decoded), decoded.__struct_fields__)
        named = dict(zip(self._visible_signature.parameters, values, strict=True))
        return inspect.BoundArguments(self._visible_signature, cast("Any", named))

    def _check_nothing_is_required(self) -> None:
        required: list[str] = self.schema.schema["required"]
        if required:
            hint = "; null means the default of a key" if self.schema.strict else ""
            message = (
                "The arguments are empty: write a JSON object with the keys"
                f" {', '.join(f'`{key}`' for key in required)}{hint}"
            )
            raise InvalidArguments(message, tool=self.name, summary=message)

    async def call(self, bound: inspect.BoundArguments, context: CallContext | None = None) -> Any:
        """Call the function with arguments that `bind` has decoded, and return its result.

        Exceptions of the function propagate unchanged. When cancelled, an async function is
        cancelled too; the thread of a sync function runs to its end, and its result is discarded.

        :param context: the `ToolContext` for a function that has a parameter for it.
        :raises ConfigurationError: if the function needs a context.
        """
        if self._context is not None:
            bound = self._with_context(bound, self._context, context)
        function: Callable[..., Any] = self.__wrapped__
        if self.is_async:
            return await function(*bound.args, **bound.kwargs)
        call = functools.partial(function, *bound.args, **bound.kwargs)
        if self.run_in_thread:  # in a list: Trio rejects a sync function that returns a coroutine
            (result,) = await trio.to_thread.run_sync(lambda: [call()], abandon_on_cancel=True)
        else:
            await trio.lowlevel.checkpoint()
            result = call()
        # A sync decorator around an async function returns a coroutine.
        return await result if inspect.iscoroutine(result) else result

    def _with_context(
        self, bound: inspect.BoundArguments, name: str, context: CallContext | None
    ) -> inspect.BoundArguments:
        """Return the arguments of the model, and the context for the parameter of this name."""
        value: Any = context
        if value is None:
            value = self._signature.parameters[name].default
        if value is inspect.Parameter.empty:
            raise ConfigurationError(
                f"the tool {self.name!r} needs a context for its parameter {name!r}: outside of a"
                " run, pass context=ToolContext(...)"
            )
        given = {**bound.arguments, name: value}
        named = {each: given[each] for each in self._signature.parameters}
        return inspect.BoundArguments(self._signature, cast("Any", named))

    def __repr__(self) -> str:
        """Return the name of the tool."""
        return f"<FunctionTool {self.name!r}{' without an object' if self._unbound else ''}>"


@overload
def function_tool(function: Callable[P, R], /) -> FunctionTool[P, R]: ...
@overload
def function_tool(
    *,
    name: str | None = None,
    description: str | None = None,
    strict: bool | None = None,
    timeout: float | None = None,
    run_in_thread: bool = True,
    max_retries: int | None = None,
    is_enabled: bool | IsEnabled = True,
) -> Callable[[Callable[P, R]], FunctionTool[P, R]]: ...
def function_tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    strict: bool | None = None,
    timeout: float | None = None,
    run_in_thread: bool = True,
    max_retries: int | None = None,
    is_enabled: bool | IsEnabled = True,
) -> Any:
    """Return a function as a tool: ``@function_tool`` or ``@function_tool(name=..., ...)``.

    The options are those of `FunctionTool`.

    :raises ConfigurationError: if the function cannot be a tool.
    """
    make = functools.partial(
        FunctionTool[..., Any],
        name=name,
        description=description,
        strict=strict,
        timeout=timeout,
        run_in_thread=run_in_thread,
        max_retries=max_retries,
        is_enabled=is_enabled,
    )
    return make if function is None else make(function)


def encode_output(result: Any, *, tool: str = "tool") -> ToolOutput:
    """Return the result of a function as the ``output`` for the model.

    An `InputText`, `InputImage` or `InputFile`, or the same as a dict, is sent as a content part.
    So are all elements of a list or a tuple that contains one, also inside a list or a tuple: its
    other elements become an `InputText` each. Text is sent as text. Any other result is sent as
    JSON: `None` becomes ``null``. In text, U+FFFD replaces lone surrogates.

    :param tool: the name of the tool, for the message.
    :raises InvalidResult: for bytes, and values without a JSON form.
    """
    try:
        parts = _content_parts(result, tool)
    except RecursionError as error:
        raise _invalid_result(result, tool) from error
    return parts or _encode_text(result, tool)


def _content_parts(result: Any, tool: str) -> list[Any]:
    """Return the content parts of a result; an empty list if the result contains none."""
    if _is_content_part(result):
        return [result]
    if not issubclass(type(result), (list, tuple)):
        return []
    kinds = set(map(type, result))
    if not any(issubclass(kind, (*CONTENT_PARTS, list, tuple, dict)) for kind in kinds):
        return []
    parts = [_content_parts(each, tool) for each in result]
    if not any(parts):
        return []
    return [
        part
        for each, own in zip(result, parts, strict=True)
        for part in own or [InputText(text=_encode_text(each, tool))]
    ]


def _is_content_part(value: Any) -> bool:
    if issubclass(type(value), dict):
        kind = value.get("type")
        keys = PART_KEYS.get(kind, ()) if isinstance(kind, str) else ()
        return any(isinstance(value.get(key), str) for key in keys)
    return isinstance(value, CONTENT_PARTS)


def _encode_text(result: Any, tool: str) -> str:
    """Return a result as text: text with its lone surrogates replaced, or JSON.

    :raises InvalidResult: for bytes, and values without a JSON form.
    """
    if issubclass(type(result), (bytes, bytearray, memoryview)):
        raise InvalidResult(
            f"the tool {tool!r} returned {type(result).__name__}, which the model cannot read:"
            " return text, or an InputText, InputImage or InputFile"
        )
    try:
        if issubclass(type(result), str):
            text = str.__str__(result)
            return text if text.isascii() else replace_surrogates(text)
        return encode_json(result).decode()
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise _invalid_result(result, tool) from error


def _invalid_result(result: Any, tool: str) -> InvalidResult:
    return InvalidResult(
        f"the tool {tool!r} returned a {type(result).__name__} that JSON cannot express: "
        "return text, or a value of the types that a tool accepts"
    )


def _is_empty(arguments: str | bytes) -> bool:
    """Whether the arguments of a call have no key: empty text, ``null`` or ``{}``."""
    text = arguments if isinstance(arguments, str) else arguments.decode(errors="replace")
    return NO_ARGUMENTS.fullmatch(text) is not None


def _check_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} is not a valid name of a tool: pass @function_tool(name=...) with 1 to 64"
            " of the characters a-z, A-Z, 0-9, _ and -"
        )
    return name


def _check_timeout(timeout: float | None) -> float | None:
    if timeout is not None and (math.isnan(timeout) or timeout <= 0):
        raise ConfigurationError(
            f"the timeout of a tool must be a number of seconds above 0, or None, not {timeout!r}"
        )
    return timeout


def check_max_retries(name: str, value: int | None) -> int | None:
    """Return a limit of retries.

    :param name: the name of the option, for the message.
    :raises ConfigurationError: for a value that is neither a whole number from 0 on nor `None`.
    """
    if value is None or (type(value) is int and value >= 0):
        return value
    raise ConfigurationError(f"{name} must be a whole number from 0 on, or None, not {value!r}")


def _check_is_enabled(value: Any) -> Any:
    if not isinstance(value, bool) and not callable(value):
        raise ConfigurationError(
            f"is_enabled must be True, False or a function of the context, not {value!r}"
        )
    return value


def _is_method(given: Any, function: Any, signature: inspect.Signature) -> bool:
    """Whether `FunctionTool` was given a method from the body of a class.

    A function of a class is a method if its first parameter has the name ``self``: whether it
    becomes an attribute of the class is not known yet.

    :param function: the function in a class method or a static method; else what was given.
    :raises ConfigurationError: for the function of a class method.
    """
    if given is not function:
        return isinstance(given, classmethod)
    first = next(iter(signature.parameters), None)
    name = function.__qualname__.rpartition("<locals>.")[2]
    if "." not in name or inspect.ismethod(function) or first not in {"self", "cls"}:
        return False
    if first == "cls":
        raise ConfigurationError(
            f"{name} is a class method: write @function_tool above @classmethod"
        )
    return True
