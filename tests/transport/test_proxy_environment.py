"""The choice of a proxy: URLs, environment variables and their order, ``NO_PROXY``."""

from __future__ import annotations

import sys
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.transport.peer import assert_secret_kept
from tests.transport.proxies import without_environment
from trio_responses._client import connect_responses, open_responses
from trio_responses._endpoint import Endpoint
from trio_responses._errors import ConfigurationError
from trio_responses._transport.dialing import dial_tcp
from trio_responses._transport.proxy import Proxy, choose_proxy, is_exempt
from trio_responses._transport.tunnel import Tunnel, choose_dial

PASSWORD = "sk-secret-7hU9"  # the one that assert_secret_kept() looks for
SECURE = Endpoint.compatible("wss://models.example.com/v1")
PLAIN = Endpoint.compatible("ws://models.example.com/v1")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    without_environment(monkeypatch)
    return monkeypatch


def chosen(endpoint: Endpoint, **variables: str) -> str | None:
    """Return the host of the proxy that the environment variables mean."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        proxy = choose_proxy(endpoint, None)
    return None if proxy is None else proxy.host


# --- The variables ------------------------------------------------------------------------


def test_without_an_environment_variable_no_proxy_is_used() -> None:
    assert chosen(SECURE) is None
    assert chosen(PLAIN) is None


@pytest.mark.parametrize(
    ("endpoint", "variables", "host"),
    [
        (SECURE, {"WSS_PROXY": "//1", "HTTPS_PROXY": "//2", "ALL_PROXY": "//3"}, "1"),
        (SECURE, {"HTTPS_PROXY": "//2", "ALL_PROXY": "//3"}, "2"),
        (SECURE, {"ALL_PROXY": "//3"}, "3"),
        (SECURE, {"WS_PROXY": "//1", "HTTP_PROXY": "//2", "FTP_PROXY": "//3"}, None),
        (PLAIN, {"WS_PROXY": "//1", "HTTP_PROXY": "//2", "ALL_PROXY": "//3"}, "1"),
        (PLAIN, {"HTTP_PROXY": "//2", "ALL_PROXY": "//3"}, "2"),
        (PLAIN, {"ALL_PROXY": "//3"}, "3"),
        (PLAIN, {"WSS_PROXY": "//1", "HTTPS_PROXY": "//2"}, None),
        (SECURE, {"wss_proxy": "//1", "https_proxy": "//2", "all_proxy": "//3"}, "1"),
        (SECURE, {"https_proxy": "//2", "all_proxy": "//3"}, "2"),
        (SECURE, {"all_proxy": "//3"}, "3"),
        (PLAIN, {"ws_proxy": "//1", "http_proxy": "//2", "all_proxy": "//3"}, "1"),
        (PLAIN, {"http_proxy": "//2", "all_proxy": "//3"}, "2"),
        (SECURE, {"all_proxy": "//3", "HTTPS_PROXY": "//2"}, "2"),
    ],
)
def test_the_most_specific_variable_wins(
    endpoint: Endpoint, variables: dict[str, str], host: str | None
) -> None:
    hosts = {name: f"http:{url}.test" for name, url in variables.items()}
    assert chosen(endpoint, **hosts) == (host and f"{host}.test")


@pytest.mark.skipif(sys.platform == "win32", reason="names have no case there")
@pytest.mark.parametrize(
    ("variables", "host"),
    [
        ({"https_proxy": "lower", "HTTPS_PROXY": "UPPER"}, "lower"),
        ({"https_proxy": "", "HTTPS_PROXY": "upper"}, None),
        ({"https_proxy": "", "HTTPS_PROXY": "upper", "ALL_PROXY": "all"}, "all"),
        ({"WSS_PROXY": "", "HTTPS_PROXY": "upper"}, "upper"),
        ({"https_proxy": "lower", "no_proxy": "", "NO_PROXY": "*"}, "lower"),
        ({"https_proxy": "lower", "no_proxy": "*", "NO_PROXY": ""}, None),
    ],
)
def test_lower_case_variables_hide_upper_case_ones_even_when_empty(
    variables: dict[str, str], host: str | None
) -> None:
    """`urllib` and the clients that use it have the same rule."""
    assert chosen(SECURE, **variables) == host


def test_http_proxy_is_ignored_in_a_cgi_script() -> None:
    """CVE-2016-1000110: a client's ``Proxy`` header sets ``HTTP_PROXY``, and no other variable."""
    assert chosen(PLAIN, REQUEST_METHOD="GET", HTTP_PROXY="evil.test") is None
    assert chosen(PLAIN, REQUEST_METHOD="GET", WS_PROXY="good.test") == "good.test"
    assert chosen(SECURE, REQUEST_METHOD="GET", HTTPS_PROXY="good.test") == "good.test"
    if sys.platform != "win32":
        assert chosen(PLAIN, REQUEST_METHOD="GET", http_proxy="good.test") == "good.test"


@pytest.mark.parametrize("url", ["ftp://proxy.test", "http://", "http://proxy.test:99999", "a b"])
def test_an_invalid_variable_raises_an_error_with_its_name(url: str) -> None:
    """Otherwise the server would be dialled directly."""
    with pytest.raises(ConfigurationError, match=r"\AHTTPS_PROXY: "):
        chosen(SECURE, HTTPS_PROXY=url, ALL_PROXY="http://good.test")
    assert chosen(PLAIN, HTTPS_PROXY=url) is None
    assert chosen(SECURE, HTTPS_PROXY=url, NO_PROXY="*") is None


@pytest.mark.parametrize("url", ["wss://127.0.0.1/v1", "ws://localhost/v1", "wss://[::1]/v1"])
def test_the_environments_proxy_is_not_used_for_this_machine(url: str) -> None:
    """As in Go: the proxy would look for the server on itself. A given proxy is used."""
    endpoint = Endpoint.compatible(url)
    assert chosen(endpoint, ALL_PROXY="proxy.test") is None
    given = choose_proxy(endpoint, "http://proxy.test")
    assert given is not None
    assert given.host == "proxy.test"


def test_the_argument_wins_over_the_environment(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("HTTPS_PROXY", "http://environment.test")
    environment.setenv("NO_PROXY", "*")
    proxy = choose_proxy(SECURE, "http://argument.test")
    assert proxy is not None
    assert proxy.host == "argument.test"
    environment.delenv("NO_PROXY")
    assert choose_proxy(SECURE, False) is None  # noqa: FBT003 - the argument's own word


# --- URLs ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "scheme", "host", "port", "credentials"),
    [
        ("http://proxy.test", "http", "proxy.test", 80, None),
        ("http://proxy.test:3128/", "http", "proxy.test", 3128, None),
        ("proxy.test:3128", "http", "proxy.test", 3128, None),
        ("proxy.test", "http", "proxy.test", 80, None),
        ("u:p@proxy.test:3128", "http", "proxy.test", 3128, (b"u", b"p")),
        ("HTTPS://Proxy.Test", "https", "proxy.test", 443, None),
        ("socks5://10.0.0.1", "socks5", "10.0.0.1", 1080, None),
        ("socks5h://[fd00::1]:9", "socks5h", "fd00::1", 9, None),
        ("http://u@proxy.test", "http", "proxy.test", 80, (b"u", b"")),
        ("http://:p@proxy.test", "http", "proxy.test", 80, (b"", b"p")),
        ("http://u%40x:p%3A%2F%C3%A9:q@proxy.test", "http", "proxy.test", 80,
         (b"u@x", "p:/é:q".encode())),
        ("socks5://u:p%20w@proxy.test", "socks5", "proxy.test", 1080, (b"u", b"p w")),
    ],
)  # fmt: skip
def test_a_proxy_url_is_parsed(
    url: str, scheme: str, host: str, port: int, credentials: tuple[bytes, bytes] | None
) -> None:
    expected = Proxy(scheme=scheme, host=host, port=port, credentials=credentials)
    assert Proxy.of(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        " http://proxy.test",
        "http://proxy.test\r\nX: y",
        "http://prôxy.test",
        "://proxy.test",
        "socks://proxy.test",
        "socks4://proxy.test",
        "ws://proxy.test",
        "http:///",
        "http://:3128",
        "http://proxy.test:0",
        "http://proxy.test:65536",
        "http://proxy.test:port",
        "http://[::1",
        f"http://{'x' * 64}.test",
        "http://proxy.test/path",
        "http://proxy.test?query",
        "http://proxy.test#fragment",
        f"http://u:{PASSWORD}/x@proxy.test",
        f"http://u:{PASSWORD}#x@proxy.test",
        f"http://u:{PASSWORD}@[bad",
        f"http://u:{PASSWORD}@\u2100.test",
        f"http://a%3Ab:{PASSWORD}@proxy.test",
        f"http://u:{PASSWORD}%0A@proxy.test",
        f"ftp://u:{PASSWORD}@proxy.test",
        "socks5://u@proxy.test",
        "socks5://u:@proxy.test",
        f"socks5://:{PASSWORD}@proxy.test",
        f"socks5://u:{PASSWORD}%C3%A9@proxy.test",
        f"socks5://u:{PASSWORD * 20}@proxy.test",
        None,
        True,
        b"http://proxy.test",
        3128,
    ],
)
def test_an_invalid_proxy_url_is_refused_and_not_quoted(url: Any) -> None:
    """P9."""
    with pytest.raises(ConfigurationError, match=r"\Aproxy: ") as caught:
        Proxy.of(url)
    assert_secret_kept(caught.value)
    assert "u:" not in str(caught.value)


def test_credentials_are_not_in_the_repr() -> None:
    """P9."""
    proxy = Proxy.of(f"http://someone:{PASSWORD}@proxy.test:3128")
    tunnel = Tunnel(proxy)
    shown = [repr(proxy), str(proxy), repr(tunnel), str(tunnel), proxy.address]
    assert not [text for text in shown if PASSWORD in text or "someone" in text]
    assert repr(tunnel) == "<Tunnel through http://proxy.test:3128>"


def test_the_address_of_an_ipv6_proxy_has_brackets() -> None:
    assert Proxy.of("http://[::1]:3128").address == "[::1]:3128"


# --- NO_PROXY -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exemptions", "host", "exempt"),
    [
        ("", "a.test", False),
        (",, ,", "a.test", False),
        ("*", "a.test", True),
        ("*", "10.0.0.1", True),
        ("x.test, *", "::1", True),
        ("a.test", "a.test", True),
        ("A.Test", "a.tEST", True),
        ("b.test,a.test", "a.test", True),
        ("b.test a.test\tc.test", "a.test", True),
        ("a.test", "www.a.test", True),
        ("a.test", "ba.test", False),
        ("a.test", "a.test.evil.test", False),
        ("a.test", "test", False),
        (".a.test", "a.test", True),
        (".a.test", "www.a.test", True),
        (".a.test", "ba.test", False),
        ("*.a.test", "www.a.test", True),
        ("*.a.test", "x.www.a.test", True),
        ("*.a.test", "a.test", False),
        ("*.a.test", "ba.test", False),
        ("w*.a.test", "www.a.test", False),
        ("a.test.", "a.test", True),
        ("a.test", "www.a.test.", True),
        (".", "a.test", False),
        ("localhost", "localhost", True),
        ("localhost", "127.0.0.1", False),
        ("a.test:443", "a.test", True),
        ("a.test:443", "www.a.test", True),
        ("a.test:80", "a.test", False),
        ("a.test:", "a.test", False),
        ("*:443", "a.test", True),
        ("*:80", "a.test", False),
        ("https://a.test", "a.test", False),
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1:443", "10.0.0.1", True),
        ("10.0.0.1:80", "10.0.0.1", False),
        ("0.0.1", "10.0.0.1", False),
        ("10.0.0.1", "x.10.0.0.1", True),
        ("10.0.0.0/8", "10.255.0.1", True),
        ("10.1.2.3/8", "10.255.0.1", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("10.0.0.0/8:443", "10.0.0.1", True),
        ("10.0.0.0/8:80", "10.0.0.1", False),
        ("10.0.0.0/33", "10.0.0.1", False),
        ("10.0.0.0/8", "a.test", False),
        ("0.0.0.0/0", "::1", False),
        ("10.0.0.0/8", "::ffff:10.0.0.1", True),
        ("::1", "::1", True),
        ("::1", "0:0:0:0:0:0:0:1", True),
        ("[::1]", "::1", True),
        ("[::1]:443", "::1", True),
        ("[::1]:80", "::1", False),
        ("[::1", "::1", False),
        ("FD00::/8", "fdab::1", True),
        ("[fd00::]/8", "fdab::1", True),
        ("[fd00::]/8:443", "fdab::1", True),
        ("fd00::/8", "fe80::1", False),
        ("::/0", "10.0.0.1", False),
    ],
)
def test_no_proxy_covers_these_hosts_and_ports(exemptions: str, host: str, exempt: bool) -> None:  # noqa: FBT001
    assert is_exempt(exemptions, host, 443) is exempt


LABELS = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
NAMES = st.lists(LABELS, min_size=2, max_size=5).map(".".join)
PORT_NUMBERS = st.integers(1, 65535)
JUNK = st.text(st.sampled_from("abz.*:/[]%0123456789-@ ,\t\u00e9"), max_size=60)


@given(name=NAMES, below=NAMES, port=PORT_NUMBERS, dot=st.sampled_from(["", "."]))
def test_a_name_covers_itself_and_its_subdomains_only(
    name: str, below: str, port: int, dot: str
) -> None:
    assert is_exempt(dot + name.upper(), name, port)
    assert is_exempt(dot + name, f"{below}.{name}", port)
    assert not is_exempt(dot + name, f"{below}{name}", port)
    assert not is_exempt(f"{dot}{below}.{name}", name, port)
    assert is_exempt(f"{name}:{port}", name, port)
    assert not is_exempt(f"{name}:{port % 65535 + 1}", name, port)


@given(address=st.ip_addresses(), bits=st.integers(0, 128), port=PORT_NUMBERS, flip=st.data())
def test_a_network_covers_its_addresses_only(
    address: IPv4Address | IPv6Address, bits: int, port: int, flip: st.DataObject
) -> None:
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    width = address.max_prefixlen
    bits = min(bits, width)
    network = f"{address}/{bits}"
    assert is_exempt(network, str(address), port)
    assert is_exempt(network, address.exploded.upper(), port)
    if isinstance(address, IPv6Address):
        assert is_exempt(f"[{address}]/{bits}:{port}", str(address), port)
    other = type(address)(int(address) ^ 1 << flip.draw(st.integers(0, width - 1)))
    if isinstance(other, IPv6Address) and other.ipv4_mapped:
        return
    kind = IPv4Network if isinstance(address, IPv4Address) else IPv6Network
    assert is_exempt(network, str(other), port) == (other in kind(network, strict=False))


@given(entries=st.lists(NAMES), star=st.booleans(), host=NAMES, junk=JUNK)
def test_entries_are_independent_of_each_other(
    entries: list[str], host: str, junk: str, *, star: bool
) -> None:
    alone = [is_exempt(entry, host, 443) for entry in entries]
    together = ",".join([*entries, *(["*"] if star else [])])
    assert is_exempt(together, host, 443) == (star or any(alone))
    assert is_exempt(f"{junk},{host}", host, 443)


@given(junk=JUNK)
def test_any_text_is_a_valid_no_proxy(junk: str) -> None:
    for host in ["a.test", "10.0.0.1", "::1"]:
        assert is_exempt(junk, host, 443) in {True, False}


@given(url=st.text(max_size=40) | JUNK.map(lambda junk: f"http://{junk}"))
def test_any_text_is_a_proxy_or_a_configuration_error(url: str) -> None:
    try:
        proxy = Proxy.of(url)
    except ConfigurationError:
        return
    assert proxy.host
    assert 0 < proxy.port < 65536


# --- What becomes of it -------------------------------------------------------------------


async def nowhere(host: str, port: int) -> Any:
    raise AssertionError((host, port))


async def opened_with(**options: Any) -> None:
    async with open_responses(api_key=PASSWORD, **options):
        pass


async def connected_with(**options: Any) -> None:
    async with trio.open_nursery() as nursery:
        await connect_responses(nursery, api_key=PASSWORD, **options)


@pytest.mark.parametrize("proxy", ["http://proxy.test", "", True])
async def test_proxy_and_dial_together_are_refused(proxy: Any) -> None:
    with pytest.raises(ConfigurationError):
        await opened_with(endpoint=SECURE, proxy=proxy, dial=nowhere)


@pytest.mark.parametrize("proxy", [None, False])
def test_with_a_dial_function_the_environment_is_ignored(
    environment: pytest.MonkeyPatch, proxy: Any
) -> None:
    environment.setenv("HTTPS_PROXY", "ftp://unusable.test")
    assert choose_dial(SECURE, proxy, nowhere, allow_insecure=False) is nowhere


def test_without_a_proxy_the_server_is_dialled_by_tcp(environment: pytest.MonkeyPatch) -> None:
    assert choose_dial(SECURE, None, dial_tcp, allow_insecure=False) is dial_tcp
    environment.setenv("HTTPS_PROXY", "http://proxy.test")
    assert choose_dial(SECURE, False, dial_tcp, allow_insecure=False) is dial_tcp  # noqa: FBT003
    assert isinstance(choose_dial(SECURE, None, dial_tcp, allow_insecure=False), Tunnel)


@pytest.mark.parametrize("proxy", ["", True, "ftp://proxy.test", "http://u:p/w@proxy.test"])
async def test_a_proxy_that_cannot_be_used_is_a_configuration_error(proxy: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"\Aproxy: "):
        await opened_with(endpoint=SECURE, proxy=proxy)
    with pytest.RaisesGroup(pytest.RaisesExc(ConfigurationError, match=r"\Aproxy: ")):
        await connected_with(endpoint=SECURE, proxy=proxy)


async def test_an_unusable_proxy_of_the_environment_is_a_configuration_error(
    environment: pytest.MonkeyPatch,
) -> None:
    environment.setenv("ALL_PROXY", "socks4://proxy.test")
    with pytest.raises(ConfigurationError, match="ALL_PROXY"):
        await opened_with(endpoint=SECURE)


async def test_socks_without_python_socks_names_the_extra_to_install(
    environment: pytest.MonkeyPatch,
) -> None:
    environment.setitem(sys.modules, "python_socks", None)
    environment.setenv("ALL_PROXY", "socks5h://u:p@proxy.test")
    with pytest.raises(ConfigurationError, match=r'pip install "trio-responses\[proxy\]"'):
        await opened_with(endpoint=SECURE)


@pytest.mark.parametrize(
    ("url", "proxy", "insecure"),
    [
        ("ws://127.0.0.1/v1", "http://proxy.test", True),
        ("ws://127.0.0.1/v1", "https://proxy.test", True),
        ("ws://127.0.0.1/v1", "http://127.0.0.1", False),
        ("ws://localhost/v1", "http://[::1]:3128", False),
        ("ws://localhost/v1", "http://localhost:3128", False),
        ("wss://127.0.0.1/v1", "http://proxy.test", False),
    ],
)
def test_a_key_is_not_sent_to_a_proxy_in_plain_text(
    url: str, proxy: str, *, insecure: bool
) -> None:
    """P9: ``ws://`` to this machine is safe, but not through a proxy on another one."""
    endpoint = Endpoint.compatible(url)
    if insecure:
        with pytest.raises(ConfigurationError, match="show the key and the content"):
            choose_dial(endpoint, proxy, dial_tcp, allow_insecure=False)
    else:
        assert isinstance(choose_dial(endpoint, proxy, dial_tcp, allow_insecure=False), Tunnel)
    assert isinstance(choose_dial(endpoint, proxy, dial_tcp, allow_insecure=True), Tunnel)
