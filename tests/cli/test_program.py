"""The command line as a user runs it: its output on stdout and stderr, and its exit codes.

Most tests call `main` in this process; those about signals, pipes and ports start a child process.
"""

import io
import json
import re
import shlex
import signal
import socket
import subprocess
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio

from tests.cli.cli_driver import (
    HANG_GUARD,
    Capture,
    Patch,
    Prepare,
    PrepareServer,
    hide_http_packages,
    running,
    serving,
    serving_in_thread,
)
from tests.testing.driver import run_over_sockets
from trio_responses import APIError, Endpoint, open_responses
from trio_responses._cli import demo, main
from trio_responses._cli import running as cli_running
from trio_responses._cli.arguments import parse_arguments
from trio_responses._cli.ask import NO_QUESTION
from trio_responses._cli.demo import Screen
from trio_responses._cli.server_choice import DEFAULT_MODEL
from trio_responses.testing import Reply, Request, ResponsesServer, open_test_server

# --- serve -------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_prints_its_url_answers_there_and_ends_by_a_signal_without_output(
    number: signal.Signals, capsys: Capture
) -> None:
    with serving() as (process, url):
        assert main(["ask", "--base-url", url, "Is anybody there?"]) == 0
        assert capsys.readouterr() == ('Turn 1: you said "Is anybody there?".\n', "")
        process.send_signal(number)
        assert process.communicate(timeout=HANG_GUARD) == ("", "")
        assert process.returncode == 0


def test_serve_with_a_key_rejects_every_other_key(capsys: Capture, monkeypatch: Patch) -> None:
    with serving_in_thread("--api-key", "right") as url:
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        monkeypatch.setenv("OPENAI_API_KEY", "wrong-key")
        assert main(["ask", "Hello"]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert re.fullmatch(r"error: .*401.*OPENAI_API_KEY.*\n", err)
        assert "wrong-key" not in err
        monkeypatch.setenv("OPENAI_API_KEY", "right")
        assert main(["ask", "Hello"]) == 0


@pytest.mark.parametrize(("option", "status"), [((), "failed"), (("--unknown-parameters",), "ok")])
def test_serve_rejects_unknown_parameters_without_the_option(
    option: tuple[str, ...], status: str, capsys: Capture
) -> None:
    with serving_in_thread(*option) as url:

        async def ask() -> str:
            async with open_responses(url, api_key="any", proxy=False) as connection:
                try:
                    await connection.create(model="m", input="hi", extra_body={"modle": "m"})
                except APIError as error:
                    return "failed" if "modle" in error.message else ""
                return "ok"

        assert trio.run(ask) == status
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("options", "over_http", "upgrade"),
    [
        ((), b"200", b"101"),
        (("--transport", "http"), b"200", b"405"),
        (("--transport", "websocket"), b"426", b"101"),
    ],
)
def test_serve_speaks_the_chosen_transports(
    options: tuple[str, ...], over_http: bytes, upgrade: bytes
) -> None:
    body = b'{"model":"m","input":"hi"}'
    post = b"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
    get = (
        b"GET /v1/responses HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    heads = (post % len(body) + body, get)
    with serving_in_thread(*options) as url:
        port = int(url.split(":")[2].removesuffix("/v1"))
        for head, status in zip(heads, (over_http, upgrade), strict=True):
            with socket.create_connection(("127.0.0.1", port), timeout=HANG_GUARD) as stream:
                stream.sendall(head)
                assert stream.recv(4096).startswith(b"HTTP/1.1 " + status)


def test_serve_with_a_maximum_age_closes_old_sockets(capsys: Capture) -> None:
    with serving_in_thread("--max-age", "0.2") as url:
        port = int(url.split(":")[2].removesuffix("/v1"))
        with socket.create_connection(("127.0.0.1", port), timeout=HANG_GUARD) as stream:
            stream.sendall(
                b"GET /v1/responses HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            received = b""
            while b"websocket_connection_limit_reached" not in received:
                data = stream.recv(4096)
                assert data, received
                received += data
    assert capsys.readouterr() == ("", "")


def test_a_port_in_use_is_one_line_on_stderr(capsys: Capture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["serve", "--port", str(port)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(rf"error: cannot listen on 127\.0\.0\.1 port {port}: .*in use\n", err)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *[("--port", port) for port in ("65536", "-1", "x")],
        *[("--max-age", age) for age in ("0", "-1", "nan", "inf", "soon")],
    ],
)
def test_serve_rejects_invalid_numbers(option: str, value: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["serve", f"{option}={value}"])
    assert refused.value.code == 2
    assert f"argument {option}" in capsys.readouterr().err


# --- ask ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [["ask", "Hello"], ["ask", "--base-url", "https://example.org/v1", "Hello"]]
)
def test_ask_without_a_key_lists_the_ways_to_continue(
    arguments: list[str], capsys: Capture
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: no API key is set for ")
    for way_out in ("OPENAI_API_KEY=", "--embedded", "--base-url http://127.0.0.1:"):
        assert way_out in err
    effects = ("use your key", "use the embedded", "use a server on")
    lines = err.splitlines()[1:]
    assert len({line.index(effect) for line, effect in zip(lines, effects, strict=True)}) == 1


@pytest.mark.parametrize("command", [[], ["ask"], ["chat"], ["conversations"]])
def test_every_command_shows_the_version(command: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command, "--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("trio-responses ")


def test_conversations_without_an_action_names_the_actions(capsys: Capture) -> None:
    assert main(["conversations"]) == 2
    assert ": list, show, export or delete (see " in capsys.readouterr().err


def test_ask_prints_each_piece_of_text_as_it_arrives(
    prepare_server: PrepareServer, monkeypatch: Patch
) -> None:
    shown: list[str] = []

    class Recorder(io.StringIO):
        def flush(self) -> None:
            shown.append(self.getvalue())
            self.seek(0)
            self.truncate()

    prepare_server(lambda server: server.reply("one two three"))
    monkeypatch.setattr(sys, "stdout", Recorder())
    assert main(["ask", "--embedded", "Count"]) == 0
    assert [text for text in shown if text] == ["one", " two", " three", "\n"]


def test_ask_sends_its_options_and_no_key_to_the_embedded_server(
    prepare_server: PrepareServer, monkeypatch: Patch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    servers = prepare_server(lambda _: None)
    options = ["--embedded", "--model", "gpt-9", "--instructions", "Be brief."]
    assert main(["ask", *options, "Hello"]) == 0
    (request,) = servers[0].requests
    assert request["model"] == "gpt-9"
    assert request["instructions"] == "Be brief."
    assert request["input"] == "Hello"
    assert "authorization" not in servers[0].connections[0].headers


def test_ask_reads_the_question_from_stdin_for_a_dash(capsys: Capture, monkeypatch: Patch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("from a pipe\n"))
    assert main(["ask", "--embedded", "-"]) == 0
    assert capsys.readouterr().out == 'Turn 1: you said "from a pipe".\n'


def test_ask_replaces_bytes_that_are_not_utf_8(capsys: Capture) -> None:
    assert main(["ask", "--embedded", "caf\udce9"]) == 0
    assert capsys.readouterr() == ('Turn 1: you said "caf?".\n', "")


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_ask_needs_a_question(text: str, capsys: Capture) -> None:
    assert main(["ask", "--embedded", text]) == 2
    assert capsys.readouterr() == (
        "",
        f"error: {NO_QUESTION}\n",
    )


def test_ask_json_prints_the_complete_response_as_one_object(capsys: Capture) -> None:
    assert main(["ask", "--embedded", "--json", "Grüße"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count("\n") == 1
    response: dict[str, Any] = json.loads(out)
    assert response["object"] == "response"
    assert response["status"] == "completed"
    assert response["model"] == DEFAULT_MODEL
    assert response["output"][0]["content"][0]["text"] == 'Turn 1: you said "Grüße".'
    assert response["usage"]["input_tokens"] == 1


def test_ask_prints_the_answer_of_a_server_that_sends_no_deltas(
    prepare_server: PrepareServer, capsys: Capture
) -> None:
    prepare_server(lambda server: server.reply("all at once", events="terminal"))
    assert main(["ask", "--embedded", "Hello"]) == 0
    assert capsys.readouterr().out == "all at once\n"


@pytest.mark.parametrize("events", ["all", "items", "terminal"])
def test_ask_prints_the_answer_without_commentary(
    events: Any, prepare_server: PrepareServer, capsys: Capture
) -> None:
    """Where the server sends events about the commentary, the commentary is on stderr."""
    commentary = ["I will check.", "\x1b[2JI see."]
    prepare_server(lambda server: server.reply("Warm.", commentary=commentary, events=events))
    assert main(["ask", "--embedded", "Hello"]) == 0
    shown = "commentary: I will check.\ncommentary: \\x1b[2JI see.\n"
    assert capsys.readouterr() == ("Warm.\n", "" if events == "terminal" else shown)


def test_ask_notes_commentary_without_an_answer(
    prepare_server: PrepareServer, capsys: Capture
) -> None:
    prepare_server(lambda server: server.reply(commentary=["I will check."]))
    assert main(["ask", "--embedded", "Hello"]) == 0
    note = "note: the model wrote commentary, but no answer\n"
    assert capsys.readouterr() == ("", "commentary: I will check.\n" + note)


def test_ask_adds_no_newline_to_an_answer_that_ends_with_one(
    prepare_server: PrepareServer, capsys: Capture
) -> None:
    prepare_server(lambda server: server.reply(chunks=["a line\n"]))
    assert main(["ask", "--embedded", "Hello"]) == 0
    assert capsys.readouterr().out == "a line\n"


def test_ask_notes_an_incomplete_answer(prepare_server: PrepareServer, capsys: Capture) -> None:
    prepare_server(lambda server: server.reply("cut sh", status="incomplete"))
    assert main(["ask", "--embedded", "Hello"]) == 0
    assert capsys.readouterr() == (
        "cut sh\n",
        "note: the answer is incomplete: max_output_tokens\n",
    )


def test_ask_notes_a_refusal(prepare_server: PrepareServer, capsys: Capture) -> None:
    refusal = {"type": "refusal", "refusal": "I would rather not."}
    item = {"type": "message", "role": "assistant", "id": "m", "content": [refusal]}
    response = {"id": "r", "status": "completed", "model": "m", "output": [item]}
    prepare_server(
        lambda server: server.answer([{"type": "response.completed", "response": response}])
    )
    assert main(["ask", "--embedded", "Hello"]) == 0
    assert capsys.readouterr() == ("", "note: the model refused: I would rather not.\n")


FAULTS: list[tuple[Prepare, str, str]] = [
    (lambda s: s.fail("server_error", message="Out\nof order."), "", "Out of order.*server_error"),
    (lambda s: s.reply("Oh", status="failed"), "Oh\n", "The response failed.*server_error"),
    (
        lambda s: s.drop(after_events=5),
        "Turn\n",
        "connection was lost.*the server had started to answer",
    ),
    (
        lambda s: s.drop(after_events=0),
        "",
        "connection was lost.*was sent, and the server may have",
    ),
    (lambda s: s.refuse(401), "", "401.*OPENAI_API_KEY"),
    (lambda s: s.refuse(404, times=2, over="both"), "", "request failed.*404"),
]


@pytest.mark.parametrize(("prepare", "text", "words"), FAULTS)
def test_an_error_is_one_line_on_stderr(
    prepare: Prepare,
    text: str,
    words: str,
    prepare_server: PrepareServer,
    capsys: Capture,
) -> None:
    prepare_server(prepare)
    assert main(["ask", "--embedded", "Hello"]) == 1
    out, err = capsys.readouterr()
    assert out == text
    assert re.fullmatch(rf"error: .*{words}.*\n", err)


def test_ask_tries_to_connect_three_times(capsys: Capture, monkeypatch: Patch) -> None:
    monkeypatch.setattr(cli_running, "RECONNECT", [0, 0])
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    assert main(["ask", "--base-url", f"http://127.0.0.1:{port}/v1", "Hello"]) == 1
    assert re.fullmatch(
        r"error: connection refused by .*gave up after 2 more attempts.*\n", capsys.readouterr().err
    )


def test_an_error_names_no_argument_that_only_a_program_can_pass(
    capsys: Capture, monkeypatch: Patch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    assert main(["ask", "--base-url", "http://models.test/v1", "Hello"]) == 2
    shown = capsys.readouterr().err
    assert shown.endswith(": use https://, or add --allow-insecure\n")
    assert "allow_insecure" not in shown


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/v1", "nonsense", "http://127.0.0.1:99999/v1"])
def test_an_invalid_url_is_an_error(url: str, capsys: Capture) -> None:
    assert main(["ask", "--base-url", url, "Hello"]) == 2
    assert re.fullmatch(r"error: .+\n", capsys.readouterr().err)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_ask_without_a_traceback(number: signal.Signals, code: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        deaf.settimeout(HANG_GUARD)
        port = deaf.getsockname()[1]
        with running("ask", "--base-url", f"http://127.0.0.1:{port}/v1", "Hello") as process:
            peer, _ = deaf.accept()
            with peer:
                process.send_signal(number)
                assert process.communicate(timeout=HANG_GUARD) == ("", "")
    assert process.returncode == code


# --- demo --------------------------------------------------------------------------------


def test_every_step_of_the_demo_passes(capsys: Capture, monkeypatch: Patch) -> None:
    monkeypatch.setattr(trio, "run", run_over_sockets)
    code = main(["demo"])
    out, err = capsys.readouterr()
    assert err == ""
    assert code == 0, out
    assert out.endswith(f"\ndemo: all {len(demo.STEPS)} steps passed\n")
    assert out.count(" ✓ ") == len(demo.STEPS)
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("transport", "skipped", "summary"),
    [("http", "26789", "5 of 10"), ("websocket", "9", "9 of 10")],
)
def test_the_demo_skips_the_steps_that_a_transport_does_not_have(
    transport: str, skipped: str, summary: str, capsys: Capture, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(trio, "run", run_over_sockets)
    assert main(["demo", "--transport", transport]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    reason = f" - skipped: this step does not run with --transport {transport}\n"
    numbers = re.findall(rf"^(\d+)\. .*\n{reason}", out, re.MULTILINE)
    assert numbers == list(skipped)
    assert f"\ndemo: {summary} steps passed, {len(numbers)} skipped\n" in out


def test_the_demo_continues_a_conversation_over_http_with_its_whole_history(
    capsys: Capture, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(trio, "run", run_over_sockets)
    [step] = [step for step in demo.STEPS if step.run is demo.go_over_to_http]
    monkeypatch.setattr(demo, "STEPS", [step])
    assert main(["demo"]) == 0
    out, _ = capsys.readouterr()
    answers = re.findall(r"^ +(websocket|http): Turn (\d)", out, re.MULTILINE)
    assert answers == [("websocket", "1"), ("websocket", "2"), ("http", "3"), ("http", "4")]
    assert re.search(r"~ .*TransportChanged to http: .*status 403", out)


def test_without_the_extra_the_demo_skips_http_and_names_the_extra(
    capsys: Capture, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(trio, "run", run_over_sockets)
    hide_http_packages(monkeypatch)
    assert main(["demo"]) == 0
    out, _ = capsys.readouterr()
    assert " - skipped: this step needs httpcore2: install the extra http: " in out
    assert out.endswith("\ndemo: 9 of 10 steps passed, 1 skipped\n")


@pytest.mark.parametrize("command", [["demo"], ["ask", "--embedded", "Hi"]])
def test_http_without_the_extra_is_an_error_that_names_it(
    command: list[str], capsys: Capture, monkeypatch: Patch
) -> None:
    hide_http_packages(monkeypatch)
    assert main([*command, "--transport", "http"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: --transport http needs httpcore2: install the extra http: pip ")
    assert err.count("\n") == 1


# --- Transports --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("transport", "used"), [("auto", "websocket"), ("websocket", "websocket"), ("http", "http")]
)
def test_ask_sends_its_request_by_the_transport_asked_for(
    transport: str, used: str, prepare_server: PrepareServer, capsys: Capture
) -> None:
    servers = prepare_server(lambda _: None)
    assert main(["ask", "--embedded", "--transport", transport, "Hi"]) == 0
    assert capsys.readouterr() == ('Turn 1: you said "Hi".\n', "")
    assert [request.transport for request in servers[0].requests] == [used]


def test_ask_uses_http_where_a_server_has_no_websocket_mode(capsys: Capture) -> None:
    with serving_in_thread("--transport", "http") as url:
        assert main(["ask", "--base-url", url, "Hi"]) == 0
        assert capsys.readouterr() == ('Turn 1: you said "Hi".\n', "")
        assert main(["ask", "--base-url", url, "--transport", "websocket", "Hi"]) == 1
        assert "the server speaks only HTTP" in capsys.readouterr().err


def test_without_the_extra_a_server_without_websocket_mode_is_an_error_that_names_it(
    capsys: Capture, monkeypatch: Patch
) -> None:
    hide_http_packages(monkeypatch)
    with serving_in_thread("--transport", "http") as url:
        assert main(["ask", "--base-url", url, "Hi"]) == 1
        assert "install the extra http" in capsys.readouterr().err


def test_a_closed_output_ends_the_demo_with_141_and_no_message() -> None:
    with running("demo") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=HANG_GUARD) == 141
        assert process.stderr.read() == ""


def lose_the_way(_: ResponsesServer) -> Endpoint:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    return Endpoint.compatible(f"http://127.0.0.1:{port}/v1")


def forget_lanes(server: ResponsesServer) -> Endpoint:
    return Endpoint.compatible(server.url, after_error="reuse")


def lie_about_the_weather(city: str) -> dict[str, Any]:
    return {"celsius": 40, "sky": city}


def know_no_weather(city: str) -> dict[str, Any]:
    raise KeyError(city)


def miscount(_: Request) -> Reply:
    return Reply("uno due tre quattro sei", delay=0.01)


def drop_nothing(_: ResponsesServer, **__: Any) -> None:
    """Leave the socket alone."""


def stall_instead(server: ResponsesServer, **_: Any) -> None:
    server.stall(after_events=7)


def never_grow_old(**_: float) -> AbstractAsyncContextManager[ResponsesServer]:
    return open_test_server(max_age=None)


def refuse_nothing(*_: object, **__: object) -> None:
    pass


class Sabotage(NamedTuple):
    """A replaced part of the demo, the steps to run, those that must fail, and the reason shown.

    The numbers of the steps are hexadecimal digits.

    The demo has no options, so that a test replaces its private functions.
    """

    owner: object
    name: str
    value: object
    steps: str
    broken: str
    reason: str


SABOTAGES = [
    Sabotage(
        demo, "_endpoint", lose_the_way, "12345678", "12345678", "gave up after 2 more attempts"
    ),
    Sabotage(demo, "get_weather", lie_about_the_weather, "1234", "4", "the answer: 'Turn 1: the"),
    Sabotage(demo, "get_weather", know_no_weather, "1234", "4", "KeyError: 'Oslo'"),
    Sabotage(demo, "_count_slowly", miscount, "145", "5", "the texts: "),
    Sabotage(demo, "_endpoint", forget_lanes, "15", "5", "turns among the first five pieces"),
    Sabotage(demo, "RECONNECT", (), "167", "67", "no other attempt was made"),
    Sabotage(ResponsesServer, "drop", drop_nothing, "16", "6", "although the socket was cut"),
    Sabotage(ResponsesServer, "drop", drop_nothing, "17", "7", "did not end within 60 s"),
    Sabotage(ResponsesServer, "drop", stall_instead, "16", "6", "did not end within 60 s"),
    Sabotage(demo, "open_test_server", never_grow_old, "8", "8", "did not end within 60 s"),
    # Nothing is replaced here: without steps 6 and 7 no socket is cut.
    Sabotage(demo, "INSTRUCTIONS", demo.INSTRUCTIONS, "1A", "A", "close codes: "),
    Sabotage(demo, "_endpoint", lose_the_way, "9", "9", "gave up after 2 more attempts"),
    Sabotage(ResponsesServer, "refuse", refuse_nothing, "9", "9", "did not end within 60 s"),
]


@pytest.mark.parametrize("sabotage", SABOTAGES)
def test_a_sabotaged_demo_names_the_steps_that_failed(
    sabotage: Sabotage, capsys: Capture, monkeypatch: Patch
) -> None:
    tried = [demo.STEPS[int(step, 16) - 1] for step in sabotage.steps]
    titles = [demo.STEPS[int(step, 16) - 1].title for step in sabotage.broken]
    monkeypatch.setattr(demo, "STEPS", tried)
    monkeypatch.setattr(trio, "run", run_over_sockets)
    monkeypatch.setattr(demo, "RECONNECT", [0, 0])
    monkeypatch.setattr(sabotage.owner, sabotage.name, sabotage.value)
    assert main(["demo"]) == 1
    out, err = capsys.readouterr()
    assert err == ""
    assert sabotage.reason in out
    last = out.splitlines()[-1]
    assert last.startswith(f"demo: {len(titles)} of {len(tried)} steps failed: ")
    assert [step.title for step in tried if f". {step.title}" in last] == titles


# --- All of them -------------------------------------------------------------------------


def test_help_has_examples(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    out = capsys.readouterr().out
    for example in ("trio-responses demo", "ask --embedded", "serve --port", "--base-url http"):
        assert example in out


@pytest.mark.parametrize(
    "command", ["chat", "ask", "probe", "serve", "record", "replay", "demo", "completion"]
)
def test_the_help_of_each_command_has_an_example(command: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    assert f"trio-responses {command}" in capsys.readouterr().out.partition("options:")[2]


def test_every_command_of_the_documentation_page_parses() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "command-line.md"
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    lines = "".join(blocks).splitlines()
    assert len(lines) > 10
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "trio-responses"
        parse_arguments(arguments)


@pytest.mark.parametrize("arguments", [["--debug", "ask"], ["ask", "--debug"]])
def test_debug_shows_the_traceback_of_an_error(arguments: list[str], capsys: Capture) -> None:
    assert main([*arguments, "--base-url", "ftp://127.0.0.1", "Hello"]) == 2
    _, err = capsys.readouterr()
    assert err.startswith("Traceback (most recent call last):\n")
    assert re.fullmatch(r"error: .*'ftp'", err.splitlines()[-1])


def test_the_version_is_that_of_the_package(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    assert re.fullmatch(r"trio-responses \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_the_command_line_imports_no_extra() -> None:
    """Rich and shtab are optional, and slow to import."""
    code = "import sys, trio_responses._cli\nprint(*sys.modules)"
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=HANG_GUARD,
    )
    imported = {name.partition(".")[0] for name in done.stdout.split()}
    assert "trio_responses" in imported
    assert imported & {"rich", "shtab"} == set()


@pytest.mark.parametrize("arguments", [[], ["--debug"]])
def test_without_a_command_the_help_is_printed(arguments: list[str], capsys: Capture) -> None:
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert out.startswith("usage: trio-responses")
    assert err == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["aks"], "argument COMMAND: invalid choice: 'aks' (did you mean 'ask'?)"),
        (["serve", "--prot", "1"], "unknown option --prot; did you mean --port?"),
        (["serve", "--zzz"], "unknown option --zzz"),
        (["serve", "a", "b"], "too many arguments: a b"),
        (["ask", "what", "is", "-x"], "put a question with such words into quotes"),
        (["ask", "--verbosity", "hihg"], "(did you mean 'high'?)"),
        (["ask", "--endpoint", "aws"], "(choose from openai, azure, xai, compatible)"),
        (["ask", "--temperature", "\x1b[2J"], "invalid float value: '\\x1b[2J'"),
    ],
)
def test_wrong_usage_is_one_line_with_a_suggestion(
    arguments: list[str], message: str, capsys: Capture
) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"error: .+ \(see trio-responses.* --help\)\n", err)
    assert message in err


# --- The screen --------------------------------------------------------------------------


def test_a_line_of_pieces_is_ended_by_the_next_line() -> None:
    out = io.StringIO()
    screen = Screen(out, colour=False)
    screen.stream("model: ", "one")
    screen.stream("model: ", " two")
    screen.notification("an event")
    screen.stream("model: ", "three")
    screen.line("done")
    lines = ["   model: one two", "   ~ an event", "   model: three", "   done", ""]
    assert out.getvalue() == "\n".join(lines)


def test_a_screen_with_colour_writes_ansi_codes() -> None:
    out = io.StringIO()
    Screen(out, colour=True).passed("well")
    assert "\x1b[1;32m" in out.getvalue()


def test_check_marks_are_words_in_an_encoding_without_them() -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    screen = Screen(out, colour=False)
    screen.passed("well")
    screen.failed("ill")
    out.seek(0)
    assert out.read() == " ok: well\n FAILED: ill\n"


def test_debug_shows_log_records() -> None:
    with running("--debug", "ask", "--embedded", "Hello") as process:
        _, err = process.communicate(timeout=HANG_GUARD)
    assert "DEBUG:trio_responses:turn 1 ended: completed" in err


def test_a_maximum_age_needs_the_embedded_server(capsys: Capture) -> None:
    assert main(["chat", "--base-url", "http://127.0.0.1:9/v1", "--max-age", "3"]) == 2
    assert capsys.readouterr() == (
        "",
        "error: --max-age is an option of the embedded server: add --embedded\n",
    )


def test_the_name_of_a_conversation_needs_a_store(capsys: Capture) -> None:
    assert main(["chat", "--embedded", "--key", "work"]) == 2
    assert capsys.readouterr() == (
        "",
        "error: --key is the name of a conversation in a store: add --store\n",
    )
