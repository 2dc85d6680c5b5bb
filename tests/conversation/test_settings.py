"""The settings of a conversation: they are copied when it begins, and checked."""

from types import MappingProxyType

import msgspec
import pytest

from tests.conversation.rig import open_conversation
from trio_responses import function_tool
from trio_responses.testing import ResponsesServer


@function_tool(run_in_thread=False)
def pay(euros: int) -> str:
    return f"paid {euros}"


async def test_later_changes_to_passed_settings_have_no_effect(server: ResponsesServer) -> None:
    metadata, tools = {"a": "1"}, [pay]
    async with open_conversation(server, metadata=metadata, tools=tools) as conversation:
        metadata["a"] = "2"
        tools.clear()
        await conversation.create("one", temperature=0.5)
        assert server.last_request["metadata"] == {"a": "1"}
        assert msgspec.json.decode(conversation.checkpoint())["settings"]["metadata"] == {"a": "1"}
        server.call("pay", {"euros": 3})
        await conversation.run("two")
        assert server.last_request.output_of("pay") == "paid 3"
        await (await conversation.fork()).create("three")
        assert len(server.last_request.tools) == 1


async def test_a_setting_may_be_any_mapping(server: ResponsesServer) -> None:
    async with open_conversation(server, metadata=MappingProxyType({"a": "1"})) as conversation:
        await conversation.create("one")
        assert msgspec.json.decode(conversation.checkpoint())["settings"]["metadata"] == {"a": "1"}


async def test_a_conversation_id_of_the_server_is_not_a_setting(server: ResponsesServer) -> None:
    with pytest.raises(TypeError, match="has no parameter 'conversation'"):
        async with open_conversation(server, conversation="conv_1"):
            pass


async def test_extra_body_of_a_turn_is_merged_into_the_settings(server: ResponsesServer) -> None:
    text = {"verbosity": "low"}
    async with open_conversation(server, text=text, extra_body={"user": "u"}) as conversation:
        await conversation.create("one")
        await conversation.create("two", extra_body={"text": {"format": {"type": "text"}}})
        await (await conversation.fork()).create("three")
    assert [request["user"] for request in server.requests] == ["u"] * 3
    merged = {"verbosity": "low", "format": {"type": "text"}}
    assert [request["text"] for request in server.requests] == [text, merged, text]
