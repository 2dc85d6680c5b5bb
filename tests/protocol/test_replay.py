"""P7, without I/O: the input form of a history, rule by rule and at random."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from trio_responses._protocol import replay
from trio_responses._protocol.calls import CALL_TYPES, OUTPUT_TYPES, call_key
from trio_responses._protocol.raw_items import RawItems
from trio_responses._protocol.replay import (
    BLANK_SCREENSHOT,
    MAX_STRING,
    InputForm,
    Origin,
    Piece,
    ReplayRules,
    can_wait,
    error_output_for,
    prepare_new_items,
    shorten,
    to_input_items,
    without_outputs,
)

Json = dict[str, Any]

NO_STORE = Origin("m", stored=False)
ASK: Json = {"type": "message", "role": "user", "content": "Hi"}
ANSWER: Json = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Yes", "annotations": []}],
}
THOUGHT: Json = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "g"}
PLAIN_THOUGHT: Json = {"type": "reasoning", "id": "rs_1", "summary": []}
NEEDED: dict[str, Json] = {
    "function_call": {"name": "f", "arguments": "{}"},
    "custom_tool_call": {"name": "f", "input": ""},
    "computer_call": {"id": "cu_1", "pending_safety_checks": [], "status": "completed"},
    "computer_call_output": {"output": {"type": "computer_screenshot"}},
    "shell_call": {"action": {"commands": []}},
    "apply_patch_call": {"operation": {"type": "delete_file"}, "status": "completed"},
    "tool_search_call": {"arguments": {}},
}
"""Fields that the items of a type need."""


def call(name: str = "a", kind: str = "function_call", **fields: Any) -> Json:
    return {"type": kind, "call_id": name, **NEEDED.get(kind, {}), **fields}


def output(name: str = "a", kind: str = "function_call_output", **fields: Any) -> Json:
    return {"type": kind, "call_id": name, **NEEDED.get(kind, {"output": "done"}), **fields}


def raw(item: Any) -> Raw:
    return Raw(msgspec.json.encode(item))


def joined(*items: Any) -> RawItems:
    return RawItems.join([raw(item) for item in items])


def decoded(pieces: list[RawItems]) -> list[Any]:
    return [msgspec.json.decode(item) for items in pieces for item in items]


def converted(*items: Any, origin: Origin = Origin(), answered: Any = (), **rules: Any) -> Any:  # noqa: B008
    return decoded(to_input_items([Piece(joined(*items), origin)], ReplayRules(**rules), answered))


def test_items_that_need_no_change_are_the_same_object() -> None:
    piece = Piece(joined(ASK, THOUGHT, ANSWER, call(), output(), {"type": "new"}), Origin())
    (items,) = to_input_items([piece], ReplayRules(stored=False))
    assert items is piece.items


@pytest.mark.parametrize(
    "item",
    [
        b'{ "type" : "from_the_future", "status":"x", "n": 1.50 }',
        b'{"role":"user","content":"\\u00e4","a":1e2}',
        b'{"type":"message", "role":"user","content":[{"type":"new", "a":1e2}]}',
    ],
)
def test_an_item_that_no_rule_names_keeps_its_bytes(item: bytes) -> None:
    both = RawItems.join([Raw(item), raw({**THOUGHT, "status": "completed"}), raw(ANSWER)])
    (items,) = to_input_items([Piece(both, Origin())], ReplayRules())
    assert bytes(next(iter(items))) == item


# --- Fields ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "wanted"),
    [
        ({**THOUGHT, "status": "completed"}, THOUGHT),
        ({**THOUGHT, "status": None, "created_by": "x"}, THOUGHT),
        ({"type": "reasoning", "encrypted_content": "g"}, {**THOUGHT, "id": ...}),
        ({**THOUGHT, "summary": None}, THOUGHT),
        (
            {"type": "compaction", "encrypted_content": "g", "created_by": "x"},
            {"type": "compaction", "encrypted_content": "g"},
        ),
        (
            {"type": "additional_tools", "role": "tool", "tools": []},
            {"type": "additional_tools", "role": "developer", "tools": []},
        ),
    ],
)
def test_fields_get_the_form_of_input_items(item: Json, wanted: Json) -> None:
    wanted = {name: value for name, value in wanted.items() if value != ...}
    assert converted(item, ANSWER) == [wanted, ANSWER]


def test_the_other_fields_of_a_changed_item_keep_their_bytes() -> None:
    item = Raw(b'{"type":"reasoning","status":"x","summary":[],"encrypted_content":"g","n":1.50}')
    items = to_input_items([Piece(RawItems.join([item, raw(ANSWER)]), Origin())], ReplayRules())
    assert bytes(next(iter(items[0]))) == bytes(item).replace(b'"status":"x",', b"")


@pytest.mark.parametrize(
    ("kind", "status", "wanted"),
    [
        ("computer_call_output", "failed", "incomplete"),
        ("computer_call_output", "completed", "completed"),
        ("computer_call_output", None, None),
        ("custom_tool_call_output", "completed", ...),
        ("function_call_output", "completed", "completed"),
    ],
)
def test_statuses_that_input_items_lack_are_replaced(kind: str, status: Any, wanted: Any) -> None:
    sent = converted(call("a", CALL_TYPES[kind]), output("a", kind, status=status))
    assert sent[1].get("status", ...) == wanted


@pytest.mark.parametrize(
    ("given", "sent"),
    [({"a": 1}, '{"a":1}'), (None, ""), (..., ""), ("{}", "{}"), (5, "5")],
)
@pytest.mark.parametrize(
    ("kind", "field"), [("function_call", "arguments"), ("custom_tool_call", "input")]
)
def test_arguments_that_are_no_text_are_sent_as_their_json(
    kind: str, field: str, given: Any, sent: str
) -> None:
    item = call("a", kind)
    if given is ...:
        del item[field]
    else:
        item[field] = given
    assert converted(item, output("a", OUTPUT_TYPES[kind]))[0][field] == sent


@pytest.mark.parametrize("item", [None, 5, "text", []])
def test_values_that_are_no_items_are_left_out(item: Any) -> None:
    assert converted(ASK, item, ANSWER) == [ASK, ANSWER]


# --- Ids ---------------------------------------------------------------------------------


def test_two_items_with_the_same_id_do_not_both_have_it() -> None:
    """A message stays without its id; an item that needs its id is left out."""
    again = {**ANSWER, "content": "Again"}
    search: Json = {"type": "web_search_call", "id": "ws_1", "action": {}, "status": "completed"}
    sent = converted(THOUGHT, ANSWER, THOUGHT, again, search, search)
    del again["id"]
    assert sent == [THOUGHT, ANSWER, again, search]


def test_an_id_may_be_that_of_a_call_or_odd() -> None:
    pair: list[Json] = [
        {
            "type": "local_shell_call",
            "id": "a",
            "call_id": "a",
            "action": {},
            "status": "completed",
        },
        {"type": "local_shell_call_output", "id": "a", "output": ""},
    ]
    odd: list[Json] = [{"type": "new", "id": value} for value in ("", "", None, None, 1, 1)]
    assert converted(*pair, *odd) == [*pair, *odd]


@pytest.mark.parametrize(
    ("item", "wanted"),
    [
        ({**ANSWER, "id": "x"}, {**ANSWER, "id": ...}),
        ({**ASK, "id": "x"}, {**ASK, "id": "x"}),
        ({**THOUGHT, "id": 5}, {**THOUGHT, "id": ...}),
        ({**THOUGHT, "summary": "x"}, THOUGHT),
        ({**ANSWER, "status": "odd", "phase": 5}, {**ANSWER, "status": ...}),
        ({**ANSWER, "role": "oracle"}, None),
        ({"type": "message", "content": "x"}, None),
        ({**ANSWER, "content": None}, None),
        (
            {**ANSWER, "content": [None, *ANSWER["content"], {"type": "output_text"}, {"a": 1}]},
            ANSWER,
        ),
        ({**ANSWER, "content": [{"type": "new"}]}, {**ANSWER, "content": [{"type": "new"}]}),
        (
            {**ANSWER, "content": [{**ANSWER["content"][0], "annotations": 5}]},
            {**ANSWER, "content": [{"type": "output_text", "text": "Yes"}]},
        ),
        ({"no": "type"}, {"no": "type"}),
        ({"type": 5, "role": "user"}, {"type": 5, "role": "user"}),
        ({"type": "web_search_call", "id": "ws_1", "status": "completed"}, None),
        (
            {"type": "image_generation_call", "id": "ig_1"},
            {"type": "image_generation_call", "id": "ig_1", "status": "completed"},
        ),
    ],
)
def test_items_of_another_form_are_repaired_or_left_out(item: Json, wanted: Json | None) -> None:
    end = {"type": "new"}
    if wanted is not None:
        wanted = {name: value for name, value in wanted.items() if value != ...}
        if item.get("phase") == 5:
            wanted.pop("phase", None)
    assert converted(item, end) == ([end] if wanted is None else [wanted, end])


def test_calls_of_another_form_are_repaired_or_left_out_with_their_outputs() -> None:
    odd = call(namespace=5, status="odd", id="call_1")
    assert converted(odd, output()) == [call(), output()]
    assert converted(call() | {"call_id": ""}, output() | {"call_id": ""}, ASK) == [ASK]
    assert converted(
        {**call("a", "shell_call"), "action": 5}, output("a", "shell_call_output"), ASK
    ) == [ASK]


def test_a_shell_that_the_server_runs_needs_no_output() -> None:
    place = {"environment": {"type": "container_reference", "container_id": "c"}}
    hosted = {**call("a", "shell_call"), **place}
    result = output("a", "shell_call_output", output=[])
    assert converted(hosted, ASK) == [hosted, ASK]
    assert converted(hosted, result, result) == [hosted, result]
    assert converted(result) == []


# --- Reasoning ---------------------------------------------------------------------------


@pytest.mark.parametrize("encrypted", [..., None, "", 5])
@pytest.mark.parametrize(
    ("made_with_store", "sent_with_store", "kept"),
    [(True, True, True), (False, True, False), (True, False, False), (False, False, False)],
)
def test_reasoning_that_is_not_encrypted_needs_a_server_that_has_stored_it(
    encrypted: Any, *, made_with_store: bool, sent_with_store: bool, kept: bool
) -> None:
    item = PLAIN_THOUGHT if encrypted is ... else {**PLAIN_THOUGHT, "encrypted_content": encrypted}
    origin = Origin("m", stored=made_with_store)
    sent = converted(item, ANSWER, origin=origin, stored=sent_with_store)
    wanted = PLAIN_THOUGHT if encrypted == 5 else item
    assert sent == ([wanted, ANSWER] if kept else [ANSWER])


@pytest.mark.parametrize(
    ("rule", "made_by", "model", "kept"),
    [
        ("same_model", "a", "a", True),
        ("same_model", "a", "b", False),
        ("same_model", None, "b", True),
        ("same_model", "a", None, True),
        ("keep", "a", "b", True),
        ("omit", "a", "a", False),
    ],
)
def test_reasoning_of_another_model_is_left_out(
    rule: str, made_by: str | None, model: str | None, *, kept: bool
) -> None:
    sent = converted(THOUGHT, ANSWER, origin=Origin(made_by), model=model, reasoning=rule)
    assert sent == ([THOUGHT, ANSWER] if kept else [ANSWER])


@pytest.mark.parametrize(
    ("items", "kept"),
    [
        ([THOUGHT], []),
        ([THOUGHT, ANSWER, THOUGHT], [0, 1]),
        ([THOUGHT, {**THOUGHT, "id": "rs_2"}, ANSWER], [0, 1, 2]),
        ([THOUGHT, ASK, ANSWER], [1, 2]),
        ([call(), THOUGHT, output()], [0, 2]),
        ([THOUGHT, {"type": "compaction_trigger"}], [1]),
        ([THOUGHT, {"role": "system", "content": ""}], [1]),
        ([THOUGHT, {"type": "from_the_future"}], [0, 1]),
    ],
)
def test_reasoning_needs_an_item_of_the_model_after_it(items: list[Json], kept: list[int]) -> None:
    assert converted(*items) == [items[n] for n in kept]


def test_reasoning_at_the_end_of_a_turn_is_not_followed_by_the_next_turn() -> None:
    pieces = [Piece(joined(THOUGHT), Origin()), Piece(joined(ANSWER), Origin())]
    assert decoded(to_input_items(pieces, ReplayRules())) == [ANSWER]


# --- Calls -------------------------------------------------------------------------------

A = ("function_call", "a")


@pytest.mark.parametrize(
    ("items", "kept"),
    [
        ([call(), output()], [0, 1]),
        ([call()], []),
        ([output()], []),
        ([output(), call()], []),
        ([call(), output("b")], []),
        ([call(), output("a", "custom_tool_call_output")], []),
        ([call(), call(), output(), output()], [0, 2]),
        ([call(), output(), call(), output()], [0, 1, 2, 3]),
        ([call(), output(), call()], [0, 1]),
        ([THOUGHT, call(), ASK], [2]),
        ([THOUGHT, call("b"), call(), output("b")], [0, 1, 3]),
        ([call("a", "computer_call"), ASK], [1]),
        ([call(async_=1) | {"async": True}, ASK], [0, 1]),
        ([call() | {"async": True}, ASK, output()], [0, 1, 2]),
        ([{**call("a", "tool_search_call"), "execution": "server"}], [0]),
        ([call() | {"name": None}, output()], []),
        ([call() | {"name": ""}, output()], []),
        ([call() | {"call_id": None}, output() | {"call_id": None}], []),
    ],
)
def test_each_call_has_one_output_and_each_output_a_call(
    items: list[Json], kept: list[int]
) -> None:
    items = [{name: value for name, value in item.items() if name != "async_"} for item in items]
    assert converted(*items) == [items[n] for n in kept]


def test_a_call_stays_if_the_new_items_answer_it() -> None:
    assert converted(THOUGHT, call(), answered={A}) == [THOUGHT, call()]
    assert converted(call("b"), call(), answered={A}) == [call()]


def test_an_answered_call_stays_if_a_later_one_with_its_id_has_no_output() -> None:
    pieces = [
        Piece(joined(call(), call("b")), Origin()),
        Piece(joined(output(), call()), Origin()),
    ]
    assert decoded(to_input_items(pieces, ReplayRules())) == [call(), output()]


def test_a_call_and_its_output_may_be_in_different_pieces() -> None:
    form = InputForm(ReplayRules())
    form.append(Piece(joined(ASK, THOUGHT, call()), Origin()))
    assert [*form.open_calls] == [A]
    assert decoded(form.items()) == [ASK]
    copy = form.copy()
    form.append(Piece(joined(output()), Origin()))
    assert decoded(form.items()) == [ASK, THOUGHT, call(), output()]
    assert not form.open_calls
    assert decoded(copy.items()) == [ASK]


@pytest.mark.parametrize(
    ("item", "field"),
    [
        (call(), "output"),
        (call(arguments={"a": 1}), "output"),
        (call("a", "custom_tool_call"), "output"),
        ({"type": "mcp_approval_request", "id": "a", "name": "f", "arguments": "",
          "server_label": "s"}, "reason"),
    ],
)  # fmt: skip
def test_an_interrupted_call_gets_an_output_with_a_text(item: Json, field: str) -> None:
    made = error_output_for(raw(item), "interrupted")
    assert made is not None
    assert call_key(made) == call_key(raw(item))
    assert msgspec.json.decode(made)[field] == "interrupted"


@pytest.mark.parametrize(
    "item",
    [
        {"type": "computer_call", "call_id": "a", "id": "cu_1", "pending_safety_checks": []},
        {"type": "tool_search_call", "call_id": "a", "id": "ts_1", "execution": "client"},
        call() | {"name": None},
        {"type": "shell_call", "call_id": "a", "action": 5},
    ],
)
def test_a_call_that_no_text_can_answer_gets_no_output(item: Json) -> None:
    assert error_output_for(raw(item), "interrupted") is None


@pytest.mark.parametrize(("value", "waits"), [(True, True), (False, False), (None, False)])
def test_only_an_async_call_can_wait(value: Any, *, waits: bool) -> None:
    assert can_wait(raw(call() | {"async": value})) == waits
    assert not can_wait(raw(None))


# --- Sizes -------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the longest string have 200 characters."""
    monkeypatch.setattr(replay, "MAX_STRING", 200)


def test_the_longest_string_is_that_of_the_api() -> None:
    assert MAX_STRING == 10_485_760


@pytest.mark.parametrize("limit", [*range(1, 80), 999, 1000, 1001])
def test_a_text_is_shortened_in_its_middle_to_the_limit(limit: int) -> None:
    text = "".join(chr(0x400 + n % 50) for n in range(1000))
    short = shorten(text, limit)
    assert len(short) == min(limit, 1000)
    assert short[0] == text[0]
    if 60 <= limit < 1000:
        assert "1,000 characters" in short
        assert short[-1] == text[-1]


MAKERS: list[Callable[[str], Json]] = [
    lambda text: output(output=text),
    lambda text: output(output=[{"type": "input_text", "text": text}]),
    lambda text: {"type": "message", "role": "user", "content": text},
    lambda text: {"type": "from_the_future", "x": [1, {"y": [text, None]}], "z": True},
]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("make", MAKERS)
def test_strings_longer_than_the_api_accepts_are_shortened(make: Callable[[str], Json]) -> None:
    whole, long = [make("ä" * 200), make("x" * 201)]
    (kept,) = converted(call(), whole, call("b"))[1:] or converted(whole)
    assert kept == whole
    sent = converted(call(), long)[-1]
    assert sent == make(shorten("x" * 201, 200))


@pytest.mark.usefixtures("small")
def test_a_large_image_or_file_is_left_out_instead_of_shortened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert replay.MAX_MEDIA["input_image"] == 2 * MAX_STRING
    monkeypatch.setattr(replay, "MAX_MEDIA", dict.fromkeys(replay.MAX_MEDIA, 300))
    parts = [
        {"type": "input_image", "image_url": "x" * 301},
        {"type": "input_image", "image_url": "y" * 201},
        {"type": "input_file", "file_data": "x" * 301},
    ]
    sent = converted({**ASK, "content": parts})[0]["content"]
    assert [part.get("text") for part in sent] == ["[image left out]", None, "[file left out]"]
    image = {"type": "image_generation_call", "id": "ig_1", "result": "x" * 301}
    assert converted(image)[0]["content"] == "[image left out]"


@pytest.mark.usefixtures("small")
def test_a_long_number_or_a_long_encrypted_text_is_not_shortened() -> None:
    number = Raw(b'{"type":"new","n":%b}' % (b"1" * 300))
    items = RawItems.join([number])
    assert to_input_items([Piece(items, Origin())], ReplayRules()) == [items]
    assert converted({**THOUGHT, "encrypted_content": "g" * 201}, ANSWER, stored=False) == [ANSWER]


# --- Filters -----------------------------------------------------------------------------

IMAGE_PART = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
TEXT_PART = {"type": "input_text", "text": "[image left out]"}
SCREENSHOT = {"type": "computer_screenshot", "image_url": "data:x"}
BLANK = {"type": "computer_screenshot", "image_url": BLANK_SCREENSHOT}


@pytest.mark.parametrize(
    ("item", "wanted"),
    [
        (
            {**ASK, "content": [{"type": "input_text", "text": "a"}, IMAGE_PART]},
            {**ASK, "content": [{"type": "input_text", "text": "a"}, TEXT_PART]},
        ),
        (output(output=[IMAGE_PART]), output(output=[TEXT_PART])),
        (
            output("a", "computer_call_output", output=SCREENSHOT),
            output("a", "computer_call_output", output=BLANK),
        ),
        (
            {"type": "image_generation_call", "id": "ig_1", "result": "AA", "status": "completed"},
            {"type": "message", "role": "assistant", "content": "[image left out]"},
        ),
        (ANSWER, ANSWER),
        ({"type": "new", "content": {"type": "x"}}, {"type": "new", "content": {"type": "x"}}),
    ],
)
def test_images_are_replaced_by_a_short_text(item: Json, wanted: Json) -> None:
    calls = [call(), call("a", "computer_call")]
    assert converted(*calls, item, images="omit")[-1] == wanted
    assert converted(*calls, item)[-1] == item


def test_statuses_are_removed_where_they_are_optional() -> None:
    patch = output("p", "apply_patch_call_output", status="failed")
    items = [call(status="completed"), output(status=None), call("p", "apply_patch_call"), patch]
    sent = converted(*items, ANSWER, statuses="omit")
    assert ["status" in item for item in sent] == [False, False, True, True, False]
    assert converted(*items, ANSWER)[0] == items[0]


MCP_CALL: Json = {
    "type": "mcp_call",
    "id": "mcp_1",
    "name": "f",
    "arguments": "{}",
    "server_label": "s",
}
PROGRAM_OUTPUT: Json = {
    "type": "program_output",
    "id": "po_1",
    "call_id": "p",
    "status": "completed",
}
LongOutput = tuple[Json, Json, Callable[[Json], list[str]]]
LONG_OUTPUTS: list[LongOutput] = [
    (call(), output(output="x" * 100), lambda item: [item["output"]]),
    (
        call(),
        output(output=[{"type": "input_text", "text": "x" * 100}, "x" * 100]),
        lambda item: [item["output"][0]["text"]],
    ),
    (
        call("a", "shell_call"),
        output("a", "shell_call_output", output=[{"stdout": "x" * 100, "stderr": "x" * 99}]),
        lambda item: list(item["output"][0].values()),
    ),
    (ASK, {**MCP_CALL, "output": "x" * 100}, lambda item: [item["output"]]),
    (ASK, {**PROGRAM_OUTPUT, "result": "x" * 100}, lambda item: [item["result"]]),
]


@pytest.mark.parametrize(("before", "item", "texts"), LONG_OUTPUTS)
def test_long_texts_of_tool_outputs_are_shortened(
    before: Json, item: Json, texts: Callable[[Json], list[str]]
) -> None:
    sent = converted(before, item, max_output=60)[-1]
    assert all(len(text) <= 60 and "shortened" in text for text in texts(sent))
    assert converted(before, item, max_output=100)[-1] == item


def test_images_and_other_items_are_not_shortened() -> None:
    image = {**IMAGE_PART, "image_url": "x" * 100}
    items = [{**ASK, "content": "x" * 100}, call(), output(output=[image])]
    items += [{**MCP_CALL, "error": {"message": "x" * 100}}]
    assert converted(*items, max_output=10) == items


COMPACTION: Json = {"type": "compaction", "encrypted_content": "g"}


@pytest.mark.parametrize(
    ("items", "limit", "kept"),
    [
        ([ASK, ANSWER, ASK], 3, [0, 1, 2]),
        ([ASK, ANSWER, ASK], 2, [2]),
        ([ASK, call(), output(), ANSWER], 2, [3]),
        ([ASK, call(), output(), ANSWER], 3, [1, 2, 3]),
        ([ASK, THOUGHT, call(), output(), ANSWER], 3, [1, 2, 3, 4]),
        ([ASK, THOUGHT, ANSWER], 1, [1, 2]),
        ([COMPACTION, ASK, ANSWER, ASK], 1, [0, 3]),
        ([COMPACTION, ASK, COMPACTION, ASK, ANSWER], 2, [2, 3, 4]),
        ([COMPACTION, ANSWER, ASK], 2, [0, 2]),
    ],
)
def test_the_latest_items_are_kept(items: list[Json], limit: int, kept: list[int]) -> None:
    assert converted(*items, max_items=limit) == [items[n] for n in kept]


def test_calls_whose_outputs_follow_are_kept() -> None:
    items = [ASK, ANSWER, THOUGHT, call(), call("b"), ASK]
    sent = converted(*items, max_items=1, answered={A, ("function_call", "b")})
    assert sent == items[2:]


def test_outputs_of_calls_that_are_left_out_are_left_out() -> None:
    items = joined(ASK, call(), output(), output("b"))
    assert decoded([without_outputs(items, {A})]) == [ASK, call(), output("b")]


# --- New items ---------------------------------------------------------------------------


def test_new_items_are_sent_as_they_are() -> None:
    items = joined(ASK, call(), output("b"), {**ASK, "content": [IMAGE_PART]}, THOUGHT)
    assert prepare_new_items(items, ReplayRules(images="omit", reasoning="omit")) is items
    assert prepare_new_items(joined(ASK, ANSWER), ReplayRules(statuses="omit")).count == 2


def test_output_items_among_new_items_get_the_form_of_input_items() -> None:
    items = joined({**THOUGHT, "status": "completed"}, ANSWER, PLAIN_THOUGHT, None)
    sent = prepare_new_items(items, ReplayRules(stored=False))
    assert decoded([sent]) == [THOUGHT, ANSWER]


def test_outputs_among_new_items_are_shortened() -> None:
    items = joined(ASK, output(output="x" * 100))
    (_, sent) = decoded([prepare_new_items(items, ReplayRules(max_output=60))])
    assert len(sent["output"]) == 60


# --- At random ---------------------------------------------------------------------------

Items = st.SearchStrategy[Any]

KINDS = [*OUTPUT_TYPES, *CALL_TYPES]
ODD: Items = st.sampled_from([None, "", "x", "completed", "failed", 5, {}, [], True])
FIELDS: Items = st.fixed_dictionaries(
    {},
    optional={
        "call_id": st.sampled_from(["a", "b", None]),
        "id": st.sampled_from(["a", "b"]),
        "approval_request_id": st.sampled_from(["a", "b"]),
        "execution": st.sampled_from(["client", "server"]),
        "async": st.sampled_from([True, False, None]),
        **dict.fromkeys(("status", "created_by", "summary", "name", "arguments", "input"), ODD),
        **dict.fromkeys(("role", "encrypted_content", "output", "content"), ODD),
    },
)


def of_kind(kind: Any, fields: Json) -> Json:
    return {**fields, "type": kind}


def thought(fields: Json) -> Json:
    return {**THOUGHT, **fields}


ITEM: Items = st.one_of(
    st.builds(of_kind, st.sampled_from(KINDS), FIELDS),
    st.builds(thought, FIELDS),
    st.builds(call, st.sampled_from("ab")),
    st.builds(output, st.sampled_from("ab")),
    st.sampled_from([ASK, ANSWER, THOUGHT, PLAIN_THOUGHT, None, COMPACTION]),
    st.builds(of_kind, ODD, FIELDS),
)
PIECES = st.lists(
    st.tuples(
        st.lists(ITEM, max_size=6), st.builds(Origin, st.sampled_from(["m", "n"]), st.booleans())
    ),
    max_size=4,
)
RULES = st.builds(
    ReplayRules,
    model=st.sampled_from(["m", "n", None]),
    stored=st.booleans(),
    images=st.sampled_from(["keep", "omit"]),
    reasoning=st.sampled_from(["keep", "same_model", "omit"]),
    statuses=st.sampled_from(["keep", "omit"]),
    max_output=st.sampled_from([None, 1, 50]),
    max_items=st.sampled_from([None, 1, 3, 8]),
)


def refused(items: list[Json], *, stored: bool) -> str | None:  # noqa: C901, PLR0911 - one by one
    """Return why the API refuses an input, if it does."""
    calls, followed = dict[Any, bool](), True
    if not all(isinstance(item, dict) for item in items):
        return "not an item"
    for item in items:
        key = call_key(raw(item))
        if key is not None and item["type"] in OUTPUT_TYPES:
            if calls.get(key) is False:
                return "two calls"
            calls[key] = item.get("async") is True
        elif (
            item.get("type") in [*CALL_TYPES]
            and item.get("execution") != "server"
            and calls.pop(key, None) is None
        ):
            return "no call"
        if item.get("created_by") is not None:
            return "created_by"
    for item in reversed(items):
        if item.get("type") != "reasoning":
            followed = item.get("type") not in [*CALL_TYPES] and item.get("role") != "user"
        elif not followed or "status" in item or item.get("summary") is None:
            return "reasoning"
        elif not stored and not item.get("encrypted_content"):
            return "not encrypted"
    return None if all(calls.values()) else "a call without output"


@given(pieces=PIECES, rules=RULES)
def test_the_input_form_of_any_history_is_accepted_and_has_itself_as_its_form(
    pieces: list[tuple[list[Any], Origin]], rules: ReplayRules
) -> None:
    history = [Piece(joined(*items), origin) for items, origin in pieces]
    sent = to_input_items(history, rules)
    items = decoded(sent)
    assert refused(items, stored=rules.stored) is None
    again = to_input_items([Piece(items, Origin()) for items in sent], rules)
    assert decoded(again) == items


def test_a_call_whose_id_comes_again_in_a_later_turn_keeps_its_output() -> None:
    pieces = [joined(call("a"), call("b")), joined(output("a"), call("a"))]
    sent = to_input_items([Piece(items, Origin()) for items in pieces], ReplayRules())
    assert decoded(sent) == [call("a"), output("a")]


@given(pieces=PIECES, rules=RULES)
def test_a_history_that_grows_has_the_same_form_as_one_that_is_there_at_once(
    pieces: list[tuple[list[Any], Origin]], rules: ReplayRules
) -> None:
    form = InputForm(rules)
    history = [Piece(joined(*items), origin) for items, origin in pieces]
    for number, piece in enumerate(history):
        form.append(piece)
        assert form.items() == to_input_items(history[: number + 1], rules)


# --- Other endpoints -----------------------------------------------------------------------


def at_two(*items: Any, **rules: Any) -> Any:
    """Return what endpoint ``two`` gets of items that endpoint ``one`` made."""
    return converted(*items, origin=Origin("m", endpoint="one"), endpoint="two", **rules)


@pytest.mark.parametrize(
    "item",
    [
        THOUGHT,
        {"type": "compaction", "id": "cmp_1", "encrypted_content": "g"},
        {"type": "item_reference", "id": "msg_0"},
    ],
)
def test_what_one_endpoint_has_encrypted_or_stored_is_not_sent_to_another(item: Json) -> None:
    without_id = {name: value for name, value in ANSWER.items() if name != "id"}
    assert at_two(ASK, item, ANSWER) == [ASK, without_id]
    assert converted(ASK, item, ANSWER, origin=Origin("m", endpoint="two"), endpoint="two") == [
        ASK,
        item,
        ANSWER,
    ]
    assert converted(ASK, item, ANSWER, endpoint="two") == [ASK, item, ANSWER]


def test_a_call_that_is_encrypted_is_left_out_with_its_output() -> None:
    secret = call(kind="custom_tool_call", encrypted_content="g")
    assert at_two(ASK, secret, output(kind="custom_tool_call_output")) == [ASK]


def test_a_user_can_keep_what_is_encrypted_but_not_what_is_only_stored() -> None:
    thought, answer = at_two(THOUGHT, ANSWER, reasoning="keep")
    assert (thought, "id" in answer) == (THOUGHT, False)
    assert len(at_two(PLAIN_THOUGHT, ANSWER, reasoning="keep")) == 1
    assert len(at_two({"type": "item_reference", "id": "m"}, ANSWER, reasoning="keep")) == 1


def test_files_at_one_endpoint_are_replaced_by_texts_for_another() -> None:
    parts: list[Json] = [
        {"type": "input_file", "file_id": "file_1"},
        {"type": "input_image", "file_id": "file_2", "detail": "auto"},
        {"type": "input_image", "file_id": None, "image_url": "data:,"},
        {"type": "input_text", "text": 'the words "file_id"'},
    ]
    (sent,) = at_two({"type": "message", "role": "user", "content": parts})
    assert sent["content"] == [
        {"type": "input_text", "text": "[file left out]"},
        {"type": "input_text", "text": "[image left out]"},
        *parts[2:],
    ]


def test_ids_that_an_item_needs_stay() -> None:
    action: Json = {"type": "search", "query": "x"}
    search: Json = {
        "type": "web_search_call",
        "id": "ws_1",
        "status": "completed",
        "action": action,
    }
    assert at_two(search, ANSWER)[0] == search
    named = call(id="fc_1")
    assert at_two(named, output()) == [call(), output()]
