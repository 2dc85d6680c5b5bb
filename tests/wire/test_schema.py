"""The records compared with the schema of the official SDK: no typed field may be missing."""

import ast
import json
import sys
import typing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from trio_responses import _wire as wire
from trio_responses import types
from trio_responses._wire import commands, events, items, parts

SCHEMA: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent / "data" / "wire_schema.json").read_text()
)


def names(record: type[msgspec.Struct]) -> set[str]:
    """Return the keys of a record on the wire."""
    tag = record.__struct_config__.tag_field
    return set(record.__struct_encode_fields__) | ({tag} if tag else set())


def by_tag(union: Any) -> dict[str, type[msgspec.Struct]]:
    return {member.__struct_config__.tag: member for member in typing.get_args(union)}


def subclasses(base: type[Any]) -> list[type[Any]]:
    return [kind for child in base.__subclasses__() for kind in (child, *subclasses(child))]


PARTS = by_tag(parts.ContentPart)
TOOLS = by_tag(wire.Tool)
ANNOTATIONS = by_tag(parts.Annotation)
OUTPUT_ITEMS = by_tag(items.OutputItem)
INPUT_ITEMS = by_tag(items.InputItem)


def entries(section: str) -> list[Any]:
    return [pytest.param(tag, entry, id=tag) for tag, entry in SCHEMA[section].items()]


@pytest.mark.parametrize(("tag", "entry"), entries("server_events"))
def test_every_server_event_has_all_its_fields(tag: str, entry: dict[str, Any]) -> None:
    missing = set(entry["fields"]) - names(events.EVENTS[tag])
    assert missing == ({"error"} if tag == "error" else set())


@pytest.mark.parametrize("tag", events.EVENTS)
def test_an_event_is_named_after_its_type(tag: str) -> None:
    words = tag.removeprefix("response.").replace(".", "_").split("_")
    name = "".join(word.capitalize() for word in words)
    if tag == "error":
        name = "ErrorEvent"
    elif "." not in tag.removeprefix("response."):
        name = f"Response{name}"
    event = events.EVENTS[tag]
    assert event.__name__ == name
    assert getattr(wire, name) is event


@pytest.mark.parametrize("tag", INPUT_ITEMS)
def test_an_item_is_named_after_its_type(tag: str) -> None:
    assert INPUT_ITEMS[tag].__name__ == "".join(word.capitalize() for word in tag.split("_"))


@pytest.mark.parametrize("tag", TOOLS)
def test_a_tool_is_named_after_its_type(tag: str) -> None:
    name = "".join(word.capitalize() for word in tag.split("_")) + "Tool"
    if tag == "function":
        name = "FunctionToolParam"  # `trio_responses.FunctionTool` wraps a callable
    assert TOOLS[tag].__name__ == name


@pytest.mark.parametrize(("tag", "entry"), entries("output_items"))
def test_every_output_item_has_all_its_fields(tag: str, entry: dict[str, Any]) -> None:
    assert set(entry["fields"]) <= names(OUTPUT_ITEMS[tag])


@pytest.mark.parametrize(("tag", "entry"), entries("input_items"))
def test_every_input_item_has_all_its_fields(tag: str, entry: dict[str, Any]) -> None:
    assert set(entry["fields"]) <= names(INPUT_ITEMS[tag])


@pytest.mark.parametrize(
    ("tag", "entry"),
    [
        *entries("message_content_parts"),
        *entries("content_part_event_parts"),
        *entries("input_content_parts"),
    ],
)
def test_every_content_part_has_all_its_fields(tag: str, entry: dict[str, Any]) -> None:
    assert set(entry["fields"]) <= names(PARTS[tag])


@pytest.mark.parametrize(("tag", "entry"), entries("annotations"))
def test_every_annotation_has_all_its_fields(tag: str, entry: dict[str, Any]) -> None:
    assert set(entry["fields"]) <= names(ANNOTATIONS[tag])


@pytest.mark.parametrize(("tag", "entry"), entries("tools"))
def test_every_tool_has_all_its_fields(tag: str, entry: dict[str, Any]) -> None:
    assert set(entry["fields"]) == names(TOOLS[tag])


@pytest.mark.parametrize(("tag", "entry"), entries("steer_required_input"))
def test_required_input_has_every_field_of_its_stubs(tag: str, entry: dict[str, Any]) -> None:
    assert tag in INPUT_ITEMS
    assert set(entry["fields"]) <= names(wire.RequiredInput)


def test_the_response_has_all_its_fields() -> None:
    expected = set(SCHEMA["response_object"]["fields"])
    assert expected | {"presence_penalty", "frequency_penalty", "store"} == names(wire.Response)


@pytest.mark.parametrize(
    ("definition", "record"),
    [
        ("responses.response_error:ResponseError", wire.ResponseError),
        ("responses.response_usage:ResponseUsage", wire.Usage),
        ("responses.response_usage:InputTokensDetails", wire.InputTokensDetails),
        ("responses.response_usage:OutputTokensDetails", wire.OutputTokensDetails),
        ("responses.response:IncompleteDetails", wire.IncompleteDetails),
        ("responses.response_output_text:Logprob", wire.Logprob),
        ("responses.response_output_text:LogprobTopLogprob", wire.TopLogprob),
        ("responses.response_file_search_tool_call:Result", wire.FileSearchResult),
        ("responses.response_computer_tool_call:PendingSafetyCheck", wire.SafetyCheck),
        ("responses.response_function_shell_tool_call:Action", wire.ShellAction),
        ("responses.response_function_shell_tool_call_output:Output", wire.ShellOutput),
        ("responses.response_output_item:McpListToolsTool", wire.McpServerTool),
        ("responses.response_steer_failed_event:Steer", wire.Steer),
        ("responses.response_steer_failed_event:Error", wire.InputError),
    ],
)
def test_nested_records_have_all_their_fields(
    definition: str, record: type[msgspec.Struct]
) -> None:
    assert set(SCHEMA["defs"][definition]["fields"]) == names(record)


ACTIONS = [
    *(f"responses.response_computer_tool_call:Action{name}" for name in (
        "Click", "DoubleClick", "Drag", "Keypress", "Move", "Screenshot", "Scroll", "Type", "Wait"
    )),
    *(f"responses.response_function_web_search:Action{name}" for name in (
        "Search", "OpenPage", "Find"
    )),
    *(f"responses.response_apply_patch_tool_call:Operation{name}" for name in (
        "CreateFile", "DeleteFile", "UpdateFile"
    )),
    "responses.response_code_interpreter_tool_call:OutputLogs",
    "responses.response_code_interpreter_tool_call:OutputImage",
    "responses.response_output_item:LocalShellCallAction",
    "responses.response_function_shell_tool_call_output:OutputOutcomeTimeout",
    "responses.response_function_shell_tool_call_output:OutputOutcomeExit",
    "responses.response_function_tool_call:CallerDirect",
    "responses.response_function_tool_call:CallerProgram",
    "responses.mcp_tool_call_error:McpProtocolError",
    "responses.mcp_tool_call_error:McpToolExecutionError",
    "responses.mcp_tool_call_error:HTTPError",
    "responses.response_reasoning_item:Summary",
    "responses.response_reasoning_item:Content",
]  # fmt: skip


@pytest.mark.parametrize("definition", ACTIONS)
def test_every_tagged_object_inside_an_item_has_all_its_fields(definition: str) -> None:
    fields = SCHEMA["defs"][definition]["fields"]
    known = {kind.__struct_config__.tag: kind for kind in wire.Part.__subclasses__()}
    (tag,) = fields["type"]["enum"]
    assert set(fields) == names(known[tag])


@pytest.mark.parametrize(
    ("tag", "command"),
    [("response.create", commands.ResponseCreate), ("response.steer", commands.ResponseSteer)],
)
def test_every_command_has_all_its_fields_and_no_others(
    tag: str, command: type[msgspec.Struct]
) -> None:
    entry = SCHEMA["client_event_params"][tag]
    expected = set(entry["fields"]) | set(entry.get("beta_only_extra", ()))
    assert names(command) - {"extra"} == expected
    assert set(entry["fields"]) <= set(SCHEMA["client_events"][tag]["fields"]) | {"type"}


def test_the_default_of_every_optional_field_of_an_item_is_none() -> None:
    """Encoding omits fields that equal their default, so no meaningful value may be a default."""
    for kind in [*subclasses(wire.Item), *subclasses(wire.Part), *TOOLS.values()]:
        for field in msgspec.structs.fields(kind):
            assert field.required or field.default is None, (kind, field.name)


def test_no_received_field_is_typed_as_a_closed_set_of_values() -> None:
    """Promise P8: a new value of an enumeration is no error."""

    def members(kind: Any) -> list[Any]:
        return [kind, *(inner for arg in typing.get_args(kind) for inner in members(arg))]

    kinds: list[type[msgspec.Struct]] = [wire.Response]
    kinds += [*events.EVENTS.values(), *INPUT_ITEMS.values()]
    for kind in kinds:
        for field in msgspec.structs.fields(kind):
            for member in members(field.type):
                assert typing.get_origin(member) is not typing.Literal, (kind, field.name)


PRIVATE_NAMES = {
    *("EVENTS", "JSON", "Event", "Item", "Part", "Record", "Tagged", "ToolDefinition", "Unknown"),
    *("decode", "decode_all", "decode_item", "encode", "parse_retry_after"),
    *("COMMENTARY", "DECODE_ERRORS", "decode_response", "select_answers", "sum_usages"),
    *("DEFAULT_NAMESPACES", "qualified_name"),
}
"""The names of the wire package that users do not get: base classes, tables and functions."""


def test_the_public_module_lists_every_record_of_the_wire_package() -> None:
    records = {kind.__name__ for kind in [*subclasses(wire.Tagged), *subclasses(wire.Record)]}
    public_records = {name for name in records if not name.startswith("_")} - PRIVATE_NAMES
    assert public_records <= set(types.__all__)
    assert set(types.__all__) == set(wire.__all__) - PRIVATE_NAMES
    for name in types.__all__:
        assert getattr(types, name) is getattr(wire, name)


def imported_modules(path: Path) -> list[str]:
    """Return the absolute names of the modules that a source file imports."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports are not resolved here"
            found.append(str(node.module))
    return found


TAGGED = [
    *events.EVENTS.values(),
    *INPUT_ITEMS.values(),
    *TOOLS.values(),
    *wire.Part.__subclasses__(),
    *typing.get_args(wire.ClientEvent),
]


@pytest.mark.parametrize("record", TAGGED)
def test_the_class_attribute_type_is_the_tag(record: Any) -> None:
    assert vars(record)["type"] == record.__struct_config__.tag


def test_wire_imports_only_msgspec_the_standard_library_and_itself() -> None:
    """So no layer above, and no Trio. ``trio_responses`` as a whole would be a layer above."""
    for path in Path(str(wire.__file__)).parent.glob("*.py"):
        for module in imported_modules(path):
            root = module.partition(".")[0]
            within_package = f"{module}.".startswith(f"{wire.__name__}.")
            allowed = root == "msgspec" or root in sys.stdlib_module_names or within_package
            assert allowed, f"{path} imports {module}"
