"""Compaction (docs/protocol.md, 5.5): its item is part of the history; a window is a new one."""

from typing import TYPE_CHECKING

import msgspec

from tests.conversation.rig import deltas, history, open_talk, said
from trio_responses._wire import Compaction, Message

if TYPE_CHECKING:
    from tests.turn.rig import Json
    from trio_responses.testing import ResponsesServer

AT_ONCE = [{"type": "compaction", "compact_threshold": 5}]


async def test_a_compaction_item_is_part_of_the_history(server: "ResponsesServer") -> None:
    async with open_talk(server, context_management=AT_ONCE) as talk:
        await talk.create("one two three")
        await talk.create("four five six")
        assert any(isinstance(item, Compaction) for item in talk.items)
        before = history(talk)
        await talk.create("seven")
        await server.reset_all()
        answer = await talk.create("eight")
    assert answer.output_text == 'Turn 4: you said "eight".'
    assert deltas(server) == [False, True, True, False]
    assert server.requests[-1]["context_management"] == AT_ONCE
    assert server.requests[-1]["input"][: len(before)] == before


async def test_an_adopted_window_is_sent_whole_without_a_parent(server: "ResponsesServer") -> None:
    """It goes out whole and unpruned, without a parent; then deltas follow."""
    window: list[Json] = [
        {"type": "message", "role": "user", "content": "one"},
        {"id": "cmp_1", "type": "compaction", "encrypted_content": "gAAA", "new": {"field": [1]}},
    ]
    async with open_talk(server) as talk:
        await talk.create("zero")
        talk.adopt([window[0], msgspec.Raw(msgspec.json.encode(window[1]))])
        assert talk.last_response_id is None
        await talk.create("two")
        await talk.create("three")
        assert said(talk)[:2] == ["one", "two"]
        assert isinstance(talk.items[0], Message)
    assert deltas(server) == [False, False, True]
    assert server.requests[1]["input"][:2] == window
