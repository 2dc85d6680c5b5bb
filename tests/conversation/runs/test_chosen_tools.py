"""Tools that the model sees in some turns only: ``is_enabled``, and functions that choose tools."""

from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.conversation.durable.rig import open_owner, records
from tests.conversation.rig import deltas, history, open_conversation
from tests.conversation.runs.rig import is_paired, outputs
from trio_responses import (
    ConfigurationError,
    MaxRoundsExceeded,
    Namespace,
    RunStream,
    ToolContext,
    function_tool,
)
from trio_responses.stores import MemoryStore
from trio_responses.testing import Call
from trio_responses.types import CustomTool, NamespaceTool

if TYPE_CHECKING:
    from trio_responses import Conversation, FunctionTool
    from trio_responses.testing import Request, ResponsesServer
    from trio_responses.typing import ChooseTools

User = dict[str, Any]
"""The dependencies of these runs: whether the user is signed in."""


@function_tool
async def sign_in(context: ToolContext[User]) -> str:
    await trio.lowlevel.checkpoint()
    context.dependencies["signed_in"] = True
    return "welcome"


def is_signed_in(context: ToolContext[User]) -> bool:
    return bool(context.dependencies.get("signed_in"))


async def is_not_signed_in(context: ToolContext[User]) -> bool:
    await trio.lowlevel.checkpoint()
    return not is_signed_in(context)


def tool(name: str, **options: Any) -> "FunctionTool[..., Any]":
    async def answer() -> str:
        await trio.lowlevel.checkpoint()
        return name

    return function_tool(name=name, **options)(answer)


def only(*tools: Any) -> "ChooseTools":
    """Return a function that chooses the same tools each time."""

    def choose(_: ToolContext) -> list[Any]:
        return list(tools)

    return choose


PAY = tool("pay", is_enabled=is_signed_in)
HELP = tool("help", is_enabled=is_not_signed_in)
HIDDEN = tool("hidden", is_enabled=False)
SHOWN = tool("shown", is_enabled=True)
NO_TOOL = "There is no tool named 'pay'."


def offered(request: "Request") -> list[str]:
    """Return the names of the tools in a request; those in namespaces after their namespace."""
    return [
        f"{name}{given['name']}"
        for one in request.tools
        for name, given in [
            ("", one),
            *((f"{one['name']}.", inner) for inner in one.get("tools", ())),
        ]
    ]


# --- In a run ----------------------------------------------------------------------------


async def test_each_turn_offers_the_tools_that_are_enabled_then(server: "ResponsesServer") -> None:
    """A turn whose tools differ is sent with full input, and any other as a delta."""
    server.answer([Call("shown", call_id="call_1")])
    server.answer([Call("sign_in", call_id="call_2")])
    server.answer([Call("pay", call_id="call_3")])
    tools = [sign_in, PAY, HELP, HIDDEN, SHOWN]
    async with open_conversation(server, tools=tools) as conversation:
        await conversation.run("Pay.", dependencies={})
        assert is_paired(history(conversation))
    assert [offered(request) for request in server.requests] == [
        ["sign_in", "help", "shown"],
        ["sign_in", "help", "shown"],
        ["sign_in", "pay", "shown"],
        ["sign_in", "pay", "shown"],
    ]
    assert deltas(server) == [False, True, False, True]
    assert outputs(server.requests[3]) == ["pay"]


async def test_a_call_of_a_hidden_tool_is_answered_as_one_of_an_unknown_tool(
    server: "ResponsesServer",
) -> None:
    server.answer(
        [
            Call("pay", call_id="call_1", unoffered=True),
            Call("hidden", call_id="call_2", unoffered=True),
        ]
    )
    async with open_conversation(server, tools=[PAY, SHOWN, HIDDEN]) as conversation:
        await conversation.run("Pay.", dependencies={})
    assert outputs(server.requests[1]) == [NO_TOOL, "There is no tool named 'hidden'."]


async def test_the_tools_of_the_turn_that_called_them_run(server: "ResponsesServer") -> None:
    """A call of ``help`` is answered, though ``sign_in`` hides that tool at the same time."""
    server.answer([Call("sign_in", call_id="call_1"), Call("help", call_id="call_2")])
    server.answer([Call("help", call_id="call_3", unoffered=True)])
    async with open_conversation(server, tools=[sign_in, HELP]) as conversation:
        await conversation.run("Help.", dependencies={})
    assert outputs(server.requests[1]) == ["welcome", "help"]
    assert outputs(server.requests[2]) == ["There is no tool named 'help'."]


async def test_tools_in_namespaces_can_be_hidden(server: "ResponsesServer") -> None:
    """A namespace without tools is left out; its other tools are not touched."""
    custom = CustomTool(name="sql")
    tools = [
        Namespace("a", [PAY, SHOWN], description="A."),
        Namespace("b", [HIDDEN, PAY]),
        NamespaceTool(name="c", tools=[HELP, custom, HIDDEN]),
        {"type": "namespace", "name": "d", "tools": [HIDDEN, SHOWN]},
        {"type": "namespace", "name": "e", "tools": [custom]},
    ]
    server.answer([Call("pay", call_id="call_1", namespace="a", unoffered=True)])
    async with open_conversation(server, tools=tools) as conversation:
        await conversation.run("Pay.", dependencies={})
        await conversation.run("Pay.", dependencies={"signed_in": True})
    first, _, last, *_ = server.requests
    assert offered(first) == ["a", "a.shown", "c", "c.help", "c.sql", "d", "d.shown", "e", "e.sql"]
    assert offered(last) == [
        *["a", "a.pay", "a.shown", "b", "b.pay", "c", "c.sql", "d", "d.shown", "e", "e.sql"]
    ]
    assert first.tools[0]["description"] == "A."
    assert outputs(server.requests[1]) == ["There is no tool named 'a.pay'."]


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_function_returns_the_tools_of_each_turn(
    server: "ResponsesServer", *, is_async: bool
) -> None:
    seen: list[tuple[User, Conversation]] = []

    def choose(context: ToolContext[User]) -> list[Any]:
        seen.append((dict(context.dependencies), context.conversation))
        with pytest.raises(RuntimeError, match="no call"):
            _ = context.call
        return [PAY, HELP, SHOWN] if is_signed_in(context) else [sign_in]

    async def choose_later(context: ToolContext[User]) -> list[Any]:
        await trio.lowlevel.checkpoint()
        return choose(context)

    server.answer([Call("sign_in", call_id="call_1")])
    server.answer([Call("pay", call_id="call_2")])
    tools = choose_later if is_async else choose
    async with open_conversation(server, tools=tools) as conversation:
        await conversation.run("Pay.", dependencies={})
        assert seen == [
            ({}, conversation),
            ({"signed_in": True}, conversation),
            ({"signed_in": True}, conversation),
        ]
    assert [offered(request) for request in server.requests] == [
        ["sign_in"],
        ["pay", "shown"],
        ["pay", "shown"],
    ]


@pytest.mark.parametrize("tools", [[PAY], [SHOWN, HIDDEN]])
async def test_the_function_may_be_an_option_of_a_run(
    server: "ResponsesServer", tools: list[Any]
) -> None:
    """It replaces the tools of the conversation, and a list replaces the function."""
    async with open_conversation(server, tools=tools) as conversation:
        await conversation.run("Hi.", tools=only(SHOWN))
        assert (await conversation.parse(str, "Hi.", tools=only())).parsed
        await conversation.run("Hi.", tools=[SHOWN])
        await conversation.create("Hi.", tools=[SHOWN])
        async with conversation.stream("Hi.", tools=[HIDDEN]) as stream:
            await stream.get_final_response()
    assert [offered(one) for one in server.requests] == [["shown"], [], ["shown"], ["shown"], []]


async def test_a_forced_choice_holds_for_the_first_turn_of_chosen_tools(
    server: "ResponsesServer",
) -> None:
    server.answer([Call("shown", call_id="call_1")])
    async with open_conversation(server, tools=only(SHOWN)) as conversation:
        await conversation.run("Hi.", tool_choice="required")
    assert [request["tool_choice"] for request in server.requests] == ["required", "auto"]
    assert [offered(request) for request in server.requests] == [["shown"], ["shown"]]


def naming(name: str, **more: Any) -> Any:
    return {"type": "function", "name": name, **more}


def allowing(mode: str, *names: str) -> Any:
    tools = [*map(naming, names), {"type": "web_search"}]
    return {"type": "allowed_tools", "mode": mode, "tools": tools[: len(names) or 1]}


NOT_OFFERED = "tool_choice names the tool 'pay', which this turn does not offer"
REFUSED_CHOICES: list[tuple[Any, str]] = [
    (naming("pay"), NOT_OFFERED),
    ({"type": "custom", "name": "pay"}, NOT_OFFERED),
    (naming("shown", namespace="crm"), "the tool 'crm.shown', which this turn does not offer"),
    (allowing("required", "pay"), "tool_choice allows only tools that this turn does not offer"),
]


@pytest.mark.parametrize(("choice", "message"), REFUSED_CHOICES)
@pytest.mark.parametrize("tools", [[PAY, SHOWN], only(SHOWN)])
async def test_a_choice_of_a_hidden_tool_ends_the_run_before_its_turn(
    server: "ResponsesServer", choice: Any, message: str, tools: Any
) -> None:
    """The input stays in the conversation, for the next run."""
    async with open_conversation(server, tools=tools) as conversation:
        with pytest.raises(ConfigurationError, match=message):
            await conversation.run("Pay.", dependencies={}, tool_choice=choice)
        assert server.requests == []
        await conversation.run(dependencies={"signed_in": True})
    assert server.last_request.text == "Pay."


async def test_a_choice_needs_a_tool(server: "ResponsesServer") -> None:
    async with open_conversation(server, tools=[PAY]) as conversation:
        with pytest.raises(ConfigurationError, match="'required', but this turn offers no tool"):
            await conversation.run("Pay.", dependencies={}, tool_choice="required")
        await conversation.run(dependencies={"signed_in": True}, tool_choice=naming("pay"))
    assert server.requests[0]["tool_choice"] == naming("pay")


ALLOWED: list[tuple[Any, list[Any]]] = [
    (
        allowing("required", "shown", "pay", "sign_in"),
        [allowing("required", "shown", "sign_in"), allowing("auto", "shown", "pay", "sign_in")],
    ),
    (allowing("auto", "pay"), ["none", allowing("auto", "pay")]),
    (allowing("auto"), [allowing("auto")] * 2),
]


@pytest.mark.parametrize(("choice", "sent"), ALLOWED)
async def test_a_hidden_tool_is_left_out_of_the_allowed_ones(
    server: "ResponsesServer", choice: Any, sent: list[Any]
) -> None:
    server.answer([Call("sign_in", call_id="call_1")])
    tools = [sign_in, PAY, SHOWN, {"type": "web_search"}]
    async with open_conversation(server, tools=tools) as conversation:
        await conversation.run("Pay.", dependencies={}, tool_choice=choice)
    assert [request["tool_choice"] for request in server.requests] == sent


@pytest.mark.parametrize("more", [{"prompt": {"id": "p"}}, {}])
async def test_a_choice_may_name_a_tool_that_only_the_server_knows(
    server: "ResponsesServer", more: Any
) -> None:
    found: list[Any] = [] if more else [{"type": "tool_search"}]
    async with open_conversation(server, tools=only(SHOWN, *found)) as conversation:
        await conversation.run("Pay.", tool_choice=naming("pay"), **more)
    assert server.last_request["tool_choice"] == naming("pay")


@pytest.mark.parametrize("signed_in", [False, True])
async def test_calls_of_an_earlier_run_are_for_the_tools_that_are_enabled_now(
    server: "ResponsesServer", *, signed_in: bool
) -> None:
    server.answer([Call("pay", call_id="call_1")])
    async with open_conversation(server, tools=[PAY]) as conversation:
        with pytest.raises(MaxRoundsExceeded):
            await conversation.run("Pay.", dependencies={"signed_in": True}, max_rounds=1)
        await conversation.run(dependencies={"signed_in": signed_in})
    assert outputs(server.requests[1]) == ["pay" if signed_in else NO_TOOL]


async def test_an_exception_of_the_function_ends_the_run(server: "ResponsesServer") -> None:
    """The outputs of the tools are kept for the next run."""
    server.answer([Call("shown", call_id="call_1")])
    rounds = iter(range(9))

    def choose(context: ToolContext) -> list[Any]:  # noqa: ARG001 - the run passes it
        return [SHOWN, [].pop] if next(rounds) == 1 else [SHOWN]

    async with open_conversation(server, tools=choose) as conversation:
        with pytest.raises(TypeError, match="plain function"):
            await conversation.run("Hi.")
        await conversation.run()
        assert is_paired(history(conversation))
    assert outputs(server.requests[1]) == ["shown"]


@pytest.mark.parametrize("wrong", [None, "pay", PAY, {"type": "function"}])
async def test_a_function_that_returns_no_list_of_tools_ends_the_run(
    server: "ResponsesServer", wrong: Any
) -> None:
    def choose(_: ToolContext) -> Any:
        return wrong

    async with open_conversation(server, tools=choose) as conversation:
        with pytest.raises(TypeError, match="tools must be a list of tools"):
            await conversation.run("Hi.")
    assert server.requests == []


@pytest.mark.parametrize("in_another_task", [False, True])
async def test_a_turn_inside_the_function_is_refused(
    server: "ResponsesServer", *, in_another_task: bool
) -> None:
    """The run holds the conversation, so the turn would wait for ever."""

    async def choose(context: ToolContext) -> list[Any]:
        await context.conversation.create("Which tools?", tools=[])
        raise AssertionError

    async def read(run: RunStream) -> None:
        with pytest.raises(RuntimeError, match="wait for ever"), trio.fail_after(100):
            await run.get_final_response()

    async with (
        open_conversation(server, tools=choose) as conversation,
        conversation.run_stream("Hi.") as run,
        trio.open_nursery() as nursery,
    ):
        if in_another_task:
            nursery.start_soon(read, run)
        else:
            await read(run)


# --- Outside of a run --------------------------------------------------------------------


@pytest.mark.parametrize("tools", [[SHOWN, PAY], only(SHOWN), [Namespace("a", [PAY])]])
async def test_turns_that_are_not_part_of_a_run_refuse_to_choose(
    server: "ResponsesServer", tools: Any
) -> None:
    async with open_conversation(server, tools=tools) as conversation:
        for given in ({}, {"tools": tools}):
            with pytest.raises(ConfigurationError, match=r"only run\(\), run_stream\(\) and parse"):
                await conversation.create("Hi.", **given)
            with pytest.raises(ConfigurationError, match="only run"):
                conversation.stream("Hi.", **given)
            with pytest.raises(ConfigurationError, match="only run"):
                await conversation.warm_up(**given)
    async with server.open_client() as connection:
        refused: Any = (ConfigurationError, TypeError)
        with pytest.raises(refused, match=r"only (run|the runs)"):
            await connection.create("Hi.", model="m", tools=tools)
    assert server.requests == []


async def test_a_tool_that_is_never_enabled_is_not_sent(server: "ResponsesServer") -> None:
    tools: list[Any] = [HIDDEN, SHOWN, Namespace("a", [HIDDEN])]
    server.answer()
    server.answer([Call("hidden", call_id="call_1", unoffered=True)])
    async with open_conversation(server, tools=tools) as conversation:
        await conversation.create("Hi.")
        await conversation.run("Hi.")
    async with server.open_client() as connection:
        await connection.create("Hi.", model="m", tools=tools)
    assert [offered(request) for request in server.requests] == [["shown"]] * 4
    assert outputs(server.requests[2]) == ["There is no tool named 'hidden'."]


@pytest.mark.parametrize("wrong", [None, 1, "yes"])
def test_a_value_that_is_no_function_is_rejected(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="is_enabled must be True, False or a function"):
        tool("pay", is_enabled=wrong)


# --- Forks, checkpoints and stores -------------------------------------------------------


async def test_a_fork_chooses_its_tools_too(server: "ResponsesServer") -> None:
    async with open_conversation(server, tools=only(SHOWN)) as conversation:
        await conversation.run("Hi.")
        fork = await conversation.fork()
        await fork.run("Hi.")
    assert [offered(request) for request in server.requests] == [["shown"], ["shown"]]


@pytest.mark.parametrize(
    ("tools", "kept"), [([SHOWN, PAY, HIDDEN], ["shown"]), ([PAY], []), (only(PAY), [])]
)
async def test_a_checkpoint_has_the_tools_of_every_turn(
    server: "ResponsesServer", tools: Any, kept: list[str]
) -> None:
    async with server.open_client() as connection:
        async with connection.conversation(model="m", tools=tools) as conversation:
            await conversation.run("Hi.", dependencies={"signed_in": True})
            saved = conversation.checkpoint()
        async with connection.restore_conversation(saved) as restored:
            await restored.create("Hi.")
    assert "pay" in offered(server.requests[0])
    assert offered(server.requests[1]) == kept


async def test_a_durable_conversation_goes_on_with_chosen_tools(server: "ResponsesServer") -> None:
    """Its records do not depend on what was chosen: the next opening has no changes to save."""
    server.answer([Call("sign_in", call_id="call_1")])
    server.answer([Call("pay", call_id="call_2")])
    user: User = {}
    tools = [sign_in, PAY, HELP]
    async with MemoryStore() as store:
        async with open_owner(server, store, tools=tools) as conversation:
            with pytest.raises(MaxRoundsExceeded):
                await conversation.run("Pay.", request_id="a", dependencies=user, max_rounds=2)
        before = await records(store)
        async with open_owner(server, store, tools=tools) as conversation:
            assert await records(store) == before
            await conversation.run("Pay.", request_id="a", dependencies=user)
            assert is_paired(history(conversation))
    assert "pay" not in str(before[0])
    assert outputs(server.requests[2])[-1] == "pay"
    assert [offered(request) for request in server.requests] == [
        ["sign_in", "help"],
        ["sign_in", "pay"],
        ["sign_in", "pay"],
    ]
