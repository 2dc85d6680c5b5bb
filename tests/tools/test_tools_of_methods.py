"""Tools that are methods: binding to an object, inheritance, class methods and static methods."""

import copy
import pickle
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Self, cast

import pytest

from tests.conversation.rig import open_conversation
from tests.conversation.runs.rig import outputs
from trio_responses import (
    ConfigurationError,
    FunctionTool,
    Instrument,
    Namespace,
    ToolContext,
    function_tool,
)
from trio_responses.testing import Call, open_test_server
from trio_responses.typing import ToolRecord

if TYPE_CHECKING:
    from trio_responses.testing import ResponsesServer


class Shop:
    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    @function_tool
    async def buy(self, what: str, number: int = 1) -> str:
        """Buy something.

        :param what: the thing to buy.
        """
        return f"{number} {what} at {self.name}"

    @function_tool(name="sell_thing", timeout=2.5, run_in_thread=False)
    def sell(self: Self, what: str, context: ToolContext[str]) -> str:
        return f"{what} of {self.name} for {context.dependencies}"

    @function_tool
    @classmethod
    def count(cls, what: str) -> str:
        return f"{what} at {cls.__name__}"

    @function_tool
    @staticmethod
    async def weigh(what: str) -> str:
        return f"{what} weighs 1"

    @staticmethod
    @function_tool
    def pack(what: str) -> str:
        return f"{what} packed"


class Market(Shop):
    __slots__ = ()

    @function_tool
    async def buy(  # pyright: ignore[reportIncompatibleVariableOverride] - type of self
        self, what: str, number: int = 1
    ) -> str:
        return f"market: {await super().buy(what, number)}"


shop = Shop("Anna's")
market = Market("Bo's")


async def test_the_tool_of_an_object_has_the_parameters_after_self() -> None:
    assert shop.buy.schema.schema["required"] == ["what", "number"]
    assert shop.buy.definition.name == "buy"
    assert shop.buy.description == "Buy something."
    what = shop.buy.schema.schema["properties"]["what"]
    assert what["description"] == "the thing to buy."
    assert await shop.buy("tea") == "1 tea at Anna's"
    assert await shop.buy.invoke('{"what": "tea", "number": 2}') == "2 tea at Anna's"
    assert shop.buy.bind('{"what": "tea", "number": 2}').args == ("tea", 2)


async def test_options_and_a_context_work_for_methods() -> None:
    assert (shop.sell.name, shop.sell.timeout) == ("sell_thing", 2.5)
    context = ToolContext("money")
    assert await shop.sell.invoke('{"what": "tea"}', context=context) == "tea of Anna's for money"
    assert list(shop.sell.schema.schema["properties"]) == ["what"]


def test_tools_of_one_method_are_equal_for_the_same_object_alone() -> None:
    assert shop.buy == shop.buy
    assert len({shop.buy, shop.buy}) == 1
    assert shop.buy != Shop("Anna's").buy
    assert shop.buy != Shop.buy
    assert shop.buy != shop.sell
    assert shop.buy != "buy"
    assert Shop.buy is Shop.buy

    def plain(what: str) -> str:
        return what

    assert FunctionTool(plain) != FunctionTool(plain)


class Stall:
    def __init__(self, name: str) -> None:
        self.name = name

    @function_tool
    async def buy(self, what: str) -> str:
        return f"{what} at {self.name}"

    async def give(self, what: str) -> str:
        return f"{what} from {self.name}"


@function_tool
async def wish(what: str) -> str:
    return what


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))  # noqa: S301 - made in the same line


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled])
async def test_a_tool_can_be_copied_and_pickled_as_a_function_can(copied: Any) -> None:
    stall = Stall("Cy's")
    bound, unbound, plain = copied([stall.buy, Stall.buy, wish])
    assert (unbound, plain) == (Stall.buy, wish)
    assert await bound("tea") == "tea at Cy's"
    assert (bound == stall.buy) is (copied is copy.copy)
    assert copied(Namespace("stall", [wish])).tools == (wish,)
    assert copied(shop.weigh) == shop.weigh


@pytest.mark.parametrize(
    "tool", [function_tool(Stall("Di's").give), function_tool(name="x")(lambda: "y")]
)
def test_a_tool_that_has_no_name_of_its_own_cannot_be_pickled(tool: Any) -> None:
    assert copy.deepcopy(tool) is tool
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(tool)


async def test_the_tool_of_a_class_has_no_object_to_run_on() -> None:
    assert await Shop.buy(shop, "tea") == "1 tea at Anna's"
    assert repr(Shop.buy) == "<FunctionTool 'buy' without an object>"
    assert repr(shop.buy) == "<FunctionTool 'buy'>"
    problem = (
        r"^Shop\.buy is a method, and the model cannot give its object: use the tool of an object,"
        r" as in tools=\[instance\.buy\]$"
    )
    with pytest.raises(ConfigurationError, match=problem):
        _ = Shop.buy.definition
    with pytest.raises(ConfigurationError, match=problem):
        await Shop.buy.invoke('{"what": "tea", "number": 1}')
    with pytest.raises(ConfigurationError, match=problem):
        Namespace("shop", [Shop.buy])
    async with open_test_server() as server, server.open_client() as client:
        with pytest.raises(ConfigurationError, match=problem):
            await client.create("Buy tea.", model="m", tools=[Shop.buy])
        with pytest.raises(ConfigurationError, match=problem):
            await client.conversation(model="m", tools=[Shop.buy]).__aenter__()


async def test_a_subclass_can_override_a_tool_and_call_that_of_its_parent() -> None:
    assert await market.buy("tea") == "market: 1 tea at Bo's"
    assert await market.sell.invoke('{"what": "tea"}', context=ToolContext("gold")) == (
        "tea of Bo's for gold"
    )
    assert Shop.buy != Market.buy


async def test_class_methods_and_static_methods_can_be_tools() -> None:
    arguments = '{"what": "tea"}'
    for holder in (Market, market):
        tools: Any = holder
        assert tools.count("tea") == "tea at Market"
        assert await tools.count.invoke(arguments) == "tea at Market"
        assert await tools.weigh.invoke(arguments) == "tea weighs 1"
        assert await tools.pack.invoke(arguments) == "tea packed"
        assert await tools.weigh("tea") == "tea weighs 1"
        assert tools.weigh.is_async
    assert cast("Any", Shop).count != cast("Any", Market).count
    assert function_tool(Shop("x").buy.__wrapped__).name == "buy"


def test_a_class_method_below_the_decorator_is_required() -> None:
    with pytest.raises(ConfigurationError) as refusal:

        class Bad:  # pyright: ignore[reportUnusedClass]
            @classmethod
            @function_tool
            def sell(cls, what: str) -> str:
                return what

    assert str(refusal.value) == (
        "Bad.sell is a class method: write @function_tool above @classmethod"
    )


def test_a_tool_that_is_no_method_is_not_bound() -> None:
    @function_tool
    def plain(what: str) -> str:
        return what

    class Holder:
        tool = plain

    assert cast("Any", Holder()).tool is plain
    assert cast("Any", Holder).tool is plain


def test_an_abstract_tool_makes_its_class_abstract() -> None:
    class Seller(ABC):
        @function_tool
        @abstractmethod
        def sell(self, what: str) -> str: ...

    class Baker(Seller):
        @function_tool
        def sell(  # pyright: ignore[reportIncompatibleVariableOverride] - type of self
            self, what: str
        ) -> str:
            return what

    with pytest.raises(TypeError, match="abstract"):
        Seller()  # type: ignore[abstract]  # pyright: ignore[reportAbstractUsage]
    assert Baker().sell("bread") == "bread"


async def test_a_run_calls_the_methods_of_its_objects(server: "ResponsesServer") -> None:
    """Instruments get the qualified name of the tool, as for a function."""
    names: list[str] = []

    class Names(Instrument):
        def tool_started(self, tool: ToolRecord) -> None:
            names.append(tool.name)

    other = Namespace("market", [market.buy])
    server.answer(
        [
            Call("buy", {"what": "tea", "number": 1}, call_id="call_1"),
            Call("buy", {"what": "tea", "number": 1}, call_id="call_2", namespace="market"),
            Call("count", {"what": "tea"}, call_id="call_3"),
        ]
    )
    async with (
        server.open_client(instruments=[Names()]) as connection,
        connection.conversation(
            model="m", tools=[shop.buy, other, cast("Any", Market).count]
        ) as conversation,
    ):
        await conversation.run("Buy tea.")
    assert outputs(server.requests[1]) == [
        "1 tea at Anna's",
        "market: 1 tea at Bo's",
        "tea at Market",
    ]
    assert names == ["buy", "market.buy", "count"]


async def test_two_objects_with_the_same_tool_need_namespaces(server: "ResponsesServer") -> None:
    async with open_conversation(server) as conversation:
        with pytest.raises(ConfigurationError, match="two tools have the same name, 'buy'"):
            await conversation.run("Buy.", tools=[shop.buy, Shop("other").buy])
