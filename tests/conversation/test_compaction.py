"""Compaction (docs/protocol.md, 5.5): the history has its item; a window replaces the history."""

from typing import TYPE_CHECKING

import msgspec

from tests.conversation.rig import deltas, history, message_texts, open_conversation
from trio_responses._wire import Compaction, Message

if TYPE_CHECKING:
    from tests.turn.rig import Json
    from trio_responses.testing import ResponsesServer

AT_ONCE = [{"type": "compaction", "compact_threshold": 5}]


async def test_a_compaction_item_is_part_of_the_history(server: "ResponsesServer") -> None:
    async with open_conversation(server, context_management=AT_ONCE) as conversation:
        await conversation.create("one two three")
        await conversation.create("four five six")
        assert any(isinstance(item, Compaction) for item in conversation.items)
        before = history(conversation)
        await conversation.create("seven")
        await server.reset_all()
        answer = await conversation.create("eight")
    assert answer.output_text == 'Turn 4: you said "eight".'
    assert deltas(server) == [False, True, True, False]
    assert server.requests[-1]["context_management"] == AT_ONCE
    assert server.requests[-1]["input"][: len(before)] == before


async def test_a_compacted_window_is_sent_whole_without_a_parent(
    lenient_server: "ResponsesServer",
) -> None:
    """The turns after that are deltas."""
    window: list[Json] = [
        {"type": "message", "role": "user", "content": "one"},
        {"id": "cmp_1", "type": "compaction", "encrypted_content": "gAAA", "new": {"field": [1]}},
    ]
    async with open_conversation(lenient_server) as conversation:
        await conversation.create("zero")
        await conversation.replace_history([window[0], msgspec.Raw(msgspec.json.encode(window[1]))])
        assert conversation.last_response_id is None
        await conversation.create("two")
        await conversation.create("three")
        assert message_texts(conversation)[:2] == ["one", "two"]
        assert isinstance(conversation.items[0], Message)
    assert deltas(lenient_server) == [False, False, True]
    assert lenient_server.requests[1]["input"][:2] == window
