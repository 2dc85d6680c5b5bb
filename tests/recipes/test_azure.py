"""The recipe for azure-identity: azure.md, with a credential that makes its own tokens."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import Any, Self

import pytest
import trio

import trio_responses
from tests.docs_pages import leave_unscripted, open_here
from tests.recipes.pages import blocks, load
from trio_responses.testing import open_test_server

identity = pytest.importorskip("azure.identity", reason="azure-identity is missing: 'recipes'")
credentials = pytest.importorskip("azure.core.credentials")

SOON = 60
"""Seconds of validity after which azure-identity asks for a new token each time."""


class FakeCredential:
    """A `TokenCredential`."""

    def __init__(self, seconds: int = SOON) -> None:
        self.seconds = seconds
        self.scopes: list[str] = []

    def get_token(self, *scopes: str, **_: Any) -> Any:
        self.scopes.extend(scopes)
        return credentials.AccessToken(f"token-{len(self.scopes)}", int(time.time()) + self.seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the credential, as `DefaultAzureCredential` does."""


def test_the_program_signs_in(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    credential = FakeCredential()
    monkeypatch.setattr(identity, "DefaultAzureCredential", lambda: credential)
    here = partial(open_here, trio_responses.open_responses, leave_unscripted)
    monkeypatch.setattr(trio_responses, "open_responses", here)
    trio.run(load("azure.md", monkeypatch).main)
    assert capsys.readouterr().out == blocks("azure.md", "text")[0]
    assert credential.scopes == ["https://cognitiveservices.azure.com/.default"]


@pytest.mark.parametrize(
    ("seconds", "tokens"), [(SOON, ["token-1", "token-2"]), (3600, ["token-1", "token-1"])]
)
async def test_each_handshake_has_a_valid_token(
    seconds: int, tokens: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = load("azure.md", monkeypatch)
    token_source = program.token_source(FakeCredential(seconds))
    async with open_test_server() as server:
        endpoint = replace(program.ENDPOINT, url=server.url)
        async with server.open_client(endpoint=endpoint, api_key=token_source) as connection:
            await connection.create("Hello", model="my-deployment")
            await server.close_all()
            await connection.create("Hello", model="my-deployment")
        sent = [connection.headers["authorization"] for connection in server.connections]
    assert sent == [f"Bearer {token}" for token in tokens]


async def test_a_failed_sign_in_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(FakeCredential):
        def get_token(self, *scopes: str, **_: Any) -> Any:
            raise identity.CredentialUnavailableError(f"no login for {scopes[0]}")

    program = load("azure.md", monkeypatch)
    async with open_test_server() as server:
        endpoint = replace(program.ENDPOINT, url=server.url)
        with pytest.raises(trio_responses.ReconnectFailed) as caught:
            async with server.open_client(
                endpoint=endpoint, api_key=program.token_source(Failing()), reconnect=[]
            ):
                raise AssertionError("the block must not begin")
    assert "CredentialUnavailableError" in str(caught.value)
    assert isinstance(caught.value.__cause__, trio_responses.ConnectError)
    assert isinstance(caught.value.__cause__.__cause__, identity.CredentialUnavailableError)
