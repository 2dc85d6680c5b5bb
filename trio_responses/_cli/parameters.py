"""The parameters of a request as options of the command line, and the tools that go with them.

Each option is a name and a path in the typed dict `ResponseCreateParams`, which decides the type
and the accepted words of its value. ``--param`` sets any other parameter. Every mistake is a
`UsageError`.
"""

from __future__ import annotations

import argparse
import difflib
import types
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import msgspec

from trio_responses._cli.running import UsageError, replace_surrogates
from trio_responses._cli.server_choice import DEFAULT_MODEL, NO_MODEL, default_model
from trio_responses._cli.tool_loading import load_tools
from trio_responses._tools.namespace import find_named_tools
from trio_responses._wire.param_checks import check_params, merge_fields
from trio_responses._wire.params import WORDS, ConversationParams, ResponseCreateParams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from trio_responses._tools.namespace import ToolLike

__all__ = ["RequestOptions", "add_parameters", "request_options"]

OPTIONS: Final[Mapping[str, tuple[str, str]]] = {
    "--temperature": ("temperature", "the sampling temperature, from 0 to 2"),
    "--top-p": ("top_p", "the share of the probability mass that is sampled, from 0 to 1"),
    "--max-output-tokens": ("max_output_tokens", "the limit of output and reasoning tokens"),
    "--reasoning-effort": ("reasoning.effort", "how much a reasoning model thinks"),
    "--reasoning-summary": ("reasoning.summary", "ask for a summary of the reasoning"),
    "--verbosity": ("text.verbosity", "how long the answer is"),
    "--service-tier": ("service_tier", "the service tier"),
    "--parallel-tool-calls": ("parallel_tool_calls", "whether one response may have many calls"),
    "--truncation": ("truncation", "whether the oldest items are dropped in a full context"),
    "--prompt-cache-key": ("prompt_cache_key", "the key of requests that share a prompt cache"),
    "--safety-identifier": ("safety_identifier", "a stable identifier of the end user"),
    "--user": ("user", "deprecated: an identifier of the end user"),
    "--previous-response-id": ("previous_response_id", "the stored response to continue"),
}
"""The parameters that have options of their own: the path of each, and the help text."""
KINDS: Final[Mapping[Any, Callable[[str], Any]]] = {int: int, float: float, str: str}
METAVARS: Final[Mapping[Any, str]] = {int: "N", float: "X", str: "TEXT"}
TOOL_CHOICE: Final = "which tools the model calls: auto, none, required, or the name of a tool"
METADATA: Final = "metadata that the server stores with the response; may be repeated"
PARAM: Final = (
    "any parameter of a request, with a value in JSON or as text; may be repeated. A name such as"
    " reasoning.context sets one key of an object"
)
MODEL: Final = f"the model's name (default: {DEFAULT_MODEL})"
TOOLS: Final = (
    "tools for the model: MODULE:FUNCTION, FILE.py:FUNCTION, MODULE:LIST, or a whole MODULE;"
    " several with commas, or by repeating the option. They run without asking"
)


def add_parameters(parser: argparse.ArgumentParser, *, conversation: bool) -> None:
    """Add the options of the parameters of a request to a parser.

    :param conversation: whether the parameters are those of a conversation, which continues its
        last response itself.
    """
    parser.add_argument("--model", help=MODEL)
    parser.add_argument("--instructions", metavar="TEXT", help="instructions for the model")
    parser.add_argument("--tools", metavar="SPEC", action="append", default=[], help=TOOLS)
    group = parser.add_argument_group("parameters of the request")
    allowed = _allowed(conversation=conversation)
    for option, (path, about) in OPTIONS.items():
        if path.partition(".")[0] in allowed.__annotations__:
            group.add_argument(option, dest=_dest(path), help=about, **_argument_of(path))
    group.add_argument("--tool-choice", metavar="CHOICE", help=TOOL_CHOICE)
    group.add_argument("--metadata", metavar="K=V", action="append", default=[], help=METADATA)
    group.add_argument("--param", metavar="NAME=JSON", action="append", default=[], help=PARAM)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOptions:
    """What the options of a command say about its requests.

    :ivar params: the parameters, but for the tools; they have been checked.
    :ivar tools: the tools that the model may call.
    """

    params: dict[str, Any]
    tools: tuple[ToolLike, ...]


def request_options(
    arguments: argparse.Namespace,
    *,
    conversation: bool,
    tools: Sequence[ToolLike] = (),
) -> RequestOptions:
    """Return the parameters and the tools that the options of a command have.

    :param conversation: as for `add_parameters`.
    :param tools: the command's own tools, which come before those of ``--tools``.
    :raises UsageError: for values and names that the API does not have, and for tools that cannot
        be loaded.
    """
    params: dict[str, Any] = {}
    for path, value in _given(arguments):
        params = merge_fields(params, _nested(path, value))
    if "prompt" not in params:  # a stored prompt has a model of its own
        params.setdefault("model", default_model(arguments))
    if params.get("model", "") is None:
        raise UsageError(NO_MODEL)
    more: Any = params.pop("tools", ())
    allowed = _allowed(conversation=conversation)
    try:
        check_params({**params, "tools": more}, of="a request", allowed=allowed)
    except (TypeError, ValueError) as error:
        message = str(error).replace("goes into extra_body", "goes into --param extra_body")
        raise UsageError(message) from error
    offered = (*tools, *load_tools(arguments.tools), *more)
    if arguments.tool_choice is not None:
        params["tool_choice"] = _tool_choice(arguments.tool_choice, offered)
    return RequestOptions(params=params, tools=offered)


def _allowed(*, conversation: bool) -> Any:
    return ConversationParams if conversation else ResponseCreateParams


def _given(arguments: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    """Yield the path and the value of each parameter that was given, ``--param`` last."""
    for path in ("model", "instructions"):
        if getattr(arguments, path) is not None:
            yield path, replace_surrogates(getattr(arguments, path))
    for path, _ in OPTIONS.values():
        value = getattr(arguments, _dest(path), None)
        if value is not None:
            yield path, replace_surrogates(value) if isinstance(value, str) else value
    if arguments.metadata:
        pairs = (_split("--metadata", "K=V", pair) for pair in arguments.metadata)
        yield "metadata", {key: replace_surrogates(value) for key, value in pairs}
    for given in arguments.param:
        path, text = _split("--param", "NAME=JSON", given)
        yield path, _value_of(path, replace_surrogates(text))


def _dest(path: str) -> str:
    return path.replace(".", "_")


def _nested(path: str, value: Any) -> dict[str, Any]:
    """Return the fields that have a value at a path, such as ``reasoning.effort``."""
    name, _, rest = path.partition(".")
    return {name: _nested(rest, value) if rest else value}


def _split(option: str, form: str, given: str) -> tuple[str, str]:
    name, equals, value = given.partition("=")
    if not name.strip() or not equals:
        raise UsageError(f"{option} {given!r} is not of the form {form}")
    return name.strip(), value


def _value_of(path: str, text: str) -> Any:
    """Return the value of ``--param``: JSON, or the text itself where it cannot be JSON.

    :raises UsageError: for text that begins as JSON does, and is none.
    """
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        if text.lstrip().startswith(("{", "[", '"')):
            raise UsageError(f"the value of --param {path} is not valid JSON: {error}") from error
        return text


# --- Types -------------------------------------------------------------------------------


def _argument_of(path: str) -> dict[str, Any]:
    """Return the arguments of `add_argument` for the parameter at a path."""
    hint = _hint_of(path)
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction, "default": None}
    words = WORDS.get(path)
    if words is not None and words.kind == "closed":
        return {"choices": words.words}
    if words is not None:
        return {"metavar": "WORD", "type": str}
    return {"metavar": METAVARS[hint], "type": KINDS[hint]}


def _hint_of(path: str) -> Any:
    """Return the annotation of a parameter, without `None`: `str` for a choice of words."""
    hint: Any = ResponseCreateParams
    for name in path.split("."):
        hint = hint.__annotations__[name]
        if typing.get_origin(hint) in {types.UnionType, typing.Union}:
            (hint,) = (each for each in typing.get_args(hint) if each is not type(None))
    return str if typing.get_origin(hint) is Literal else hint


def _tool_choice(choice: str, tools: Iterable[ToolLike]) -> str | dict[str, str]:
    """Return the ``tool_choice`` for a word, or for the name of a tool that is offered."""
    words = WORDS["tool_choice"].words
    if choice in words:
        return choice
    kinds = {key: _kind_of(tool) for key, tool in find_named_tools(list(tools))}
    names = {f"{space}.{name}" if space else name: (space, name) for space, name in kinds}
    if choice in names:
        space, name = names[choice]
        found = {"type": kinds[space, name], "name": name}
        return {**found, "namespace": space} if space else found
    known = [*words, *names]
    close = difflib.get_close_matches(choice, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"use {', '.join(known)}"
    raise UsageError(f"--tool-choice {choice!r} is neither a word nor the name of a tool: {hint}")


def _kind_of(tool: Any) -> str:
    if isinstance(tool, dict):
        return str(cast("dict[str, Any]", tool).get("type"))
    return str(getattr(tool, "type", "function"))
