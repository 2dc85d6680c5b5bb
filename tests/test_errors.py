"""The errors of the server: one table from status and code to class, and what a message shows."""

from __future__ import annotations

import asyncio
import copy
import errno
import gc
import inspect
import json
import logging
import pickle
import re
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import pytest
import trio

from trio_responses import (
    APIError,
    AuthenticationError,
    ConnectError,
    ConnectionLimitReached,
    ConnectionLost,
    DeliveryStatus,
    Endpoint,
    HandshakeRejected,
    InvalidStreamId,
    PreviousResponseNotFound,
    RateLimitError,
    ReconnectFailed,
    ResponseFailedError,
    ResponsesError,
    ServerOverloaded,
    StreamLimitReached,
    ToolRetriesExceeded,
    UpgradeUnsupported,
    connect_responses,
    open_pool,
    open_responses,
    types,
)
from trio_responses._errors import api_error, failed_response_error, handshake_error
from trio_responses._safe_text import Secrets, printable
from trio_responses._transport.reasons import describe_dial_error
from trio_responses._wire.errors import decode_error, error_message
from trio_responses.stores import MemoryStore
from trio_responses.testing import open_test_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio_responses.typing import TransportOption

SECRET: Final = "a-key-of-this-module-0123"
"""Not one that `secrets_watch` looks for: trio-websocket logs close reasons at DEBUG."""

# --- The table -------------------------------------------------------------------------------

Row: TypeAlias = tuple[int | None, str | None, type[APIError], bool]
TABLE: Final[list[Row]] = [
    (401, "invalid_api_key", AuthenticationError, False),
    (401, None, AuthenticationError, False),
    (None, "invalid_api_key", AuthenticationError, False),
    (403, "permission_denied", AuthenticationError, False),
    (403, "a_code_of_next_year", AuthenticationError, False),
    (429, "rate_limit_exceeded", RateLimitError, True),
    (None, "rate_limit_exceeded", RateLimitError, True),
    (429, "too_many_requests", RateLimitError, True),
    (None, "too_many_requests", RateLimitError, True),
    (429, "a_code_of_next_year", RateLimitError, True),
    (429, "insufficient_quota", RateLimitError, False),
    (None, "insufficient_quota", RateLimitError, False),
    (429, "usage_limit_reached", RateLimitError, False),
    (429, "usage_limit_of_next_year", RateLimitError, False),
    (503, "server_is_overloaded", ServerOverloaded, True),
    (None, "slow_down", ServerOverloaded, True),
    (503, None, ServerOverloaded, True),
    (500, "server_error", APIError, True),
    (None, "server_error", APIError, True),
    (502, None, APIError, True),
    (408, "timeout", APIError, True),
    (400, "unsupported_value", APIError, False),
    (409, "conflict", APIError, False),
    (None, "invalid_prompt", APIError, False),
    (None, None, APIError, False),
    (400, "previous_response_not_found", PreviousResponseNotFound, False),
    (400, "websocket_connection_limit_reached", ConnectionLimitReached, True),
    (400, "websocket_stream_limit_reached", StreamLimitReached, False),
    (400, "invalid_stream_id", InvalidStreamId, False),
]
KINDS: Final = {kind for _, _, kind, _ in TABLE} - {APIError}
SENTENCE: Final = "That did not work."


def from_event(status: int | None, code: str | None) -> APIError:
    event = types.ErrorEvent(status=status, code=code, message=SENTENCE, param="input")
    return api_error(event, response_id="resp_1")


def from_response(status: int | None, code: str | None) -> APIError:
    del status  # a failed response has none
    reason = types.ResponseError(code=code, message=SENTENCE, param="input")
    response = types.Response(id="resp_1", status="failed", error=reason)
    return failed_response_error(response)


def from_handshake(status: int | None, code: str | None) -> APIError:
    assert status is not None
    error = {"code": code, "message": SENTENCE, "param": "input", "type": "some_error"}
    body = json.dumps({"error": error}).encode()
    return handshake_error(status, {"x-request-id": "req_1"}, body)


Make: TypeAlias = Callable[[int | None, str | None], APIError]
CASES: Final[list[tuple[Make, int | None, str | None, type[APIError], bool]]] = [
    *((from_event, *row) for row in TABLE),
    *((from_response, *row) for row in TABLE if row[0] is None),
    *((from_handshake, *row) for row in TABLE if row[0] is not None),
]


@pytest.mark.parametrize(("make", "status", "code", "kind", "retryable"), CASES)
def test_the_class_depends_on_status_and_code_and_not_on_the_way(
    make: Make, status: int | None, code: str | None, kind: type[APIError], *, retryable: bool
) -> None:
    error = make(status, code)
    assert isinstance(error, kind)
    assert {one for one in KINDS if isinstance(error, one)} == {kind} - {APIError}
    assert (error.status, error.code, error.param) == (status, code, "input")
    assert (error.message, error.retryable) == (SENTENCE, retryable)
    assert isinstance(error, HandshakeRejected) is (make is from_handshake)
    assert isinstance(error, ConnectError) is (make is from_handshake)
    assert isinstance(error, ResponseFailedError) is (make is from_response)
    if kind is not APIError:
        assert type(error).__name__ == kind.__name__
    own_id = "request req_1" if make is from_handshake else "resp_1"
    for fact in (SENTENCE.removesuffix("."), "parameter input", own_id, status, code):
        assert fact is None or str(fact) in str(error)
    assert "\n" not in str(error)


def test_a_message_has_the_sentence_the_facts_and_what_to_do() -> None:
    event = types.ErrorEvent(
        status=429, code="rate_limit_exceeded", message="Slow down. Please try again in 2s."
    )
    assert str(api_error(event)) == (
        "the server answered with an error: Slow down. Please try again in 2s"
        " (status 429, code rate_limit_exceeded); try again after 2 s"
    )
    quota = types.ErrorEvent(status=429, code="insufficient_quota", message="You are broke.")
    assert str(api_error(quota)) == (
        "the server answered with an error: You are broke (status 429, code insufficient_quota);"
        " trying again does not help: check the plan and the billing of the account"
    )
    assert str(from_response(None, "server_error")) == (
        "the response resp_1 failed: That did not work (code server_error, parameter input);"
        " try again later"
    )
    assert str(handshake_error(418, {}, b"<html>a page</html>")) == (
        "the server refused the WebSocket upgrade (status 418)"
    )
    assert str(api_error(types.ErrorEvent())) == "the server answered with an error"


def test_the_attributes_have_what_the_server_sent() -> None:
    body = b'{"error": {"message": "No.", "type": "some_error"}}'
    headers = {"retry-after": "3", "x-request-id": "req_7"}
    refused = handshake_error(429, headers, body)
    assert (refused.body, refused.headers, refused.event) == (body, headers, None)
    assert (refused.type, refused.request_id, refused.retry_after) == ("some_error", "req_7", 3.0)
    event = types.ErrorEvent(status=400, raw=b"{}", headers=headers)
    answered = api_error(event)
    assert (answered.event, answered.body, answered.headers) == (event, b"{}", headers)
    failed = failed_response_error(types.Response(id="resp_2", status="failed"))
    assert (failed.response_id, failed.delivery) == ("resp_2", DeliveryStatus.ACCEPTED)
    assert (failed.response.id, failed.event, failed.code) == ("resp_2", None, None)


def test_a_copy_of_an_error_of_two_classes_is_of_the_same_classes() -> None:
    error = handshake_error(401, {}, b"")
    made = error.copy_for_raise()
    assert type(made) is type(error)
    assert (str(made), vars(made)) == (str(error), vars(error))


def subclasses(cls: type[ResponsesError]) -> Iterator[type[ResponsesError]]:
    for one in cls.__subclasses__():
        yield one
        yield from subclasses(one)


def pickled(error: ResponsesError) -> Any:
    return pickle.loads(pickle.dumps(error))  # noqa: S301 - made in the same line


@pytest.mark.parametrize("copied", [copy.copy, pickled])
def test_an_error_can_be_copied_and_sent_to_another_process(
    copied: Callable[[ResponsesError], ResponsesError],
) -> None:
    """Whatever arguments its class takes; the cause stays behind, as for any exception."""
    event = types.ErrorEvent(status=429, raw=b"{}", headers={"x-request-id": "req_1"})
    errors: list[ResponsesError] = [
        api_error(event),
        handshake_error(401, {}, b""),
        failed_response_error(types.Response(id="resp_2", status="failed")),
        ToolRetriesExceeded("look", 2),
        ConnectionLost(1006, "gone", age=3.0),
    ]
    for cls in {*subclasses(ResponsesError)}:
        if cls.__module__.startswith("trio_responses."):
            one: Any = cls.__new__(cls, "a text")
            one.args = ("a text",)
            errors.append(one)
    assert len(errors) > 40
    for error in errors:
        error.delivery = DeliveryStatus.ACCEPTED
        made = copied(error)
        assert type(made) is type(error)
        assert (made.args, vars(made)) == (error.args, vars(error))


@pytest.mark.parametrize(
    ("message", "code", "seconds"),
    [
        ("Please try again in 2s.", "too_many_requests", 2.0),
        ("Please retry after 20 seconds.", "rate_limit_exceeded", 20.0),
        ("Try again in 6m0s.", "slow_down", 360.0),
        ("Please try again in 2s.", "invalid_prompt", None),
    ],
)
@pytest.mark.parametrize("make", ["event", "response", "handshake"])
def test_every_way_states_the_delay_that_the_server_asks_for(
    make: str, message: str, code: str, seconds: float | None
) -> None:
    if make == "event":
        error = api_error(types.ErrorEvent(code=code, message=message))
    elif make == "response":
        reason = types.ResponseError(code=code, message=message)
        error = failed_response_error(types.Response(id="r", status="failed", error=reason))
    else:
        body = json.dumps({"error": {"code": code, "message": message}}).encode()
        error = handshake_error(400, {}, body)
    assert error.retry_after == seconds


# --- Servers without a WebSocket mode ----------------------------------------------------------

REASON: Final = b'{"error": {"message": "Wrong key."}}'
CHALLENGE: Final = {"www-authenticate": "Bearer"}


@pytest.mark.parametrize(
    ("status", "headers", "body", "kind"),
    [
        *((status, {}, b"", UpgradeUnsupported) for status in (200, 302, 308, 400, 403)),
        *((status, {}, REASON, UpgradeUnsupported) for status in (404, 405, 426, 501)),
        (403, {}, b"<html>Forbidden</html>", UpgradeUnsupported),
        (403, {}, b"{}", UpgradeUnsupported),
        (403, {}, REASON, AuthenticationError),
        (403, {}, b'{"detail": "Not allowed"}', AuthenticationError),
        (403, CHALLENGE, b"", AuthenticationError),
        (401, {}, b"", AuthenticationError),
        (400, {}, REASON, HandshakeRejected),
    ],
)
def test_a_server_that_speaks_only_http_is_not_an_authentication_error(
    status: int, headers: dict[str, str], body: bytes, kind: type[APIError]
) -> None:
    error = handshake_error(status, headers, body)
    assert isinstance(error, kind)
    assert isinstance(error, UpgradeUnsupported) is (kind is UpgradeUnsupported)
    assert isinstance(error, AuthenticationError) is (kind is AuthenticationError)
    assert not error.retryable


async def test_a_server_that_speaks_only_http_is_named_with_its_path() -> None:
    async with open_test_server() as server:
        server.refuse(403, body=b"")
        with pytest.raises(UpgradeUnsupported) as failure:
            async with server.open_client(transport="websocket"):
                pass
    assert "speaks only HTTP" in str(failure.value)
    assert str(failure.value).endswith(
        f": is the Responses API at {Endpoint.of(server.url).address}?"
    )


@pytest.mark.parametrize("has_extra", [True, False])
async def test_a_base_url_without_a_path_is_the_reason_for_a_404(
    monkeypatch: pytest.MonkeyPatch, *, has_extra: bool
) -> None:
    if not has_extra:
        monkeypatch.setattr("trio_responses._transport.http.find_spec", dict[str, None]().get)
    async with open_test_server() as server:
        url = "http://127.0.0.1:8871"
        transport: TransportOption = "websocket" if has_extra else "auto"
        with pytest.raises(UpgradeUnsupported) as failure:
            async with open_responses(url, dial=server.dial, transport=transport):
                pass
        assert str(failure.value).endswith(
            "; the base URL is wrong: did you mean http://127.0.0.1:8871/v1?"
        )


async def test_a_404_of_a_turn_over_http_asks_about_the_base_url() -> None:
    async with (
        open_test_server() as server,
        open_responses("http://127.0.0.1", dial=server.dial, transport="http") as connection,
    ):
        with pytest.raises(APIError, match=r"Unknown path: /responses.* /v1 may be missing in it"):
            await connection.create("hi", model="m")


# --- On a connection ---------------------------------------------------------------------------


async def test_one_class_is_raised_for_a_refused_handshake_and_a_refused_turn() -> None:
    async with open_test_server() as server:
        server.refuse(401, code="invalid_api_key")
        with pytest.raises(AuthenticationError) as opening:
            async with server.open_client():
                pass
        async with server.open_client() as connection:
            server.fail("invalid_api_key", status=401)
            with pytest.raises(AuthenticationError) as turn:
                await connection.create(model="m", input="x")
    assert isinstance(opening.value, ConnectError)
    assert not isinstance(turn.value, ConnectError)
    assert turn.value.delivery is DeliveryStatus.REJECTED
    assert opening.value.code == turn.value.code == "invalid_api_key"


async def test_a_response_that_failed_for_its_rate_is_a_rate_limit_error() -> None:
    async with open_test_server() as server, server.open_client() as connection:
        server.fail("rate_limit_exceeded", message="Please try again in 1m30s.", shape="failed")
        with pytest.raises(RateLimitError) as failure:
            await connection.create(model="m", input="x")
    assert isinstance(failure.value, ResponseFailedError)
    assert failure.value.delivery is DeliveryStatus.ACCEPTED
    assert failure.value.retry_after == 90.0


async def test_an_error_within_a_response_has_the_id_of_the_response() -> None:
    async with open_test_server() as server, server.open_client() as connection:
        server.fail("server_error", status=500, after_events=2)
        with pytest.raises(APIError) as failure:
            await connection.create(model="m", input="x")
        assert failure.value.response_id is not None
        assert f"response {failure.value.response_id}" in str(failure.value)
        server.fail("server_error", status=500)
        with pytest.raises(APIError) as refused:
            await connection.create(model="m", input="x")
        assert refused.value.response_id is None


async def test_a_handshake_without_quota_is_not_repeated() -> None:
    async with open_test_server() as server:
        server.refuse(429, code="insufficient_quota", times=None)
        with pytest.raises(RateLimitError, match="trying again does not help"):
            async with server.open_client(reconnect=[0, 0]):
                pass
        assert server.statistics().handshakes == 1


# --- What a message may hold -------------------------------------------------------------------


def test_a_text_of_the_server_is_one_short_printable_line() -> None:
    assert printable("a\r\n\tb \u00a0 c") == "a b c"
    assert printable("\x1b[31mred\x07\u202e\ud800") == "\\x1b[31mred\\x07\\u202e\\ud800"
    assert printable("caf\u00e9 \u96fb \U0001f600") == "caf\u00e9 \u96fb \U0001f600"
    long = printable("ab " * 10_000)
    assert len(long) == 500
    assert long.endswith("...")
    assert len(printable("\x00" * 1000)) == 500


def test_keys_are_masked_while_their_connection_exists() -> None:
    secrets = Secrets()
    secrets.add_headers(
        [("Authorization", "Bearer abc-123-xyz"), ("X-Token", "t0ken-t0ken"), ("X-App", "visible")]
    )
    assert (
        printable("key abc-123-xyz, token t0ken-t0ken of visible")
        == "key ***, token *** of visible"
    )
    del secrets
    gc.collect()
    assert printable("abc-123-xyz") == "abc-123-xyz"


def test_keys_of_others_are_masked_by_their_form() -> None:
    assert printable("Authorization: Bearer eyJhbGciOi.J9") == "Authorization: Bearer ***"
    assert (
        printable("upstream key sk-proj-0123456789abcdef is wrong")
        == "upstream key sk-*** is wrong"
    )
    assert printable("provided: sk-ab***********wxyz.") == "provided: sk-ab***********wxyz."


def test_a_short_key_is_not_masked() -> None:
    secrets = Secrets()
    secrets.add_headers([("Authorization", "Bearer x")])
    assert printable("next") == "next"


NASTY: Final = f"Wrong key {SECRET}\x1b[2J\nnext"
SHOWN: Final = "Wrong key ***\\x1b[2J next"


async def test_the_key_and_control_characters_of_a_sentence_are_not_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """P9: in the messages of a handshake, an error, a failed response and a closed socket."""
    caplog.set_level(logging.DEBUG)
    shown: list[str] = []
    async with open_test_server() as server:
        server.refuse(401, message=NASTY)
        with pytest.raises(AuthenticationError) as opening:
            async with server.open_client(api_key=SECRET):
                pass
        shown.append(str(opening.value))
        async with server.open_client(api_key=SECRET) as connection:
            server.fail("invalid_prompt", status=400, message=NASTY)
            server.fail("server_error", message=NASTY, shape="failed")
            for _ in range(2):
                with pytest.raises(APIError) as refused:
                    await connection.create(model="m", input="x")
                assert refused.value.message == NASTY
                shown.append(str(refused.value))
            await server.close_all(1008, NASTY.replace("\x1b", ""))
            with pytest.raises(ConnectionLost) as lost:
                await connection.create(model="m", input="x")
            assert "Wrong key ***[2J next" in str(lost.value)
    assert [SHOWN in text for text in shown] == [True, True, True]
    assert not [text for text in shown if SECRET in text or "\x1b" in text]
    ours = [record for record in caplog.records if record.name.startswith("trio_responses")]
    logged = "".join(f"{record.getMessage()}{record.__dict__}" for record in ours)
    assert "AuthenticationError" in logged
    assert "Wrong key" not in logged


def test_a_code_is_escaped_as_well() -> None:
    event = types.ErrorEvent(status=400, code="\x1b]0;title\x07", param="\x1b[2J" * 100)
    shown = str(api_error(event))
    assert "\x1b" not in shown
    assert len(shown) < 400


# --- Dials -------------------------------------------------------------------------------------


def failed_dial(*numbers: int) -> OSError:
    """Return what Trio raises when every address of a host failed."""
    error = OSError("all attempts to connect to models.test:443 failed")
    error.__cause__ = ExceptionGroup("all", [OSError(one, f"text {one}") for one in numbers])
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (failed_dial(errno.ECONNREFUSED), "connection refused by models.test:443"),
        (
            failed_dial(errno.ENETUNREACH, errno.ECONNREFUSED),
            "connection refused by models.test:443",
        ),
        (failed_dial(errno.EHOSTUNREACH), "no route to models.test:443"),
        (failed_dial(errno.ETIMEDOUT), "no answer from models.test:443"),
        (
            failed_dial(errno.EMFILE, errno.ECONNREFUSED),
            "too many open files in this process (ulimit -n): models.test:443 was not dialled",
        ),
        (socket.gaierror(socket.EAI_NONAME, "?"), "name not found: models.test"),
        (
            socket.gaierror(socket.EAI_AGAIN, "?"),
            "the name server did not answer for models.test",
        ),
        (failed_dial(9999), "cannot dial models.test:443: text 9999"),
        (OSError("the tunnel is shut"), "cannot dial models.test:443: the tunnel is shut"),
        (trio.BrokenResourceError(), "cannot dial models.test:443: BrokenResourceError"),
    ],
)
def test_the_reason_of_a_failed_dial_is_named(error: Exception, reason: str) -> None:
    assert describe_dial_error(error, "models.test", 443) == reason


async def test_the_last_reason_begins_the_message_of_a_connection_that_gave_up() -> None:
    async def refuse(*_: object) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        raise failed_dial(errno.ECONNREFUSED)

    with pytest.raises(ReconnectFailed) as failure:
        async with open_responses("http://127.0.0.1:9/v1", dial=refuse, reconnect=[0, 0]):
            pass
    assert str(failure.value) == (
        "connection refused by 127.0.0.1:9; gave up after 2 more attempts in 0 s"
    )
    assert failure.value.attempts == 2


async def test_a_delay_over_the_policys_limit_is_in_the_message() -> None:
    async with open_test_server() as server:
        server.refuse(503, headers={"Retry-After": "3600"})
        with pytest.raises(ReconnectFailed, match="asks to wait 3600 s"):
            async with server.open_client(reconnect=None):
                pass


# --- Trio --------------------------------------------------------------------------------------


async def open_a_connection() -> None:
    async with open_responses("http://127.0.0.1:9/v1", api_key="x"):
        pass


async def connect_in_a_nursery() -> None:
    nursery: Any = None
    await connect_responses(nursery, "http://127.0.0.1:9/v1", api_key="x")


async def open_a_pool() -> None:
    async with open_pool("http://127.0.0.1:9/v1", api_key="x"):
        pass


async def open_a_server() -> None:
    async with open_test_server():
        pass


@pytest.mark.parametrize(
    "program", [open_a_connection, connect_in_a_nursery, open_a_pool, open_a_server]
)
def test_under_asyncio_the_error_names_trio(program: Callable[[], Any]) -> None:
    with pytest.raises(RuntimeError, match=r"needs Trio.*trio\.run\(main\), not with asyncio"):
        asyncio.run(program())


# --- Without `async with` ----------------------------------------------------------------------


async def test_a_block_that_is_not_entered_says_how_to_enter_it() -> None:
    async with (
        open_test_server() as server,
        server.open_client() as connection,
        open_pool(server.url, dial=server.dial) as pool,
        connection.conversation(model="m") as conversation,
        MemoryStore() as store,
    ):
        blocks: dict[str, Any] = {
            "open_responses(...) as connection": open_responses(server.url),
            "open_pool(...) as pool": open_pool(server.url),
            "open_test_server(...) as server": open_test_server(),
            "connection.lane(...) as lane": connection.lane(),
            "connection.conversation(...) as conversation": connection.conversation(model="m"),
            "connection.restore_conversation(...) as conversation": (
                connection.restore_conversation(conversation.checkpoint())
            ),
            "connection.durable_conversation(...) as conversation": (
                connection.durable_conversation(store, "c", model="m")
            ),
            "pool.lane(...) as lane": pool.lane(),
            "pool.conversation(...) as conversation": pool.conversation(model="m"),
            "pool.restore_conversation(...) as conversation": (
                pool.restore_conversation(conversation.checkpoint())
            ),
            "pool.durable_conversation(...) as conversation": (
                pool.durable_conversation(store, "d", model="m")
            ),
            "conversation.run_stream(...) as run": conversation.run_stream("hi"),
        }
        for usage, block in blocks.items():
            advice = re.escape(f": write `async with {usage}:`")
            with pytest.raises(AttributeError, match=rf"no attribute 'create'{advice}$"):
                await block.create("hi")
            with pytest.raises(TypeError, match=rf"^<the block of .*> cannot be awaited{advice}$"):
                await block
            with pytest.raises(TypeError, match=rf"is an async context manager{advice}$"), block:
                pytest.fail("the block began")  # pragma: no cover
            assert copy.copy(block) is not block


def test_the_function_of_a_block_keeps_its_name_and_its_documentation() -> None:
    assert open_responses.__name__ == "open_responses"
    assert "length of a block" in (open_responses.__doc__ or "")
    assert next(iter(inspect.signature(open_responses).parameters)) == "base_url"


@pytest.mark.parametrize(
    ("status", "body", "asks"),
    [
        (404, b"<html>", True),
        (404, b'{"detail":"Not Found"}', True),
        (404, b'{"error":{"message":"Unknown path: /responses","code":"not_found"}}', True),
        (404, b'{"error":{"message":"Invalid URL (POST /responses)"}}', True),
        (404, b'{"error":{"message":"File Not Found","code":404}}', True),
        (404, b'{"error":{"message":"No response resp_1.","code":"not_found"}}', False),
        (404, b'{"error":{"message":"The model m was not found","code":404}}', False),
        (400, b"<html>", False),
    ],
)
def test_a_404_without_a_reason_asks_about_the_base_url(
    status: int, body: bytes, *, asks: bool
) -> None:
    error = api_error(decode_error(error_message(status, {}, body)))
    assert ("is the base URL right? /v1 may be missing in it" in str(error)) is asks
