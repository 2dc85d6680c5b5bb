"""Decoding of items: known fields are decoded, and the raw JSON is kept as received."""

import json
from typing import Any

import msgspec
import pytest

from trio_responses import _wire as wire
from trio_responses._wire import (
    FunctionCall,
    FunctionCallOutput,
    Message,
    OutputText,
    Refusal,
    ResponseCompleted,
    UnknownItem,
    UnknownPart,
    UrlCitation,
    decode,
    decode_item,
)
from trio_responses._wire.items import raw_for_input, with_json_text
from trio_responses._wire.response import decode_response


def item(**fields: Any) -> Any:
    return decode_item(json.dumps(fields).encode())


def completed(output: Any) -> wire.Response:
    event = decode(json.dumps({"type": "response.completed", "response": output}).encode())
    assert isinstance(event, ResponseCompleted)
    return event.response


@pytest.mark.parametrize(
    ("kind", "given", "status"),
    [
        ("completed", None, "completed"),
        ("completed", "in_progress", "completed"),
        ("completed", "incomplete", "incomplete"),
        ("done", None, "completed"),
        ("failed", None, "failed"),
        ("failed", "completed", "failed"),
        ("incomplete", "completed", "incomplete"),
        ("incomplete", "failed", "failed"),
        ("cancelled", "cancelled", "cancelled"),
    ],
)
def test_a_terminal_event_gives_its_response_a_status_that_fits(
    kind: str, given: str | None, status: str
) -> None:
    sent = {"id": "resp_1", "status": given, "vendor": 1}
    event: Any = decode(json.dumps({"type": f"response.{kind}", "response": sent}).encode())
    assert event.response.status == status
    assert event.response.to_dict() == sent  # as received


def test_a_message_without_type_may_have_parts_of_unknown_types() -> None:
    parts = [{"type": "output_text", "text": "Hi"}, {"type": "hologram"}]
    assert item(role="assistant", content=parts).output_text == "Hi"
    assert isinstance(item(type=5, role="assistant", content=parts), UnknownItem)


@pytest.mark.parametrize(
    ("fields", "call_id"), [({"call_id": "c", "name": 3}, "c"), ({"call_id": 3}, None), ({}, None)]
)
def test_a_call_that_does_not_match_its_type_keeps_its_id(
    fields: dict[str, Any], call_id: str | None
) -> None:
    unknown = item(type="shell_call", **fields)
    assert isinstance(unknown, UnknownItem)
    assert unknown.call_id == call_id


def test_raw_output_keeps_unknown_fields_and_unknown_items() -> None:
    sent: list[Any] = [
        {"type": "message", "role": "assistant", "content": [], "brand_new": {"a": [1, None]}},
        {"type": "hologram", "x": 1},
    ]
    response = completed({"output": sent})
    assert [json.loads(bytes(raw)) for raw in response.raw_output or ()] == sent
    message, hologram = response.output
    assert message == Message(role="assistant", content=[])
    assert isinstance(hologram, UnknownItem)
    assert (hologram.wire_type, hologram.json()) == ("hologram", {"type": "hologram", "x": 1})


def test_output_is_decoded_once() -> None:
    response = completed({"output": [{"type": "message", "role": "assistant"}]})
    assert response.output is response.output


@pytest.mark.parametrize("fields", [{}, {"output": None}, {"output": "?"}])
def test_a_missing_output_differs_from_an_empty_output(fields: dict[str, Any]) -> None:
    assert completed(fields).raw_output is None
    assert completed(fields).output == ()
    assert completed({"output": []}).raw_output == []


def test_a_response_collects_its_text_its_refusals_and_its_function_calls() -> None:
    call = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"}
    response = completed(
        {
            "output": [
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
                {
                    "type": "message",
                    "role": "assistant",
                    "content": [
                        {"type": "output_text", "text": "Hello "},
                        {"type": "refusal", "refusal": "no"},
                        {"type": "output_text", "text": "world"},
                    ],
                },
                call,
                {"type": "message", "role": "assistant", "content": "!"},
                {"type": "message", "role": "assistant"},
            ]
        }
    )
    assert response.output_text == "Hello world!"
    assert response.refusal == "no"
    assert response.function_calls == (FunctionCall(call_id="call_1", name="f", arguments="{}"),)


def test_the_item_of_an_event_is_decoded_once_and_its_raw_json_is_kept() -> None:
    for kind in ("response.output_item.added", "response.output_item.done"):
        event = decode(
            b'{"type":"%s","item":{"type":"message","role":"assistant","new":1}}' % kind.encode()
        )
        assert isinstance(event, wire.OutputItemAdded | wire.OutputItemDone)
        assert event.item == Message(role="assistant")
        assert event.item is event.item
        assert bytes(event.raw_item) == b'{"type":"message","role":"assistant","new":1}'


def test_usage_may_lack_its_details() -> None:
    usage = completed({"usage": {"input_tokens": 3, "input_tokens_details": None}}).usage
    assert usage is not None
    assert usage == wire.Usage(input_tokens=3)
    assert usage.input_tokens_details.cached_tokens == 0
    assert usage.output_tokens_details.reasoning_tokens == 0
    assert completed({"usage": "?"}).usage is None


def test_a_field_that_echoes_a_setting_may_have_any_shape() -> None:
    for value in (1, "x", [1], {"type": "?"}, None):
        fields = dict.fromkeys(wire.Response.__struct_encode_fields__, value)
        assert completed({**fields, "id": "resp_1"}).id == "resp_1"


def test_new_values_of_an_enumeration_are_accepted() -> None:
    pondering = msgspec.Raw(b'{"status":"pondering"}')
    assert decode_response(pondering).status == "pondering"
    assert item(type="message", role="oracle", status="?", phase="?").role == "oracle"


def test_the_error_of_a_rate_limited_response_states_a_retry_delay() -> None:
    error = {"code": "rate_limit_exceeded", "message": "Please try again in 1.5s."}
    found = completed({"error": error}).error
    assert found is not None
    assert found.retry_after == 1.5
    assert repr(found) == "ResponseError(code='rate_limit_exceeded', param=None, type=None)"
    assert wire.ResponseError(code="server_error", message="try again in 1s").retry_after is None


def test_an_item_of_a_known_type_and_a_wrong_shape_is_unknown() -> None:
    for wrong in (
        {"type": "function_call", "name": {"a": 1}, "arguments": "{}", "call_id": "c"},
        {"type": "function_call"},
        {"type": 3},
        {},
    ):
        found = item(**wrong)
        assert isinstance(found, UnknownItem)
        assert found.json() == wrong


@pytest.mark.parametrize("raw", [b"", b"null", b"[", b"5", b"\xff", b"[" * 100_000])
def test_bytes_that_are_no_item_become_an_unknown_item(raw: bytes) -> None:
    assert decode_item(raw) == UnknownItem("", msgspec.Raw(raw))


def test_an_optional_field_of_a_wrong_type_takes_its_default() -> None:
    assert item(type="message", role="assistant", content={"a": 1}, id=[5]) == Message(
        role="assistant"
    )


def test_an_unknown_part_does_not_reject_its_message() -> None:
    found = item(
        type="message",
        role="assistant",
        content=[
            {"type": "hologram"},
            {"type": "output_text", "text": "x"},
            5,
            {"type": "refusal"},
        ],
    )
    assert found.content == [
        UnknownPart("hologram", msgspec.Raw(b'{"type": "hologram"}')),
        OutputText(text="x"),
        UnknownPart("", msgspec.Raw(b"5")),
        UnknownPart("refusal", msgspec.Raw(b'{"type": "refusal"}')),
    ]
    assert found.output_text == "x"


def test_an_unknown_annotation_does_not_reject_its_part() -> None:
    cited = {"type": "url_citation", "url": "https://example.org", "start_index": 0}
    found = item(
        type="message",
        role="assistant",
        content=[
            {"type": "output_text", "text": "x", "annotations": [cited, {"type": "rune", "n": 1}]}
        ],
    )
    assert found.content[0].annotations == [
        UrlCitation(url="https://example.org", start_index=0),
        UnknownPart("rune", msgspec.Raw(b'{"type": "rune", "n": 1}')),
    ]


def test_unknown_actions_outcomes_and_callers_do_not_reject_their_calls() -> None:
    click = {"type": "click", "x": 1, "y": 2}
    computer = item(type="computer_call", call_id="c", action=click, actions=[{"type": "juggle"}])
    assert computer.action == wire.ClickAction(x=1, y=2)
    assert computer.actions[0].wire_type == "juggle"
    output = [{"stdout": "x", "outcome": {"type": "exploded"}}]
    shell = item(type="shell_call_output", call_id="c", output=output, caller={"type": "moon"})
    assert isinstance(shell.output[0].outcome, UnknownPart)
    assert isinstance(shell.caller, UnknownPart)
    call = item(type="local_shell_call", call_id="c", action={"type": "exec", "command": ["ls"]})
    assert call.action == wire.ExecAction(command=["ls"])
    call = item(type="local_shell_call", call_id="c", action={"type": "dance"})
    assert isinstance(call.action, UnknownPart)


def test_an_mcp_error_may_be_text() -> None:
    call = {"type": "mcp_call", "name": "f", "arguments": "{}"}
    assert item(**call, error="broken").error == "broken"
    assert item(**call, error={"type": "http_error", "code": 500}).error == wire.HttpError(code=500)
    assert isinstance(item(**call, error={"type": "?"}).error, UnknownPart)


def test_a_refusal_is_found_only_in_content_parts() -> None:
    assert Message(role="assistant", content="hi").refusal == ""
    assert Message(role="assistant", content=[Refusal(refusal="no")]).refusal == "no"
    assert Message(role="assistant").refusal == ""


@pytest.mark.parametrize(
    ("made", "sent"),
    [
        (
            Message(role="user", content="hi"),
            {"type": "message", "role": "user", "content": "hi"},
        ),
        (
            Message(role="user", content=[wire.InputText(text="hi")]),
            {
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "hi"}],
            },
        ),
        (
            FunctionCallOutput(call_id="c", output="21"),
            {"type": "function_call_output", "call_id": "c", "output": "21"},
        ),
        (
            FunctionCall(call_id="c", name="f", arguments="", async_=True),
            {
                "type": "function_call",
                "call_id": "c",
                "name": "f",
                "arguments": "",
                "async": True,
            },
        ),
        (
            wire.McpApprovalResponse(approval_request_id="r", approve=False),
            {"type": "mcp_approval_response", "approval_request_id": "r", "approve": False},
        ),
        (
            wire.FunctionToolParam(name="f", parameters={"type": "object"}, strict=False),
            {
                "type": "function",
                "name": "f",
                "parameters": {"type": "object"},
                "strict": False,
            },
        ),
    ],
)
def test_only_the_fields_that_were_set_are_sent(made: Any, sent: Any) -> None:
    assert json.loads(msgspec.json.encode(made)) == sent
    assert made.type == sent["type"]


def test_unknown_objects_are_equal_if_class_and_json_are_equal() -> None:
    one = UnknownPart("a", msgspec.Raw(b'{"type":"a"}'))
    assert one == UnknownPart("a", msgspec.Raw(b'{"type":"a"}'))
    assert hash(one) == hash(UnknownPart("a", msgspec.Raw(b'{"type":"a"}')))
    assert one != UnknownItem("a", msgspec.Raw(b'{"type":"a"}'))
    assert one != "a"
    assert repr(one) == "UnknownPart(wire_type='a', size=12)"
    match one:
        case UnknownPart(wire_type="a", raw=raw):
            assert bytes(raw) == b'{"type":"a"}'
        case _:
            pytest.fail("no match")


def test_every_part_of_a_message_with_5000_unknown_annotations_is_decoded() -> None:
    parts = [{"type": "output_text", "text": "x", "annotations": [{"type": "?"}]}] * 5_000
    found = item(type="message", role="assistant", content=parts)
    assert len(found.content) == 5_000
    assert found.output_text == "x" * 5_000


# --- JSON text ------------------------------------------------------------------------------------

JSON_TEXTS: dict[str, tuple[str, dict[str, Any]]] = {
    "function_call": ("arguments", {"call_id": "c", "name": "f"}),
    "custom_tool_call": ("input", {"call_id": "c", "name": "f"}),
    "mcp_call": ("arguments", {"name": "f"}),
    "mcp_approval_request": ("arguments", {"id": "a", "name": "f"}),
    "multi_agent_call": ("arguments", {"call_id": "c", "action": "a"}),
}


@pytest.mark.parametrize("kind", JSON_TEXTS)
@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, None]}, '{"a": [1, null]}'),
        ([], "[]"),
        (5, "5"),
        (None, ""),
        ("as it is", "as it is"),
    ],
)
def test_arguments_that_are_no_text_are_taken_as_their_json_text(
    kind: str, value: Any, text: str
) -> None:
    field, more = JSON_TEXTS[kind]
    received = decode_item(json.dumps({"type": kind, **more, field: value, "new": 1}).encode())
    assert received.wire_type == kind
    assert getattr(received, field) == text
    sent = json.loads(wire.encode(wire.ResponseCreate(input=[received])))
    assert sent["input"] == [{"type": kind, **more, field: text, "new": 1}]


@pytest.mark.parametrize("kind", JSON_TEXTS)
def test_a_call_without_arguments_has_an_empty_text(kind: str) -> None:
    field, more = JSON_TEXTS[kind]
    received = decode_item(json.dumps({"type": kind, **more}).encode())
    assert getattr(received, field) == ""
    assert isinstance(received, wire.Item)
    assert msgspec.json.decode(raw_for_input(received) or b"") == {"type": kind, **more, field: ""}


@pytest.mark.parametrize(
    "event",
    [
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "custom_tool_call_input.delta",
        "custom_tool_call_input.done",
        "mcp_call_arguments.delta",
        "mcp_call_arguments.done",
    ],
)
def test_arguments_of_an_event_are_taken_as_their_json_text(event: str) -> None:
    field = "delta" if event.endswith("delta") else event.partition(".")[0].rpartition("_")[2]
    decoded = wire.decode(f'{{"type":"response.{event}","{field}":{{"a":1}}}}'.encode())
    assert getattr(decoded, field) == '{"a":1}'


@pytest.mark.parametrize(
    "raw",
    [
        b'{"type":"message","role":"user","content":[]}',
        b'{"type":"function_call","arguments":"{}" }',
        b'{"type":{}, "arguments":{}}',
        b'{"arguments":{}}',
        b"[1]",
        b"",
    ],
)
def test_an_item_whose_json_text_is_text_is_returned_as_received(raw: bytes) -> None:
    assert bytes(with_json_text(msgspec.Raw(raw))) == raw


def usage(scale: int) -> wire.Usage:
    return wire.Usage(
        input_tokens=100 * scale,
        output_tokens=10 * scale,
        total_tokens=110 * scale,
        input_tokens_details=wire.InputTokensDetails(
            cached_tokens=50 * scale, cache_write_tokens=20 * scale
        ),
        output_tokens_details=wire.OutputTokensDetails(reasoning_tokens=5 * scale),
    )


def test_usages_add_up_in_all_their_parts() -> None:
    assert usage(1) + usage(2) == usage(3)


@pytest.mark.parametrize(("scales", "total"), [([], None), ([2], 2), ([1, 2, 3], 6)])
def test_the_sum_of_usages_is_none_where_there_are_none(
    scales: list[int], total: int | None
) -> None:
    assert wire.sum_usages(map(usage, scales)) == (None if total is None else usage(total))
