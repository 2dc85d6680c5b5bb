"""The cells of exchanges over HTTP: the request, the head, statuses, the body, the connection."""

from __future__ import annotations

import gzip
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from tests.faults.cells import (
    BEFORE,
    CLOSE,
    FIRST_EVENT,
    IDLE,
    MID_STREAM,
    STALL,
    TERMINAL,
    THE_TURN,
    HTTPCell,
    HTTPClosing,
    Span,
)
from tests.faults.openings import GRACE
from tests.faults.refusals import FIRST_RETRY, KINDS, wrapped
from tests.faults.servers import answer_to
from tests.transport.http_peer import (
    CHUNKED,
    END,
    EVENTS,
    JSON_BODY,
    Cut,
    Reset,
    chunk,
    error,
    events_of,
    head,
    reply,
    response,
    sse,
    whole,
)
from trio_responses import (
    APIError,
    AuthenticationError,
    ConnectionLost,
    DeliveryStatus,
    FirstEventTimeout,
    MessageTooLarge,
    PreviousResponseNotFound,
    RateLimitError,
    SendTimeout,
    ServerOverloaded,
    StallTimeout,
    UndecodableResponse,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.cells import HTTPConnectionKind
    from tests.faults.servers import Json
    from tests.transport.http_peer import Exchange, HTTPPeer, Script
    from trio_responses import ResponsesError

REQUEST: Final = "request"
HEAD: Final = "head"
STATUS: Final = "status"
ANSWER: Final = answer_to(THE_TURN)
ALL: Final = events_of(ANSWER, "resp_fault")
FIRST: Final = sse(ALL[0])
BEGUN: Final = CHUNKED + chunk(FIRST)
LAST: Final = ALL[-1]
BODY: Final = sse(*ALL)
REST: Final = BODY[len(FIRST) :]
TO_THE_END: Final = BEGUN + chunk(sse(*ALL[1:-1]))
"""An answer up to its last event."""
NEW: Final[tuple[HTTPConnectionKind, ...]] = ("new",)
KEPT: Final[tuple[HTTPConnectionKind, ...]] = ("kept alive",)


# --- What happens -----------------------------------------------------------------------------


def then_silence(*data: bytes) -> Script:
    """Return a script that sends bytes, and then nothing until the client leaves."""

    async def run(exchange: Exchange) -> None:
        await exchange.send(*data)
        await exchange.client_left()

    return run


def without_end(begin: bytes, piece: bytes, *, every: float) -> Script:
    """Return a script that sends bytes, and then a piece again and again."""

    async def run(exchange: Exchange) -> None:
        await exchange.send(begin)
        while True:
            await trio.sleep(every)
            await exchange.send(piece)

    return run


def slowly(data: bytes, seconds: float) -> Script:
    """Return a script that sends bytes one by one."""

    async def run(exchange: Exchange) -> None:
        for place in range(len(data)):
            await trio.sleep(seconds / len(data))
            await exchange.send(data[place : place + 1])

    return run


# --- The cells --------------------------------------------------------------------------------


def lost(
    phase: str, fault: str, delivery: DeliveryStatus, *data: bytes, **more: Any
) -> list[HTTPCell]:
    """Return the cells of an answer that is cut after these bytes, by a FIN and by a reset."""
    both = {"FIN": Cut, "reset": Reset}
    return [
        broken(
            phase, f"{fault}{', then ' if fault else ''}{name}", delivery, *data, then=end, **more
        )
        for name, end in both.items()
    ]


def broken(
    phase: str,
    fault: str,
    delivery: DeliveryStatus,
    *data: bytes,
    then: type[Exception] | None = None,
    **more: Any,
) -> HTTPCell:
    """Return the cell of an answer that ends an exchange with `ConnectionLost`."""
    expected: dict[str, Any] = {
        "raises": ConnectionLost,
        "at_least_once": True,
        "streams": 2,
        **more,
    }
    script = reply(*data, then=then)
    return HTTPCell(phase=phase, fault=fault, script=script, delivery=delivery, **expected)


def silent(phase: str, fault: str, script: Script, **more: Any) -> HTTPCell:
    """Return the cell of an exchange that a deadline ends."""
    began = phase in {MID_STREAM, TERMINAL}
    return HTTPCell(
        phase=phase,
        fault=fault,
        script=script,
        raises=StallTimeout if began else FirstEventTimeout,
        delivery=DeliveryStatus.ACCEPTED if began else DeliveryStatus.AMBIGUOUS,
        after=STALL if began else FIRST_EVENT,
        at_least_once=True,
        streams=2,
        **more,
    )


def well(phase: str, fault: str, *data: bytes, **more: Any) -> HTTPCell:
    """Return the cell of a turn that ends with its Response."""
    then = more.pop("then", None)
    return HTTPCell(phase=phase, fault=fault, script=reply(*data, then=then), **more)


def write_fails(*writes: int) -> Callable[[HTTPPeer], None]:
    """Return a function that lets writes on the next streams fail: 0 for the head."""

    def arrange(peer: HTTPPeer) -> None:
        if peer.streams:
            peer.streams[-1].writes_left = writes[0]
            peer.writes = [*writes[1:]]
        else:
            peer.writes = [*writes]

    return arrange


def stop_reading(peer: HTTPPeer) -> None:
    peer.reads = False


UNWRITTEN: Final = [
    HTTPCell(
        phase=REQUEST,
        fault=f"the {part} cannot be written",
        arrange=write_fails(number),
        streams=2,
        received=False,
        repeated=True,
        after=CLOSE,
    )
    for number, part in enumerate(("head", "body"))
] + [
    HTTPCell(
        phase=REQUEST,
        fault="the body cannot be written, on two HTTP connections",
        arrange=write_fails(1, 1),
        raises=ConnectionLost,
        delivery=DeliveryStatus.NOT_SENT,
        streams=3,
        received=False,
        after=Span(2 * CLOSE.seconds, "twice `timeouts.close`"),
    ),
    HTTPCell(
        phase=REQUEST,
        fault="nothing is read",
        arrange=stop_reading,
        raises=SendTimeout,
        delivery=DeliveryStatus.NOT_SENT,
        streams=3,
        received=False,
        capacity=100,
        kinds=NEW,
        after=Span(60.0, "twice `timeouts.send`"),
    ),
]

AMBIGUOUS: Final = DeliveryStatus.AMBIGUOUS
ACCEPTED: Final = DeliveryStatus.ACCEPTED
REJECTED: Final = DeliveryStatus.REJECTED
HEADS: Final = [
    *lost(HEAD, "", AMBIGUOUS),
    *lost(HEAD, "half a head", AMBIGUOUS, CHUNKED[:20]),
    *lost(HEAD, "100", AMBIGUOUS, head(100)),
    *lost(HEAD, "103", AMBIGUOUS, head(103, "Link: </a>")),
    *lost(HEAD, "a head", AMBIGUOUS, CHUNKED),
    silent(HEAD, "stall", then_silence()),
    silent(HEAD, "half a head, then stall", then_silence(CHUNKED[:20])),
    silent(HEAD, "100, then stall", then_silence(head(100))),
    silent(HEAD, "100 without end", without_end(b"", head(100), every=7.0)),
    silent(HEAD, "a head, then stall", then_silence(CHUNKED)),
    well(HEAD, "100 before it", head(100), CHUNKED, chunk(BODY), END),
    well(HEAD, "102 and 103 before it", head(102), head(103), CHUNKED, chunk(BODY), END),
    HTTPCell(
        phase=HEAD,
        fault="slow bytes",
        script=slowly(CHUNKED + chunk(BODY) + END, 30.0),
        after=Span(30.0, "as long as they take", at_most=True),
        streams=2,
    ),
    broken(HEAD, "not HTTP", AMBIGUOUS, b"\x00\x01\x02garbage\r\n\r\n"),
    broken(HEAD, "a line that is no header", AMBIGUOUS, b"HTTP/1.1 200 OK\r\nno header\r\n\r\n"),
    broken(HEAD, "a head without end", AMBIGUOUS, b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 30_000),
    broken(HEAD, "101 that was not asked for", AMBIGUOUS, head(101, "Upgrade: x"), then=Cut),
    broken(
        HEAD, "two lengths", AMBIGUOUS, head(200, EVENTS, "Content-Length: 1", "Content-Length: 2")
    ),
    broken(HEAD, "a length that is no number", AMBIGUOUS, head(200, EVENTS, "Content-Length: x")),
    broken(
        HEAD, "an unknown transfer encoding", AMBIGUOUS, head(200, EVENTS, "Transfer-Encoding: x")
    ),
    well(
        HEAD,
        "HTTP/1.0",
        head(200, EVENTS).replace(b"1.1", b"1.0") + BODY,
        then=Cut,
        streams=2,
    ),
]


def refused(
    code: int, raises: type[ResponsesError], delivery: DeliveryStatus, *headers: str, **more: Any
) -> HTTPCell:
    """Return the cell of an answer with an error status."""
    named = "".join(f", `{one}`" for one in headers)
    body = more.pop("body", error("No."))
    fault = more.pop("fault", f"HTTP {code}{named}")
    return HTTPCell(
        phase=STATUS,
        fault=fault,
        script=reply(whole(code, body, *headers)),
        raises=raises,
        delivery=delivery,
        **more,
    )


def limited(fault: str, *headers: str, body: Json | bytes, delayed: Span | None = None) -> HTTPCell:
    """Return the cell of a rate limit, after which the request is sent again."""
    more: dict[str, Any] = {"delayed": FIRST_RETRY} if delayed is None else {"after": delayed}
    return well(STATUS, fault, whole(429, body, *headers), repeated=True, **more)


RATE: Final = error("Slow down.", "rate_limit_exceeded")
RETRIED: Final[dict[str, Any]] = {"at_least_once": True, "delayed": FIRST_RETRY}
STATUSES: Final = [
    refused(202, APIError, AMBIGUOUS),
    refused(204, APIError, AMBIGUOUS, body=b""),
    refused(301, APIError, REJECTED, "Location: https://elsewhere.test/"),
    refused(307, APIError, REJECTED, "Location: /v2/responses"),
    refused(400, APIError, REJECTED),
    refused(400, APIError, REJECTED, body=b"<html>no</html>", fault="HTTP 400, a page"),
    refused(400, APIError, REJECTED, body=b'{"error": ', fault="HTTP 400, truncated JSON"),
    refused(401, AuthenticationError, REJECTED),
    refused(403, AuthenticationError, REJECTED),
    refused(404, APIError, REJECTED),
    refused(
        404,
        PreviousResponseNotFound,
        REJECTED,
        body=error("No.", "previous_response_not_found"),
        fault="HTTP 404, `previous_response_not_found`",
    ),
    refused(405, APIError, REJECTED),
    refused(407, APIError, REJECTED),
    refused(408, APIError, REJECTED),
    refused(409, APIError, REJECTED),
    refused(413, APIError, REJECTED),
    refused(422, APIError, REJECTED),
    refused(425, APIError, REJECTED),
    refused(426, APIError, REJECTED),
    limited("HTTP 429", body=error("Slow down.")),
    limited("HTTP 429, a page", body=b"<html>no</html>"),
    limited("HTTP 429, `rate_limit_exceeded`", body=RATE),
    limited(
        "HTTP 429, `Retry-After: 7`", "Retry-After: 7", body=RATE, delayed=Span(7.0, "after 7 s")
    ),
    limited(
        "HTTP 429, `retry-after-ms: 7000`",
        "retry-after-ms: 7000",
        body=RATE,
        delayed=Span(7.0, "after 7 s"),
    ),
    refused(429, RateLimitError, REJECTED, "Retry-After: 301", body=RATE),
    refused(
        429,
        RateLimitError,
        REJECTED,
        body=error("Pay.", "insufficient_quota"),
        fault="HTTP 429, `insufficient_quota`",
    ),
    refused(500, APIError, AMBIGUOUS, **RETRIED),
    refused(500, APIError, AMBIGUOUS, body=b"", fault="HTTP 500, no body", **RETRIED),
    refused(501, APIError, AMBIGUOUS),
    refused(502, APIError, AMBIGUOUS, **RETRIED),
    refused(503, ServerOverloaded, AMBIGUOUS, **RETRIED),
    refused(504, APIError, AMBIGUOUS, **RETRIED),
    refused(529, ServerOverloaded, AMBIGUOUS, **RETRIED),
    replace(
        refused(500, APIError, AMBIGUOUS, fault="HTTP 500, a body that is cut", **RETRIED),
        script=reply(head(500, JSON_BODY, "Content-Length: 99") + b'{"er', then=Cut),
        streams=2,
    ),
    replace(
        refused(500, APIError, AMBIGUOUS, fault="HTTP 500, a body without end", **RETRIED),
        script=then_silence(
            head(500, JSON_BODY, "Transfer-Encoding: chunked"), chunk(b" " * 70_000)
        ),
        streams=2,
    ),
    replace(
        refused(
            500, APIError, AMBIGUOUS, fault="HTTP 500, a body that stalls", after=GRACE, **RETRIED
        ),
        script=then_silence(head(500, JSON_BODY, "Content-Length: 99")),
        streams=2,
    ),
    replace(refused(400, APIError, REJECTED, "Connection: close"), streams=2),
]


def before(fault: str, *data: bytes, **more: Any) -> HTTPCell:
    return broken(BEFORE, fault, AMBIGUOUS, *data, **more)


def within(fault: str, *data: bytes, **more: Any) -> HTTPCell:
    return broken(MID_STREAM, fault, ACCEPTED, BEGUN, *data, **more)


def passed(phase: str, fault: str, junk: bytes) -> HTTPCell:
    """Return the cell of bytes that a turn passes over."""
    began = phase == MID_STREAM
    data = (BEGUN, chunk(junk), chunk(REST)) if began else (CHUNKED, chunk(junk), chunk(BODY))
    return well(phase, fault, *data, END)


JUNK: Final[dict[str, bytes]] = {
    "a comment": b": ping\n\n",
    "an event without data": b"event: ping\n\n",
    "an empty event": b"data:\n\n",
    "`id` and `retry` alone": b"id: 7\nretry: 3000\n\n",
    "an unknown event": b'event: codex.rate_limits\ndata: {"type": "codex.rate_limits"}\n\n',
    "an event of truncated JSON": b'data: {"type": "response.output_te\n\n',
    "JSON that is no object": b"data: []\n\n",
    "JSON without a type": b'data: {"hello": 1}\n\n',
    "an event that is not UTF-8": b'data: {"type": "\xff"}\n\n',
    "a line that is no field": b"hello\n\n",
}
SAME_WAY: Final = [
    passed(phase, fault, junk) for phase in (BEFORE, MID_STREAM) for fault, junk in JUNK.items()
]


def error_events() -> list[HTTPCell]:
    """Return the cells of `error` events in all shapes."""
    cells: list[HTTPCell] = []
    for fault, frame, kind, delivery in KINDS:
        data = b"event: error\ndata: " + msgspec.json.encode(frame) + b"\n\n"
        code = str(frame.get("code") or frame.get("error"))
        limit = kind is RateLimitError and "insufficient_quota" not in code
        more: dict[str, Any] = {}
        if limit or delivery is AMBIGUOUS:
            more = RETRIED
        first = HTTPCell(
            phase=BEFORE,
            fault=fault,
            script=reply(CHUNKED, chunk(data), END),
            raises=kind,
            delivery=delivery,
            **more,
        )
        later = replace(
            first,
            phase=MID_STREAM,
            script=reply(BEGUN, chunk(data), END),
            delivery=ACCEPTED,
        )
        if limit:
            first = replace(first, raises=None, delivery=None, repeated=True)
        cells += [first, later]
    return cells


ERROR_EVENTS: Final = error_events()
LONG: Final = {**ALL[1], "delta": "x" * 60_000}

BODIES: Final = [
    *lost(BEFORE, "half an event", AMBIGUOUS, CHUNKED, chunk(FIRST[:20])),
    *lost(BEFORE, "the size of a chunk", AMBIGUOUS, CHUNKED, b"1"),
    *lost(BEFORE, "half a chunk", AMBIGUOUS, CHUNKED, chunk(FIRST)[:20]),
    before("an empty answer", whole(200, b"", EVENTS), streams=1),
    before("an empty answer in chunks", CHUNKED, END, streams=1),
    before("an answer of no content type", whole(200, BODY), streams=1),
    before("a page", whole(200, b"<html>hi</html>", "Content-Type: text/html"), streams=1),
    before("JSON of something else", whole(200, {"object": "list"}), streams=1),
    before(
        "a Response of truncated JSON",
        whole(200, msgspec.json.encode(response())[:-5], JSON_BODY),
        streams=1,
    ),
    before("a Response that is cut", whole(200, response())[:-5], then=Cut),
    before(
        "a compressed answer",
        whole(200, gzip.compress(BODY), EVENTS, "Content-Encoding: gzip"),
    ),
    well(BEFORE, "a whole Response, not streamed", whole(200, response(ANSWER))),
    well(
        BEFORE,
        "a whole Response that failed",
        whole(200, response(status="failed")),
        status="failed",
    ),
    HTTPCell(
        phase=BEFORE,
        fault="a whole error with status 200",
        script=reply(whole(200, error("No."))),
        raises=APIError,
        delivery=AMBIGUOUS,
    ),
    silent(BEFORE, "comments without end", without_end(CHUNKED, chunk(b": ping\n\n"), every=7.0)),
    silent(BEFORE, "half an event, then stall", then_silence(CHUNKED, chunk(FIRST[:20]))),
    HTTPCell(
        phase=BEFORE,
        fault="`previous_response_not_found`, in an event",
        script=reply(CHUNKED, chunk(sse(wrapped("previous_response_not_found", 400))), END),
        raises=PreviousResponseNotFound,
        delivery=REJECTED,
    ),
]
STREAMS: Final = [
    *lost(MID_STREAM, "", ACCEPTED, BEGUN),
    *lost(MID_STREAM, "half an event", ACCEPTED, BEGUN, chunk(REST[:20])),
    *lost(MID_STREAM, "half a chunk", ACCEPTED, BEGUN, chunk(REST)[:20]),
    within("the last chunk", END, streams=1),
    within("garbage for the size of a chunk", b"zz\r\n"),
    within("a negative size of a chunk", b"-5\r\nhello\r\n"),
    within("a size of a chunk without end", b"1" * 200_000),
    within("a chunk without its end", chunk(REST[:50])[:-2] + b"XX"),
    within("garbage after half an event", chunk(REST[:20]), b"zz\r\n"),
    broken(
        MID_STREAM,
        "a body that is shorter than its length",
        ACCEPTED,
        head(200, EVENTS, "Content-Length: 9999") + FIRST,
        then=Cut,
    ),
    broken(
        MID_STREAM, "FIN, in a body without length", ACCEPTED, head(200, EVENTS) + FIRST, then=Cut
    ),
    within("`[DONE]` in place of the rest", chunk(b"data: [DONE]\n\n"), END, streams=1),
    silent(MID_STREAM, "stall", then_silence(BEGUN)),
    silent(MID_STREAM, "half an event, then stall", then_silence(BEGUN, chunk(REST[:20]))),
    silent(
        MID_STREAM, "comments without end", without_end(BEGUN, chunk(b": ping\n\n"), every=70.0)
    ),
    silent(
        MID_STREAM,
        "an event of which a byte comes every minute",
        without_end(BEGUN + chunk(b"data: "), chunk(b"x"), every=60.0),
    ),
    HTTPCell(
        phase=MID_STREAM,
        fault="an oversize event",
        script=then_silence(BEGUN, chunk(sse(LONG))),
        raises=MessageTooLarge,
        delivery=ACCEPTED,
        streams=2,
    ),
    silent(
        MID_STREAM, "a line without end that is no data", then_silence(BEGUN, chunk(b"x" * 60_000))
    ),
    silent(
        MID_STREAM,
        "a line of data without end",
        then_silence(BEGUN, chunk(b"data: " + b"x" * 60_000)),
    ),
    HTTPCell(
        phase=MID_STREAM,
        fault="slow bytes",
        script=slowly(CHUNKED + chunk(BODY) + END, 300.0),
        after=Span(300.0, "as long as they take", at_most=True),
        streams=2,
    ),
    well(
        MID_STREAM,
        "chunks of one byte",
        CHUNKED,
        *[chunk(BODY[n : n + 1]) for n in range(len(BODY))],
        END,
    ),
    well(
        MID_STREAM, "CRLF for the ends of lines", CHUNKED, chunk(BODY.replace(b"\n", b"\r\n")), END
    ),
]
FAILED: Final = {
    "type": "response.failed",
    "response": response(status="failed", response_id="resp_fault"),
}
PARTIAL: Final = {
    "type": "response.incomplete",
    "response": response(status="incomplete", response_id="resp_fault"),
}
TERMINALS: Final = [
    *lost(TERMINAL, "half of it", ACCEPTED, TO_THE_END, chunk(sse(LAST)[:60])),
    broken(
        TERMINAL,
        "half of it, then the last chunk",
        ACCEPTED,
        TO_THE_END,
        chunk(sse(LAST)[:-3]),
        END,
        streams=1,
    ),
    broken(
        TERMINAL,
        "it has no empty line after it",
        ACCEPTED,
        TO_THE_END,
        chunk(sse(LAST)[:-1]),
        END,
        streams=1,
    ),
    broken(TERMINAL, "it never comes", ACCEPTED, TO_THE_END, END, streams=1),
    silent(TERMINAL, "stall in its place", then_silence(TO_THE_END)),
    broken(
        TERMINAL,
        "it is truncated JSON",
        ACCEPTED,
        TO_THE_END,
        chunk(sse(LAST)[:-9] + b"\n\n"),
        END,
        streams=1,
    ),
    HTTPCell(
        phase=TERMINAL,
        fault="it has the wrong shape",
        script=reply(TO_THE_END, chunk(sse({"type": "response.completed", "response": 7})), END),
        raises=UndecodableResponse,
        delivery=ACCEPTED,
    ),
    HTTPCell(
        phase=TERMINAL,
        fault="it is oversize",
        script=reply(TO_THE_END, chunk(sse({**LAST, "more": "x" * 60_000})), END),
        raises=MessageTooLarge,
        delivery=ACCEPTED,
    ),
    well(TERMINAL, "it comes without any event before", CHUNKED, chunk(sse(LAST)), END),
    well(TERMINAL, "another answer after it", CHUNKED, chunk(BODY) + END + whole(408), streams=2),
    well(TERMINAL, "it comes twice", CHUNKED, chunk(BODY + sse(LAST)), END),
    well(TERMINAL, "a delta after it", CHUNKED, chunk(BODY + sse(ALL[1])), END),
    well(TERMINAL, "`[DONE]` after it", CHUNKED, chunk(BODY + b"data: [DONE]\n\n"), END),
    well(TERMINAL, "trailers after it", CHUNKED, chunk(BODY), b"0\r\nx-a: b\r\nx-c: d\r\n\r\n"),
    well(TERMINAL, "garbage for trailers", CHUNKED, chunk(BODY), b"0\r\n\x00\r\n\r\n", streams=2),
    well(TERMINAL, "garbage for a chunk after it", CHUNKED, chunk(BODY), b"zz\r\n", streams=2),
    well(
        TERMINAL, "FIN after it, without the last chunk", CHUNKED, chunk(BODY), then=Cut, streams=2
    ),
    well(
        TERMINAL,
        "reset after it, without the last chunk",
        CHUNKED,
        chunk(BODY),
        then=Reset,
        streams=2,
    ),
    well(TERMINAL, "FIN after the last chunk", CHUNKED, chunk(BODY), END, then=Cut, streams=2),
    well(TERMINAL, "reset after the last chunk", CHUNKED, chunk(BODY), END, then=Reset, streams=2),
    well(
        TERMINAL,
        "FIN after it, in a body without length",
        head(200, EVENTS) + BODY,
        then=Cut,
        streams=2,
    ),
    HTTPCell(
        phase=TERMINAL,
        fault="stall after it, without the last chunk",
        script=then_silence(CHUNKED, chunk(BODY)),
        streams=2,
    ),
    HTTPCell(
        phase=TERMINAL,
        fault="comments without end after it",
        script=without_end(CHUNKED + chunk(BODY), chunk(b": ping\n\n"), every=0.7),
        streams=2,
    ),
    well(TERMINAL, "`response.incomplete`", BEGUN, chunk(sse(PARTIAL)), END, status="incomplete"),
    well(TERMINAL, "`response.failed`", BEGUN, chunk(sse(FAILED)), END, status="failed"),
]


def hang_up(peer: HTTPPeer) -> None:
    peer.close_all()


def reset_all(peer: HTTPPeer) -> None:
    for server, stream in zip(peer.servers, peer.streams, strict=True):
        server.reset()
        stream.peer_closed = True


def unseen_reset(peer: HTTPPeer) -> None:
    """Reset the connection while the next request is under way."""
    peer.servers[-1].reset()


IDLES: Final = [
    HTTPCell(phase=IDLE, fault="FIN", arrange=hang_up, streams=2, kinds=KEPT),
    HTTPCell(phase=IDLE, fault="reset", arrange=reset_all, streams=2, kinds=KEPT),
    HTTPCell(
        phase=IDLE,
        fault="reset that crosses the request",
        arrange=unseen_reset,
        streams=2,
        repeated=True,
        received=False,
        kinds=KEPT,
    ),
    replace(broken(IDLE, "FIN that crosses the request", AMBIGUOUS, then=Cut), kinds=KEPT),
    silent(IDLE, "half-open", then_silence(), kinds=KEPT),
]
EXCHANGES: Final = [
    *IDLES,
    *UNWRITTEN,
    *HEADS,
    *STATUSES,
    *BODIES,
    *SAME_WAY,
    *ERROR_EVENTS,
    *STREAMS,
    *TERMINALS,
]


# --- Closing ----------------------------------------------------------------------------------


def go_down(peer: HTTPPeer) -> None:
    peer.down = True


async def no_key() -> str:
    """Return no key: the function that asks for it hangs."""
    await trio.sleep_forever()
    raise AssertionError


BACKGROUND: Final[dict[str, Any]] = {"background": True, "store": True}
NOT_SENT: Final = DeliveryStatus.NOT_SENT
HTTP_CLOSINGS: Final = [
    HTTPClosing(state="no request was made", asked=False),
    HTTPClosing(state="kept-alive HTTP connection"),
    HTTPClosing(state="key that is waited for", options={"api_key": no_key}, delivery=NOT_SENT),
    HTTPClosing(state="wait between two dials", arrange=go_down, delivery=NOT_SENT),
    HTTPClosing(
        state="request that is not read", arrange=stop_reading, capacity=10, delivery=NOT_SENT
    ),
    HTTPClosing(state="no answer", script=then_silence(), delivery=AMBIGUOUS),
    HTTPClosing(state="100", script=then_silence(head(100)), delivery=AMBIGUOUS),
    HTTPClosing(state="half a head", script=then_silence(CHUNKED[:20]), delivery=AMBIGUOUS),
    HTTPClosing(state="a head", script=then_silence(CHUNKED), delivery=AMBIGUOUS),
    HTTPClosing(
        state="body of an error that stalls",
        script=then_silence(head(500, JSON_BODY, "Content-Length: 99")),
        delivery=AMBIGUOUS,
    ),
    HTTPClosing(
        state="half an event", script=then_silence(CHUNKED, chunk(FIRST[:20])), delivery=AMBIGUOUS
    ),
    HTTPClosing(
        state="wait after a rate limit",
        script=reply(whole(429, error("Slow."), "Retry-After: 7")),
        delivery=REJECTED,
    ),
    HTTPClosing(state="after an event", script=then_silence(BEGUN), delivery=ACCEPTED),
    HTTPClosing(
        state="half a chunk", script=then_silence(BEGUN, chunk(REST)[:20]), delivery=ACCEPTED
    ),
    HTTPClosing(
        state="comments without end",
        script=without_end(BEGUN, chunk(b": ping\n\n"), every=0.1),
        delivery=ACCEPTED,
    ),
    HTTPClosing(
        state="background response that is resumed",
        script=reply(BEGUN, then=Cut),
        params=BACKGROUND,
        delivery=ACCEPTED,
    ),
    HTTPClosing(
        state="after the last event, without the last chunk",
        script=then_silence(CHUNKED, chunk(BODY)),
    ),
    HTTPClosing(
        state="comments without end after the last event",
        script=without_end(CHUNKED + chunk(BODY), chunk(b": ping\n\n"), every=0.1),
    ),
]
