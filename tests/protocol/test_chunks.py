"""`ChunkReader`: with it or without, an answer is the same, and h11 refuses the same."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_responses._protocol.chunks import MAX_HEAD_BYTES, MAX_SIZE_BYTES, ChunkReader, Separated

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes, extension: bytes = b"") -> bytes:
    return b"%x%b\r\n%b\r\n" % (len(data), extension, data)


def pieces_of(body: bytes, cuts: list[int]) -> list[bytes]:
    """Return a body in pieces of the given sizes; the last one is the rest."""
    pieces: list[bytes] = []
    for size in cuts:
        pieces.append(body[:size])
        body = body[size:]
    return [piece for piece in (*pieces, body) if piece]


def read(pieces: list[bytes], *, separated: bool) -> tuple[list[object], int]:
    """Return what is read from an answer, and how many data events of h11 that took.

    :param separated: whether a `ChunkReader` takes the data of chunks.
    """
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=200_000)
    client.send(h11.Request(method="POST", target="/", headers=[("host", "x")]))
    client.send(h11.EndOfMessage())
    reader = ChunkReader()
    reader.begin_answer()
    seen: list[object] = []
    data, events = b"", 0
    for piece in (*pieces, b""):
        passed, found = reader.feed(piece) if separated and piece else Separated(piece)
        data += found
        if passed or not piece:
            client.receive_data(passed)
        while True:
            try:
                event = client.next_event()
            except h11.RemoteProtocolError:
                return [*seen, data, "error"], events
            if isinstance(event, h11.Data):
                data += event.data
                events += 1
            elif event is h11.NEED_DATA or event is h11.PAUSED:
                break
            elif isinstance(event, h11.EndOfMessage):
                return [*seen, data, list(event.headers), client.trailing_data[0]], events
            else:
                seen.append((type(event), getattr(event, "status_code", None)))
    return [*seen, data, "incomplete"], events


def same_with_and_without(answer: bytes, cuts: list[int]) -> None:
    pieces = pieces_of(answer, cuts)
    plain, _ = read(pieces, separated=False)
    separated, _ = read(pieces, separated=True)
    assert separated == plain


cuts = st.lists(st.integers(1, 60), max_size=20)
chunks = st.lists(st.binary(min_size=1, max_size=40), max_size=8)


@given(chunks, cuts, st.sampled_from([b"", b";a=b", b" "]), st.sampled_from([b"", b"t: 1\r\n"]))
def test_h11_reads_the_same_answer(
    data: list[bytes], sizes: list[int], extension: bytes, trailers: bytes
) -> None:
    answer = HEAD + b"".join(chunk(one, extension) for one in data) + b"0\r\n" + trailers + b"\r\n"
    same_with_and_without(answer, sizes)


@given(
    st.lists(
        st.sampled_from(
            [b"5\r\n", b"abcde", b"\r\n", b"\n", b"0", b"x", b"3;q\r\n", b"abc", b"ff"]
        ),
        max_size=12,
    ),
    cuts,
)
def test_h11_refuses_the_same_answers(parts: list[bytes], sizes: list[int]) -> None:
    pieces = pieces_of(HEAD + b"".join(parts), sizes)
    plain, _ = read(pieces, separated=False)
    separated, _ = read(pieces, separated=True)
    assert (plain[-1] == "error") == (separated[-1] == "error") or "incomplete" in {
        plain[-1],
        separated[-1],
    }
    assert not isinstance(plain[-1], bytes) or separated == plain


lines = st.lists(
    st.sampled_from([b"a", b"5", b"data: x", b"\r\n", b"\n", b"\r\n5\r\n", b"\r\n0\r\n\r\n"]),
    min_size=1,
    max_size=4,
)


@given(st.lists(lines, max_size=6), cuts, st.sampled_from([b"%x", b"%X", b"0%x", b"%x;a=b"]))
def test_data_that_looks_like_sizes_is_data(
    data: list[list[bytes]], sizes: list[int], form: bytes
) -> None:
    joined = [b"".join(one) for one in data]
    body = b"".join(form % len(one) + b"\r\n" + one + b"\r\n" for one in joined)
    same_with_and_without(HEAD + body + b"0\r\n\r\n", sizes)
    same_with_and_without(HEAD + body + b"0\r\n\r\n", [])


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_h11_reads_no_chunk_with_data(end: bytes) -> None:
    one = b"data: %d" + end + end
    answer = HEAD + b"".join(chunk(one % number) for number in range(100)) + b"0\r\n\r\n"
    plain, many = read([answer], separated=False)
    separated, few = read([answer], separated=True)
    assert separated == plain
    assert (many, few) == (100, 0)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
        b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + HEAD + chunk(b"a") + b"0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding:Chunked\r\n\r\n" + chunk(b"ab") + b"0\r\n\r\n",
        b"nonsense\r\n\r\n",
        HEAD + chunk(b"a") + b"zz\r\n",
        HEAD + b"3\r\nabcd\r\n0\r\n\r\n",
    ],
)
def test_other_answers_pass_unchanged(answer: bytes) -> None:
    for size in range(1, len(answer)):
        same_with_and_without(answer, [size])
    same_with_and_without(answer, [1] * len(answer))


def test_a_second_answer_is_read_as_well() -> None:
    reader = ChunkReader()
    for _ in range(2):
        reader.begin_answer()
        assert not reader.in_chunks
        assert reader.feed(HEAD + chunk(b"ab")) == (HEAD, b"ab")
        assert reader.in_chunks
        assert reader.feed(chunk(b"cd") + b"0\r\n\r\n") == (b"0\r\n\r\n", b"cd")
        assert not reader.in_chunks


def test_what_is_kept_is_bounded() -> None:
    reader = ChunkReader()
    head = b"x" * (MAX_HEAD_BYTES + 1)
    assert reader.feed(head) == (head, b"")
    reader.begin_answer()
    assert reader.feed(HEAD) == (HEAD, b"")
    size = b"5;" + b"x" * MAX_SIZE_BYTES
    assert reader.feed(size) == (size, b"")
    assert reader.feed(b"anything") == (b"anything", b"")


@pytest.mark.parametrize(
    ("answer", "stray"),
    [
        (HEAD + chunk(b"a") + b"0\r\n\r\n", False),
        (HEAD + chunk(b"a") + b"0\r\n\r\nHTTP/1.1 408 Late\r\n\r\n", True),
        (HEAD + chunk(b"a") + b"0\r\nt: 1\r\n\r\n", False),
        (HEAD + chunk(b"a") + b"0\r\nt: 1\r\n\r\nx", True),
        (HEAD + chunk(b"a") + b"0\r\nt: 1\r\n", False),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", False),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcd", True),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", False),
    ],
)
def test_bytes_after_the_end_of_an_answer_are_noticed(answer: bytes, *, stray: bool) -> None:
    reader = ChunkReader()
    reader.begin_answer()
    reader.feed(answer)
    assert reader.has_stray_bytes is stray


def test_the_bytes_of_a_body_are_counted_over_several_reads() -> None:
    reader = ChunkReader()
    reader.begin_answer()
    for piece in (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n", b"ab", b"c"):
        reader.feed(piece)
        assert not reader.has_stray_bytes
    reader.feed(b"d")
    assert reader.has_stray_bytes
