"""Recordings on the command line: writing them, and a server that answers from one."""

from __future__ import annotations

import io
import re
import shlex
import signal
import socket
import stat
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.cli.cli_driver import (
    HANG_GUARD,
    clear_environment,
    running,
    serving,
    serving_in_thread,
)
from tests.testing.driver import NO_WAITING
from trio_responses import ConfigurationError, Recorder, Recording
from trio_responses._cli import main
from trio_responses._cli import running as cli_running
from trio_responses._cli.serve import load_recording

if TYPE_CHECKING:
    from tests.cli.cli_driver import Capture, Patch, PrepareServer
    from trio_responses.testing import ResponsesServer

ROOT = Path(__file__).resolve().parents[2]
ENDED = "response.completed"
USED_UP = (
    "note: the recording has no more requests: further ones get answers that are not recorded\n"
)
REQUEST = '{"t":0,"dir":"send","frame":{"type":"response.create","model":"m","input":"Hi"}}\n'


@pytest.fixture(autouse=True)
def folder_of_our_own(monkeypatch: Patch, tmp_path: Path) -> None:
    clear_environment(monkeypatch)
    monkeypatch.chdir(tmp_path)


def sent_in(path: str) -> list[Any]:
    return [line.json for line in Recording.read(path) if line.dir == "send"]


def received_in(path: str) -> list[Any]:
    """Give what came, but for the lane: that is the request's own."""
    frames = [line.json for line in Recording.read(path) if line.dir == "recv"]
    return [{name: one[name] for name in one if name != "stream_id"} for one in frames]


def note_on(path: str) -> str:
    sent, received = len(sent_in(path)), len(received_in(path))
    return f"note: recorded into {path}: {sent} sent, {received} received\n"


def refused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port: int = other.getsockname()[1]
    return port


# --- record ------------------------------------------------------------------------------


def test_record_asks_one_conversation_and_records_its_messages(
    prepare_server: PrepareServer, capsys: Capture
) -> None:
    prepare_server(lambda _: None)
    options = ["--embedded", "--model", "gpt-9", "--instructions", "Be brief."]
    assert main(["record", "two.jsonl", *options, "Hello", "And you?"]) == 0
    assert capsys.readouterr() == (
        'Turn 1: you said "Hello".\nTurn 2: you said "And you?".\n',
        note_on("two.jsonl"),
    )
    first, second = sent_in("two.jsonl")
    assert (first["model"], first["instructions"]) == ("gpt-9", "Be brief.")
    ends = [one["response"]["id"] for one in received_in("two.jsonl") if one["type"] == ENDED]
    assert second["previous_response_id"] == ends[0]
    assert len(ends) == 2
    assert stat.S_IMODE(Path("two.jsonl").stat().st_mode) == 0o600


def test_record_reads_a_question_from_stdin_for_a_dash(capsys: Capture, monkeypatch: Patch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("from a pipe\n"))
    assert main(["record", "--embedded", "pipe.jsonl", "Hello", "-"]) == 0
    assert 'you said "from a pipe"' in capsys.readouterr().out


def test_an_existing_file_is_overwritten_only_with_force(capsys: Capture) -> None:
    Path("mine.txt").write_text("precious", encoding="utf-8")
    assert main(["record", "--embedded", "mine.txt", "Hello"]) == 1
    words = "error: mine.txt already exists: --force overwrites it\n"
    assert capsys.readouterr() == ("", words)
    assert Path("mine.txt").read_text(encoding="utf-8") == "precious"
    assert main(["record", "--embedded", "--force", "mine.txt", "Hello"]) == 0
    assert [one["input"][0]["content"] for one in sent_in("mine.txt")] == ["Hello"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["record", "none.jsonl", "Hello"],
        ["ask", "--record", "none.jsonl", "Hello"],
        ["chat", "--record", "none.jsonl"],
    ],
)
def test_without_a_connection_no_file_is_left(
    arguments: list[str], capsys: Capture, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(cli_running, "RECONNECT", [])
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello\n"))
    assert main([*arguments, "--base-url", f"http://127.0.0.1:{refused_port()}/v1"]) == 1
    assert re.fullmatch(r"error: connection refused by .*\n", capsys.readouterr().err)
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("arguments", [["none.jsonl", "Hello"], ["--embedded", "none.jsonl", " "]])
def test_wrong_usage_creates_no_file(arguments: list[str]) -> None:
    assert main(["record", *arguments]) == 2
    assert list(Path().iterdir()) == []


def test_an_error_ends_the_questions_and_is_in_the_recording(
    prepare_server: PrepareServer, capsys: Capture
) -> None:
    def fail_second(server: ResponsesServer) -> None:
        server.reply("one")
        server.fail("server_error", message="Out of order.")

    prepare_server(fail_second)
    assert main(["record", "--embedded", "failed.jsonl", "1", "2", "3"]) == 1
    out, err = capsys.readouterr()
    assert out == "one\n"
    assert err.startswith(note_on("failed.jsonl") + "error: ")
    assert len(sent_in("failed.jsonl")) == 2
    assert received_in("failed.jsonl")[-1]["error"]["message"] == "Out of order."


def test_a_failed_response_is_an_error(prepare_server: PrepareServer, capsys: Capture) -> None:
    prepare_server(lambda server: server.reply("Oh", status="failed"))
    assert main(["record", "--embedded", "failed.jsonl", "1", "2"]) == 1
    assert re.search(r"^error: .*server_error", capsys.readouterr().err, re.MULTILINE)


def test_a_recording_that_cannot_be_written_completely_is_an_error(capsys: Capture) -> None:
    resource: Any = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))
    try:
        assert main(["record", "--embedded", "full.jsonl", "Hello"]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    out, err = capsys.readouterr()
    assert out == 'Turn 1: you said "Hello".\n'
    assert err == "error: the recording in full.jsonl is incomplete: File too large\n"


# --- ask and chat ------------------------------------------------------------------------


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_ask_records_into_the_given_file(more: list[str], capsys: Capture) -> None:
    assert main(["ask", "--embedded", "--record", "hello.jsonl", *more, "Hello"]) == 0
    assert capsys.readouterr().err == note_on("hello.jsonl")
    [request] = sent_in("hello.jsonl")
    assert request["input"] == "Hello"
    assert main(["ask", "--embedded", "--record", "hello.jsonl", "Hello"]) == 1
    assert main(["ask", "--embedded", "--record", "hello.jsonl", "--force", "Again"]) == 0
    assert sent_in("hello.jsonl")[0]["input"] == "Again"


def test_chat_records_tool_outputs(capsys: Capture, monkeypatch: Patch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hi\nWhat is 6 * 7?\n"))
    assert main(["chat", "--embedded", "--demo-tools", "--record", "tools.jsonl"]) == 0
    assert capsys.readouterr().err.endswith(note_on("tools.jsonl"))
    _, _, answered = sent_in("tools.jsonl")
    assert [item["type"] for item in answered["input"]] == ["function_call_output"]


def test_recording_does_not_change_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    logs: list[list[str]] = []
    for options in ([], ["--record", "hello.jsonl"]):
        caplog.clear()
        assert main(["ask", "--embedded", *options, "Hello"]) == 0
        logs.append([record.msg for record in caplog.records if record.name == "trio_responses"])
    assert logs[0] == logs[1] != []


# --- replay ------------------------------------------------------------------------------


def test_replay_repeats_the_answers_and_records_no_key(
    prepare_server: PrepareServer, capsys: Capture, monkeypatch: Patch
) -> None:
    prepare_server(lambda server: (server.reply("first answer"), server.reply("second answer")))
    assert main(["record", "--embedded", "two.jsonl", "1", "2"]) == 0
    assert capsys.readouterr().out == "first answer\nsecond answer\n"
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-replay")
    with serving("two.jsonl", "--api-key", "sk-of-the-replay", command="replay") as (process, url):
        for question in ("what", "ever"):
            assert main(["ask", "--base-url", url, "--record", f"{question}.jsonl", question]) == 0
        assert capsys.readouterr().out == "first answer\nsecond answer\n"
        assert received_in("what.jsonl") + received_in("ever.jsonl") == received_in("two.jsonl")
        assert b"sk-of-the-replay" not in Path("what.jsonl").read_bytes()
        for _ in range(2):
            assert main(["ask", "--base-url", url, "beyond"]) == 0
            assert capsys.readouterr().out == 'Turn 1: you said "beyond".\n'
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=HANG_GUARD) == ("", USED_UP)
        assert process.returncode == 0


def test_replay_closes_a_socket_where_the_recorded_server_did(
    prepare_server: PrepareServer, capsys: Capture
) -> None:
    prepare_server(lambda server: server.drop(after_events=6))
    assert main(["record", "--embedded", "cut.jsonl", "Hello"]) == 1
    assert capsys.readouterr().out == "Turn 1:\n"
    with serving_in_thread("cut.jsonl", command="replay") as url:
        assert main(["ask", "--base-url", url, "Hello"]) == 1
        assert capsys.readouterr().out == "Turn 1:\n"


def test_replay_ends_the_socket_where_the_recording_was_cut(
    prepare_server: PrepareServer, capsys: Capture
) -> None:
    prepare_server(lambda server: server.reply("first answer"))
    assert main(["record", "--embedded", "cut.jsonl", "Hello"]) == 0
    lines = Path("cut.jsonl").read_bytes().splitlines(keepends=True)
    Path("cut.jsonl").write_bytes(b"".join(lines[:6]) + lines[6][:40])
    capsys.readouterr()
    with serving_in_thread("cut.jsonl", command="replay") as url:
        assert main(["ask", "--base-url", url, "Hello"]) == 1
        assert "the connection was lost" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")
def test_an_overwritten_recording_is_not_one_that_another_program_writes(
    capsys: Capture, prepare_server: PrepareServer
) -> None:
    prepare_server(lambda server: server.reply("first answer"))
    with Recorder("one.jsonl"):
        before = Path("one.jsonl").read_bytes()
        assert main(["record", "--embedded", "--force", "one.jsonl", "Hello"]) != 0
        assert Path("one.jsonl").read_bytes() == before
    assert "another Recorder writes to 'one.jsonl'" in capsys.readouterr().err


@NO_WAITING
@pytest.mark.parametrize(("timing", "seconds"), [(True, 5.0), (False, 0.0)])
async def test_timing_sends_each_message_with_its_recorded_delay(
    timing: bool,  # noqa: FBT001 - a parameter of the test
    seconds: float,
    server: ResponsesServer,
) -> None:
    response: dict[str, Any] = {"id": "r", "status": "completed", "model": "m", "output": []}
    end = f'{{"type":"response.completed","response":{response}}}'.replace("'", '"')
    recording = Recording.parse(f'{REQUEST}{{"t":5,"dir":"recv","frame":{end}}}\n'.encode())
    load_recording(server, recording=recording, name="five.jsonl", timing=timing)
    since = trio.current_time()
    async with server.open_client() as connection:
        assert (await connection.create(model="m", input="Hello")).id == "r"
    assert trio.current_time() - since == pytest.approx(seconds)


@NO_WAITING
async def test_a_recording_without_requests_is_an_error(server: ResponsesServer) -> None:
    with pytest.raises(ConfigurationError, match="none has no request"):
        load_recording(server, recording=Recording.parse(b""), name="none", timing=False)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, r"it: No such file or directory"),
        (b"", r"it has no request, so there is nothing to replay: record a turn first"),
        (
            b"\x7fELF\x00\n",
            r"not a recording: line 1: JSON is malformed: .*; choose a file that record or .*",
        ),
        (
            b'{"format":"trio-responses recording","version":9}\n',
            r"the recording has version 9, which a later release wrote; this .*",
        ),
    ],
)
def test_an_unusable_recording_is_one_line_on_stderr(
    content: bytes | None, words: str, capsys: Capture
) -> None:
    if content is not None:
        Path("it").write_bytes(content)
    assert main(["replay", "it"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(rf"error: {words}\n", err)


def test_a_port_in_use_is_one_line_on_stderr(capsys: Capture) -> None:
    Path("hi.jsonl").write_text(REQUEST, encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["replay", "hi.jsonl", "--port", str(port)]) == 1
    _, err = capsys.readouterr()
    assert re.fullmatch(rf"error: cannot listen on 127\.0\.0\.1 port {port}: .*in use\n", err)


# --- What the page shows -----------------------------------------------------------------


def test_the_commands_of_the_page_on_recordings_work(capsys: Capture, monkeypatch: Patch) -> None:
    page = (ROOT / "docs" / "recording.md").read_text(encoding="utf-8")
    [block] = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    record, replay, ask = (shlex.split(line) for line in block.splitlines())
    assert {record[0], replay[0], ask[0]} == {"trio-responses"}
    with serving_in_thread() as url:
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        assert main(record[1:]) == 0
        printed = capsys.readouterr().out.splitlines()
    monkeypatch.delenv("OPENAI_BASE_URL")
    here = f"http://127.0.0.1:{replay[replay.index('--port') + 1]}/v1"
    replay[replay.index("--port") + 1] = "0"
    assert ask[ask.index("--base-url") + 1] == here
    with serving_in_thread(*replay[2:], command=replay[1]) as url:
        ask[ask.index("--base-url") + 1] = url
        assert main(ask[1:]) == 0
    assert capsys.readouterr().out.splitlines() == printed[:1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_record_and_leaves_the_messages_so_far(
    number: signal.Signals, code: int
) -> None:
    end = '{"t":9999,"dir":"close","by":"client"}\n'
    Path("slow.jsonl").write_text(REQUEST + end, encoding="utf-8")
    with serving_in_thread("slow.jsonl", "--timing", command="replay") as url:  # noqa: SIM117 - one needs the other
        with running("record", "--base-url", url, "cut.jsonl", "Hello") as process:
            while not (Path("cut.jsonl").exists() and sent_in("cut.jsonl")):
                assert process.poll() is None
                time.sleep(0.01)
            process.send_signal(number)
            out, err = process.communicate(timeout=HANG_GUARD)
    assert (out, err) == ("", note_on("cut.jsonl"))
    assert process.returncode == code


@pytest.mark.parametrize("transport", ["auto", "websocket", "http"])
def test_a_recording_has_the_same_messages_over_each_transport(
    transport: str, tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "hello.jsonl"
    assert main(["record", "--embedded", "--transport", transport, str(path), "Hi", "Ho"]) == 0
    out, err = capsys.readouterr()
    assert out == 'Turn 1: you said "Hi".\nTurn 2: you said "Ho".\n'
    assert "2 sent, " in err
    assert path.read_text().count("response.completed") == 2
