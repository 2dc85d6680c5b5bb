"""P2 and P9: the key of each handshake, what a refusal means, and where the key never is."""

import logging
import traceback
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_responses import (
    APIError,
    AuthenticationError,
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    DeliveryStatus,
    Endpoint,
    HandshakeRejected,
    ReconnectFailed,
    ResponsesError,
    UpgradeUnsupported,
    open_responses,
)
from trio_responses.testing import ResponsesServer, open_test_server

if TYPE_CHECKING:
    from tests.connection.conftest import Connect
    from trio_responses.typing import ApiKey

SECRET = "sk-SECRET-8a7b6c5d"


class Vault:
    """A callable key that gives one after the other, the last one again and again."""

    def __init__(self, *keys: str | Exception) -> None:
        self._keys = list(keys)
        self.calls = 0

    async def __call__(self) -> str:
        await trio.lowlevel.checkpoint()
        self.calls += 1
        key = self._keys.pop(0) if len(self._keys) > 1 else self._keys[0]
        if isinstance(key, Exception):
            raise key
        return key


def keys_seen(server: ResponsesServer) -> list[str]:
    return [connection.headers["authorization"] for connection in server.connections]


async def test_a_callable_key_is_called_for_each_handshake(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P2, D19, row 19: a token that expires is renewed with the socket."""
    vault = Vault("one", "two", "three")
    async with connect(api_key=vault) as connection:
        for _ in range(2):
            await server.reset_all()
            await connection.create(model="m", input="hi")
    assert keys_seen(server) == ["Bearer one", "Bearer two", "Bearer three"]
    assert vault.calls == 3


async def test_a_callable_key_is_called_for_each_failed_attempt(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P2: also where the server refuses for other reasons."""
    vault = Vault("one", "two", "three")
    server.refuse(503, times=2)
    async with connect(api_key=vault):
        assert keys_seen(server) == ["Bearer one", "Bearer two", "Bearer three"]
        assert trio.current_time() == 3


async def test_a_failing_callable_key_is_a_failed_attempt(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P2: the key server may come back."""
    vault = Vault(OSError("no route"), LookupError("no key"), "key")
    async with connect(api_key=vault):
        assert keys_seen(server) == ["Bearer key"]
        assert trio.current_time() == 3


async def test_a_callable_key_that_always_fails_is_given_up(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P2: its exception can be found behind, and is not quoted."""
    trouble = OSError(f"bad token {SECRET}")
    with pytest.raises(ReconnectFailed) as failure:
        async with connect(api_key=Vault(trouble), reconnect=[1]):
            pytest.fail("the block began")  # pragma: no cover
    assert trio.current_time() == 1
    cause = failure.value.__cause__
    assert isinstance(cause, ConnectError)
    assert cause.__cause__ is trouble
    assert SECRET not in str(failure.value) + repr(failure.value) + str(cause)
    assert server.statistics().handshakes == 0


async def test_a_key_that_cannot_stand_in_a_header_is_refused_unquoted(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P9: no CR, no LF, and nothing dialled."""
    for key in (f"{SECRET}\r\nX: y", Vault(f"{SECRET}\r\nX: y")):
        with pytest.raises(ConfigurationError) as failure:
            async with connect(api_key=key):
                pytest.fail("the block began")  # pragma: no cover
        assert SECRET not in repr(failure.value)
    assert server.statistics().handshakes == 0


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, HandshakeRejected),
        (401, AuthenticationError),
        (403, AuthenticationError),
        (404, UpgradeUnsupported),
        (410, HandshakeRejected),
        (426, UpgradeUnsupported),
    ],
)
async def test_a_final_status_is_not_retried(
    server: ResponsesServer, connect: "Connect", status: int, kind: type[APIError]
) -> None:
    """P2, D5, row 15: at once, as itself, with what the server said."""
    server.refuse(status, code="nope", message="no such thing", times=None)
    with pytest.raises(HandshakeRejected) as failure:
        async with connect():
            pytest.fail("the block began")  # pragma: no cover
    assert isinstance(failure.value, kind)
    assert failure.value.status == status
    assert b"no such thing" in failure.value.body
    assert "no such thing" in str(failure.value)
    assert server.statistics().handshakes == 1
    assert trio.current_time() == 0


async def test_a_final_status_ends_a_reconnect(server: ResponsesServer, connect: "Connect") -> None:
    """P2: whoever waits is told."""
    async with connect() as connection:
        server.refuse(403, times=None)
        await server.reset_all()
        await wait_all_tasks_blocked()
        with pytest.raises(AuthenticationError) as failure:
            await connection.create(model="m", input="hi")
        assert failure.value.delivery is DeliveryStatus.NOT_SENT
        with pytest.raises(AuthenticationError):
            await connection.receive()
    assert server.statistics().handshakes == 2


async def test_401_asks_a_callable_key_once_more(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P2, row 19: at once; it may have renewed a token by now."""
    vault = Vault("old", "new")
    server.refuse(401)
    async with connect(api_key=vault):
        assert keys_seen(server) == ["Bearer old", "Bearer new"]
        assert trio.current_time() == 0


async def test_401_asks_a_callable_key_once_only(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P2: the second refusal is final."""
    vault = Vault("old", "new", "newer")
    server.refuse(401, times=9)
    with pytest.raises(AuthenticationError):
        async with connect(api_key=vault):
            pytest.fail("the block began")  # pragma: no cover
    assert vault.calls == 2
    assert trio.current_time() == 0


async def test_401_asks_a_callable_key_once_an_outage(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P2: the next outage may need a new token, too."""
    vault = Vault("1", "2", "3", "4", "5")
    async with connect(api_key=vault) as connection:
        for _ in range(2):
            server.refuse(401)
            await server.reset_all()
            await connection.create(model="m", input="hi")
    assert vault.calls == 5


async def test_401_and_then_503_and_then_401_is_final(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P2: once is once, whatever comes between."""
    vault = Vault("1", "2", "3", "4")
    server.refuse(401)
    server.refuse(503)
    server.refuse(401, times=9)
    with pytest.raises(AuthenticationError):
        async with connect(api_key=vault):
            pytest.fail("the block began")  # pragma: no cover
    assert vault.calls == 3


async def test_403_does_not_ask_again(server: ResponsesServer, connect: "Connect") -> None:
    """P2: a key that is known and not allowed stays so."""
    vault = Vault("1", "2")
    server.refuse(403)
    with pytest.raises(AuthenticationError):
        async with connect(api_key=vault):
            pytest.fail("the block began")  # pragma: no cover
    assert vault.calls == 1


async def test_the_right_key_is_sent_and_the_wrong_one_refused() -> None:
    """P2: against a server that looks at it."""
    async with open_test_server(api_key=SECRET) as server:
        async with open_responses(server.url, api_key=SECRET, dial=server.dial) as connection:
            await connection.create(model="m", input="hi")
        with pytest.raises(AuthenticationError) as failure:
            async with open_responses(server.url, api_key="wrong", dial=server.dial):
                pytest.fail("the block began")  # pragma: no cover
        assert failure.value.status == 401


@pytest.mark.parametrize(
    ("refused", "headers", "question"),
    [
        (None, {}, "no key was sent: set KEY_OF_THE_TEST or pass api_key"),
        (SECRET, {}, "is api_key the right key?"),
        (Vault(SECRET), {}, "does api_key() return the right key?"),
        (SECRET, {"AUTHORIZATION": SECRET}, "is Authorization in headers right?"),
        ("", {}, "no key was sent: set KEY_OF_THE_TEST or pass api_key"),
    ],
)
async def test_a_refusal_asks_about_the_key_where_it_is_from(
    server: ResponsesServer,
    connect: "Connect",
    refused: "ApiKey | None",
    headers: dict[str, str],
    question: str,
) -> None:
    """P9: by the name of its place."""
    endpoint = Endpoint(url=server.url, key_variable="KEY_OF_THE_TEST")
    server.refuse(401, times=None)
    with pytest.raises(AuthenticationError) as failure:
        async with connect(endpoint=endpoint, api_key=refused, headers=headers):
            pytest.fail("the block began")  # pragma: no cover
    assert str(failure.value).startswith("the server refused the WebSocket upgrade: ")
    assert str(failure.value).endswith(f" (status 401, type authentication_error); {question}")


async def test_the_question_about_the_key_is_asked_once(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """Also where the first refusal is answered with another key."""
    server.refuse(401, times=None)
    with pytest.raises(AuthenticationError) as failure:
        async with connect(api_key=Vault("old", "new")):
            pytest.fail("the block began")  # pragma: no cover
    assert str(failure.value).count("?") == 1


@pytest.mark.parametrize(
    ("key", "question"),
    [
        (SECRET, "is OPENAI_API_KEY the right key?"),
        ("", "no key was sent: set OPENAI_API_KEY or pass api_key"),
    ],
)
async def test_a_refusal_asks_about_the_variable(
    server: ResponsesServer,
    connect: "Connect",
    monkeypatch: pytest.MonkeyPatch,
    key: str,
    question: str,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    server.refuse(403, times=None)
    with pytest.raises(AuthenticationError) as failure:
        async with connect(api_key=None):
            pytest.fail("the block began")  # pragma: no cover
    assert " (status 403, type " in str(failure.value)
    assert str(failure.value).endswith(f"; {question}")


async def test_the_key_is_nowhere(
    server: ResponsesServer, connect: "Connect", caplog: pytest.LogCaptureFixture
) -> None:
    """P9: in no repr, str, exception, traceback or log record of a run with failures."""
    caplog.set_level(logging.DEBUG)
    shown: list[str] = []
    vault = Vault(SECRET)

    def show(error: BaseException) -> None:
        shown.extend([repr(error), str(error), *traceback.format_exception(error)])
        shown.append(repr(vars(error)))

    for refusal in (401, 403, 404, 503):
        server.refuse(refusal, times=None)
        for key in (SECRET, vault):
            with pytest.raises(ResponsesError) as failure:
                async with connect(api_key=key, reconnect=[]):
                    pytest.fail("the block began")  # pragma: no cover
            show(failure.value)
        server.forget_orders()
    async with connect(api_key=SECRET, reconnect=[1, 1]) as connection:
        shown.extend([repr(connection), str(connection), repr(connection.statistics())])
        shown.append(repr(connection.stream(model="m", input="hi")))
        server.fail("rate_limit_exceeded", status=429)
        with pytest.raises(APIError) as api_failure:
            await connection.create(model="m", input="hi")
        show(api_failure.value)
        server.drop(after_events=3)
        with pytest.raises(ConnectionLost) as loss:
            await connection.create(model="m", input="hi")
        show(loss.value)
        server.stop_accepting()
        await server.reset_all()
        await wait_all_tasks_blocked()
        with pytest.raises(ReconnectFailed) as end:
            await connection.wait_open()
        show(end.value)
    shown.extend(str(vars(record)) for record in caplog.records)
    assert keys_seen(server)[-1] == f"Bearer {SECRET}"
    assert [text for text in shown if SECRET in text] == []


async def test_a_key_that_never_comes_is_given_up(server: ResponsesServer) -> None:
    """P2, P3: an attempt ends, so the policy does, and so does the turn that waits for a socket."""
    calls = 0

    async def key() -> str:
        nonlocal calls
        calls += 1
        if calls > 1:
            await trio.sleep_forever()
        return "any"

    async with server.open_client(api_key=key) as connection:
        await server.close_all(1001)
        await wait_all_tasks_blocked()
        with trio.fail_after(300), pytest.raises(ReconnectFailed) as caught:
            await connection.create(model="m", input="x")
    cause = caught.value.__cause__
    assert isinstance(cause, ConnectTimeout)
    assert cause.phase == "key"


async def test_a_key_may_come_from_a_function_that_does_not_wait(server: ResponsesServer) -> None:
    key: Any = lambda: "from a vault"  # noqa: E731 - it is about lambdas
    async with server.open_client(api_key=key):
        assert keys_seen(server) == ["Bearer from a vault"]


async def test_a_path_that_is_not_there_is_named() -> None:
    async with open_test_server() as server:
        url = await server.serve_tcp()
        with pytest.raises(UpgradeUnsupported, match=r"127\.0\.0\.1/responses\?$"):
            async with open_responses(url.removesuffix("/v1"), api_key="", proxy=False):
                pytest.fail("it opened")
