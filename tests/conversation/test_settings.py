"""The settings of a conversation: they are copied when it begins, and checked."""

from types import MappingProxyType

import msgspec
import pytest

from tests.conversation.rig import open_conversation
from trio_responses import ConfigurationError, function_tool
from trio_responses.testing import ResponsesServer


@function_tool(cheap=True)
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
        await conversation.fork().create("three")
        assert len(server.last_request.tools) == 1


async def test_a_setting_may_be_any_mapping(server: ResponsesServer) -> None:
    async with open_conversation(server, metadata=MappingProxyType({"a": "1"})) as conversation:
        await conversation.create("one")
        assert msgspec.json.decode(conversation.checkpoint())["settings"]["metadata"] == {"a": "1"}


async def test_a_conversation_id_of_the_server_is_not_a_setting(server: ResponsesServer) -> None:
    with pytest.raises(ConfigurationError, match="conversation"):
        async with open_conversation(server, conversation="conv_1"):
            pass
