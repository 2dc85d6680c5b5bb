"""Endpoints: URLs, profiles, keys and headers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_responses import open_responses
from trio_responses._endpoint import (
    USER_AGENT,
    Endpoint,
    api_key_for,
    checked_headers,
    handshake_headers,
)
from trio_responses._errors import ConfigurationError, ConnectError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

KEY = "sk-secret-7hU9"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        "OPENAI_ORG_ID",
        "OPENAI_PROJECT_ID",
        "AZURE_OPENAI_API_KEY",
        "AZURE_OPENAI_AD_TOKEN",
        "XAI_API_KEY",
    ):
        monkeypatch.delenv(name, raising=False)


# --- URLs ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "dialled"),
    [
        ("https://api.openai.com/v1", "wss://api.openai.com/v1/responses"),
        ("https://api.openai.com/v1/", "wss://api.openai.com/v1/responses"),
        ("https://api.openai.com", "wss://api.openai.com/responses"),
        ("http://localhost:8080/v1", "ws://localhost:8080/v1/responses"),
        ("ws://localhost/v1/responses", "ws://localhost/v1/responses"),
        ("wss://host/v1/responses/", "wss://host/v1/responses"),
        ("HTTPS://Host/V1", "wss://Host/V1/responses"),
        ("https://host/v1?api-version=1&x=%20", "wss://host/v1/responses?api-version=1&x=%20"),
        ("https://host/v1/responses?a=b", "wss://host/v1/responses?a=b"),
        ("http://[::1]:81/v1", "ws://[::1]:81/v1/responses"),
        ("https://host/caf%C3%A9", "wss://host/caf%C3%A9/responses"),
        ("https://xn--bcher-kva.example/v1", "wss://xn--bcher-kva.example/v1/responses"),
    ],
)
def test_a_base_url_becomes_the_url_that_is_dialled(given: str, dialled: str) -> None:
    endpoint = Endpoint.compatible(given)
    assert endpoint.url == dialled
    assert Endpoint.compatible(dialled).url == dialled


@pytest.mark.parametrize(
    ("url", "secure", "host", "port", "authority", "resource"),
    [
        ("https://Host/v1", True, "host", 443, "Host", "/v1/responses"),
        ("http://host/v1?a=b", False, "host", 80, "host", "/v1/responses?a=b"),
        ("http://host:8080", False, "host", 8080, "host:8080", "/responses"),
        ("wss://[::1]:81/v1", True, "::1", 81, "[::1]:81", "/v1/responses"),
    ],
)
def test_an_endpoint_knows_the_parts_of_its_url(
    *, url: str, secure: bool, host: str, port: int, authority: str, resource: str
) -> None:
    endpoint = Endpoint.compatible(url)
    assert endpoint.secure is secure
    assert (endpoint.host, endpoint.port) == (host, port)
    assert (endpoint.authority, endpoint.resource) == (authority, resource)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host/v1",
        "//host/v1",
        "ftp://host/v1",
        "https:///v1",
        "https://:443/v1",
        "https://host:0/v1",
        "https://host:65536/v1",
        "https://host:port/v1",
        "https://[::1/v1",
        "https://host/v1#fragment",
        "https://host/v 1",
        "https://host/v1\n",
        "https://ho\tst/v1",
        "https://host/v1\r\nX-Evil: 1",
        "https://host/v1\x00",
        "https://h\u00f6st/v1",
        "https://host/caf\u00e9",
        "https://host/v1?q=\u00e9",
        "https://a..b/v1",
        f"https://{'a' * 64}.test/v1",
        5,
        None,
        b"https://host/v1",
    ],
)
def test_a_url_that_cannot_be_dialled_is_refused(url: Any) -> None:
    with pytest.raises(ConfigurationError):
        Endpoint.compatible(url)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("127.0.0.1:8000", "http://127.0.0.1:8000/v1"),
        ("127.0.0.1", "http://127.0.0.1/v1"),
        ("localhost:8000/v1", "http://localhost:8000/v1"),
        ("Localhost/", "http://Localhost/v1"),
        ("[::1]:8000/v1/responses", "http://[::1]:8000/v1/responses"),
        ("10.0.0.1:8000", "https://10.0.0.1:8000/v1"),
        ("gateway.test:8443/api/", "https://gateway.test:8443/api"),
    ],
)
def test_a_host_without_a_scheme_gets_a_suggested_url(given: str, meant: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Endpoint.of(given)
    schemes = "a URL begins with https://, wss://, http:// or ws://"
    assert str(caught.value) == f"{schemes} (did you mean {meant}?)"
    assert Endpoint.of(meant).loopback is meant.startswith("http:")


@pytest.mark.parametrize(
    ("given", "rest"),
    [("ftp://host/v1", ", not 'ftp'"), ("nonsense", ""), (KEY, ""), (f"host:1/v1?key={KEY}", "")],
)
def test_an_unclear_text_gets_no_suggested_url(given: str, rest: str) -> None:
    """P9: a key that is passed as the URL is not quoted."""
    with pytest.raises(ConfigurationError) as caught:
        Endpoint.of(given)
    assert str(caught.value) == f"a URL begins with https://, wss://, http:// or ws://{rest}"


def test_of_refuses_bad_urls_in_the_same_way() -> None:
    for url in ("https://[::1/v1", "https://h\u00f6st/v1", "nonsense"):
        with pytest.raises(ConfigurationError):
            Endpoint.of(url)


@pytest.mark.parametrize("url", [f"https://{KEY}@host/v1", f"https://user:{KEY}@host/v1"])
def test_a_key_in_the_url_is_refused_and_not_quoted(url: str) -> None:
    """P9."""
    with pytest.raises(ConfigurationError) as caught:
        Endpoint.compatible(url)
    assert KEY not in repr(caught.value)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.255.255.254", True),
        ("[::1]", True),
        ("localhost", True),
        ("LOCALHOST", True),
        ("127.0.0.1.evil.com", False),
        ("localhost.evil.com", False),
        ("evil.localhost", False),
        ("notlocalhost", False),
        ("128.0.0.1", False),
        ("0.0.0.0", False),  # noqa: S104 - it is not dialled
        ("10.0.0.1", False),
        ("2130706433", False),
        ("127.1", False),
        ("[::2]", False),
        ("[::ffff:8.8.8.8]", False),
    ],
)
def test_only_this_machine_is_loopback(host: str, *, loopback: bool) -> None:
    """P9: ``ws://`` may carry a key only to loopback."""
    assert Endpoint.compatible(f"ws://{host}:80/v1").loopback is loopback


# --- Profiles -----------------------------------------------------------------------------


def test_the_official_profile_has_lanes_and_an_hour() -> None:
    endpoint = Endpoint.openai()
    assert endpoint.url == "wss://api.openai.com/v1/responses"
    assert (endpoint.lanes, endpoint.max_age, endpoint.after_error) == (True, 3600.0, "reuse")
    assert (endpoint.requires_key, endpoint.key_variable) == (True, "OPENAI_API_KEY")
    assert endpoint.headers == ()


def test_organization_and_project_are_read_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-1")
    assert Endpoint.openai().headers == (
        ("OpenAI-Organization", "org-1"),
        ("OpenAI-Project", "proj-1"),
    )
    monkeypatch.setenv("OPENAI_ORG_ID", "")
    assert Endpoint.openai().headers == (("OpenAI-Project", "proj-1"),)
    assert Endpoint.compatible("https://host/v1").headers == ()


@pytest.mark.parametrize(
    ("url", "official"),
    [
        ("https://api.openai.com/v1", True),
        ("https://eu.api.openai.com/v1", True),
        ("https://API.OPENAI.COM/v1", True),
        ("https://api.openai.com.evil.com/v1", False),
        ("https://evil-api.openai.com/v1", False),
        ("https://host/api.openai.com", False),
    ],
)
def test_only_the_official_hosts_get_the_official_profile(url: str, *, official: bool) -> None:
    assert Endpoint.of(url).lanes is official
    assert Endpoint.of(url).requires_key is official


def test_the_base_url_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Endpoint.of(None) == Endpoint.openai()
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1")
    assert Endpoint.of(None) == Endpoint.compatible("http://127.0.0.1:8000/v1")
    assert Endpoint.of("https://host/v1") == Endpoint.compatible("https://host/v1")
    monkeypatch.setenv("OPENAI_BASE_URL", "")
    assert Endpoint.of(None) == Endpoint.openai()


def test_azure_takes_a_resource_or_a_url_and_a_key_or_a_token() -> None:
    """Problem 19: a resource key goes into a header of its own."""
    endpoint = Endpoint.azure("my-resource")
    assert endpoint.url == "wss://my-resource.openai.azure.com/openai/v1/responses"
    assert (endpoint.key_header, endpoint.key_variable) == ("api-key", "AZURE_OPENAI_API_KEY")
    endpoint = Endpoint.azure("https://gateway.test/openai/v1", token=True)
    assert endpoint.url == "wss://gateway.test/openai/v1/responses"
    assert (endpoint.key_header, endpoint.key_variable) == (
        "Authorization",
        "AZURE_OPENAI_AD_TOKEN",
    )


@pytest.mark.parametrize(
    ("given", "dialled"),
    [
        ("https://x.openai.azure.com", "/openai/v1/responses"),
        ("https://x.openai.azure.com/", "/openai/v1/responses"),
        ("HTTPS://x.openai.azure.com:443", ":443/openai/v1/responses"),
        ("https://x.openai.azure.com?a=b", "/openai/v1/responses?a=b"),
        ("https://x.openai.azure.com/?u=http://y", "/openai/v1/responses?u=http://y"),
        ("https://x.openai.azure.com/openai/v1/", "/openai/v1/responses"),
        ("https://x.openai.azure.com/v2?u=http://y", "/v2/responses?u=http://y"),
    ],
)
def test_a_url_of_azure_without_a_path_gets_the_v1_route(given: str, dialled: str) -> None:
    """Azure's portal shows the URL in this form."""
    assert Endpoint.azure(given).url == f"wss://x.openai.azure.com{dialled}"


@pytest.mark.parametrize("resource", ["x.openai.azure.com", "", "a b", "x/", 5, None])
def test_an_invalid_azure_resource_is_refused(resource: Any) -> None:
    with pytest.raises(
        ConfigurationError, match=r"'contoso'.*'https://contoso\.openai\.azure\.com'"
    ):
        Endpoint.azure(resource)


@pytest.mark.parametrize("url", ["https://", "https:///", "ftp://x", "https://x#y"])
def test_a_url_of_azure_is_checked_like_any_other(url: str) -> None:
    with pytest.raises(ConfigurationError):
        Endpoint.azure(url)


def test_the_xai_profile_has_its_own_limits() -> None:
    endpoint = Endpoint.xai()
    assert endpoint.url == "wss://api.x.ai/v1/responses"
    assert (endpoint.lanes, endpoint.max_age) == (False, 1500.0)
    assert (endpoint.after_error, endpoint.instructions_with_parent) == ("replace", False)
    assert endpoint.key_variable == "XAI_API_KEY"


def test_the_compatible_profile_assumes_no_optional_feature() -> None:
    endpoint = Endpoint.compatible("https://host/v1")
    assert (endpoint.lanes, endpoint.max_age, endpoint.after_error) == (False, None, "replace")
    assert not endpoint.requires_key


# --- Headers ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers", [{"X-A": "1", "X-B": "caf\xe9 \t x"}, [("X-A", "1"), ("X-B", "caf\xe9 \t x")]]
)
def test_headers_are_a_mapping_or_pairs(headers: Any) -> None:
    assert checked_headers(headers) == (("X-A", "1"), ("X-B", "caf\xe9 \t x"))


@pytest.mark.parametrize(
    "value",
    [
        f"{KEY}\r\nX-Evil: 1",
        f"{KEY}\n",
        f"{KEY}\r",
        f"{KEY}\x00",
        f"{KEY}\x7f",
        f"{KEY} ",
        f"\t{KEY}",
        f"{KEY}\u20ac",
        KEY.encode(),
        None,
    ],
)
def test_an_invalid_header_value_is_refused_and_not_quoted(value: Any) -> None:
    """P9."""
    with pytest.raises(ConfigurationError, match="X-Key") as caught:
        checked_headers({"X-Key": value})
    assert KEY not in repr(caught.value)


@pytest.mark.parametrize(
    "name", ["", "X A", "X:A", "X-A\r\n", "X-\xe9", f"Authorization: Bearer {KEY}", b"X-A", None]
)
def test_an_invalid_header_name_is_refused_and_not_quoted(name: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        checked_headers([(name, "1")])
    assert KEY not in repr(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "Host",
        "connection",
        "Upgrade",
        "SEC-WEBSOCKET-KEY",
        "Sec-WebSocket-Protocol",
        "Sec-WebSocket-Extensions",
        "Content-Length",
        "Transfer-Encoding",
    ],
)
def test_the_headers_of_the_handshake_itself_are_refused(name: str) -> None:
    """With a second one the request would be invalid, or not what was agreed to."""
    with pytest.raises(ConfigurationError, match=name):
        checked_headers({name: "1"})


# --- Keys ---------------------------------------------------------------------------------


async def give(key: Any) -> Any:
    await trio.lowlevel.checkpoint()
    return key


def giver(key: Any) -> Callable[[], Awaitable[Any]]:
    return lambda: give(key)


def test_the_given_key_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "from-environment")
    endpoint = Endpoint.openai()
    function = giver("later")
    assert api_key_for(endpoint, None) == "from-environment"
    assert api_key_for(endpoint, "given") == "given"
    assert api_key_for(endpoint, function) is function


@pytest.mark.parametrize(
    ("endpoint", "variable"),
    [
        (Endpoint.openai(), "OPENAI_API_KEY"),
        (Endpoint.xai(), "XAI_API_KEY"),
        (Endpoint.azure("r"), "AZURE_OPENAI_API_KEY"),
        (Endpoint.azure("r", token=True), "AZURE_OPENAI_AD_TOKEN"),
    ],
)
def test_the_error_of_a_missing_key_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint, variable: str
) -> None:
    for given in (None, ""):
        with pytest.raises(ConfigurationError, match=variable):
            api_key_for(endpoint, given)
    monkeypatch.setenv(variable, KEY)
    assert api_key_for(endpoint, None) == KEY


def test_a_compatible_server_may_need_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = Endpoint.compatible("http://localhost/v1")
    assert api_key_for(endpoint, None) is None
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert api_key_for(endpoint, None) == KEY
    assert api_key_for(endpoint, "") is None


@pytest.mark.parametrize("key", [KEY.encode(), 5, [KEY]])
def test_a_key_is_a_string_or_a_callable(key: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        api_key_for(Endpoint.openai(), key)
    assert KEY not in repr(caught.value)


async def test_a_key_is_sent_in_the_header_of_the_endpoint() -> None:
    bearer = await handshake_headers(Endpoint.openai(), KEY, ())
    assert bearer == (("User-Agent", USER_AGENT), ("Authorization", f"Bearer {KEY}"))
    bare = await handshake_headers(Endpoint.azure("r"), KEY, ())
    assert bare == (("User-Agent", USER_AGENT), ("api-key", KEY))
    none = await handshake_headers(Endpoint.compatible("http://localhost/v1"), None, ())
    assert none == (("User-Agent", USER_AGENT),)


async def test_the_headers_of_the_endpoint_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    headers = await handshake_headers(Endpoint.openai(), KEY, ())
    assert ("OpenAI-Organization", "org-1") in headers
    assert "openai-beta" not in {name.lower() for name, _ in headers}


async def test_the_headers_of_the_user_replace_all_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    own = (("user-agent", "mine"), ("AUTHORIZATION", "Basic x"), ("openai-organization", "org-2"))
    assert await handshake_headers(Endpoint.openai(), KEY, own) == own


async def test_a_callable_key_is_called_for_every_handshake() -> None:
    """A token that has expired is not sent again."""
    keys = iter(["first", "second"])
    for key in ("first", "second"):
        headers = await handshake_headers(Endpoint.openai(), lambda: give(next(keys)), ())
        assert headers[-1] == ("Authorization", f"Bearer {key}")


async def test_a_callable_key_that_fails_is_a_failed_attempt() -> None:
    cause = ValueError(f"vault: {KEY}")

    async def fail() -> str:
        await trio.lowlevel.checkpoint()
        raise cause

    with pytest.raises(ConnectError, match="ValueError") as caught:
        await handshake_headers(Endpoint.openai(), fail, ())
    assert caught.value.__cause__ is cause
    assert caught.value.retryable
    assert KEY not in repr(caught.value)


async def test_a_callable_key_may_be_cancelled() -> None:
    async def hang() -> str:
        await trio.sleep_forever()
        raise AssertionError

    with trio.move_on_after(0.0) as scope:
        await handshake_headers(Endpoint.openai(), hang, ())
    assert scope.cancelled_caught


@pytest.mark.parametrize("key", [None, KEY.encode(), [KEY]])
async def test_a_callable_that_returns_no_string_is_refused(key: Any) -> None:
    """Not sent as ``Bearer b'...'``, nor left out."""
    with pytest.raises(ConfigurationError) as caught:
        await handshake_headers(Endpoint.openai(), giver(key), ())
    assert KEY not in repr(caught.value)


@pytest.mark.parametrize("key", [f"{KEY}\r\nX-Evil: 1", f"{KEY}\n", f"{KEY} ", f"{KEY}\u20ac"])
async def test_a_key_that_is_no_valid_header_is_refused_and_not_quoted(key: str) -> None:
    """P9: CR and LF above all; h11 would quote the whole value in its exception."""
    for given in (key, giver(key)):
        with pytest.raises(ConfigurationError) as caught:
            await handshake_headers(Endpoint.openai(), given, ())
        assert KEY not in repr(caught.value)


async def test_the_repr_of_an_endpoint_has_no_headers() -> None:
    """P9: they may carry a key."""
    assert KEY not in repr(Endpoint(url="https://host/v1", headers=(("X-Key", KEY),)))


async def test_headers_that_are_not_pairs_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="headers"):
        async with open_responses("http://localhost/v1", headers="x", reconnect=[]):  # type: ignore[arg-type]
            pass


@pytest.mark.parametrize(
    ("url", "host", "name", "loopback"),
    [
        ("https://models.test./v1", "models.test.", "models.test", False),
        ("https://models.test/v1", "models.test", "models.test", False),
        ("http://localhost./v1", "localhost.", "localhost", True),
    ],
)
def test_the_dot_at_the_end_of_a_name_is_dialled_and_not_sent_in_tls(
    url: str, host: str, name: str, *, loopback: bool
) -> None:
    endpoint = Endpoint.compatible(url)
    assert (endpoint.host, endpoint.tls_name, endpoint.loopback) == (host, name, loopback)


def test_the_official_host_may_end_with_a_dot() -> None:
    assert Endpoint.of("https://api.openai.com./v1").lanes
