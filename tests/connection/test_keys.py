"""P2 and P9: the key of each handshake, refusals, and where a key must not appear."""

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
    """Return the keys of all upgrade requests: a dial whose key failed has none."""
    return [one.headers["authorization"] for one in server.connections if one.method]


async def test_a_callable_key_is_called_for_each_handshake(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P2: a token that expires is renewed with the socket."""
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
    """P2: also where the server refuses the upgrade for another reason."""
    vault = Vault("one", "two", "three")
    server.refuse(503, times=2)
    async with connect(api_key=vault):
        assert keys_seen(server) == ["Bearer one", "Bearer two", "Bearer three"]
        assert trio.current_time() == 3


async def test_a_failing_callable_key_is_a_failed_attempt(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P2: the next attempt calls it again."""
    vault = Vault(OSError("no route"), LookupError("no key"), "key")
    async with connect(api_key=vault):
        assert keys_seen(server) == ["Bearer key"]
        assert trio.current_time() == 3


async def test_a_callable_key_that_always_fails_is_given_up(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P2: its exception is the cause of the cause, and is not quoted in a message."""
    trouble = OSError(f"bad token {SECRET}")
    with pytest.raises(ReconnectFailed) as failure:
        async with connect(api_key=Vault(trouble), reconnect=[1]):
            pytest.fail("the block began")  # pragma: no cover
    assert trio.current_time() == 1
    cause = failure.value.__cause__
    assert isinstance(cause, ConnectError)
    assert cause.__cause__ is trouble
    assert SECRET not in str(failure.value) + repr(failure.value) + str(cause)
    assert keys_seen(server) == []


async def test_a_key_that_cannot_stand_in_a_header_is_refused_and_not_quoted(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P9: a key with CR or LF is refused before anything is written."""
    for key in (f"{SECRET}\r\nX: y", Vault(f"{SECRET}\r\nX: y")):
        with pytest.raises(ConfigurationError) as failure:
            async with connect(api_key=key):
                pytest.fail("the block began")  # pragma: no cover
        assert SECRET not in repr(failure.value)
    assert keys_seen(server) == []


async def test_the_body_of_a_refusal_is_on_the_exception_and_its_sentence_in_the_text(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P2: a status that no later attempt changes is raised at once."""
    server.refuse(410, code="nope", message="no such thing", times=None)
    with pytest.raises(HandshakeRejected) as failure:
        async with connect():
            pytest.fail("the block began")  # pragma: no cover
    assert type(failure.value) is HandshakeRejected
    assert failure.value.status == 410
    assert b"no such thing" in failure.value.body
    assert "no such thing" in str(failure.value)
    assert server.statistics().handshakes == 1
    assert trio.current_time() == 0


async def test_401_asks_a_callable_key_once_more(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P2: at once, because the callable may have renewed its token."""
    vault = Vault("old", "new")
    server.refuse(401)
    async with connect(api_key=vault):
        assert keys_seen(server) == ["Bearer old", "Bearer new"]
        assert trio.current_time() == 0


async def test_401_asks_a_callable_key_only_once_more(
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


async def test_401_asks_a_callable_key_once_more_in_each_outage(
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


async def test_a_second_401_after_a_503_is_final(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P2: the callable is asked once more in an outage, whatever comes between."""
    vault = Vault("1", "2", "3", "4")
    server.refuse(401)
    server.refuse(503)
    server.refuse(401, times=9)
    with pytest.raises(AuthenticationError):
        async with connect(api_key=vault):
            pytest.fail("the block began")  # pragma: no cover
    assert vault.calls == 3


async def test_403_does_not_ask_a_callable_key_again(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P2: a key that is known and not allowed stays so."""
    vault = Vault("1", "2")
    server.refuse(403)
    with pytest.raises(AuthenticationError):
        async with connect(api_key=vault):
            pytest.fail("the block began")  # pragma: no cover
    assert vault.calls == 1


async def test_a_server_that_checks_the_key_accepts_the_right_one_only() -> None:
    """P2: a wrong key raises `AuthenticationError`."""
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
async def test_a_refusal_names_the_source_of_the_key(
    server: ResponsesServer,
    connect: "Connect",
    refused: "ApiKey | None",
    headers: dict[str, str],
    question: str,
) -> None:
    """P9: the option or the environment variable."""
    endpoint = Endpoint(url=server.url, key_variable="KEY_OF_THE_TEST")
    server.refuse(401, times=None)
    with pytest.raises(AuthenticationError) as failure:
        async with connect(endpoint=endpoint, api_key=refused, headers=headers):
            pytest.fail("the block began")  # pragma: no cover
    assert str(failure.value).startswith("the server refused the WebSocket upgrade: ")
    assert str(failure.value).endswith(f" (status 401, type authentication_error); {question}")


async def test_the_hint_about_the_key_is_given_once(
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
async def test_a_refusal_without_a_key_names_the_environment_variable(
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


async def test_no_repr_exception_or_log_record_shows_the_key(
    server: ResponsesServer, connect: "Connect", caplog: pytest.LogCaptureFixture
) -> None:
    """P9: in a run with failed handshakes, turns and sockets."""
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
        server.clear_scripts()
    async with connect(api_key=SECRET, reconnect=[1, 1], max_retries=0) as connection:
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


async def test_a_callable_key_that_never_returns_is_given_up(server: ResponsesServer) -> None:
    """P2, P3: ``timeouts.connect`` ends the attempt, so the policy and the waiting turn end."""
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


async def test_a_synchronous_callable_may_give_the_key(server: ResponsesServer) -> None:
    key: Any = lambda: "from a vault"  # noqa: E731 - it is about lambdas
    async with server.open_client(api_key=key):
        assert keys_seen(server) == ["Bearer from a vault"]


async def test_a_404_names_the_path_that_was_asked_for() -> None:
    async with open_test_server() as server:
        url = await server.serve_tcp()
        with pytest.raises(UpgradeUnsupported, match=r"did you mean http://127\.0\.0\.1:\d+/v1\?$"):
            async with open_responses(
                url.removesuffix("/v1"), api_key="", proxy=False, transport="websocket"
            ):
                pytest.fail("it opened")
