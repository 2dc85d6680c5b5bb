"""Calls, their outputs, and the JSON of the outputs."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from trio_responses import _wire as wire
from trio_responses._protocol.calls import (
    MAX_OUTPUT,
    arguments_of_call,
    call_key,
    decode_call,
    describe_undecodable_call,
    find_calls_and_outputs,
    find_unanswerable_call,
    is_output_item,
    limit_output,
    make_error_output,
    make_output,
    name_of_call,
)
from trio_responses._protocol.raw_items import RawItems

Json = dict[str, Any]

RAW_OUTCOME = msgspec.Raw(b'{"type":"x"}')

CALLER: Json = {"type": "program", "caller_id": "call_0"}
CALLS: dict[str, Json] = {
    "function_call": {"name": "f", "arguments": "{}"},
    "custom_tool_call": {"name": "t", "input": ""},
    "computer_call": {},
    "shell_call": {"action": {"commands": ["ls"]}},
    "local_shell_call": {"action": {"type": "exec", "command": ["ls"], "env": {}}},
    "apply_patch_call": {"operation": {"type": "delete_file", "path": "a"}},
    "mcp_approval_request": {"name": "f", "arguments": "{}"},
    "tool_search_call": {"execution": "client"},
}


def raw(item: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(item))


def plain(item: msgspec.Raw | None) -> Json:
    assert item is not None
    decoded: Json = msgspec.json.decode(item)
    return decoded


def call(kind: str, **more: Any) -> msgspec.Raw:
    place = {"id": "c"} if kind == "mcp_approval_request" else {"id": "i", "call_id": "c"}
    return raw({"type": kind, **place, **CALLS[kind], **more})


def typed(kind: str, **more: Any) -> wire.ToolCall:
    return decode_call(call(kind, **more))


# --- Keys --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CALLS)
def test_every_call_has_an_id(kind: str) -> None:
    assert typed(kind).call_id == "c"


@pytest.mark.parametrize(
    ("kind", "more", "arguments"),
    [
        ("function_call", {"arguments": '{"a":1}'}, '{"a":1}'),
        ("custom_tool_call", {"input": "SELECT 1"}, "SELECT 1"),
        ("mcp_approval_request", {"arguments": "[]"}, "[]"),
        ("tool_search_call", {"arguments": {"goal": "mail"}}, '{"goal":"mail"}'),
        ("tool_search_call", {}, ""),
        ("computer_call", {}, ""),
        ("function_call", {"name": 3}, ""),
    ],
)
def test_a_call_has_what_the_model_wrote(kind: str, more: Json, arguments: str) -> None:
    assert arguments_of_call(typed(kind, **more)) == arguments


@pytest.mark.parametrize("kind", CALLS)
def test_an_output_has_the_key_of_its_call(kind: str) -> None:
    output = make_output(typed(kind), "x")
    assert call_key(output) == call_key(call(kind)) == (kind, "c")
    assert plain(output)["type"] != kind


@pytest.mark.parametrize(
    "item",
    [
        {"type": "message", "role": "user", "content": "hi"},
        {"type": "web_search_call", "id": "ws"},
        {"type": "function_call", "name": "f"},
        {"type": "tool_search_call", "call_id": "c", "execution": "server"},
        {"type": "tool_search_output", "call_id": "c", "execution": "server"},
        {"type": "shell_call", "call_id": "c", "environment": {"type": "container_reference"}},
        {"type": "function_call", "call_id": ""},
        {"role": "user"},
        {"type": 3},
        [1],
    ],
)
def test_other_items_have_no_key(item: Any) -> None:
    assert call_key(raw(item)) is None


def test_invalid_json_has_no_key() -> None:
    assert call_key(msgspec.Raw(b'{"type": ')) is None
    assert call_key(msgspec.Raw(b'"\xff"')) is None


@pytest.mark.parametrize(
    ("item", "name"),
    [
        ({"type": "local_shell_call", "id": "i", "call_id": "c"}, "c"),
        ({"type": "local_shell_call_output", "id": "c"}, "c"),
        ({"type": "mcp_approval_request", "id": "m"}, "m"),
        ({"type": "mcp_approval_response", "id": "x", "approval_request_id": "m"}, "m"),
    ],
)
def test_local_shells_and_approvals_have_their_ids_in_other_fields(item: Json, name: str) -> None:
    key = call_key(raw(item))
    assert key is not None
    assert key[1] == name


# --- Names and calls that cannot run -----------------------------------------------------


@pytest.mark.parametrize(
    ("item", "name"),
    [
        ({"type": "function_call", "namespace": "crm"}, "crm.f"),
        ({"type": "function_call", "namespace": "functions"}, "f"),
        ({"type": "function_call"}, "f"),
        ({"type": "custom_tool_call", "namespace": "db"}, "db.t"),
        ({"type": "mcp_approval_request"}, "f"),
        ({"type": "shell_call"}, "shell_call"),
    ],
)
def test_the_name_of_a_call_has_its_namespace(item: Json, name: str) -> None:
    kind = item.pop("type")
    assert name_of_call(typed(kind, **item)) == name


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ({"type": "function_call", "call_id": "c", "arguments": "{}"}, "it has no 'name'"),
        (
            {"type": "shell_call", "call_id": "c", "action": 3},
            "a field has a wrong type (call_id, action are required)",
        ),
        (
            {"type": "custom_tool_call", "call_id": "c", "name": "t", "input": "", "namespace": 3},
            "its 'namespace' cannot be read",
        ),
        (
            {"type": "computer_call", "call_id": "c", "pending_safety_checks": [{"code": "x"}]},
            "its 'pending_safety_checks' cannot be read",
        ),
    ],
)
def test_the_reason_why_a_call_cannot_be_decoded_names_the_field(item: Json, reason: str) -> None:
    assert describe_undecodable_call(decode_call(raw(item))) == reason


@pytest.mark.parametrize("kind", CALLS)
def test_a_call_with_its_fields_can_be_decoded(kind: str) -> None:
    assert describe_undecodable_call(typed(kind)) is None


def test_a_call_that_a_program_made_can_be_decoded() -> None:
    assert describe_undecodable_call(wire.FunctionCall(call_id="c", name="f", arguments="")) is None


def unanswerable(*items: Any) -> str | None:
    found = find_unanswerable_call([wire.decode_item(raw(item)) for item in items])
    return found[1] if found is not None else None


SAID: Json = {"type": "message", "role": "assistant", "content": []}
FUTURE: Json = {"type": "future_call", "call_id": "c"}


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ({"type": "function_call", "name": "f", "arguments": "{}"}, "it has no 'call_id'"),
        ({"type": "function_call", "call_id": 3}, "it has no 'call_id'"),
        ({"type": "function_call", "call_id": ""}, "it has no 'call_id'"),
        ({"type": "mcp_approval_request"}, "it has no 'id'"),
        ({"type": "tool_search_call", "execution": "client"}, "it has no 'call_id'"),
        (FUTURE, "its type is unknown"),
        ({"call_id": "c"}, "it has no 'type'"),
        (3, "it has no 'type'"),
    ],
)
def test_a_call_without_id_or_of_unknown_type_has_no_answer(item: Any, reason: str) -> None:
    assert (unanswerable(SAID, item) or "").startswith(reason)


@pytest.mark.parametrize(
    "items",
    [
        (),
        (SAID,),
        (FUTURE, SAID),
        (FUTURE, {"type": "future_call_output", "call_id": "c"}),
        ({"type": "future_call", "id": "i"},),
        ({"type": "future", "call_id": "c"},),
        ({"type": "tool_search_call"},),
        ({"type": "tool_search_call", "execution": "server"},),
        ({"type": "shell_call", "environment": {"type": "container_reference"}},),
        ({"type": "function_call", "call_id": "c"},),
        ({"type": "web_search_call", "id": "i"},),
        ({}, SAID),
    ],
)
def test_other_items_leave_no_call_without_an_answer(items: tuple[Json, ...]) -> None:
    assert unanswerable(*items) is None


# --- Calls and outputs among items -------------------------------------------------------


def found_in(*items: bytes) -> list[tuple[str, bool, bytes]]:
    found = find_calls_and_outputs(RawItems.join([msgspec.Raw(item) for item in items]))
    return [(key[1], is_call, bytes(one)) for key, is_call, one in found]


def f(name: str) -> bytes:
    return b'{"type": "function_call", "call_id": "%b"}' % name.encode()


def out(name: str) -> bytes:
    return b'{"type":"function_call_output","call_id":"%b","output":""}' % name.encode()


MESSAGE = b'{"type":"message"}'


def test_calls_and_outputs_are_found_in_order_as_raw_json() -> None:
    assert found_in(f("a"), MESSAGE, out("a"), f("a")) == [
        ("a", True, f("a")),
        ("a", False, out("a")),
        ("a", True, f("a")),
    ]


def test_nothing_is_found_among_items_without_calls() -> None:
    assert found_in() == found_in(MESSAGE, MESSAGE) == []


@pytest.mark.parametrize("odd", [b'{"type":3}', b"[1]", b"null", b'{"type":"\xff"}'])
def test_an_item_of_another_shape_hides_no_call(odd: bytes) -> None:
    assert found_in(f("a"), odd, out("b")) == [("a", True, f("a")), ("b", False, out("b"))]


# --- Outputs -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "result", "output"),
    [
        ("function_call", "x", {"call_id": "c", "output": "x"}),
        ("function_call", {"type": "message"}, {"call_id": "c", "output": {"type": "message"}}),
        ("function_call", {"type": ["x"]}, {"call_id": "c", "output": {"type": ["x"]}}),
        ("custom_tool_call", "x", {"call_id": "c", "output": "x"}),
        ("computer_call", {"type": "s"}, {"call_id": "c", "output": {"type": "s"}}),
        ("shell_call", [], {"call_id": "c", "output": []}),
        ("local_shell_call", "x", {"id": "c", "output": "x"}),
        ("apply_patch_call", "x", {"call_id": "c", "status": "completed", "output": "x"}),
        ("mcp_approval_request", True, {"approval_request_id": "c", "approve": True}),
        ("mcp_approval_request", False, {"approval_request_id": "c", "approve": False}),
        (
            "mcp_approval_request",
            "no\udc80",
            {"approval_request_id": "c", "approve": False, "reason": "no\ufffd"},
        ),
        ("tool_search_call", [], {"call_id": "c", "execution": "client", "tools": []}),
    ],
)
def test_a_result_becomes_the_field_that_its_kind_of_output_has(
    kind: str, result: Any, output: Json
) -> None:
    made = plain(make_output(typed(kind), result))
    made.pop("type")
    assert made == output


@pytest.mark.parametrize(
    ("result", "whole"),
    [
        (wire.FunctionCallOutput(call_id="c", output="x"), True),
        ({"type": "function_call_output", "call_id": "c", "output": "x"}, True),
        ({"type": "message"}, False),
        ({"type": {}}, False),
        ({}, False),
        ("text", False),
        (None, False),
        (wire.InputText(text="x"), False),
    ],
)
def test_a_whole_output_item_is_sent_unchanged(result: Any, whole: bool) -> None:  # noqa: FBT001
    assert is_output_item(result) is whole
    if whole:
        expected = {"type": "function_call_output", "call_id": "c", "output": "x"}
        assert plain(make_output(typed("function_call"), result)) == expected


def test_an_unknown_item_is_sent_unchanged() -> None:
    unknown = wire.decode_item(raw({"type": "of_next_year", "call_id": "c"}))
    assert is_output_item(unknown)
    assert plain(make_output(typed("function_call"), unknown))["type"] == "of_next_year"


def test_a_result_that_is_not_json_is_refused() -> None:
    with pytest.raises(TypeError):
        make_output(typed("function_call"), object())


@pytest.mark.parametrize("caller", [CALLER, {"type": "direct"}, {"type": "of_next_year", "n": 1}])
@pytest.mark.parametrize(
    "kind", ["function_call", "custom_tool_call", "shell_call", "apply_patch_call"]
)
def test_an_output_names_the_caller_of_its_call(kind: str, caller: Json) -> None:
    item = typed(kind, caller=caller)
    assert plain(make_output(item, "x"))["caller"] == caller
    assert plain(make_error_output(item, "no"))["caller"] == caller


CHECKS: list[Json] = [{"id": "sc_1", "code": "x"}]


@pytest.mark.parametrize(
    ("result", "acknowledged"),
    [
        ({"type": "computer_screenshot"}, CHECKS),
        ({"type": "computer_call_output", "output": {}}, CHECKS),
        ({"type": "computer_call_output", "acknowledged_safety_checks": []}, []),
    ],
)
def test_the_output_of_a_computer_call_acknowledges_its_safety_checks(
    result: Json, acknowledged: list[Json]
) -> None:
    made = plain(make_output(typed("computer_call", pending_safety_checks=CHECKS), result))
    assert made["acknowledged_safety_checks"] == acknowledged
    without = plain(make_output(typed("computer_call", pending_safety_checks=[]), result))
    assert without.get("acknowledged_safety_checks", []) == []


# --- Long outputs ------------------------------------------------------------------------


def limited(limit: int, **fields: Any) -> Json:
    return plain(limit_output(raw(fields), limit))


def test_an_output_within_the_limit_is_the_same_object() -> None:
    output = raw({"output": "x" * 100})
    assert limit_output(output, 1000) is output


@pytest.mark.parametrize("limit", [1, 2, 7, 100])
def test_a_long_text_keeps_its_beginning_and_its_end(limit: int) -> None:
    text = "a" * 200 + "z" * 200
    begin, notice, end = limited(limit, output=text)["output"].split("\n")
    assert begin + end == "a" * (limit - limit // 2) + "z" * (limit // 2)
    assert notice.startswith(f"[{400 - limit} of 400 characters were left out here")


def test_an_output_is_shortened_once() -> None:
    parts = [{"text": "s" * 10}, {"text": "L" * 500}, {"stdout": "M" * 500}]
    once = limited(111, output=parts)
    assert limited(111, **once) == once


def test_several_texts_share_the_limit_and_short_ones_are_kept() -> None:
    parts = [{"text": "s" * 10}, {"text": "L" * 500}, {"stdout": "M" * 500, "stderr": "e"}, 3]
    first, second, third, odd = limited(111, output=parts)["output"]
    assert (first, third["stderr"], odd) == ({"text": "s" * 10}, "e", 3)
    assert [second["text"].count("L"), third["stdout"].count("M")] == [50, 50]
    assert limited(2000, output=parts)["output"] == parts


def test_texts_that_fit_are_kept_beside_a_long_image() -> None:
    parts = [{"text": "x"}, {"image_url": "A" * 500}]
    assert limited(100, output=parts)["output"] == parts


@pytest.mark.parametrize("fields", [{"output": [{"image_url": "A" * MAX_OUTPUT}]}, {"tools": 3}])
def test_anything_but_text_may_not_be_longer_than_the_api_accepts(fields: Json) -> None:
    if "tools" in fields:
        fields["tools"] = [{"description": "A" * MAX_OUTPUT}]
    assert limit_output(raw(fields), 100) is None


# --- Outputs with an error ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("function_call", {"output": "no"}),
        ("custom_tool_call", {"output": "no"}),
        (
            "shell_call",
            {
                "output": [
                    {"stdout": "", "stderr": "no", "outcome": {"type": "exit", "exit_code": 1}}
                ]
            },
        ),
        ("local_shell_call", {"output": "no"}),
        ("apply_patch_call", {"status": "failed", "output": "no"}),
        ("mcp_approval_request", {"approve": False, "reason": "no"}),
    ],
)
def test_an_error_text_becomes_the_field_that_its_kind_of_output_has(
    kind: str, fields: Json
) -> None:
    made = make_error_output(typed(kind), "no")
    assert made is not None
    assert call_key(made) == (kind, "c")
    assert {name: plain(made)[name] for name in fields} == fields


@pytest.mark.parametrize("kind", ["computer_call", "tool_search_call"])
def test_computer_calls_and_tool_searches_have_no_error_output(kind: str) -> None:
    assert make_error_output(typed(kind), "no") is None


@pytest.mark.parametrize(
    "item",
    [
        {"type": "function_call", "call_id": "c"},
        {"type": "shell_call", "call_id": "c", "caller": CALLER},
        {"type": "local_shell_call", "id": "c"},
        {"type": "mcp_approval_request", "id": "c"},
    ],
)
def test_a_call_that_cannot_be_decoded_has_an_error_output(item: Json) -> None:
    made = make_error_output(decode_call(raw(item)), "no")
    assert made is not None
    assert call_key(made) == (item["type"], "c")
    assert plain(made).get("caller") == item.get("caller")


def test_lone_surrogates_are_replaced() -> None:
    made = plain(make_error_output(typed("function_call"), "caf\udce9"))
    assert made["output"] == "caf\ufffd"


def test_lone_surrogates_are_replaced_at_any_depth_of_a_result() -> None:
    chunk = {"stdout": "caf\udce9", "stderr": "", "outcome": wire.UnknownPart("x", RAW_OUTCOME)}
    made = plain(make_output(typed("shell_call"), [chunk]))
    assert made["output"] == [{"stdout": "caf\ufffd", "stderr": "", "outcome": {"type": "x"}}]
