"""What ``ask`` sends as the question, and the answers that it prints as JSON."""

from __future__ import annotations

import base64
import io
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from trio_responses._cli import main
from trio_responses._cli.answer_schema import read_schema

if TYPE_CHECKING:
    from tests.cli.cli_driver import Capture, Patch, Prepare, PrepareServer


@pytest.fixture
def schema(folder: Path) -> str:
    """Return the name of a file with a schema."""
    (folder / "s.json").write_text(json.dumps(CITY))
    return "s.json"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: Patch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def question_of(capsys: Capture, *arguments: str) -> str:
    assert main(["ask", "--embedded", *arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out.removeprefix('Turn 1: you said "').removesuffix('".\n')


# --- Words and stdin ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "question"),
    [
        (["what", "is", "a", "nursery"], "what is a nursery"),
        (["--model", "m", "what", "is", "it"], "what is it"),
        (["what", "--model", "m", "is", "--instructions", "x", "it"], "what is it"),
        (["--", "--what", "is", "it"], "--what is it"),
        (["minus", "-5"], "minus -5"),
    ],
)
def test_the_words_are_the_question(arguments: list[str], question: str, capsys: Capture) -> None:
    assert question_of(capsys, *arguments) == question


@pytest.mark.parametrize(
    ("arguments", "question"),
    [
        (["Review", "this"], "Review this\n\na patch"),
        (["Review", "-"], "Review\n\na patch"),
        (["-"], "a patch"),
        ([], "a patch"),
    ],
)
def test_the_text_of_a_pipe_or_a_file_follows_the_words(
    arguments: list[str], question: str, folder: Path, capsys: Capture, monkeypatch: Patch
) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"a patch\n\n")
    os.close(writing)
    (folder / "patch").write_bytes(b"a patch\n\n")
    for stdin in (os.fdopen(reading), (folder / "patch").open()):
        with stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            assert question_of(capsys, *arguments) == question


def test_the_null_device_and_a_closed_stdin_are_not_read(
    capsys: Capture, monkeypatch: Patch
) -> None:
    with Path(os.devnull).open(encoding="utf-8") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert question_of(capsys, "Hi") == "Hi"
    assert question_of(capsys, "Hi") == "Hi"  # closed by now
    monkeypatch.setattr(sys, "stdin", None)
    assert question_of(capsys, "Hi") == "Hi"
    assert main(["ask", "--embedded"]) == 2
    assert capsys.readouterr().err.startswith("error: the question is empty")


# --- Files -------------------------------------------------------------------------------

IMAGES = {
    "image/png": b"\x89PNG\r\n\x1a\nxyz",
    "image/jpeg": b"\xff\xd8\xff\xe0",
    "image/gif": b"GIF89a",
    "image/webp": b"RIFF\x01\x02\x03\x04WEBPVP8 ",
}


def test_the_text_of_files_follows_the_question_with_their_names(
    folder: Path, capsys: Capture
) -> None:
    (folder / "a.txt").write_bytes("\ufeffGrüße\n\n".encode())
    (folder / "b.png").write_text("no image")
    a, b = '<file name="a.txt">\nGrüße\n</file>', '<file name="b.png">\nno image\n</file>'
    assert question_of(capsys, "--file", "a.txt", "See", "--file", "b.png") == f"See\n\n{a}\n\n{b}"
    assert question_of(capsys, "--file", "a.txt") == a


@pytest.mark.parametrize(("kind", "content"), IMAGES.items())
def test_images_and_pdf_files_are_content_parts(
    kind: str, content: bytes, folder: Path, prepare_server: PrepareServer, capsys: Capture
) -> None:
    (folder / "image").write_bytes(content)
    (folder / "text.pdf").write_bytes(b"%PDF-1.7 ...")
    (folder / "notes.md").write_text("notes")
    servers = prepare_server(lambda _: None)
    files = [part for name in ("image", "text.pdf", "notes.md") for part in ("--file", name)]
    assert main(["ask", "--embedded", *files, "What", "is", "this?"]) == 0
    assert capsys.readouterr().err == ""
    (message,) = servers[0].requests[0]["input"]
    text, image, pdf, notes = message["content"]
    encoded = base64.b64encode(content).decode()
    assert text == {"type": "input_text", "text": "What is this?"}
    assert image == {"type": "input_image", "image_url": f"data:{kind};base64,{encoded}"}
    pdf_data = base64.b64encode(b"%PDF-1.7 ...").decode()
    assert pdf == {
        "type": "input_file",
        "filename": "text.pdf",
        "file_data": f"data:application/pdf;base64,{pdf_data}",
    }
    assert notes["text"] == '<file name="notes.md">\nnotes\n</file>'


def test_an_image_alone_is_a_question(folder: Path, prepare_server: PrepareServer) -> None:
    (folder / "image").write_bytes(IMAGES["image/png"])
    servers = prepare_server(lambda _: None)
    assert main(["ask", "--embedded", "--file", "image"]) == 0
    (message,) = servers[0].requests[0]["input"]
    assert [part["type"] for part in message["content"]] == ["input_image"]


@pytest.mark.parametrize("content", [b"\xff\xfe", b"zip\0"])
def test_other_files_are_refused(content: bytes, folder: Path, capsys: Capture) -> None:
    (folder / "data.bin").write_bytes(content)
    assert main(["ask", "--embedded", "--file", "data.bin", "Hi"]) == 2
    assert capsys.readouterr().err.startswith("error: data.bin is neither text in UTF-8, nor a PNG")
    assert main(["ask", "--embedded", "--file", "none.txt", "Hi"]) == 2
    assert capsys.readouterr().err == "error: none.txt: No such file or directory\n"


# --- Schemas -----------------------------------------------------------------------------

CITY: dict[str, Any] = {
    "title": "A city!",
    "type": "object",
    "properties": {"name": {"type": "string"}},
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("content", "form"),
    [
        (CITY, {"name": "A_city_", "schema": CITY, "strict": True}),
        ({"schema": CITY}, {"name": "s", "schema": CITY}),
        (
            {"name": "n", "schema": CITY, "strict": False, "other": 1},
            {"name": "n", "schema": CITY, "strict": False},
        ),
        ({"type": "array"}, {"name": "s", "schema": {"type": "array"}, "strict": False}),
    ],
)
def test_the_schema_of_a_file_is_the_format_of_the_answer(
    content: Any, form: dict[str, Any], folder: Path
) -> None:
    (folder / "s.json").write_text(json.dumps(content))
    assert read_schema("s.json") == {"type": "json_schema", **form}


CHANGES: list[dict[str, Any]] = [
    {"additionalProperties": True},
    {"required": []},
    {"properties": {"name": {"properties": {}}}},
    {"properties": {"name": {"anyOf": [{"type": "object", "properties": {"a": {}}}]}}},
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_schema_that_strict_mode_refuses_is_not_sent_as_strict(
    change: dict[str, Any], folder: Path
) -> None:
    (folder / "s.json").write_text(json.dumps({**CITY, **change}))
    assert read_schema("s.json")["strict"] is False


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "error: s.json is not valid JSON"),
        ("[]", "error: s.json has no JSON schema: it holds no object"),
        ("import x", "error: s.json is not valid JSON: invalid character (byte 0)\n"),
        ('{"a": 1}', "error: s.json has no JSON schema: it has no"),
    ],
)
def test_a_file_without_a_schema_is_wrong_usage(
    content: str, message: str, folder: Path, capsys: Capture
) -> None:
    (folder / "s.json").write_text(content)
    assert main(["ask", "--embedded", "--schema", "s.json", "Hi"]) == 2
    assert capsys.readouterr().err.startswith(message)


def test_the_answer_to_a_schema_is_json(
    schema: str, prepare_server: PrepareServer, capsys: Capture
) -> None:
    servers = prepare_server(lambda _: None)
    options = ["--schema", schema, "--verbosity", "low"]
    assert main(["ask", "--embedded", *options, "The capital of Norway"]) == 0
    assert capsys.readouterr() == ('{"name":"Norway"}\n', "")
    text = servers[0].requests[0]["text"]
    assert text == {"verbosity": "low", "format": read_schema(schema)}


REFUSAL = {
    "type": "response.completed",
    "response": {
        "id": "r",
        "status": "completed",
        "model": "m",
        "output": [
            {
                "type": "message",
                "role": "assistant",
                "id": "m",
                "content": [{"type": "refusal", "refusal": "No."}],
            }
        ],
    },
}
FAULTS: list[tuple[Prepare, str, str]] = [
    (lambda s: s.reply('{"name":', status="incomplete"), '{"name":', "the answer is incomplete: "),
    (lambda s: s.reply("Oslo"), "Oslo", "the answer is not valid JSON: "),
    (lambda s: s.reply(commentary=["Hm."]), "", "the model wrote commentary, but no answer"),
    (lambda s: s.answer([REFUSAL]), "", "the model refused: No."),
    (lambda s: s.reply("{", status="failed"), "{", "the response resp_"),
]


@pytest.mark.usefixtures("schema")
@pytest.mark.parametrize(("prepare", "text", "message"), FAULTS)
def test_an_answer_that_is_no_json_is_an_error_without_output(
    prepare: Prepare,
    text: str,
    message: str,
    prepare_server: PrepareServer,
    capsys: Capture,
) -> None:
    prepare_server(prepare)
    assert main(["ask", "--embedded", "--schema", "s.json", "Hi"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert f"error: {message}" in err
    prepare_server(prepare)
    assert main(["ask", "--embedded", "--schema", "s.json", "--stream", "Hi"]) == 1
    assert capsys.readouterr().out == (f"{text}\n" if text else "")


def test_without_streaming_the_answer_is_printed_at_its_end(
    prepare_server: PrepareServer, monkeypatch: Patch
) -> None:
    shown: list[str] = []

    class Recorder(io.StringIO):
        def flush(self) -> None:
            shown.append(self.getvalue())

    prepare_server(lambda server: server.reply("one two three"))
    monkeypatch.setattr(sys, "stdout", Recorder())
    assert main(["ask", "--embedded", "--no-stream", "Count"]) == 0
    assert shown == ["one two three", "one two three\n"]
