"""An invalid value of an option is refused where it is passed, with the option's name."""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import pytest

from trio_responses import (
    ConfigurationError,
    Endpoint,
    Instrument,
    connect_responses,
    open_pool,
    open_responses,
)
from trio_responses._instruments.instrument import checked_instruments
from trio_responses._settings import (
    NO_SUCH_OPTION,
    OPTION_VALUES,
    Keepalive,
    Limits,
    RotationPolicy,
    Timeouts,
    check_option_values,
    checked_record,
    explain_options,
)
from trio_responses.typing import (
    DeliveryMode,
    OnAbandonedTurn,
    OnToolError,
    RecoverOption,
    TransportOption,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from trio_responses.testing import ResponsesServer

    Opener = Callable[..., AbstractAsyncContextManager[Any]]

OPENERS: list[Any] = [open_responses, open_pool]
KEY = "sk-secret-0pT1"


# --- Words --------------------------------------------------------------------------------


def test_the_option_values_match_the_types() -> None:
    assert {
        "transport": get_args(TransportOption),
        "recover": get_args(RecoverOption),
        "delivery": get_args(DeliveryMode),
        "on_abandoned_turn": get_args(OnAbandonedTurn),
        "on_tool_error": get_args(OnToolError),
        "after_error": get_args(get_type_hints(Endpoint)["after_error"]),
    } == OPTION_VALUES


@pytest.mark.parametrize("name", OPTION_VALUES)
def test_an_option_accepts_its_values_only(name: str) -> None:
    for word in OPTION_VALUES[name]:
        check_option_values(**{name: word})
    others: list[Any] = ["", "x", OPTION_VALUES[name][0].upper(), None, True, 1, [], b"drain"]
    for other in others:
        with pytest.raises(ConfigurationError, match=f'^{name} must be "'):
            check_option_values(**{name: other})


def test_the_message_lists_the_accepted_values() -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_option_values(on_abandoned_turn="drain", delivery="at_lest_once")
    message = """delivery must be "at_most_once" or "at_least_once", not 'at_lest_once'"""
    assert str(caught.value) == message


async def test_an_invalid_option_of_a_turn_sends_nothing(server: ResponsesServer) -> None:
    async with (
        open_responses(server.url, dial=server.dial) as connection,
        connection.lane() as lane,
        connection.conversation(model="m") as conversation,
        open_pool(server.url, dial=server.dial) as pool,
    ):
        places: list[Any] = [connection, lane, conversation, pool]
        for place in places:
            with pytest.raises(ConfigurationError, match="'at_lest_once'"):
                place.stream(model="m", input="hi", delivery="at_lest_once")
            with pytest.raises(ConfigurationError, match="'at_lest_once'"):
                await place.create(model="m", input="hi", delivery="at_lest_once")
    assert server.statistics().requests == 0


async def test_an_invalid_option_of_a_run_sends_nothing(server: ResponsesServer) -> None:
    async with (
        open_responses(server.url, dial=server.dial) as connection,
        connection.conversation(model="m") as conversation,
    ):
        run: Any = conversation.run
        with pytest.raises(ConfigurationError, match=r"^on_tool_error must be .* not 'riase'$"):
            await run("hi", on_tool_error="riase")
        with pytest.raises(ConfigurationError, match="'at_lest_once'"):
            await run("hi", delivery="at_lest_once")
    assert server.statistics().requests == 0


def test_an_invalid_option_of_an_endpoint_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^after_error must be"):
        Endpoint.compatible("https://host/v1", after_error="resue")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("opener", OPENERS)
async def test_an_invalid_option_of_a_connection_opens_nothing(
    opener: Opener, server: ResponsesServer
) -> None:
    with pytest.raises(ConfigurationError, match=r"^on_abandoned_turn must be"):
        async with opener(server.url, dial=server.dial, on_abandoned_turn="replace"):
            pytest.fail("the block began")  # pragma: no cover
    assert server.statistics().handshakes == 0


# --- Records ------------------------------------------------------------------------------


def test_a_missing_record_has_the_defaults() -> None:
    assert checked_record("timeouts", None, Timeouts) == Timeouts()
    own = Timeouts(connect=3)
    assert checked_record("timeouts", own, Timeouts) is own


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("given", [3, 0, False, {"connect": 3}, Timeouts, Endpoint.xai()])
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("timeouts", Timeouts),
        ("keepalive", Keepalive),
        ("limits", Limits),
        ("rotation", RotationPolicy),
    ],
)
async def test_an_object_of_another_type_is_refused_by_name(
    opener: Opener, name: str, kind: type[Any], given: Any, server: ResponsesServer
) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{name} must be {kind.__name__}\(\.\.\.\), "):
        async with opener(server.url, dial=server.dial, **{name: given}):
            pytest.fail("the block began")  # pragma: no cover
    assert server.statistics().handshakes == 0


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("given", [print, 3, True, Instrument()])
async def test_instruments_must_be_a_list(
    opener: Opener, given: Any, server: ResponsesServer
) -> None:
    with pytest.raises(ConfigurationError, match=r"^instruments must be a list of"):
        async with opener(server.url, dial=server.dial, instruments=given):
            pytest.fail("the block began")  # pragma: no cover


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("given", [None, 10, "DEBUG", logging.getLogger("mine")])
async def test_logging_is_on_or_off(opener: Opener, given: Any, server: ResponsesServer) -> None:
    with pytest.raises(ConfigurationError, match=r"^logging must be True or False, .*my_logger"):
        async with opener(server.url, dial=server.dial, logging=given):
            pytest.fail("the block began")  # pragma: no cover


def test_instruments_may_be_an_iterator() -> None:
    one, other = Instrument(), Instrument()
    assert checked_instruments(each for each in (one, other)) == (one, other)


@pytest.mark.parametrize("opener", OPENERS)
async def test_an_endpoint_must_not_be_a_url(opener: Opener) -> None:
    """P9: the URL is not quoted, since it may hold a key."""
    with pytest.raises(ConfigurationError, match="an Endpoint, not str: a URL is") as caught:
        async with opener(endpoint=f"https://host/v1?key={KEY}"):
            pytest.fail("the block began")  # pragma: no cover
    assert KEY not in repr(caught.value)


@pytest.mark.parametrize("opener", OPENERS)
async def test_url_and_endpoint_together_are_refused(opener: Opener) -> None:
    with pytest.raises(ConfigurationError, match="base_url or endpoint, not both"):
        async with opener("https://host/v1", endpoint=Endpoint.xai()):
            pytest.fail("the block began")  # pragma: no cover


@pytest.mark.parametrize("function", [*OPENERS, connect_responses])
@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("url", ": use base_url="),
        ("timeout", r": use timeouts=Timeouts\(...\)"),
        ("http_client", ": use dial=, proxy= or ssl_context="),
        ("model", ": it is a parameter of each turn"),
        ("reconect", r": did you mean 'reconnect'\?"),
        ("zzzzzz", "$"),
    ],
)
def test_an_unknown_option_is_an_error_with_the_name_here(
    function: Any, name: str, hint: str
) -> None:
    with pytest.raises(TypeError, match=rf"{function.__name__}\(\) has no option '{name}'{hint}"):
        function(**{name: 1})


@pytest.mark.parametrize("function", [*OPENERS, connect_responses])
def test_no_option_has_a_hint_to_use_another(function: Any) -> None:
    assert NO_SUCH_OPTION.keys().isdisjoint(inspect.signature(function).parameters)
    assert explain_options(function).__doc__ == function.__doc__
