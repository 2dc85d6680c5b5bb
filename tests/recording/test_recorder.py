"""A recording has all frames, and no key (P9)."""

from __future__ import annotations

import io
import re
import stat
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

from tests.testing.driver import NO_WAITING
from tests.turn.rig import STEADY, ask, heard
from trio_responses import ConfigurationError, Limits, Recorder, Recording, ResponsesError
from trio_responses.testing import WireBytes

if TYPE_CHECKING:
    from pathlib import Path

    from trio_responses import RecordingLine
    from trio_responses.testing import ResponsesServer

pytestmark = NO_WAITING
KEY = "sk-secret-of-the-recorder"


def directions(recording: Recording) -> list[str]:
    return [line.dir for line in recording]


async def test_a_recording_has_all_frames_in_order(server: ResponsesServer, tmp_path: Path) -> None:
    server.reply("one two", delay=0.5)
    path = tmp_path / "session.jsonl"
    with Recorder(path) as recorder:
        async with server.open_client(instruments=[recorder]) as connection:
            response = await connection.create(model="m", input="Hello")
            received = connection.statistics().events_received
    recording = Recording.read(path)
    assert directions(recording) == ["open", "send", *["recv"] * received, "close"]
    sent, first, last, closed = (recording.lines[at] for at in (1, 2, -2, -1))
    assert sent.json["input"] == "Hello"
    assert first.json["type"] == "response.created"
    assert last.json["response"]["id"] == response.id
    assert last.t == pytest.approx(0.5 * (received - 1))
    assert (closed.by, closed.code) == ("client", 1000)
    assert len(recording) == len(recording.lines)
    assert repr(recording) == f"<Recording of {received + 3} lines>"


async def test_a_recording_has_no_key_and_no_headers(
    server: ResponsesServer, tmp_path: Path
) -> None:
    path = tmp_path / "session.jsonl"
    tool = {
        "type": "mcp",
        "server_label": "mine",
        "server_url": "https://example.org",
        "authorization": KEY,
        "headers": {"X-Key": KEY},
    }
    with Recorder(path) as recorder:
        async with server.open_client(
            api_key=KEY, headers={"X-Mine": KEY}, instruments=[recorder]
        ) as connection:
            await connection.create(model="m", input="Hello", tools=[tool])
            assert server.last_request["tools"][0]["authorization"] == KEY
    text = path.read_text(encoding="utf-8")
    assert KEY not in text
    assert "X-Key" not in text
    assert text.count("[redacted]") > 2  # the response repeats the tools
    assert '"server_label":"mine"' in text


async def test_a_recording_has_no_domain_secrets_of_a_container(
    server: ResponsesServer, tmp_path: Path
) -> None:
    path = tmp_path / "session.jsonl"
    secrets = [{"domain": "example.org", "name": "TOKEN", "value": KEY}]
    policy = {"type": "allowlist", "allowed_domains": ["example.org"], "domain_secrets": secrets}
    tool = {"type": "shell", "environment": {"type": "container_auto", "network_policy": policy}}
    with Recorder(path) as recorder:
        async with server.open_client(instruments=[recorder]) as connection:
            await connection.create(model="m", input="Hello", tools=[tool])
    text = path.read_text(encoding="utf-8")
    assert KEY not in text
    assert text.count('"allowed_domains":["example.org"],"domain_secrets":[]') > 2


async def test_a_recording_has_no_secrets_of_a_message_that_is_not_json(
    server: ResponsesServer,
) -> None:
    half = '"\\ud83d"'  # half of an emoji
    odd = f'{{"type":"x","tools":[{{"type":"mcp","authorization":"{KEY}"}}],"text":{half}}}'
    file = io.BytesIO()
    server.answer().inject(odd, after_events=2).inject(half, after_events=2)
    async with server.open_client(instruments=[Recorder(file)]) as connection:
        await connection.create(model="m", input="Hello")
    assert KEY.encode() not in file.getvalue()
    lines = [line for line in Recording.parse(file.getvalue()) if line.size is not None]
    assert [(line.text, line.size) for line in lines] == [(None, len(odd)), (half, len(half))]


async def test_a_deeply_nested_message_does_not_end_a_recording(
    server: ResponsesServer,
) -> None:
    deep = "[" * 20_000 + "]" * 20_000
    file = io.BytesIO()
    server.answer().inject(deep, after_events=2)
    async with server.open_client(instruments=[Recorder(file)]) as connection:
        response = await connection.create(model="m", input="Hello")
    recording = Recording.parse(file.getvalue())
    assert [line.text for line in recording if line.size is not None] == [deep]
    assert recording.lines[-1].dir == "close"
    assert response.id in str(recording.lines[-2].json)


async def test_only_the_owner_can_read_a_recording(tmp_path: Path) -> None:
    with Recorder(tmp_path / "session.jsonl"):
        assert stat.S_IMODE((tmp_path / "session.jsonl").stat().st_mode) == 0o600


async def test_redact_leaves_content_out(server: ResponsesServer) -> None:
    def redact(frame: Any) -> Any:
        return {"type": frame["type"]}

    file = io.BytesIO()
    async with server.open_client(
        instruments=[Recorder(file, redact=redact)], reconnect=STEADY
    ) as connection:
        server.reply("SECRET").inject("SECRET, but no JSON").inject(b"SECRET")
        await ask(connection, "SECRET")
        await server.close_all(1011, "SECRET")
        await trio.sleep(3)
    assert b"SECRET" not in file.getvalue()
    recording = Recording.parse(file.getvalue())
    assert {"open", "send", "recv", "close"} == set(directions(recording))
    assert recording.lines[1].json == {"type": "response.create"}
    assert [line.size for line in recording if line.size is not None] == [19, 6]


async def test_an_exception_of_redact_ends_the_recording_only(
    server: ResponsesServer,
) -> None:
    def redact(frame: Any) -> Any:
        return frame["not there"]

    file = io.BytesIO()
    async with server.open_client(instruments=[Recorder(file, redact=redact)]) as connection:
        assert await ask(connection, "Hello") == heard("Hello")
    assert directions(Recording.parse(file.getvalue())) == ["open"]


async def test_every_socket_has_its_number_and_its_end(server: ResponsesServer) -> None:
    file = io.BytesIO()
    async with server.open_client(instruments=[Recorder(file)], reconnect=STEADY) as connection:
        server.refuse(503)
        await server.close_all(1012, "restart")
        await ask(connection, "Hello")
    lines = [line for line in Recording.parse(file.getvalue()) if line.dir not in {"send", "recv"}]
    assert [(line.t, line.socket, line.dir) for line in lines] == [
        (0.0, 1, "open"),
        (0.0, 1, "close"),
        (1.0, 2, "fail"),
        (3.0, 3, "open"),
        (3.0, 3, "close"),
    ]
    assert (lines[1].by, lines[1].code, lines[1].reason) == ("server", 1012, "restart")
    assert (lines[2].reason, lines[2].status) == ("ServerOverloaded", 503)


async def test_messages_that_are_not_json_are_recorded(server: ResponsesServer) -> None:
    file = io.BytesIO()
    limits = Limits(max_message_bytes=10_000)
    async with server.open_client(instruments=[Recorder(file)], limits=limits) as connection:
        server.answer().inject("no JSON\nat all").inject(b"\x00\x01").inject(
            '{"type":\r\n"keepalive"}'
        )
        await ask(connection, "Hello")
        server.answer().inject({"type": "too.large", "filling": "x" * 20_000})
        with pytest.raises(ResponsesError):
            await ask(connection, "Hello")
    odd: list[RecordingLine] = [
        line for line in Recording.parse(file.getvalue()) if line.size is not None
    ]
    assert [(line.text, line.binary) for line in odd] == [
        ("no JSON\nat all", None),
        (None, "AAE="),
        (None, None),
    ]
    assert odd[2].size is not None
    assert odd[2].size > 20_000
    assert b'{"type":  "keepalive"}' in file.getvalue()


async def test_a_program_that_crashes_leaves_a_recording(
    server: ResponsesServer, tmp_path: Path
) -> None:
    path = tmp_path / "session.jsonl"
    recorder = Recorder(path)
    async with server.open_client(instruments=[recorder]) as connection:
        await ask(connection, "Hello")
        so_far = path.read_bytes()
        received = connection.statistics().events_received
    recorder.close()
    assert directions(Recording.parse(so_far)) == ["open", "send", *["recv"] * received]
    cut = Recording.parse(so_far[:-20])
    assert len(cut) == len(Recording.parse(so_far)) - 1


async def test_nothing_is_recorded_after_the_block(
    server: ResponsesServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "session.jsonl"
    with Recorder(path) as recorder:
        pass
    async with server.open_client(instruments=[recorder]) as connection:
        await ask(connection, "Hello")
    assert len(Recording.read(path)) == 0
    assert caplog.records == []


async def test_a_file_that_the_caller_opened_stays_open(tmp_path: Path) -> None:
    with (tmp_path / "session.jsonl").open("w+b") as file:
        with Recorder(file):
            pass
        assert not file.closed
        file.seek(0)
        assert len(Recording.read(file)) == 0


async def test_one_recorder_may_record_two_connections(server: ResponsesServer) -> None:
    file = io.BytesIO()
    recorder = Recorder(file)
    async with (
        server.open_client(instruments=[recorder]) as one,
        server.open_client(instruments=[recorder]) as other,
    ):
        await ask(one, "a")
        await ask(other, "b")
    recording = Recording.parse(file.getvalue())
    assert [line.socket for line in recording if line.dir == "send"] == [1, 2]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"format":"trio-responses recording","version":2}\n', "has version 2, which a later"),
        (b'{"format":"another","version":1}\n', "not a recording: its format is 'another'"),
        (b'{"format":1}\n', "not a recording: line 1: Expected `str`, got `int`"),
        (b"no recording\n", "not a recording: line 1: JSON is malformed"),
        (b'\n{"t":0,"dir":"open"}\n\n{"t":"a","dir":"send"}\n', "line 4: Expected `float`"),
        (b"[]\n", "not a recording: line 1: Expected `object`, got `array`"),
    ],
)
async def test_a_file_that_is_no_recording_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        Recording.parse(data)


async def test_a_first_frame_with_a_format_field_is_not_the_header() -> None:
    frame = {"type": "response.create", "text": {"format": {"type": "text"}}}
    row = msgspec.json.encode({"t": 0.0, "dir": "send", "frame": frame})
    (line,) = Recording.parse(row + b"\n")
    assert line.json == frame


async def test_a_file_that_ends_after_its_header_is_an_empty_recording() -> None:
    header = b'{"format":"trio-responses recording","version":1}'
    assert [len(Recording.parse(header[:size])) for size in range(len(header) + 1)] == [0] * (
        len(header) + 1
    )


async def test_the_first_line_has_the_format_and_the_version(tmp_path: Path) -> None:
    path = tmp_path / "session.jsonl"
    with Recorder(path):
        pass
    header = msgspec.json.decode(path.read_bytes())
    assert header == {"format": "trio-responses recording", "version": 1}


async def test_a_full_disk_ends_the_recording_only(
    server: ResponsesServer, caplog: pytest.LogCaptureFixture
) -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            if self.tell() > 3_000:
                raise OSError(28, "No space left on device")
            return super().write(data)

    async with server.open_client(instruments=[Recorder(Full())]) as connection:
        assert await ask(connection, "Hello") == heard("Hello")
    assert [one.levelname for one in caplog.records] == ["ERROR"]
    assert (
        caplog.records[0]
        .getMessage()
        .startswith("instrument Recorder raised OSError in frames_received")
    )


async def test_injected_websocket_frames_are_recorded(server: ResponsesServer) -> None:
    file = io.BytesIO()
    async with server.open_client(instruments=[Recorder(file)]) as connection:
        server.answer().inject(WireBytes.frame(b'{"type":"keepalive"}'))
        await ask(connection, "Hello")
    assert {"type": "keepalive"} in [line.json for line in Recording.parse(file.getvalue())]
