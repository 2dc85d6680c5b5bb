"""Masked text frames as wsproto reads them."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.frame_protocol import FrameProtocol

from trio_responses._protocol import frames
from trio_responses._protocol.frames import encode_text_frame, mask_in_python

SIZES = [0, 1, 3, 4, 125, 126, 4095, 4096, 4097, 65535, 65536, 100_003]


@pytest.mark.parametrize("size", SIZES)
def test_wsproto_reads_the_message_of_a_frame(size: int) -> None:
    text = ("Grüße, 世界! " * (size // 10 + 1))[:size]
    server = FrameProtocol(client=False, extensions=[])
    server.receive_bytes(encode_text_frame(text.encode()))
    received = list(server.received_frames())
    assert "".join(str(frame.payload) for frame in received) == text
    assert received[-1].message_finished


@given(payload=st.binary(max_size=50), key=st.binary(min_size=4, max_size=4), long=st.booleans())
def test_masking_twice_returns_the_payload(*, payload: bytes, key: bytes, long: bool) -> None:
    whole = payload * 500 if long else payload
    masked = mask_in_python(whole, key)
    assert masked == bytes(byte ^ key[position % 4] for position, byte in enumerate(whole))
    assert mask_in_python(masked, key) == whole


def test_every_frame_has_a_new_mask() -> None:
    encoded = {encode_text_frame(b"{}") for _ in range(500)}
    assert len(encoded) > 490


FORK: Final = """
import os
from trio_responses._protocol.frames import encode_text_frame

encode_text_frame(b"")
process = os.fork()
if process:
    os.waitpid(process, 0)
print(encode_text_frame(b"").hex(), flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_the_frames_of_a_child_process_have_masks_of_their_own() -> None:
    command = [sys.executable, "-c", FORK]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - ours
    of_child, own = done.stdout.split()
    assert of_child != own


@pytest.mark.parametrize("module", [None, object()])
def test_without_the_c_function_masking_is_done_in_python(
    monkeypatch: pytest.MonkeyPatch, module: object
) -> None:
    monkeypatch.setitem(sys.modules, "websockets.speedups", module)
    assert frames._find_c_mask_function() is None  # called at import, before any test


def test_the_c_function_is_used_if_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Speedups:
        @staticmethod
        def apply_mask(data: bytes, mask: bytes) -> bytes:
            return data + mask

    monkeypatch.setitem(sys.modules, "websockets.speedups", Speedups)
    assert frames._find_c_mask_function() is Speedups.apply_mask
