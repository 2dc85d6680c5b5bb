"""Input that OpenAI refuses: the test server answers with the same status, code and message."""

from typing import Any, Final

import pytest

from tests.testing.driver import NO_WAITING, Json, connect
from trio_responses.testing import Reply, ResponsesServer, open_test_server
from trio_responses.testing._item_checks import ITEMS

pytestmark = NO_WAITING

USER: Final[Json] = {"role": "user", "content": "hi"}
CALL: Final[Json] = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"}
OUTPUT: Final[Json] = {"type": "function_call_output", "call_id": "call_1", "output": "x"}
MESSAGE: Final[Json] = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Hi.", "annotations": [], "logprobs": []}],
}
REASONING: Final[Json] = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [],
    "encrypted_content": "g",
}
COMPUTER_CALL: Final[Json] = {
    "type": "computer_call",
    "id": "cu_1",
    "call_id": "call_1",
    "status": "completed",
    "action": {"type": "screenshot"},
    "pending_safety_checks": [{"id": "cu_sc_1", "code": "malicious_instructions", "message": "m"}],
}
COMPUTER_OUTPUT: Final[Json] = {
    "type": "computer_call_output",
    "call_id": "call_1",
    "output": {"type": "computer_screenshot", "image_url": "data:,"},
}
LONG: Final = "x" * 10_485_761
ALL_TYPES: Final = ", ".join(f"'{kind}'" for kind in sorted(ITEMS)[:-1]) + (f", and '{max(ITEMS)}'")


def shape(items: Any, code: str, param: str, message: str) -> Any:
    return pytest.param(items, code, param, message, id=f"{code}-{param}")


MALFORMED: Final = [
    shape(
        [{"rol": "user"}],
        "invalid_value",
        "input[0]",
        f"Invalid value: ''. Supported values are: {ALL_TYPES}.",
    ),
    shape(
        [USER, {"type": "function_cal"}],
        "invalid_value",
        "input[1]",
        f"Invalid value: 'function_cal'. Supported values are: {ALL_TYPES}.",
    ),
    shape(
        [{"type": ["message"]}],
        "invalid_value",
        "input[0]",
        f"Invalid value: '['message']'. Supported values are: {ALL_TYPES}.",
    ),
    shape(
        [{"role": "user"}],
        "missing_required_parameter",
        "input[0].content",
        "Missing required parameter: 'input[0].content'.",
    ),
    shape(
        [USER, {"role": "user", "content": "hi", "contnt": "hi"}],
        "unknown_parameter",
        "input[1].contnt",
        "Unknown parameter: 'input[1].contnt'.",
    ),
    shape(
        [{**REASONING, "status": "completed"}, MESSAGE],
        "unknown_parameter",
        "input[0].status",
        "Unknown parameter: 'input[0].status'.",
    ),
    shape(
        [{"type": "reasoning", "id": "rs_1", "encrypted_content": "g"}, MESSAGE],
        "missing_required_parameter",
        "input[0].summary",
        "Missing required parameter: 'input[0].summary'.",
    ),
    shape(
        [{"role": "robot", "content": "hi"}],
        "invalid_value",
        "input[0].role",
        "Invalid value: 'robot'. Supported values are: 'user', 'assistant', 'system', and"
        " 'developer'.",
    ),
    shape(
        [{"role": "user", "content": 5}],
        "invalid_type",
        "input[0].content",
        "Invalid type for 'input[0].content': expected one of an array of objects or string, but"
        " got an integer instead.",
    ),
    shape(
        [{**CALL, "call_id": None}, OUTPUT],
        "invalid_type",
        "input[0].call_id",
        "Invalid type for 'input[0].call_id': expected a string, but got null instead.",
    ),
    shape(
        [{"role": "assistant", "content": [{"type": "input_text", "text": "hi"}]}],
        "invalid_value",
        "input[0].content[0]",
        "Invalid value: 'input_text'. Supported values are: 'output_text' and 'refusal'.",
    ),
    shape(
        [{"role": "user", "content": ["hi"]}],
        "invalid_type",
        "input[0].content[0]",
        "Invalid type for 'input[0].content[0]': expected an object, but got a string instead.",
    ),
    shape(
        [CALL, {**OUTPUT, "output": [{"type": "input_text", "txt": "x"}]}],
        "unknown_parameter",
        "input[1].output[0].txt",
        "Unknown parameter: 'input[1].output[0].txt'.",
    ),
    shape(
        [{**CALL, "name": ""}, OUTPUT],
        "empty_string",
        "input[0].name",
        "Invalid 'input[0].name': empty string. Expected a string with minimum length 1, but got an"
        " empty string instead.",
    ),
    shape(
        [{**CALL, "call_id": "c" * 65}, {**OUTPUT, "call_id": "c" * 65}],
        "string_above_max_length",
        "input[0].call_id",
        "Invalid 'input[0].call_id': string too long. Expected a string with maximum length 64,"
        " but got a string with length 65 instead.",
    ),
    shape(
        [{**CALL, "id": "call_1"}, OUTPUT],
        "invalid_value",
        "input[0].id",
        "Invalid 'input[0].id': 'call_1'. Expected an ID that begins with 'fc'.",
    ),
    shape(
        [{**MESSAGE, "id": "item_1"}],
        "invalid_value",
        "input[0].id",
        "Invalid 'input[0].id': 'item_1'. Expected an ID that begins with 'msg'.",
    ),
    shape(
        [{"role": "user", "content": LONG}],
        "string_above_max_length",
        "input[0].content",
        "Invalid 'input[0].content': string too long. Expected a string with maximum length"
        " 10485760, but got a string with length 10485761 instead.",
    ),
    shape(
        [CALL, {**OUTPUT, "output": LONG}],
        "string_above_max_length",
        "input[1].output",
        "Invalid 'input[1].output': string too long. Expected a string with maximum length"
        " 10485760, but got a string with length 10485761 instead.",
    ),
    shape(
        LONG,
        "string_above_max_length",
        "input",
        "Invalid 'input': string too long. Expected a string with maximum length 10485760, but got"
        " a string with length 10485761 instead.",
    ),
    shape(
        [{"role": "user", "content": []}],
        "empty_array",
        "input[0].content",
        "Invalid 'input[0].content': empty array. Expected an array with minimum length 1, but got"
        " an empty array instead.",
    ),
    shape(
        [{"role": "user", "content": [{"type": "input_image", "detail": "low"}]}],
        "missing_required_parameter",
        "input[0].content[0].image_url",
        "Missing required parameter: 'input[0].content[0].image_url'.",
    ),
    shape(
        [{"role": "user", "content": [{"type": "input_file", "filename": "a.pdf"}]}],
        "missing_required_parameter",
        "input[0].content[0].file_id",
        "Missing required parameter: 'input[0].content[0].file_id'.",
    ),
    shape(
        [{"role": "user", "content": [{"type": "input_image", "image_url": "cat.png"}]}],
        "invalid_value",
        "input[0].content[0].image_url",
        "Invalid 'input[0].content[0].image_url'. Expected a valid URL, but got a value with an"
        " invalid format.",
    ),
    shape(
        [{"role": "user", "content": [{"type": "input_image", "image_url": "data:a/b;base64,"}]}],
        "invalid_value",
        "input[0].content[0].image_url",
        "Invalid 'input[0].content[0].image_url'. Expected a base64-encoded data URL with an image"
        " MIME type (e.g. 'data:image/png;base64,aW1nIGJ5dGVzIGhlcmU='), but got unsupported MIME"
        " type 'a/b'.",
    ),
]


@pytest.mark.parametrize(("items", "code", "param", "message"), MALFORMED)
async def test_a_malformed_item_is_refused_as_by_openai(
    server: ResponsesServer, items: Any, code: str, param: str, message: str
) -> None:
    async with connect(server) as client:
        refused = await client.error(input=items)
        assert refused["status"] == 400
        assert refused["error"] == {
            "type": "invalid_request_error",
            "code": code,
            "message": message,
            "param": param,
        }
        await client.response(input="the socket stays open")


def order(items: Any, message: str, *, status: int = 400, **others: Any) -> Any:
    return pytest.param(items, others, status, message, id=message[:40])


NOT_PERSISTED: Final = (
    " not found. Items are not persisted when `store` is set to false. Try again with `store` set"
    " to true, or remove this item from your input."
)
REFUSED_TOGETHER: Final = [
    order([USER, CALL], "No tool output found for function call call_1."),
    order(
        [{"type": "custom_tool_call", "call_id": "call_2", "name": "f", "input": "x"}, USER],
        "No tool output found for custom tool call call_2.",
    ),
    order([USER, OUTPUT], "No tool call found for function call output with call_id call_1."),
    order([OUTPUT, CALL], "No tool output found for function call call_1."),
    order(
        [CALL, OUTPUT, {"type": "custom_tool_call_output", "call_id": "call_1", "output": "x"}],
        "No tool call found for custom tool call output with call_id call_1.",
    ),
    order(
        [REASONING],
        "Item 'rs_1' of type 'reasoning' was provided without its required following item.",
    ),
    order(
        [REASONING, USER],
        "Item 'rs_1' of type 'reasoning' was provided without its required following item.",
    ),
    order(
        [CALL, REASONING, OUTPUT],
        "Item 'rs_1' of type 'reasoning' was provided without its required following item.",
    ),
    order(
        [{"type": "reasoning", "id": "rs_1", "summary": []}, MESSAGE],
        f"Item with id 'rs_1'{NOT_PERSISTED}",
        status=404,
        store=False,
    ),
    order(
        [{"type": "item_reference", "id": "msg_7"}],
        f"Item with id 'msg_7'{NOT_PERSISTED}",
        status=404,
        store=False,
    ),
    order(
        [COMPUTER_CALL, COMPUTER_OUTPUT],
        "Computer tool has unacknowledged safety check for ['cu_sc_1']",
    ),
    order(
        [MESSAGE, USER, MESSAGE],
        "Duplicate item found with id msg_1. Remove duplicate items from your input and try again.",
    ),
]


@pytest.mark.parametrize(("items", "others", "status", "message"), REFUSED_TOGETHER)
async def test_items_that_do_not_fit_together_are_refused_as_by_openai(
    server: ResponsesServer, items: Any, others: Json, status: int, message: str
) -> None:
    async with connect(server) as client:
        refused = await client.error(input=items, **others)
    assert refused["status"] == status
    assert refused["error"] == {
        "type": "invalid_request_error",
        "code": None,
        "message": message,
        "param": "input",
    }


ACCEPTED: Final[list[list[Json]]] = [
    [USER, REASONING, MESSAGE],
    [USER, REASONING, CALL, OUTPUT],
    [USER, {**REASONING, "content": None}, {**REASONING, "id": "rs_2"}, MESSAGE],
    [{"role": "assistant", "content": "Hi."}, {"role": "developer", "content": "Be kind."}],
    [{**CALL, "id": "fc_1", "status": "completed", "namespace": None}, USER, OUTPUT],
    [{**CALL, "async": True}, USER],
    [
        COMPUTER_CALL,
        {**COMPUTER_OUTPUT, "acknowledged_safety_checks": [{"id": "cu_sc_1"}]},
    ],
    [{"type": "tool_search_call", "arguments": {}, "execution": "server"}],
    [{"type": "item_reference", "id": "fc_9"}, OUTPUT],
    [{"role": "assistant", "id": "msg_2", "content": "Hi."}],
    [{**MESSAGE, "content": [{"type": "refusal", "refusal": "no"}], "phase": "final_answer"}],
]


@pytest.mark.parametrize("items", ACCEPTED)
async def test_valid_items_are_accepted(server: ResponsesServer, items: Any) -> None:
    async with connect(server) as client:
        await client.response(input=items)


async def test_names_that_the_server_has_sent_are_accepted_but_not_output_only_ones(
    server: ResponsesServer,
) -> None:
    new: Json = {"type": "from_the_future", "parts": [1]}
    message: Json = {**MESSAGE, "new": 1, "content": [{"type": "odd", "data": "x"}]}
    reasoning: Json = {**REASONING, "status": "completed", "newer": {}}
    output: list[Json] = [new, reasoning, message]
    async with connect(server) as client:
        refused = await client.error(input=[new])
        assert refused["error"]["code"] == "invalid_value"
        response: Json = {"id": "resp_1", "output": output, "status": "completed"}
        server.answer([{"type": "response.completed", "response": response}])
        assert (await client.response(input="hi"))["output"] == output
        refused = await client.error(input=output)
        assert refused["error"]["message"] == "Unknown parameter: 'input[1].status'."
        del reasoning["status"]
        await client.response(input=output)


ODD_OUTPUT: Final[list[Json]] = [
    {},
    {"type": ["message"], "id": {}, "role": [], "content": 5},
    {"type": "shell_call", "call_id": "call_1", "environment": "here"},
    {"type": "computer_call", "call_id": "call_1", "pending_safety_checks": 5},
    {"type": "computer_call", "call_id": "call_1", "pending_safety_checks": [5, {"id": []}]},
    {"type": "function_call", "call_id": 5},
    {"type": "function_call_output", "call_id": []},
    {"type": "compaction", "encrypted_content": {}},
]


@pytest.mark.parametrize("item", ODD_OUTPUT)
async def test_any_scripted_output_can_be_continued(server: ResponsesServer, item: Json) -> None:
    kind = str(item.get("type"))
    outputs: Json = {
        "shell_call": [{"type": "shell_call_output", "call_id": "call_1", "output": []}],
        "computer_call": [{**COMPUTER_OUTPUT, "acknowledged_safety_checks": [{"id": []}]}],
    }
    response: Json = {"id": "resp_1", "output": [item], "status": "completed"}
    server.answer([{"type": "response.completed", "response": response}])
    async with connect(server) as client:
        await client.response(input="hi")
        await client.response(
            input=[*outputs.get(kind, []), {**USER, "id": "item_1"}],
            previous_response_id="resp_1",
        )


async def test_a_call_in_the_chain_needs_an_output(server: ResponsesServer) -> None:
    server.call("f", call_id="call_1", unoffered=True)
    async with connect(server) as client:
        parent = await client.response(input="call it")
        refused = await client.error(input="never mind", previous_response_id=parent["id"])
        assert refused["error"]["message"] == "No tool output found for function call call_1."
        # The response is stored, so it can still be continued.
        child = await client.response(input=[OUTPUT], previous_response_id=parent["id"])
        await client.response(input=[USER, OUTPUT], previous_response_id=child["id"])


async def test_an_item_of_the_chain_is_a_duplicate(server: ResponsesServer) -> None:
    async with connect(server) as client:
        parent = await client.response(input="hi")
        items = [*parent["output"], USER]
        refused = await client.error(input=items, previous_response_id=parent["id"])
        assert refused["error"]["message"].startswith("Duplicate item found with id msg_0")
        await client.response(input=items)


async def test_encrypted_content_of_another_model_is_refused(server: ResponsesServer) -> None:
    server.reply("Hi.", reasoning="I greet.")
    async with connect(server) as client:
        fields: Json = {"store": False, "include": ["reasoning.encrypted_content"]}
        output = (await client.response(input="hi", **fields))["output"]
        content = output[0]["encrypted_content"]
        refused = await client.error(input=output, model="gpt-other", **fields)
        assert refused["status"] == 400
        assert refused["error"] == {
            "type": "invalid_request_error",
            "code": "invalid_encrypted_content",
            "message": f"The encrypted content encr...{content[-4:]} could not be verified. Reason:"
            " Encrypted content could not be decrypted or parsed.",
            "param": None,
        }
        damaged = {**output[0], "encrypted_content": content[:14]}
        refused = await client.error(input=[damaged, output[1]], **fields)
        assert refused["error"]["code"] == "invalid_encrypted_content"
        await client.response(input=output, **fields)


async def test_calls_of_a_conversation_object_are_not_known(server: ResponsesServer) -> None:
    async with connect(server) as client:
        await client.response(input=[OUTPUT], conversation="conv_1")


@pytest.mark.parametrize(
    "items", [case.values[0] for case in [*MALFORMED, *REFUSED_TOGETHER] if case.values[0] != LONG]
)
async def test_a_lenient_server_accepts_what_openai_refuses(items: Any) -> None:
    async with open_test_server(strict=False) as server, connect(server) as client:
        server.respond_with(lambda _: Reply("fine"))
        await client.response(input=items, zone="unknown fields pass, too")
        assert server.errors == []


async def test_a_lenient_server_refuses_what_it_cannot_process() -> None:
    async with open_test_server(strict=False) as server, connect(server) as client:
        assert (await client.error(input=["hi"]))["error"]["param"] == "input[0]"
