"""The property of response shapes with a few conversations; the campaign draws more."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, example, given, settings

from tests.fuzz import shapes
from tests.fuzz.conversing import check_conversation
from tests.fuzz.shapes import (
    ConversationShape,
    ItemShape,
    ResponseShape,
    TurnShape,
    conversations,
)

Json = shapes.Json

CALL: Json = {
    "type": "function_call",
    "id": "fc_1",
    "call_id": "call_1",
    "name": "delete",
    "arguments": '{"path":"/tmp/x","force":false}',
}
HOSTED: Json = {
    "type": "shell_call",
    "id": "sh_1",
    "call_id": "call_1",
    "action": {"commands": ["ls"]},
    "status": "completed",
    "environment": {"type": "container_reference", "container_id": "c"},
}


def whole(item: Json) -> ItemShape:
    """Return an item as the last two events about it have it."""
    return ItemShape(item, done=item, final=item)


def one_turn(*items: ItemShape, method: str = "run", **fields: Json) -> ConversationShape:
    """Return a conversation of one turn."""
    return ConversationShape((TurnShape(method),), (ResponseShape("resp_1", items, **fields),))


EMPTY_TEXT = ItemShape(
    CALL,
    deltas=(CALL["arguments"],),
    text="",
    done={**CALL, "arguments": ""},
    final={**CALL, "arguments": ""},
)


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(conversations())
@example(one_turn(status=None))
@example(one_turn(terminal="failed", status=None))
@example(one_turn(terminal="done", status="completed"))
@example(one_turn(terminal="cancelled", status="cancelled", method="parse"))
@example(one_turn(EMPTY_TEXT, output="empty"))
@example(one_turn(whole(HOSTED)))
@example(one_turn(whole(5), whole(CALL)))
@example(one_turn(whole({**CALL, "call_id": ""}), method="create"))
@example(one_turn(whole({"role": "assistant", "content": [{"type": "hologram"}]})))
@example(one_turn(whole(CALL), whole({"type": "compaction", "encrypted_content": "c"})))
@example(one_turn(whole({"type": "local_shell_call", "id": "lsh_1", "status": "completed"})))
@example(one_turn(whole({"type": "message", "role": "assistant", "content": None})))
def test_a_conversation_does_what_the_reference_model_says(shape: ConversationShape) -> None:
    check_conversation(shape)
