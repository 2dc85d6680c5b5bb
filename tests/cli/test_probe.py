"""The probe of the command line: its verdicts on servers with different features."""

from __future__ import annotations

import io
import json
import re
import socket
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
import trio

from tests.cli.cli_driver import hide_http_packages
from tests.testing.driver import NO_WAITING, run_over_sockets
from trio_responses import Endpoint
from trio_responses._cli import main, probe_features
from trio_responses._cli.probe import JSONReport, TableReport, run_probe
from trio_responses._cli.probe_features import FEATURES, Feature, Prober, Verdict, answer_slowly
from trio_responses._wire.codec import decode
from trio_responses.testing import Fail, Reply, Request, default_answer, open_test_server
from trio_responses.testing._endpoints import Endpoints
from trio_responses.testing._records import HTTPRequest
from trio_responses.testing._scripts import HTTPAnswer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.cli.cli_driver import Capture, Patch, PrepareServer
    from trio_responses.testing import ResponsesServer
    from trio_responses.testing._http import Exchange

NAMES = [feature.name for feature in FEATURES]


async def probe(
    server: ResponsesServer, *models: str, responder: Any = answer_slowly, seconds: float = 30
) -> tuple[int, dict[str, Any]]:
    server.respond_with(responder)
    out = io.StringIO()
    endpoint = Endpoint.compatible(server.url)
    prober = Prober(
        endpoint, api_key="", models=models or ("m",), timeout=seconds, dial=server.dial
    )
    code = await run_probe(prober, JSONReport(out))
    report: dict[str, Any] = json.loads(out.getvalue())
    report["verdicts"] = {it["name"]: it["verdict"] for it in report["features"]}
    report["details"] = {it["name"]: it["detail"] for it in report["features"]}
    return code, report


@NO_WAITING
async def test_every_feature_of_the_embedded_server_works(server: ResponsesServer) -> None:
    code, report = await probe(server)
    assert report["verdicts"] == dict.fromkeys(NAMES, "works")
    assert (code, report["basics"], report["model"]) == (0, True, "m")
    assert report["profile"] == {"lanes": True, "after_error": "reuse"}
    assert report["details"]["lanes"] == "side by side"
    assert report["transports"] == ["websocket", "http"]


@NO_WAITING
async def test_a_missing_feature_has_the_verdict_no(narrow_server: ResponsesServer) -> None:
    narrow_server.refuse_steers(times=None)
    code, report = await probe(narrow_server)
    assert {name for name, verdict in report["verdicts"].items() if verdict != "works"} == {
        "lanes",
        "steering",
    }
    assert report["verdicts"]["lanes"] == report["verdicts"]["steering"] == "no"
    assert "steering_not_supported" in report["details"]["steering"]
    assert code == 0
    assert report["profile"]["lanes"] is False


def without(feature: str) -> Callable[[Request], Any]:
    """Answer as the embedded server, but for one feature."""

    def respond(request: Request) -> Any:
        if feature == "warm-up" and not request.text:
            return Fail("unsupported_value", status=400)
        if feature == "tool turn" and request.tools:
            return "I would rather not."
        if feature == "lanes" and request.lane is not None:
            return Fail("unsupported_value", status=400)
        if feature == "chain, store=false" and not request.stores:
            return Fail("unsupported_value", status=400)
        return answer_slowly(request)

    return respond


@NO_WAITING
@pytest.mark.parametrize("feature", ["tool turn", "lanes", "chain, store=false"])
async def test_a_rejected_feature_does_not_affect_the_others(
    feature: str, server: ResponsesServer
) -> None:
    code, report = await probe(server, responder=without(feature))
    assert report["verdicts"] == {**dict.fromkeys(NAMES, "works"), feature: "no"}
    assert code == 0


@NO_WAITING
async def test_after_a_rejected_model_the_next_one_is_tried(server: ResponsesServer) -> None:
    def know_one(request: Request) -> Any:
        known = request["model"] == "new"
        return answer_slowly(request) if known else Fail("model_not_found", status=404)

    code, report = await probe(server, "old", "new", responder=know_one)
    assert (code, report["model"]) == (0, "new")
    assert "old: " in report["details"]["text turn"]
    assert "model_not_found" in report["details"]["text turn"]


def know_nothing(_: Request) -> Fail:
    return Fail("model_not_found", status=404)


@NO_WAITING
async def test_without_a_model_that_answers_the_other_features_are_skipped(
    server: ResponsesServer,
) -> None:
    code, report = await probe(server, "a", "b", responder=know_nothing)
    assert code == 1
    assert report["basics"] is False
    assert report["profile"] is None
    assert report["verdicts"] == {
        **dict.fromkeys(NAMES, "skipped"),
        "handshake": "works",
        "text turn": "fails",
        "pings": "works",
        "HTTP streamed": "fails",
    }


@NO_WAITING
async def test_without_a_server_every_feature_is_skipped(server: ResponsesServer) -> None:
    server.stop_accepting()
    unreachable = {"handshake": "fails", "HTTP streamed": "fails"}
    code, report = await probe(server)
    assert code == 1
    assert report["verdicts"] == {**dict.fromkeys(NAMES, "skipped"), **unreachable}
    assert "attempts" not in report["details"]["handshake"]


@NO_WAITING
async def test_a_feature_that_hangs_ends_at_the_time_limit(server: ResponsesServer) -> None:
    def hang(request: Request) -> Any:
        endless = Reply("one " * 100, delay=1)  # never silent, so that no other limit ends it
        return endless if request.tools else answer_slowly(request)

    code, report = await probe(server, responder=hang, seconds=10)
    assert report["verdicts"] == {**dict.fromkeys(NAMES, "works"), "tool turn": "fails"}
    assert code == 0
    [slow] = [it for it in report["features"] if it["name"] == "tool turn"]
    assert 9 < slow["seconds"] < 11


@NO_WAITING
async def test_a_server_that_ignores_the_parent_does_not_pass(server: ResponsesServer) -> None:
    part: dict[str, Any] = {"type": "output_text", "text": "Hm.", "annotations": []}
    message = {"type": "message", "role": "assistant", "id": "x", "content": [part]}
    response = {"id": "r", "status": "completed", "model": "m", "output": [message]}

    def forget(request: Request) -> Any:
        chained = request.get("previous_response_id") is not None
        end = {"type": "response.completed", "response": response}
        return [end] if chained else answer_slowly(request)

    _, report = await probe(server, responder=forget)
    assert report["verdicts"]["chain, store=true"] == "unclear"
    assert report["verdicts"]["unknown parent"] == "works"


@NO_WAITING
async def test_a_server_that_ignores_lane_names_does_not_pass(server: ResponsesServer) -> None:
    response: dict[str, Any] = {"id": "r", "status": "in_progress", "model": "m", "output": []}
    frames = [json.dumps({"type": "response.created", "response": response})]

    def ignore(request: Request) -> Any:
        return frames if request.lane is not None else answer_slowly(request)

    _, report = await probe(server, responder=ignore)
    assert report["verdicts"]["lanes"] == "no"
    assert report["details"]["lanes"] == "events do not name their lane"


def constant(reply: Reply) -> Callable[[Request], Reply]:
    def respond(_: Request) -> Reply:
        return reply

    return respond


async def examine(
    name: str, server: ResponsesServer, *, responder: Any = answer_slowly
) -> tuple[Verdict, str]:
    [feature] = [feature for feature in FEATURES if feature.name == name]
    server.respond_with(responder)
    endpoint = Endpoint.compatible(server.url)
    prober = Prober(endpoint, api_key="", models=("m",), timeout=30, dial=server.dial)
    finding = await prober.examine(feature, [])
    return finding.verdict, finding.detail


@NO_WAITING
async def test_input_for_a_response_that_has_ended_is_sent_again(server: ResponsesServer) -> None:
    """An answer may end before the input arrives, which says nothing about the server."""
    server.refuse_steers("response_already_completed", times=2)
    verdict, detail = await examine("steering", server)
    assert (verdict, detail) == (Verdict.WORKS, "the input led to a successor: 2 responses")
    server.refuse_steers("response_already_completed", times=3)
    verdict, detail = await examine("steering", server)
    assert verdict is Verdict.UNCLEAR
    assert detail == "the response had ended before the input arrived: response_already_completed"


@NO_WAITING
async def test_an_answer_in_one_piece_leaves_no_time_to_steer(server: ResponsesServer) -> None:
    whole = constant(Reply("one", events="items"))
    verdict, detail = await examine("steering", server, responder=whole)
    assert verdict is Verdict.UNCLEAR
    assert detail == "the answer came in one piece: there was no time to steer"


@NO_WAITING
async def test_a_stall_is_unclear_and_tried_once(server: ResponsesServer) -> None:
    """Nothing shows whether the server ignored the input, or is slow."""
    verdict, detail = await examine("steering", server, responder=constant(Reply("a", delay=999)))
    assert (verdict, detail) == (Verdict.UNCLEAR, "no text to steer within 15 s")
    assert len(server.requests) == 1


@NO_WAITING
async def test_lanes_that_are_not_seen_to_overlap_are_unclear(
    server: ResponsesServer, monkeypatch: Patch
) -> None:
    """A server may answer the first request before the second one arrives."""
    response: dict[str, Any] = {"id": "r", "status": "completed", "model": "m", "output": []}
    kinds = ("response.created", "response.completed")
    events = [
        {"type": kind, "response": response, "stream_id": lane}
        for lane in probe_features.LANES
        for kind in kinds
    ]
    sent: list[Any] = []

    @asynccontextmanager
    async def connect(_: Prober) -> AsyncGenerator[Any, None]:
        replies = [decode(json.dumps(event).encode()) for event in events]

        class Connection:
            async def send(self, command: Any) -> None:
                sent.append(command)

            async def receive(self) -> Any:
                return replies.pop(0)

        yield Connection()

    monkeypatch.setattr(Prober, "connect", connect)
    verdict, detail = await examine("lanes", server)
    assert (verdict, detail) == (
        Verdict.UNCLEAR,
        "events name their lane, but no two turns ran at the same time",
    )
    assert len(sent) == 2 * probe_features.ATTEMPTS


@NO_WAITING
async def test_another_error_for_an_unknown_parent_is_unclear(
    server: ResponsesServer, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(probe_features, "UNKNOWN_RESPONSE", None)  # our server would know the error
    server.fail("invalid_request_error", status=400)
    verdict, detail = await examine("unknown parent", server)
    assert verdict is Verdict.UNCLEAR
    assert "invalid_request_error" in detail


@NO_WAITING
async def test_unanswered_pings_have_the_verdict_no(server: ResponsesServer) -> None:
    async def go_deaf(prober: Prober) -> Any:
        async def freeze() -> None:
            while not server.statistics().open:  # noqa: ASYNC110 - a server has no event for it
                await trio.sleep(0.01)
            server.freeze_all()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(freeze)
            return await pings(prober)

    [pings] = [feature.attempt for feature in FEATURES if feature.name == "pings"]
    server.respond_with(answer_slowly)
    endpoint = Endpoint.compatible(server.url)
    prober = Prober(endpoint, api_key="", models=("m",), timeout=30, dial=server.dial)
    finding = await prober.examine(Feature("pings", go_deaf, needs=()), [])
    assert (finding.verdict, finding.detail) == (Verdict.NO, "pings are not answered")


@NO_WAITING
async def test_a_key_in_the_query_is_not_shown(server: ResponsesServer) -> None:
    out = io.StringIO()
    endpoint = Endpoint.compatible(f"{server.url}?api-key=secret")
    prober = Prober(endpoint, api_key="", models=("m",), timeout=30, dial=server.dial)
    server.respond_with(answer_slowly)
    assert await run_probe(prober, TableReport(out, colour=False)) == 0
    assert "secret" not in out.getvalue()
    assert re.search(r"^lanes +works +\d\.\d\d s  side by side$", out.getvalue(), re.MULTILINE)
    assert "Endpoint.compatible('http://localhost/v1', lanes=True" in out.getvalue()


# --- HTTP --------------------------------------------------------------------------------


HTTP_NAMES = [feature.name for feature in FEATURES if feature.over_http]
WEBSOCKET_NAMES = [name for name in NAMES if name not in HTTP_NAMES]


@NO_WAITING
async def test_a_server_without_websocket_mode_is_probed_over_http() -> None:
    async with open_test_server(transport="http") as server:
        code, report = await probe(server, "old", "m")
    assert code == 0
    assert report["verdicts"] == {
        **dict.fromkeys(WEBSOCKET_NAMES, "skipped"),
        **dict.fromkeys(HTTP_NAMES, "works"),
        "handshake": "no",
    }
    assert report["details"]["handshake"].startswith("the server has no WebSocket mode: ")
    assert "status 405" in report["details"]["handshake"]
    assert (report["transports"], report["profile"]) == (["http"], {"transport": "http"})


@NO_WAITING
async def test_the_profile_of_a_server_without_websocket_mode_uses_http() -> None:
    out = io.StringIO()
    async with open_test_server(transport="http") as server:
        endpoint = Endpoint.compatible(server.url)
        prober = Prober(endpoint, api_key="", models=("m",), timeout=30, dial=server.dial)
        assert await run_probe(prober, TableReport(out, colour=False)) == 0
    shown = out.getvalue().splitlines()[-1]
    profile = "Endpoint.compatible('http://localhost/v1', transport='http')"
    assert shown == f"the basics work over HTTP; its profile: {profile}"
    endpoint = Endpoint.compatible("ws://localhost/v1/responses", transport="http")
    assert endpoint.transport == "http"


@NO_WAITING
async def test_a_server_without_http_has_its_websocket_profile() -> None:
    async with open_test_server(transport="websocket") as server:
        code, report = await probe(server)
    assert (code, report["transports"]) == (0, ["websocket"])
    assert report["verdicts"]["HTTP streamed"] in {"no", "fails"}
    assert report["verdicts"]["HTTP retrieve"] == "skipped"


@NO_WAITING
async def test_without_the_extra_http_is_skipped_and_the_extra_named(
    server: ResponsesServer, monkeypatch: Patch
) -> None:
    hide_http_packages(monkeypatch)
    code, report = await probe(server)
    assert (code, report["transports"]) == (0, ["websocket"])
    for name in HTTP_NAMES:
        assert report["verdicts"][name] == "skipped"
        assert report["details"][name].startswith("needs httpcore2: install the extra http: ")


Change: TypeAlias = Callable[[HTTPRequest], HTTPAnswer | None]


def json_answer(status: int, body: Any, **headers: str) -> HTTPAnswer:
    headers = {"content-type": "application/json", **headers}
    return HTTPAnswer(status=status, headers=headers, body=json.dumps(body).encode())


WHOLE: dict[str, Any] = {
    "id": "r",
    "object": "response",
    "status": "completed",
    "model": "m",
    "output": [
        {
            "type": "message",
            "id": "x",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "pong", "annotations": []}],
        }
    ],
}


def answer_whole(request: HTTPRequest) -> HTTPAnswer | None:
    return json_answer(200, WHOLE) if request.method == "POST" else None


def stream_always(request: HTTPRequest) -> HTTPAnswer | None:
    body = b'data: {"type":"response.created"}\n\n'
    headers = {"content-type": "text/event-stream"}
    whole = HTTPAnswer(status=200, headers=headers, body=body)
    return whole if b'"stream":false' in request.body else None


def forget_stored(request: HTTPRequest) -> HTTPAnswer | None:
    return json_answer(404, {"error": {"code": "x"}}) if request.method == "GET" else None


def store_something_else(request: HTTPRequest) -> HTTPAnswer | None:
    return json_answer(200, WHOLE) if request.method == "GET" else None


def store_half(request: HTTPRequest) -> HTTPAnswer | None:
    name = request.path.rpartition("/")[2]
    stored: dict[str, Any] = {**WHOLE, "id": name, "output": [], "status": "in_progress"}
    return json_answer(200, stored) if request.method == "GET" else None


def hide_errors(request: HTTPRequest) -> HTTPAnswer | None:
    page = HTTPAnswer(status=400, headers={"content-type": "text/html"}, body=b"<p>Oh.</p>")
    return page if b'"input":17' in request.body else None


def accept_anything(request: HTTPRequest) -> HTTPAnswer | None:
    return json_answer(200, WHOLE) if b'"input":17' in request.body else None


def break_down(request: HTTPRequest) -> HTTPAnswer | None:
    error = {"error": {"code": "x", "message": "Oh."}}
    return json_answer(500, error) if b'"input":17' in request.body else None


def hang_up(request: HTTPRequest) -> HTTPAnswer | None:
    if request.method != "POST" or b'"stream":true' not in request.body:
        return None
    return json_answer(200, WHOLE, connection="close")


@NO_WAITING
@pytest.mark.parametrize(
    ("change", "verdicts", "detail"),
    [
        (answer_whole, {"HTTP streamed": "unclear", "HTTP error form": "unclear"}, "in one piece"),
        (stream_always, {"HTTP not streamed": "no"}, "no Response in JSON"),
        (forget_stored, {"HTTP retrieve": "no"}, "status 404"),
        (store_something_else, {"HTTP retrieve": "no"}, "returned 'r' in place of"),
        (store_half, {"HTTP retrieve": "unclear"}, "another text: in_progress"),
        (hide_errors, {"HTTP error form": "unclear"}, "status 400 without an error object"),
        (accept_anything, {"HTTP error form": "unclear"}, "accepted an input that is a number"),
        (break_down, {"HTTP error form": "unclear"}, "as for an error of the server: Oh."),
        (hang_up, {"HTTP keep-alive": "no"}, "an HTTP connection of its own"),
    ],
)
async def test_what_a_server_does_differently_over_http_is_seen(
    change: Change,
    verdicts: dict[str, str],
    detail: str,
    server: ResponsesServer,
    monkeypatch: Patch,
) -> None:
    answer = Endpoints._answer

    async def answer_changed(self: Endpoints, exchange: Exchange) -> HTTPAnswer | None:
        return change(exchange.request) or await answer(self, exchange)

    monkeypatch.setattr(Endpoints, "_answer", answer_changed)
    code, report = await probe(server)
    assert code == 0
    assert report["transports"] == ["websocket", "http"]
    assert report["verdicts"].items() >= verdicts.items()
    assert detail in report["details"][next(iter(verdicts))]
    assert {report["verdicts"][name] for name in WEBSOCKET_NAMES} == {"works"}


# --- As a command ------------------------------------------------------------------------


def test_the_table_has_a_row_for_each_feature(capsys: Capture, monkeypatch: Patch) -> None:
    monkeypatch.setattr(trio, "run", run_over_sockets)
    assert main(["probe", "--embedded"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert len(re.findall(r"^.* works .*$", out, re.MULTILINE)) == len(FEATURES)
    assert "\nthe basics work; its profile: Endpoint.compatible(" in out


def test_json_is_one_object_and_only_the_given_models_are_tried(
    prepare_server: PrepareServer, capsys: Capture, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(trio, "run", run_over_sockets)
    servers = prepare_server(lambda _: None)
    assert main(["probe", "--embedded", "--json", "--model", "a", "--model", "b"]) == 0
    out, _ = capsys.readouterr()
    assert out.count("\n") == 1
    assert json.loads(out)["model"] == "a"
    assert {request["model"] for request in servers[0].requests} == {"a"}


def test_a_port_without_a_listener_is_exit_code_1(capsys: Capture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    assert main(["probe", "--url", f"http://127.0.0.1:{port}/v1"]) == 1
    out, err = capsys.readouterr()
    assert re.search(r"^handshake +fails ", out, re.MULTILINE)
    assert out.endswith("\nthe basics do not work\n")
    assert err == ""


def test_probe_without_a_key_lists_the_ways_to_continue(capsys: Capture) -> None:
    assert main(["probe"]) == 2
    assert "trio-responses probe --embedded" in capsys.readouterr().err


def test_only_the_answer_to_the_count_is_slow() -> None:
    request = Request(body={"input": probe_features.PONG}, connection=1)
    assert answer_slowly(request) == default_answer(request)
