"""The examples of the README, of the page about conversations and of the page about tools."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import trio_responses
from tests.pytest_runs import run_pytest
from tests.testing.driver import NO_WAITING
from tests.turn.rig import created, ended, item_done, message
from trio_responses.testing import default_answer, open_test_server

if TYPE_CHECKING:
    from trio_responses import ResponsesConnection
    from trio_responses.testing import Request

ROOT = Path(__file__).resolve().parent.parent


def examples(page: str, language: str = "python") -> list[str]:
    """Return the code blocks of a page in a language."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


FIRST, CONVERSATION, TOOLS, TEST = examples("README.md")
DELTA, LOSS, AGAIN, WITHOUT_REASONING, WITHOUT_FILES, *REST = examples("docs/conversations.md")
FORK, STEERING, COMPACTION, TRIMMING, CHECKPOINT, ROTATION = REST
RUN = examples("docs/tools.md")[0]


def example_of(tools: str) -> str:
    """Return the first block of the page about tools that contains a text."""
    return next(block for block in examples("docs/tools.md") if tools in block)


RUN_STREAM, CONTEXT = example_of("run_stream("), example_of("context: ToolContext[Database]")
APPROVAL, HANDLERS = example_of("approve=approve"), example_of("handlers=")
ERRORS, ANSWERS = example_of('on_tool_error="raise"'), example_of("conversation.parse(")
PYDANTIC = example_of("class City(")


async def run(example: str, connection: ResponsesConnection | None = None) -> None:
    """Run a block inside an async function with the parameter ``connection``."""
    lines = "".join(f"    {line}\n" for line in example.splitlines())
    namespace: dict[str, Any] = {}
    exec(f"async def example(connection):\n{lines}", namespace)  # noqa: S102 - the page is part of this repository
    await namespace["example"](connection)


@NO_WAITING
async def test_the_first_example_streams_its_answers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with open_test_server() as server:
        monkeypatch.setattr(trio_responses, "open_responses", server.open_client)
        namespace: dict[str, Any] = {}
        exec(FIRST.replace("trio.run(main)", ""), namespace)  # noqa: S102 - the page is part of this repository
        await namespace["main"]()
    said = capsys.readouterr().out
    assert said == (
        'Turn 1: you said "What is a nursery in Trio?".\nTurn 2: you said "Shorter, please".'
    )


@NO_WAITING
async def test_the_conversation_sends_the_new_items_only() -> None:
    async with open_test_server() as server, server.open_client() as connection:
        await run(CONVERSATION, connection)
        assert [len(request.body["input"]) for request in server.requests] == [1, 1]
        assert server.requests[1].turn == 2


def test_the_test_runs_in_another_folder(tmp_path: Path) -> None:
    (configuration,) = examples("README.md", "toml")
    (tmp_path / "pyproject.toml").write_text(configuration, encoding="utf-8")
    (tmp_path / "test_weather.py").write_text(TEST, encoding="utf-8")
    other = TEST.replace("sunny", "rainy", 1)
    (tmp_path / "test_other_weather.py").write_text(other, encoding="utf-8")
    report = run_pytest(tmp_path, "-v").stdout
    assert re.search(r"^test_weather.py::\w+ PASSED", report, re.MULTILINE)
    assert re.search(r"^test_other_weather.py::\w+ FAILED", report, re.MULTILINE)
    assert "1 failed, 1 passed" in report


# --- Tools -------------------------------------------------------------------------------

SUNNY = "Turn 1: the tool returned sunny in Oslo, for 1 day.\n"


@pytest.mark.parametrize("example", [TOOLS, RUN])
@NO_WAITING
async def test_a_tool_is_run_in_under_twenty_lines(
    example: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len([line for line in example.splitlines() if line]) < 20
    async with open_test_server() as server, server.open_client() as connection:
        await run(example, connection)
    assert capsys.readouterr().out == SUNNY


@NO_WAITING
async def test_a_run_shows_its_tools(capsys: pytest.CaptureFixture[str]) -> None:
    async with open_test_server() as server, server.open_client() as connection:
        await run(RUN_STREAM, connection)
    assert capsys.readouterr().out == (
        '[get_weather ... done]\nTurn 1: the tool returned {"degrees":21.5}. 2 responses\n'
    )


@NO_WAITING
async def test_a_tool_gets_its_context(capsys: pytest.CaptureFixture[str]) -> None:
    async with open_test_server() as server, server.open_client() as connection:
        await run(CONTEXT, connection)
        assert list(server.requests[0].tools[0]["parameters"]["properties"]) == ["number"]
    assert capsys.readouterr().out == (
        "get_order: reading\nTurn 1: the tool returned order Seven is paid.\n"
    )


@NO_WAITING
async def test_a_call_without_approval_does_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    async with open_test_server() as server, server.open_client() as connection:
        await run(APPROVAL, connection)
    assert capsys.readouterr().out == (
        'delete_file with {"path":"Notes"}: no\n'
        "Turn 1: the tool returned The user does not want that..\n"
    )


@NO_WAITING
async def test_a_custom_tool_has_a_handler(capsys: pytest.CaptureFixture[str]) -> None:
    call = {"type": "custom_tool_call", "id": "ctc_1", "call_id": "1", "name": "run_sql"}
    item = {**call, "input": "select count(*)"}

    def answer(request: Request) -> Any:
        if len(request.history) > 1:
            return default_answer(request)
        place = {} if request.lane is None else {"stream_id": request.lane}
        frames = [created(), item_done(item), ended([item])]
        return [{**frame, **place} for frame in frames]

    async with open_test_server() as server, server.open_client() as connection:
        server.respond_with(answer)
        await run(HANDLERS, connection)
    assert capsys.readouterr().out == ("Turn 1: the tool returned 3 rows for select count(*).\n")


@NO_WAITING
async def test_an_error_of_a_tool_is_sent_or_raised(capsys: pytest.CaptureFixture[str]) -> None:
    async with open_test_server() as server, server.open_client() as connection:
        await run(ERRORS, connection)
        assert len(server.requests) == 4
        assert server.requests[3].history[-1]["output"] == "Error: LookupError: no station in Rome"
    assert capsys.readouterr().out == (
        "Turn 1: the tool returned Error: LookupError: no station in Oslo.\n"
        "mine: no station in Rome\n"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"city": "Oslo", "degrees": 21.5}', "21.5 resp_"),
        ("Warm.", "That is no Weather: Warm.\n"),
    ],
)
@NO_WAITING
async def test_a_parsed_answer_has_a_type(
    text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with open_test_server() as server, server.open_client() as connection:
        server.reply(text)
        await run(ANSWERS, connection)
    assert capsys.readouterr().out.startswith(said)


@NO_WAITING
async def test_models_of_pydantic_are_parameters_results_and_answers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (output,) = (each for each in examples("docs/tools.md", "output") if each.endswith("City\n"))
    async with open_test_server() as server, server.open_client() as connection:
        await run(PYDANTIC, connection)
        assert server.requests[0].body["text"]["format"]["name"] == "City"
    assert capsys.readouterr().out == output


# --- Conversations -----------------------------------------------------------------------


@NO_WAITING
async def test_the_second_turn_is_a_delta(capsys: pytest.CaptureFixture[str]) -> None:
    async with open_test_server() as server, server.open_client() as connection:
        await run(DELTA, connection)
    assert capsys.readouterr().out == "1 in full, 1 as deltas\n"


@NO_WAITING
async def test_a_lost_turn_can_be_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    async with open_test_server() as server, server.open_client() as connection:
        server.answer()
        server.drop(after_events=3)
        await run(LOSS, connection)
    said = capsys.readouterr().out
    assert said == 'it may have run: accepted\nTurn 2: you said "What is my name?".\n'


@NO_WAITING
async def test_a_lost_turn_is_sent_again_with_at_least_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with open_test_server() as server, server.open_client() as connection:
        server.drop(after_events=3)
        await run(AGAIN, connection)
        assert len(server.requests) == 2
    assert capsys.readouterr().out == 'Turn 1: you said "What is a nursery?".\n'


@NO_WAITING
async def test_refused_reasoning_is_left_out_for_good() -> None:
    async with open_test_server() as server, server.open_client() as connection:
        server.fail("invalid_encrypted_content", status=400)
        await run(WITHOUT_REASONING, connection)
        assert len(server.requests) == 2


@NO_WAITING
async def test_a_history_is_replaced_without_its_files() -> None:
    async with open_test_server() as server, server.open_client() as connection:
        await run(WITHOUT_FILES, connection)
        assert len(server.requests) == 1


@NO_WAITING
async def test_a_fork_and_its_source_go_on_as_deltas() -> None:
    async with open_test_server() as server, server.open_client() as connection:
        await run(FORK, connection)
        assert [len(request.input_items) for request in server.requests] == [1, 1, 1]
        assert [request.turn for request in server.requests] == [1, 2, 2]


@NO_WAITING
async def test_a_steered_response_goes_on_with_a_successor(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with open_test_server() as server, server.open_client() as connection:
        server.reply("A poem, ", more=["and another one."], delay=0.1)
        server.reply("A haiku.")
        await run(STEERING, connection)
    assert capsys.readouterr().out.endswith("A haiku.committed 2\n")


@NO_WAITING
async def test_an_adopted_history_begins_a_new_chain() -> None:
    async with open_test_server() as server, server.open_client() as connection:
        await run(COMPACTION, connection)
        assert [len(request.input_items) for request in server.requests] == [1, 3]


@NO_WAITING
async def test_a_history_may_begin_at_the_latest_compaction() -> None:
    output = [{"type": "compaction", "id": "cmp_1", "encrypted_content": "gAAA"}, message("Hi.")]
    async with open_test_server(lanes=False) as server, server.open_client() as connection:
        server.answer([created(), *map(item_done, output), ended(output)])
        await run(TRIMMING, connection)
    kinds = [item["type"] for item in server.last_request.input_items]
    assert kinds == ["compaction", "message", "message"]


@NO_WAITING
async def test_a_checkpoint_goes_on_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    async with open_test_server() as server, server.open_client() as connection:
        await run(CHECKPOINT, connection)
        assert [len(request.input_items) for request in server.requests] == [1, 3]
    assert capsys.readouterr().out == 'Turn 2: you said "What is my name?".\n'


@NO_WAITING
async def test_a_rotation_policy_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_test_server() as server:
        monkeypatch.setattr(trio_responses, "open_responses", server.open_client)
        await run(ROTATION)
        assert len(server.requests) == 1
