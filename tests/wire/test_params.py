"""The parameters of a request: what type checkers see, and what is refused at run time."""

import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_responses import _wire as wire
from trio_responses import typing as public_typing
from trio_responses._wire import param_checks, params
from trio_responses._wire.param_checks import check_input, check_params, merge_extra_body
from trio_responses._wire.params import WORDS, ConversationParams, ResponseCreateParams

NAN = float("nan")
INFINITY = float("inf")


def check(**parameters: Any) -> None:
    check_params(parameters, of="create()", options=("delivery", "snapshot"))


def members(hint: Any) -> list[Any]:
    """Return the members of a union, or the annotation alone."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return list(typing.get_args(hint))
    return [hint]


def leaves(hint: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield every annotation that is no union, sequence or typed dict, with its path."""
    for member in members(hint):
        if typing.is_typeddict(member):
            for name, inner in typing.get_type_hints(member).items():
                yield from leaves(inner, f"{path}.{name}" if path else name)
        elif typing.get_origin(member) is Sequence:
            yield from leaves(typing.get_args(member)[0], path)
        elif member is not type(None):
            yield path, member


LEAVES = [leaf for leaf in leaves(ResponseCreateParams, "") if not leaf[0].startswith("tools")]


# --- The typed dicts ----------------------------------------------------------------------------


def test_the_parameters_are_the_fields_of_the_request_that_callers_set() -> None:
    fields = set(wire.ResponseCreate.__struct_fields__) - {"input", "extra", "extra_body"}
    expected = (fields - param_checks.DECIDED_BY_LIBRARY) | {"extra_body"}
    names = set(typing.get_type_hints(ResponseCreateParams))
    assert names == expected
    of_one_response = {"previous_response_id", "conversation"}
    assert set(typing.get_type_hints(ConversationParams)) == names - of_one_response


def test_the_table_of_words_is_that_of_the_annotations() -> None:
    closed: dict[str, set[str]] = {}
    for path, leaf in LEAVES:
        if typing.get_origin(leaf) is typing.Literal:
            closed.setdefault(path, set()).update(typing.get_args(leaf))
    del closed["tool_choice.type"]  # its literals select a typed dict; any other text passes
    listed = {path: set(words.words) for path, words in WORDS.items() if words.kind == "closed"}
    assert closed == listed
    for path, words in WORDS.items():
        if words.kind == "open":
            assert (path, str) in LEAVES


def test_the_reference_has_the_table_of_words() -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "parameters.md"
    listed = [line for line in page.read_text().splitlines() if line.startswith("| `")]
    assert listed == [
        f"| `{path}` | {words.kind} | {', '.join(f'`{word}`' for word in words.words)}"
        f" | {words.reason} |"
        for path, words in WORDS.items()
    ]


def test_every_typed_dict_is_public() -> None:
    for name, value in vars(params).items():
        if typing.is_typeddict(value):
            assert getattr(public_typing, name) is value


# --- Names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("temprature", "create() has no parameter 'temprature'; did you mean 'temperature'?"),
        ("delivry", "create() has no parameter 'delivry'; did you mean 'delivery'?"),
        (
            "brand_new",
            (
                "create() has no parameter 'brand_new'; a field that this version does not know"
                " goes into extra_body={...}"
            ),
        ),
        (
            "timeout",
            (
                "create() has no parameter 'timeout': use timeouts=Timeouts(...) or"
                " trio.fail_after(seconds)"
            ),
        ),
        ("messages", "create() has no parameter 'messages': use the first argument, input"),
        ("max_tokens", "create() has no parameter 'max_tokens': use max_output_tokens="),
    ],
)
def test_an_unknown_name_is_a_type_error_that_says_what_to_use(name: str, message: str) -> None:
    with pytest.raises(TypeError) as failure:
        check(model="m", **{name: 1})
    assert str(failure.value) == message


@pytest.mark.parametrize("name", sorted(param_checks._NO_SUCH_PARAMETER))
def test_every_name_of_other_clients_has_a_hint(name: str) -> None:
    with pytest.raises(TypeError, match=f"no parameter '{name}': "):
        check(**{name: 1})


@pytest.mark.parametrize("name", ["previous_response_id", "conversation", "input"])
def test_a_conversation_refuses_what_belongs_to_one_response(name: str) -> None:
    with pytest.raises(TypeError, match=f"conversation\\(\\) has no parameter '{name}': "):
        check_params({name: "x"}, of="conversation()", allowed=ConversationParams)
    body = {"extra_body": {name: "x"}}
    with pytest.raises(TypeError, match=f"cannot set '{name}': "):
        check_params(body, of="conversation()", allowed=ConversationParams)


class CallableTool:
    """A tool that a program can call, as a function tool is."""

    definition = wire.FunctionToolParam(name="f", parameters={"type": "object"})

    def __call__(self) -> None: ...


def test_a_conversation_accepts_a_function_that_returns_its_tools() -> None:
    def choose(_: object) -> list[dict[str, str]]:
        return []

    check_params({"tools": choose}, of="conversation()", allowed=ConversationParams)
    check_params({"tools": [FUNCTION]}, of="conversation()", allowed=ConversationParams)
    tool = CallableTool()
    with pytest.raises(TypeError, match=r"tools must be a list of tools, not CallableTool$"):
        check_params({"tools": tool}, of="conversation()", allowed=ConversationParams)


@pytest.mark.parametrize("name", [*sorted(param_checks.DECIDED_BY_LIBRARY), "input"])
def test_extra_body_refuses_what_the_library_sets(name: str) -> None:
    with pytest.raises(TypeError, match=f"extra_body of create\\(\\) cannot set '{name}': "):
        check(extra_body={name: "x"})


# --- Values -------------------------------------------------------------------------------------

FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object"}}
SCHEMA = {"type": "json_schema", "name": "n", "schema": {"type": "object"}}

RIGHT: list[dict[str, Any]] = [
    {},
    {"model": "m", "instructions": None, "store": False, "temperature": 1, "top_p": 0.5},
    {"reasoning": {"effort": "brand_new", "summary": "auto"}},
    {"reasoning": None},
    {"text": {"format": {"type": "text"}, "verbosity": "low"}},
    {"text": {"format": SCHEMA}},
    {"text": types.MappingProxyType({"verbosity": None})},
    {"tool_choice": "required"},
    {"tool_choice": {"type": "function", "name": "f"}},
    {"tool_choice": {"type": "web_search"}},
    {"tool_choice": {"type": "brand_new", "anything": 1}},
    {"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "shell"}]}},
    {"tools": [FUNCTION, wire.WebSearchTool(), {"type": "brand_new", "x": 1}]},
    {"tools": ()},
    {"include": ["reasoning.encrypted_content", "brand.new"]},
    {"metadata": {"a": "b"}},
    {"context_management": [{"type": "compaction", "compact_threshold": 100}]},
    {"prompt": {"id": "p", "variables": {"a": "b", "c": wire.InputText(text="x")}}},
    {"conversation": "conv_1"},
    {"conversation": {"id": "conv_1"}},
    {"moderation": {"model": "m", "policy": {"input": {"mode": "score"}, "output": None}}},
    {"multi_agent": {"enabled": True, "max_concurrent_subagents": 2}},
    {"stream_options": {"include_obfuscation": False}},
    {"service_tier": "brand_new"},
    {"extra_body": {"brand_new": {"x": [1.5]}, "reasoning": {"brand_new": 1}}},
    {"model": msgspec.UNSET, "reasoning": {"effort": msgspec.UNSET}},
]

WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"model": None}, TypeError, "model must be text, not None: leave it out instead"),
    ({"model": 5}, TypeError, "model must be text, not int"),
    ({"max_output_tokens": "9"}, TypeError, "max_output_tokens must be an integer, not str"),
    ({"max_output_tokens": True}, TypeError, "max_output_tokens must be an integer, not bool"),
    ({"store": 1}, TypeError, "store must be True or False, not int"),
    ({"temperature": "hot"}, TypeError, "temperature must be a number, not str"),
    ({"temperature": NAN}, ValueError, "temperature is nan, which JSON cannot express"),
    ({"top_p": -INFINITY}, ValueError, "top_p is -inf, which JSON cannot express"),
    ({"include": "x"}, TypeError, "include must be a list, not str"),
    ({"include": ["x", 5]}, TypeError, "include[1] must be text, not int"),
    ({"metadata": {"a": 1}}, TypeError, "metadata['a'] must be text, not int"),
    ({"metadata": "a"}, TypeError, "metadata must be a mapping, not str"),
    (
        {"truncation": "atuo"},
        ValueError,
        "truncation must be 'auto' or 'disabled', not 'atuo'; did you mean 'auto'?",
    ),
    ({"truncation": 5}, TypeError, "truncation must be 'auto' or 'disabled', not int"),
    (
        {"reasoning": "high"},
        TypeError,
        "reasoning must be a mapping such as {'effort': ...}, not str",
    ),
    (
        {"reasoning": {"efort": "high"}},
        TypeError,
        "reasoning has no key 'efort'; did you mean 'effort'?",
    ),
    (
        {"reasoning": {"brand_new": 1}},
        TypeError,
        (
            "reasoning has no key 'brand_new'; a key that this version does not know goes into"
            " extra_body={'reasoning': ...}"
        ),
    ),
    ({"reasoning": {"effort": 3}}, TypeError, "reasoning.effort must be text, not int"),
    (
        {"text": {"format": {"type": "json_schema", "name": "n"}}},
        ValueError,
        "text.format needs the key 'schema'",
    ),
    (
        {"text": {"format": {"type": "json"}}},
        ValueError,
        "text.format.type must be 'text', 'json_schema' or 'json_object', not 'json'",
    ),
    (
        {"text": {"format": {**SCHEMA, "schema": {"minimum": NAN}}}},
        ValueError,
        "text.format.schema['minimum'] is not a finite number, which JSON cannot express",
    ),
    (
        {"text": {"format": "json"}},
        TypeError,
        'text.format must be a mapping with a "type", not str',
    ),
    (
        {"tool_choice": "atuo"},
        ValueError,
        "tool_choice must be 'none', 'auto' or 'required', not 'atuo'; did you mean 'auto'?",
    ),
    ({"tool_choice": {"type": "function"}}, ValueError, "tool_choice needs the key 'name'"),
    (
        {"tool_choice": {"typ": "function"}},
        ValueError,
        "tool_choice needs the key 'type'; is 'typ' meant?",
    ),
    (
        {"tool_choice": {"type": "shell", "x": INFINITY}},
        ValueError,
        "tool_choice['x'] is not a finite number, which JSON cannot express",
    ),
    (
        {"context_management": [{"type": "compaction"}, {"type": "c", "compact_treshold": 1}]},
        TypeError,
        "context_management[1] has no key 'compact_treshold'; did you mean 'compact_threshold'?",
    ),
    ({"prompt": "hi"}, TypeError, "prompt names a stored prompt; text for the model is the input"),
    ({"conversation": 5}, TypeError, "conversation must be text, not int"),
    (
        {"moderation": {"model": "m", "policy": {"input": {"mode": "blok"}}}},
        ValueError,
        (
            "moderation.policy.input.mode must be 'score' or 'block', not 'blok';"
            " did you mean 'block'?"
        ),
    ),
    ({"extra_body": [1]}, TypeError, "extra_body must be a mapping, not list"),
    (
        {"extra_body": {"a": [{"b": NAN}]}},
        ValueError,
        "extra_body['a'][0]['b'] is not a finite number, which JSON cannot express",
    ),
    ({"tools": "f"}, TypeError, "tools must be a list of tools, not str"),
    (
        {"tools": len},
        TypeError,
        (
            "tools must be a list of tools, not builtin_function_or_method: only the runs of a"
            " conversation accept a function that returns the tools"
        ),
    ),
    (
        {"tools": [print]},
        TypeError,
        "tools[0] is a plain function: decorate print with @function_tool",
    ),
    ({"tools": [5]}, TypeError, "tools[0] must be a tool or a mapping, not int"),
    ({"tools": [{"name": "f"}]}, ValueError, "tools[0] needs the key 'type'"),
    ({"tools": [{"type": 5}]}, TypeError, "tools[0]['type'] must be text, not int"),
    (
        {"tools": [FUNCTION, {"type": "function", "nam": "f"}]},
        ValueError,
        "tools[1] needs the key 'name'; is 'nam' meant?",
    ),
    (
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        ValueError,
        (
            "tools[0] has its name and parameters inside 'function', as Chat Completions has them:"
            " the Responses API has them beside 'type'"
        ),
    ),
    (
        {"tools": [{**FUNCTION, "parameters": {"maximum": INFINITY}}]},
        ValueError,
        "tools[0]['parameters']['maximum'] is not a finite number, which JSON cannot express",
    ),
]


@pytest.mark.parametrize("parameters", RIGHT)
def test_right_parameters_pass(parameters: dict[str, Any]) -> None:
    check(**parameters)


@pytest.mark.parametrize(("parameters", "error", "message"), WRONG)
def test_wrong_values_are_refused_with_their_place(
    parameters: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as failure:
        check(**parameters)
    assert type(failure.value) is error
    assert str(failure.value) == message


# --- Any parameters -----------------------------------------------------------------------------

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
JSON_OBJECTS = st.dictionaries(st.text(), JSON_VALUES, max_size=3)
SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(),
    int: st.integers(),
    float: st.floats(allow_nan=False, allow_infinity=False) | st.integers(),
    bool: st.booleans(),
    type(None): st.none(),
    Any: JSON_VALUES,
}


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for the values of an annotation."""
    origin = typing.get_origin(hint)
    if hint in SCALARS:
        return SCALARS[hint]
    if origin is typing.Literal:
        return st.sampled_from(typing.get_args(hint))
    if typing.is_typeddict(hint):
        return objects(hint)
    if origin is Sequence:
        return st.lists(values(typing.get_args(hint)[0]), max_size=3)
    if origin is Mapping:
        return st.dictionaries(st.text(), values(typing.get_args(hint)[1]), max_size=3)
    return st.one_of([values(member) for member in members(hint)])


def objects(typed_dict: Any, *without: str) -> st.SearchStrategy[dict[str, Any]]:
    hints = typing.get_type_hints(typed_dict)
    strategies = {name: values(hint) for name, hint in hints.items() if name not in without}
    if typed_dict is params.ToolChoiceType:
        strategies["type"] = st.sampled_from(["web_search", "shell", "brand_new"])
    required = {name: strategies.pop(name) for name in typed_dict.__required_keys__}
    return st.fixed_dictionaries(required, optional=strategies)


PARAMETERS = objects(ResponseCreateParams, "tools", "extra_body")


@given(PARAMETERS)
def test_any_parameters_of_the_annotated_types_pass(parameters: dict[str, Any]) -> None:
    check(**parameters)


def places_of_keys(value: Any) -> list[dict[str, Any]]:
    """Return every object that a typed dict describes: the parameters, and those within."""
    free = ("metadata", "variables", "schema", "tools")
    found: list[dict[str, Any]] = []
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        found.append(fields)
        for name, inner in fields.items():
            if name not in free:
                found += places_of_keys(inner)
    elif isinstance(value, list):
        for inner in cast("list[object]", value):
            found += places_of_keys(inner)
    return found


@given(PARAMETERS, st.data())
def test_a_single_misspelt_key_is_refused(parameters: dict[str, Any], data: st.DataObject) -> None:
    typed = {name: parameters[name] for name in parameters if name != "tool_choice"}
    places = [place for place in places_of_keys(typed) if place]
    if not places:
        return
    place = data.draw(st.sampled_from(places))
    key = data.draw(st.sampled_from(sorted(place)))
    place[key + "z"] = place.pop(key)
    with pytest.raises((TypeError, ValueError)):
        check(**typed)


# --- Input --------------------------------------------------------------------------------------

MESSAGE = wire.Message(role="user", content="hi")

RIGHT_INPUTS: list[Any] = [
    "hi",
    "",
    [],
    [MESSAGE],
    (MESSAGE,),
    [{"role": "user", "content": "hi"}],
    [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]}],
    [{"type": "function_call_output", "call_id": "c", "output": "x", "brand_new": 1}],
    [{"type": "brand_new"}],
    [{"id": "msg_1"}],
    [msgspec.Raw(b"{}"), wire.UnknownItem("x", msgspec.Raw(b"{}"))],
]

WRONG_INPUTS: list[tuple[Any, type[Exception], str]] = [
    (5, TypeError, "input must be text, an item or a list of items, not int"),
    (None, TypeError, "input must be text, an item or a list of items, not None"),
    (b"hi", TypeError, "input must be text, an item or a list of items, not bytes"),
    (iter([]), TypeError, "not list_iterator; make a list of it"),
    (wire.InputText(text="x"), TypeError, 'use Message(role="user", content=[...])'),
    (wire.Response(id="r"), TypeError, "use input=[*response.output]"),
    ([MESSAGE, "hi"], TypeError, "input[1] must be an item or a mapping, not str; use Message("),
    (
        [wire.InputText(text="x")],
        TypeError,
        'not InputText; use Message(role="user", content=[...])',
    ),
    ([5], TypeError, "input[0] must be an item or a mapping, not int"),
    ([{"rol": "user"}], ValueError, "input[0] needs the key 'type' or 'role'; is 'rol' meant?"),
    ({"typ": "message"}, ValueError, "input[0] needs the key 'type' or 'role'; is 'typ' meant?"),
    (
        [{"role": "user", "contnt": "hi"}],
        ValueError,
        "input[0] needs the key 'content'; is 'contnt' meant?",
    ),
    ([{"type": "message", "content": "hi"}], ValueError, "input[0] needs the key 'role'"),
    (
        [MESSAGE, {"type": "function_call_output", "call_id": "c"}],
        ValueError,
        "input[1] needs the key 'output'",
    ),
    ([{"type": 5}], TypeError, "input[0]['type'] must be text, not int"),
    (
        [{"type": "brand_new", "x": {"y": NAN}}],
        ValueError,
        "input[0]['x']['y'] is not a finite number, which JSON cannot express",
    ),
]


@pytest.mark.parametrize("value", RIGHT_INPUTS)
def test_a_right_input_passes(value: Any) -> None:
    assert check_input(value) == value


@pytest.mark.parametrize("item", [MESSAGE, {"role": "user", "content": "hi"}, msgspec.Raw(b"{}")])
def test_one_item_alone_is_a_list_of_one(item: Any) -> None:
    assert check_input(item) == [item]


@pytest.mark.parametrize(("value", "error", "message"), WRONG_INPUTS)
def test_a_wrong_input_is_refused_with_the_index_of_its_item(
    value: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as failure:
        check_input(value)
    assert message in str(failure.value)


def test_a_value_that_contains_itself_is_left_to_the_encoder() -> None:
    loop: dict[str, Any] = {"role": "user", "content": "hi"}
    loop["self"] = loop
    assert check_input([loop]) == [loop]
    with pytest.raises(TypeError, match="contains itself"):
        wire.encode(wire.ResponseCreate(input=[loop]))


# --- extra_body ---------------------------------------------------------------------------------


def test_extra_body_is_merged_in_depth() -> None:
    given_: dict[str, Any] = {
        "model": "m",
        "reasoning": {"effort": "low", "summary": "auto"},
        "include": ["a"],
        "extra_body": {
            "reasoning": {"effort": "brand_new", "depth": 3},
            "include": ["b"],
            "brand_new": {"x": 1},
        },
    }
    assert merge_extra_body(given_) == {
        "model": "m",
        "reasoning": {"effort": "brand_new", "summary": "auto", "depth": 3},
        "include": ["b"],
        "brand_new": {"x": 1},
    }
    assert given_["reasoning"] == {"effort": "low", "summary": "auto"}


@given(JSON_OBJECTS)
def test_extra_body_alone_is_the_request(body: dict[str, Any]) -> None:
    assert merge_extra_body({"extra_body": body}) == body
    assert merge_extra_body(body) == {key: body[key] for key in body if key != "extra_body"}
