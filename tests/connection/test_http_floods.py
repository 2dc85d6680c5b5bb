"""P6 over HTTP: however odd an answer is, other tasks run while it is parsed."""

from __future__ import annotations

import pytest
import trio

from tests.transport.http_peer import (
    CHUNKED,
    END,
    chunk,
    connect_http,
    events_of,
    open_peer,
    reply,
    sse,
)
from trio_responses._transport.http_stream import MAX_LINE_ENDS, ODD_BYTES, bounded_pieces

SIZE = 64 * 1024
FLOODS = {
    "empty lines": chunk(b"\n" * SIZE),
    "CR": chunk(b"\r" * SIZE),
    "comments": chunk(b":\n" * (SIZE // 2)),
    "empty data": chunk(b"data:\n" * (SIZE // 6)),
    "tiny events": chunk(b"data:x\n\n" * (SIZE // 8)),
    "tiny chunks": chunk(b"\n") * (SIZE // 6),
}


@pytest.mark.parametrize("kind", FLOODS)
async def test_other_tasks_run_while_a_flood_is_parsed(kind: str) -> None:
    passes = 0

    async def count_passes() -> None:
        nonlocal passes
        while True:
            await trio.lowlevel.checkpoint()
            passes += 1

    async def answer_without_a_pause() -> int:
        script = reply(CHUNKED, chunk(sse(first)), FLOODS[kind], chunk(sse(*rest)), END)
        async with (
            open_peer(script) as peer,
            connect_http(peer) as connection,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(count_passes)
            result = await connection.create(model="m", input="hi")
            nursery.cancel_scope.cancel()
        assert result.output_text == "ok"
        return passes

    first, *rest = events_of()
    assert await answer_without_a_pause() > SIZE / ODD_BYTES / 2


@pytest.mark.parametrize("flood", FLOODS.values(), ids=list(FLOODS))
def test_pieces_with_many_line_ends_are_small(flood: bytes) -> None:
    pieces = bounded_pieces(flood)
    assert b"".join(pieces) == flood
    assert max(map(len, pieces)) == ODD_BYTES


def test_other_bytes_are_one_piece() -> None:
    usual = sse(*events_of("word " * 500))
    assert usual.count(b"\n") < MAX_LINE_ENDS
    assert bounded_pieces(usual) == [usual]
    assert bounded_pieces(b"") == []
