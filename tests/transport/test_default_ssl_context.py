"""The default SSL context is shared by open connections, and dropped with the last of them."""

from __future__ import annotations

import gc
import ssl
import weakref
from typing import TYPE_CHECKING, Any

import trustme

from trio_responses._transport.tls import default_ssl_context

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def names(context: ssl.SSLContext) -> list[str]:
    subjects: list[Any] = [one["subject"] for one in context.get_ca_certs()]
    return [dict(pair[0] for pair in one)["organizationName"] for one in subjects]


def test_the_context_is_shared_while_it_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    one = default_ssl_context()
    assert default_ssl_context() is one
    assert one.verify_mode == ssl.CERT_REQUIRED
    assert one.check_hostname


def test_the_certificates_are_loaded_again_after_the_context_was_dropped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "trusted.pem"
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    trustme.CA(organization_name="before").cert_pem.write_to_path(str(file))
    first = default_ssl_context()
    assert names(first) == ["before"]
    trustme.CA(organization_name="after").cert_pem.write_to_path(str(file))
    assert names(default_ssl_context()) == ["before"]
    gone = weakref.ref(first)
    del first
    gc.collect()
    assert gone() is None
    assert names(default_ssl_context()) == ["after"]


def test_another_certificate_file_makes_another_context(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    usual = default_ssl_context()
    trustme.CA(organization_name="office").cert_pem.write_to_path(str(tmp_path / "office.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "office.pem"))
    assert default_ssl_context() is not usual
    assert names(default_ssl_context()) == ["office"]
