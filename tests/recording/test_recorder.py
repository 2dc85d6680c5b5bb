"""A recording has all frames, and no key (P9)."""

from __future__ import annotations

import errno
import io
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest
import trio

from tests.testing.driver import NO_WAITING
from tests.turn.rig import STEADY, ask, heard
from trio_responses import ConfigurationError, Limits, Recorder, Recording, ResponsesError
from trio_responses.testing import WireBytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_responses.testing import ResponsesServer
    from trio_responses.typing import RecordingLine

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


# --- Files that cannot take a recording -----------------------------------------------------------

ON_POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")


def same_name(path: Path) -> Path:
    return path


def symlink(path: Path) -> Path:
    other = path.with_name("symlink.jsonl")
    other.symlink_to(path)
    return other


def hard_link(path: Path) -> Path:
    other = path.with_name("link.jsonl")
    other.hardlink_to(path)
    return other


@ON_POSIX
@pytest.mark.parametrize("name", [same_name, symlink, hard_link])
async def test_two_recorders_do_not_write_to_one_file(
    server: ResponsesServer, tmp_path: Path, name: Callable[[Path], Path]
) -> None:
    path = tmp_path / "session.jsonl"
    with Recorder(path) as recorder:
        async with server.open_client(instruments=[recorder]) as connection:
            await ask(connection, "Hello")
            with pytest.raises(ConfigurationError, match=r"another Recorder writes to .*jsonl"):
                Recorder(name(path))
            with path.open("r+b") as file, pytest.raises(ConfigurationError, match="another Rec"):
                Recorder(file)
            await ask(connection, "Hello again")
    assert directions(Recording.read(path)).count("send") == 2
    with Recorder(path):
        pass
    assert len(Recording.read(path)) == 0


@ON_POSIX
async def test_two_processes_do_not_record_into_one_file(tmp_path: Path) -> None:
    path = tmp_path / "session.jsonl"
    program = "import sys, trio_responses; trio_responses.Recorder(sys.argv[1])"
    with Recorder(path):
        command = [sys.executable, "-c", program, str(path)]
        other = subprocess.run(command, capture_output=True, check=False)  # noqa: ASYNC221, S603
    assert other.returncode == 1
    assert b"another Recorder writes to" in other.stderr
    assert len(Recording.read(path)) == 0


@ON_POSIX
async def test_a_closed_recorder_leaves_the_file_of_the_caller_to_others(tmp_path: Path) -> None:
    path = tmp_path / "session.jsonl"
    with path.open("wb") as file:
        with Recorder(file), pytest.raises(ConfigurationError, match="another Recorder"):
            Recorder(path)
        with Recorder(path):
            pass


@pytest.mark.parametrize("mode", ["ab", "r+b"])
async def test_a_recording_is_not_appended_to_something_else(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "session.jsonl"
    with Recorder(path):
        pass
    size = path.stat().st_size
    with path.open(mode) as file:
        file.seek(0, io.SEEK_END)
        with pytest.raises(ConfigurationError, match=f"has {size} bytes already"):
            Recorder(file)
    assert path.stat().st_size == size


async def test_a_second_recorder_on_one_open_file_is_refused() -> None:
    file = io.BytesIO()
    Recorder(file)
    with pytest.raises(ConfigurationError, match="has 50 bytes already"):
        Recorder(file)


async def test_a_recorder_on_a_directory_says_so(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=re.escape(str(tmp_path))):
        Recorder(tmp_path)


async def test_a_recording_in_a_file_that_exists_replaces_its_content(tmp_path: Path) -> None:
    path = tmp_path / "session.jsonl"
    path.write_bytes(b"something longer than the first line of a recording" * 3)
    with Recorder(path):
        pass
    assert path.read_bytes() == b'{"format":"trio-responses recording","version":1}\n'


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has this file")
async def test_a_recorder_on_a_full_disk_is_refused_and_closes_the_file() -> None:
    with pytest.raises(OSError, match="No space left"):
        Recorder("/dev/full")


async def test_a_recording_that_is_incomplete_is_reported_at_its_end(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "session.jsonl")
    fill_disk(recorder)
    with pytest.raises(OSError, match=r"incomplete: No space left.*session\.jsonl"):
        recorder.close()
    recorder.close()


async def test_an_incomplete_recording_does_not_replace_the_exception_of_its_block(
    tmp_path: Path,
) -> None:
    path = tmp_path / "session.jsonl"
    with pytest.raises(ValueError, match="of the block") as caught, Recorder(path) as recorder:  # noqa: PT012
        fill_disk(recorder)
        raise ValueError("of the block")
    assert "incomplete: No space left" in caught.value.__notes__[0]


def fill_disk(recorder: Recorder) -> None:
    """Let the file of a recorder fail when it is closed: no disk can be filled in a test."""
    owned = cast("io.BufferedWriter", recorder._owned)
    recorder._owned = FullFile(owned.detach())


class FullFile(io.BufferedWriter):
    """A file whose last bytes have no room."""

    def close(self) -> None:
        if not self.closed:
            super().close()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
