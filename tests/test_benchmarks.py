"""The parts of the benchmarks without a clock: frames, medians, ratios, tables, pictures."""

from __future__ import annotations

import json
import math
import socket
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
import trio.testing

from benchmarks import answers, plots, replay, report, workloads
from benchmarks.budget import BUDGET, BudgetLimit, budget_rows, times
from benchmarks.clients.floor import FloorSession
from benchmarks.guard import LIMITS, ScriptedAnswer, verdict
from benchmarks.idle_server import IdlePeer
from benchmarks.replay import lane_of
from benchmarks.results import Results, WorkloadSamples
from trio_responses import _wire as wire
from trio_responses._protocol.chunks import ChunkReader
from trio_responses._protocol.frames import FrameReader
from trio_responses._protocol.sse import EventReader

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parent.parent
BURST = workloads.COMPARED[0]
HISTORY = workloads.GROWTHS[0]


def events(frames: Sequence[bytes]) -> list[wire.ServerEvent]:
    reader = FrameReader(1 << 26)
    messages, control = reader.feed(b"".join(frames))
    assert reader.error is None
    assert not control
    assert not reader.buffered
    return [wire.decode(message) for message in messages if isinstance(message, bytes)]


def measured(**samples: list[float]) -> WorkloadSamples:
    found = WorkloadSamples(when="today", load=0.5)
    for client, values in samples.items():
        for value in values:
            found.add(client, {"cpu": value, "wall": 2 * value})
    return found


@pytest.mark.parametrize(
    ("frames", "size"),
    [
        (answers.streamed(2), 9),
        (answers.streamed(100, lane="lane-1"), 107),
        (answers.one_text(70_000), 2),
        (answers.many_items(5000), 2),
        ([*answers.paced(1)[0], answers.STAMP.encode().join(answers.paced(1)[1])], 4),
    ],
)
def test_the_replay_server_sends_known_events(frames: Sequence[bytes], size: int) -> None:
    said = events(frames)
    assert len(said) == size
    assert not [one for one in said if isinstance(one, wire.UnknownEvent | wire.UndecodableFrame)]


async def test_a_floor_reads_a_burst_of_more_frames_than_the_reader_takes_at_once() -> None:
    here, there = trio.testing.memory_stream_pair()
    await there.send_all(b"".join(answers.streamed(400)))
    texts: list[str] = []
    await FloorSession(here).turn("go", texts.append)
    assert len(texts) == 400


def test_a_large_response_has_the_given_size() -> None:
    for frames in (answers.one_text(100_000), answers.many_items(100_000)):
        assert 98_000 < len(frames[-1]) < 102_000
    completed = events(answers.many_items(100_000))[-1]
    assert isinstance(completed, wire.ResponseCompleted)
    assert len(completed.response.output) > 400


def test_the_events_of_lanes_alternate() -> None:
    said = events([answers.side_by_side((None, "b"), 3)])
    assert [one.stream_id for one in said[:4]] == [None, "b", None, "b"]
    assert len(said) == 2 * (3 + workloads.EVENTS_OF_A_TURN)


@pytest.mark.parametrize(
    "body",
    [
        b"".join(answers.streamed(100, encode=answers.event_chunk)),
        answers.streamed_in_chunks(100, 20),
    ],
)
def test_the_replay_server_sends_the_same_events_over_http(body: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    passed, data = ChunkReader().feed(head + body + answers.chunk(b""))
    assert passed == head + answers.chunk(b"")
    said = [wire.decode(cast("bytes", one)) for one in EventReader(1 << 26).feed(data)]
    assert said == events(answers.streamed(100))


def test_the_replay_server_answers_requests_over_http() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        here = socket.create_connection(listener.getsockname())
        there, _ = listener.accept()
    thread = threading.Thread(target=replay.serve, args=(there, None))
    thread.start()
    with here, here.makefile("rb") as stream:
        for number in range(2):  # on one connection
            here.sendall(
                b"POST /turn/v1/responses HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
            )
            assert stream.readline() == b"HTTP/1.1 200 OK\r\n"
            body = b""
            while not body.endswith(b"\r\n0\r\n\r\n"):
                body += stream.readline()
            assert body.count(b"event: ") == 9, number
        here.shutdown(socket.SHUT_WR)
        assert stream.read() == b""
    thread.join()


@pytest.mark.parametrize("mask", [bytes(4), b"\1\2\3\4"])
def test_the_lane_of_a_masked_request_is_found(mask: bytes) -> None:
    def masked(payload: bytes) -> bytes:
        return bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))

    assert lane_of(mask, masked(b'{"input":"x","stream_id":"lane-7"}')) == "lane-7"
    assert lane_of(mask, masked(b'{"input":"x"}')) is None


def test_medians_spreads_and_ratios() -> None:
    found = measured(stream=[3, 1, 2], openai=[90, 100, 200])
    assert found.median("stream", "cpu") == 2
    assert found.spread("stream", "wall") == (2, 6)
    assert found.ratio("openai", "stream", "cpu") == 100, "of 30, 100 and 100"
    assert found.ratio("stream", "stream", "wall") == 1
    assert found.ratio("openai", "nobody", "cpu") is None
    assert found.ratio("stream", "stream", "p50") is None


def test_a_later_run_replaces_an_earlier_one(tmp_path: Path) -> None:
    first = Results(workloads={"rtt": measured(a=[1]), "burst": measured(a=[1])})
    second = Results(machine="here", workloads={"burst": measured(b=[2])})
    for name, run in (("1", first), ("2", second)):
        run.write(tmp_path / "made" / name)
    both = Results.read(tmp_path / "made" / "1", tmp_path / "made" / "2")
    assert both.machine == "here"
    assert both.workloads == {"rtt": measured(a=[1]), "burst": measured(b=[2])}


def test_a_table_has_the_best_first_and_its_ratios() -> None:
    each = 1.0 * (workloads.BURST + workloads.EVENTS_OF_A_TURN)
    found = measured(
        openai=[80 * each], stream=[each, 2 * each, 3 * each], floor=[each, each, each]
    )
    heading, *rows = report.rows_of(BURST, found)
    assert heading[3:5] == ["openai-python / it", "it / floor"]
    assert rows == [
        ["floor: socket, frames, msgspec", "1.00", "1.00 to 1.00", "80.0", "1.00", "2.00"],
        ["trio-responses, stream", "2.00", "1.00 to 3.00", "40.0", "2.00", "4.00"],
        ["openai-python, typed", "80.00", "one sample", "1.00", "80.0", "160.00"],
    ]


def test_without_floor_and_peer_there_is_no_ratio() -> None:
    heading, row = report.rows_of(BURST, measured(stream=[1]))
    assert "it / floor" not in heading
    assert row[3] == "-"


def test_a_growth_is_compared_with_its_first_step() -> None:
    names = [step.name for step in HISTORY.steps]
    run = Results(
        workloads={names[0]: measured(growth=[100]), names[2]: measured(growth=[120, 150, 160])}
    )
    assert report.rows_of_growth(HISTORY, run)[1:] == [
        ["10", "100", "100 to 100", "1.00"],
        ["1,000", "150", "120 to 160", "1.50"],
    ]


def test_a_table_in_columns_and_as_markdown() -> None:
    rows = [["client", "us"], ["a", "1.5"], ["longer one", "10"]]
    assert report.in_columns(rows) == "client       us\na           1.5\nlonger one   10"
    assert report.as_markdown(rows).splitlines()[:3] == [
        "| client | us |",
        "| --- | ---: |",
        "| a | 1.5 |",
    ]


def test_numbers_have_no_digits_without_a_meaning() -> None:
    assert [report.number(value, 2) for value in (1.234, 999.5, 12345.6)] == [
        "1.23",
        "999.50",
        "12,346",
    ]
    assert [report.multiple(value) for value in (None, 1.234, 12.34, 1234.5)] == [
        "-",
        "1.23",
        "12.3",
        "1,234",
    ]


def test_a_client_that_was_left_out_of_rounds_is_compared_by_its_median() -> None:
    found = measured(stream=[1, 2, 4], openai=[100])
    assert found.ratio("openai", "stream", "cpu") == 50


def test_the_budget_shows_which_limits_are_met_and_by_how_much_not() -> None:
    found = measured(stream=[2], openai=[100])
    for value in (2, 4):
        found.add("floor-2026", {"cpu": 1 / value})
    run = Results(workloads={"burst": found})
    said = {tuple(row[:2]): row[2:] for row in budget_rows(run)[1:]}
    burst = "burst, CPU an event"
    assert said.pop((burst, "openai-python, typed")) == ["1/40", "1/50", "yes"]
    assert said.pop((burst, "floor-2026: reads first")) == ["1.90", "5.33", "**no**, by 181 %"]
    assert {row[-1] for row in said.values()} == {"-"}
    assert times(0.7) == "0.70"


def test_memory_and_calls_have_limits_of_their_own() -> None:
    found = WorkloadSamples()
    found.add("stream", {"bytes": 34 * 1024})
    limit = BudgetLimit("idle", "crowd", "stream", "", "bytes", 33, workloads.KIB, "KiB")
    assert limit.measured(Results(workloads={"crowd": found})) == 34
    assert limit.shown(limit.most) == "33.0 KiB"


def test_the_budget_has_existing_workloads_and_clients() -> None:
    known = {workload.name: workload for workload in workloads.ALL}
    for limit in BUDGET:
        if limit.workload == workloads.CALLS:
            assert limit.client in json.loads(LIMITS.read_text())
            continue
        workload = known[limit.workload]
        assert {limit.client, limit.peer} - {""} <= set(workload.clients)
        keys = {column.key for column in workload.columns}
        assert limit.key in keys


def test_workloads_are_chosen_by_name_or_growth() -> None:
    assert workloads.chosen(set()) == list(workloads.ALL)
    assert workloads.chosen({"history", "rtt"}) == [
        *(one for one in workloads.ALL if one.name == "rtt"),
        *HISTORY.steps,
    ]
    assert len({one.name for one in workloads.ALL}) == len(workloads.ALL)
    with pytest.raises(ValueError, match="no such workload: brust"):
        workloads.chosen({"brust"})


def test_failures_are_listed_below_the_table() -> None:
    found = measured(stream=[1, 2])
    found.failures["agents"] = "no answer within 3 s"
    assert report.notes_on(found) == (
        "2 rounds, today, load 0.5. openai-agents failed: no answer within 3 s."
    )


def test_tables_replace_only_the_text_between_the_markers() -> None:
    page = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    once = report.put_into(page, "new")
    assert once == f"before\n{report.BEGIN}\n\nnew\n\n{report.END}\nafter\n"
    assert report.put_into(once, "new") == once
    with pytest.raises(ValueError, match="add both where the tables go"):
        report.put_into("a page", "new")


def test_there_is_a_picture_of_each_measured_growth(tmp_path: Path) -> None:
    run = Results(
        workloads={
            "burst": measured(stream=[2, 3], openai=[90], floor=[1]),
            **{step.name: measured(growth=[100, 110]) for step in HISTORY.steps},
        }
    )
    plots.draw_all(run, tmp_path)
    drawn = {path.name: ET.parse(path).getroot() for path in tmp_path.iterdir()}  # noqa: S314 - the text was written above
    assert set(drawn) == {"benchmarks-burst.svg", "benchmarks-history.svg"}
    space = "{http://www.w3.org/2000/svg}"
    assert len(drawn["benchmarks-burst.svg"].findall(f"{space}rect")) == 1 + 3
    assert len(drawn["benchmarks-history.svg"].findall(f"{space}circle")) == len(HISTORY.steps)


def test_the_x_axis_of_a_line_is_logarithmic() -> None:
    places = [plots.PlotPoint(10.0**n, 1, 1, 1) for n in range(3)]
    root = ET.fromstring(plots.line("t", "x", "y", places))  # noqa: S314 - the text was written above
    at = [float(one.get("cx", "nan")) for one in root.iter() if one.tag.endswith("circle")]
    assert math.isclose(at[1] - at[0], at[2] - at[1], abs_tol=0.2)
    assert at[0] < at[1]


@pytest.mark.parametrize(
    ("number", "said"),
    [(100, "as before"), (104, "as before"), (106, "TOO MANY"), (94, "fewer: lower the limit")],
)
def test_the_guard_has_a_margin_of_a_twentieth(number: float, said: str) -> None:
    assert verdict(number, 100) == said
    assert verdict(number, None) == "no limit"


def test_the_guard_sends_a_burst_in_pieces_and_paced_events_alone() -> None:
    answer = ScriptedAnswer()
    answer.deltas = 180
    together = answer()
    assert len(together) > 1
    assert max(map(len, together)) <= 32 * 1024
    assert len(events(together)) == 187
    answer.alone = True
    assert len(answer()) == 187
    first, second = (wire.decode(one) for one in (answer()[0][4:], answer()[0][4:]))
    assert isinstance(first, wire.ResponseCreated)
    assert isinstance(second, wire.ResponseCreated)
    assert first.response.id != second.response.id


@pytest.mark.parametrize("size", [5, 200, 70_000])
def test_the_server_of_the_guard_answers_each_request_once(size: int) -> None:
    frame = bytearray(answers.frame({"input": "x" * size}))
    frame[1] |= 0x80  # masked
    body = len(json.dumps({"input": "x" * size}, separators=(",", ":")))
    masked = bytes(frame[:-body]) + bytes(4) + bytes(frame[-body:])
    here, there = socket.socketpair()
    with here, there:
        peer = IdlePeer(there, lambda: [b"answer"], None)
        here.sendall(b"GET / HTTP/1.1\r\nSec-WebSocket-Key: a\r\n\r\n")
        peer.read()
        for part in (masked[: size // 2], masked[size // 2 :] + masked[:3], masked[3:]):
            here.sendall(part)
            peer.read()
        assert [piece[:8] for piece in peer.pieces] == [b"HTTP/1.1", b"answer", b"answer"]
        here.close()
        peer.read()
        assert peer.ended


@pytest.mark.parametrize("engine", ["memory", "sqlite"])
def test_a_conversation_writes_at_most_half_more_than_its_items(engine: str) -> None:
    options = ["--quick", "--only", "bytes", "--engines", engine]
    done = subprocess.run(  # noqa: S603 - the benchmarks of this repository
        [sys.executable, "-m", "benchmarks.stores", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    [row] = [line for line in done.stdout.splitlines() if line.startswith(f"| {engine} ")]
    assert 1.0 < float(row.split("|")[4]) < 1.5
