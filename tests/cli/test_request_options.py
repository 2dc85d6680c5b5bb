"""The options of ``ask``, ``chat`` and ``record`` for parameters, tools and endpoints."""

from __future__ import annotations

import io
import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from trio_responses import Endpoint
from trio_responses._cli import main
from trio_responses._cli.arguments import parse_arguments
from trio_responses._cli.parameters import request_options
from trio_responses._cli.server_choice import ENDPOINTS, endpoint_from_arguments
from trio_responses._cli.tool_loading import load_tools
from trio_responses._tools.function import FunctionTool

if TYPE_CHECKING:
    from tests.cli.cli_driver import Capture, Patch, PrepareServer

numbers = itertools.count()


# --- Parameters --------------------------------------------------------------------------


def params_of(*arguments: str) -> dict[str, Any]:
    return request_options(parse_arguments(["ask", *arguments]), conversation=False).params


@pytest.mark.parametrize(
    ("arguments", "params"),
    [
        (["--temperature", "0.5"], {"temperature": 0.5}),
        (["--top-p=1"], {"top_p": 1.0}),
        (["--max-output-tokens", "9"], {"max_output_tokens": 9}),
        (
            ["--reasoning-effort", "low", "--reasoning-summary", "auto"],
            {"reasoning": {"effort": "low", "summary": "auto"}},
        ),
        (["--verbosity", "high"], {"text": {"verbosity": "high"}}),
        (["--service-tier", "flex"], {"service_tier": "flex"}),
        (["--tool-choice", "none"], {"tool_choice": "none"}),
        (["--parallel-tool-calls"], {"parallel_tool_calls": True}),
        (["--no-parallel-tool-calls"], {"parallel_tool_calls": False}),
        (["--truncation", "auto"], {"truncation": "auto"}),
        (["--metadata", "a=b=c", "--metadata", "d="], {"metadata": {"a": "b=c", "d": ""}}),
        (["--previous-response-id", "resp_1"], {"previous_response_id": "resp_1"}),
        (["--prompt-cache-key", "k"], {"prompt_cache_key": "k"}),
        (["--safety-identifier", "u\udce9"], {"safety_identifier": "u?"}),
        (["--user", "17"], {"user": "17"}),
        (["--param", "top_logprobs=3"], {"top_logprobs": 3}),
        (["--param", "service_tier=fast"], {"service_tier": "fast"}),
        (["--param", "store=false"], {"store": False}),
        (["--param", "reasoning.context=auto"], {"reasoning": {"context": "auto"}}),
        (
            ["--reasoning-effort", "low", "--param", 'reasoning={"effort":"high","mode":"pro"}'],
            {"reasoning": {"effort": "high", "mode": "pro"}},
        ),
        (["--param", 'extra_body={"new":1}'], {"extra_body": {"new": 1}}),
    ],
)
def test_an_option_sets_its_parameter(arguments: list[str], params: dict[str, Any]) -> None:
    assert params_of(*arguments, "Hi") == {"model": "gpt-5.5", **params}


def test_a_stored_prompt_has_a_model_of_its_own() -> None:
    assert params_of("--param", 'prompt={"id":"p"}', "Hi") == {"prompt": {"id": "p"}}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--param", "temprature=1"], "did you mean 'temperature'?"),
        (["--param", "zzz=1"], "goes into --param extra_body={...}"),
        (["--param", "reasoning.efort=low"], "did you mean 'effort'?"),
        (["--param", "reasoning={"], "the value of --param reasoning is not valid JSON"),
        (["--param", "max_output_tokens=many"], "max_output_tokens must be an integer, not str"),
        (["--param", "temperature"], "--param 'temperature' is not of the form NAME=JSON"),
        (["--metadata", "=v"], "--metadata '=v' is not of the form K=V"),
        (["--temperature", "nan"], "temperature is nan, which JSON cannot express"),
        (["--tool-choice", "requird"], "did you mean 'required'?"),
        (["--tool-choice", "\x1b[2J"], "use none, auto, required"),
    ],
)
def test_a_wrong_parameter_is_wrong_usage(
    arguments: list[str], message: str, capsys: Capture
) -> None:
    assert main(["ask", "--embedded", *arguments, "Hi"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert message in err
    assert "\x1b" not in err


def test_a_conversation_has_no_option_for_its_parent(capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["chat", "--previous-response-id", "resp_1"])
    assert "--previous-response-id" not in capsys.readouterr().err.partition("(")[2]


@pytest.mark.parametrize("command", ["ask", "chat", "record"])
def test_commands_send_the_parameters(
    command: str, prepare_server: PrepareServer, monkeypatch: Patch, tmp_path: Path
) -> None:
    servers = prepare_server(lambda _: None)
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello\n"))
    texts = {"ask": ["Hello"], "chat": [], "record": [str(tmp_path / "r.jsonl"), "Hello"]}
    options = ["--embedded", "--temperature", "1.5", "--metadata", "k=v"]
    assert main([command, *options, *texts[command]]) == 0
    (request,) = servers[0].requests
    assert (request["temperature"], request["metadata"]) == (1.5, {"k": "v"})


# --- Tools -------------------------------------------------------------------------------

TOOLS = """\
from trio_responses import Namespace, function_tool

@function_tool
def forecast(city: str) -> str:
    "Tell the weather."
    return f"snow in {city}"

async def say_later(word: str) -> str:
    return word

class Clock:
    def read(self, zone: str) -> str:
        return zone

def any_number(*words): ...

clock = Clock()
BOTH = [forecast, say_later]
HOSTED = {"type": "web_search"}
NO_TYPE = {"a": 1}
SPACE = Namespace("crm", [function_tool(clock.read)])
NUMBER = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: Patch) -> str:
    """Return the name of a module with tools in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    name = f"tools_{next(numbers)}"  # a name of its own: modules are imported once
    (tmp_path / f"{name}.py").write_text(TOOLS)
    return name


@pytest.mark.parametrize(
    ("specs", "names"),
    [
        (["{}:forecast"], ["forecast"]),
        (["{}:say_later"], ["say_later"]),
        (["{}:clock.read"], ["read"]),
        (["{}:BOTH"], ["forecast", "say_later"]),
        (["{0}:forecast,{0}:say_later"], ["forecast", "say_later"]),
        (["{}:forecast", "{}"], ["forecast", "crm"]),
        (["{}"], ["forecast", "crm"]),
        (["{}.py:forecast"], ["forecast"]),
        (["./{}.py"], ["forecast", "crm"]),
        (["{}:HOSTED"], [""]),
    ],
)
def test_a_spec_names_tools(specs: list[str], names: list[str], module: str) -> None:
    found = load_tools([spec.format(module) for spec in specs])
    assert [getattr(tool, "name", "") for tool in found] == names


def test_a_file_with_the_name_of_a_module_of_python_is_no_replacement(
    module: str, tmp_path: Path
) -> None:
    (tmp_path / "json.py").write_text((tmp_path / f"{module}.py").read_text())
    found = load_tools(["json.py:forecast", "json.py:forecast"])
    assert isinstance(found[0], FunctionTool)
    assert len(found) == 1
    assert hasattr(sys.modules["json"], "loads")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{}:forcast", "did you mean 'forecast'?"),
        ("{}:zzz", "its tools are forecast, SPACE"),
        ("{}:any_number", "cannot be a tool: the parameter 'words'"),
        ("{}:NUMBER", "is no tool, but int"),
        ("{}:Clock", "is no tool, but the class Clock"),
        ("{}:NO_TYPE", 'it has no "type"'),
        ("{}.forecast", "did you mean {}:forecast?"),
        ("x{}", "did you mean {}?"),
        ("nowhere_at_all_17", "it is not installed, nor in "),
        ("nowhere.py", "there is no file nowhere.py"),
        ("trio_responses._cli.usage_of_nothing:x", "there is no module"),
        ("string", "string has no tools: decorate functions with @function_tool"),
        ("a b", "'a b' names no tool: use MODULE:FUNCTION"),
        ("", "names no tool"),
        ("{0}:forecast,{0}:say_later,{0}:say_later", "two tools have the name 'say_later'"),
    ],
)
def test_a_spec_that_names_no_tool_is_wrong_usage(
    spec: str, message: str, module: str, capsys: Capture
) -> None:
    assert main(["ask", "--embedded", "--tools", spec.format(module), "Hi"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: --tools")
    assert message.format(module) in err


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("\nimport nothing_there_17\n", "No module named 'nothing_there_17' ({}, line 2)"),
        ("x = (\n", "SyntaxError: '(' was never closed"),
        ("def f():\n    raise KeyError('a\\x1b[2J')\nf()\n", "KeyError: 'a\\x1b[2J' ({}, line 2)"),
        ("raise SystemExit(3)\n", "SystemExit: 3 ({}, line 1)"),
        (
            "from trio_responses import function_tool\n@function_tool\ndef f(*a): ...\n",
            "the parameter 'a' of f accepts any number of arguments",
        ),
    ],
)
@pytest.mark.parametrize("ending", ["", ".py"])
def test_an_error_of_the_module_is_shown_with_its_place(
    code: str, message: str, ending: str, module: str, capsys: Capture
) -> None:
    file = Path.cwd() / f"broken_{module}.py"
    file.write_text(code)
    assert main(["ask", "--embedded", "--tools", f"{file.stem}{ending}:f", "Hi"]) == 2
    _, err = capsys.readouterr()
    assert err.startswith(f"error: --tools: {file.stem}{ending} cannot be imported: ")
    assert message.format(file) in err
    assert "line " in err
    assert "\x1b" not in err
    assert main(["--debug", "ask", "--embedded", "--tools", str(file), "Hi"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_ask_runs_tools_and_shows_the_calls_on_stderr(module: str, capsys: Capture) -> None:
    spec = f"{module}:forecast"
    assert main(["ask", "--embedded", "--tools", spec, "The forecast for Oslo?"]) == 0
    assert capsys.readouterr() == (
        "Turn 1: the tool returned snow in Oslo.\n",
        'tool: forecast({"city":"Oslo"})\ntool: forecast -> snow in Oslo\n',
    )


def test_chat_offers_the_tools(
    module: str, capsys: Capture, monkeypatch: Patch, prepare_server: PrepareServer
) -> None:
    servers = prepare_server(lambda _: None)
    options = ["--tools", f"{module}:forecast", "--param", 'tools=[{"type":"web_search"}]']
    for more in ([], ["--demo-tools"]):
        monkeypatch.setattr(sys, "stdin", io.StringIO("The forecast for Oslo?\n"))
        assert main(["chat", "--embedded", *options, *more]) == 0
    assert "snow in Oslo" in capsys.readouterr().err
    offered = [
        [tool.get("name", tool["type"]) for tool in server.requests[0].tools] for server in servers
    ]
    own = ["forecast", "web_search"]
    assert offered == [own, ["current_time", "calculate", *own]]


def test_the_choice_of_a_tool_forces_one_call(
    module: str, capsys: Capture, prepare_server: PrepareServer
) -> None:
    servers = prepare_server(lambda _: None)
    options = ["--tools", module, "--tool-choice", "crm.read"]
    assert main(["ask", "--embedded", *options, "In Oslo"]) == 0
    choice = {"type": "function", "name": "read", "namespace": "crm"}
    assert [request["tool_choice"] for request in servers[0].requests] == [choice, "auto"]
    assert "tool: crm.read(" in capsys.readouterr().err


def test_tools_start_a_conversation_of_their_own(module: str, capsys: Capture) -> None:
    options = ["--tools", f"{module}:forecast", "--previous-response-id", "resp_1"]
    assert main(["ask", "--embedded", *options, "Hi"]) == 2
    assert "tools cannot be used with previous_response_id" in capsys.readouterr().err


def test_a_call_that_no_tool_answers_is_noted(
    prepare_server: PrepareServer, capsys: Capture
) -> None:
    prepare_server(lambda server: server.call("forecast"))
    tools = '[{"type":"function","name":"forecast","parameters":{}}]'
    assert main(["ask", "--embedded", "--param", f"tools={tools}", "Hi"]) == 0
    note = "note: the model called forecast, but no such tool is offered\n"
    assert capsys.readouterr() == ("", note)


# --- Endpoints ---------------------------------------------------------------------------


def endpoint_of(*arguments: str) -> Endpoint:
    endpoint = endpoint_from_arguments(parse_arguments(["ask", *arguments, "Hi"]))
    assert endpoint is not None
    return endpoint


def test_every_profile_of_the_library_is_an_endpoint() -> None:
    methods = {name for name, value in vars(Endpoint).items() if isinstance(value, classmethod)}
    assert set(ENDPOINTS) == methods - {"of"}


def test_endpoints_are_made_of_options_and_the_environment(monkeypatch: Patch) -> None:
    for name in ("OPENAI_API_KEY", "XAI_API_KEY", "AZURE_OPENAI_AD_TOKEN"):
        monkeypatch.setenv(name, "key")
    url = "https://gateway.test/v1"
    assert endpoint_of("--endpoint", "openai") == Endpoint.openai()
    assert endpoint_of("--endpoint", "openai", "--base-url", url) == Endpoint.openai(url)
    assert endpoint_of("--endpoint", "xai") == Endpoint.xai()
    assert endpoint_of("--endpoint", "xai", "--url", url).url == Endpoint.openai(url).url
    compatible = Endpoint.compatible(url)
    assert endpoint_of("--endpoint", "compatible", "--url", url) == compatible
    azure = ("--endpoint", "azure")
    token = Endpoint.azure("contoso", token=True)
    assert endpoint_of(*azure, "--resource", "contoso") == token
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "key")
    assert endpoint_of(*azure, "--resource", "contoso") == Endpoint.azure("contoso")
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://contoso.openai.azure.com")
    assert endpoint_of(*azure) == Endpoint.azure("contoso")
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    assert endpoint_of("--endpoint", "compatible") == compatible
    assert endpoint_of("--endpoint", "openai") == Endpoint.openai()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["azure"], "add --resource NAME, or set AZURE_OPENAI_ENDPOINT"),
        (["azure", "--resource", "c"], "AZURE_OPENAI_API_KEY=... or AZURE_OPENAI_AD_TOKEN=..."),
        (["azure", "--resource", "c", "--url", "https://c.test"], "leave out one"),
        (["xai"], "no API key is set for api.x.ai"),
        (["xai", "--base-url", "http://127.0.0.1:9/v1"], "export XAI_API_KEY=..."),
        (["openai"], "export OPENAI_API_KEY=..."),
        (["openai", "--resource", "c"], "--resource names an Azure resource"),
        (["compatible"], "needs the server's URL: add --base-url URL"),
        (["openai", "--embedded"], "--embedded runs a server: leave out --endpoint"),
    ],
)
@pytest.mark.parametrize("command", ["ask", "chat", "probe"])
def test_an_endpoint_says_what_is_missing(
    arguments: list[str], message: str, command: str, capsys: Capture
) -> None:
    words = ["Hi"] if command == "ask" else []
    assert main([command, "--endpoint", *arguments, *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert message in err


@pytest.mark.parametrize("command", ["ask", "chat", "probe"])
def test_servers_with_other_models_need_a_model(
    command: str, capsys: Capture, monkeypatch: Patch
) -> None:
    monkeypatch.setenv("XAI_API_KEY", "key")
    words = ["Hi"] if command == "ask" else []
    assert main([command, "--endpoint", "xai", *words]) == 2
    assert capsys.readouterr().err.startswith("error: no model: add --model NAME")
