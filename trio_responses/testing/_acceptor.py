"""What happens to one stream from its first byte on: handshake, upgrade, session, containment."""

import logging
from typing import TYPE_CHECKING, Final, final

import trio
from trio.abc import Stream
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream
from wsproto.utilities import LocalProtocolError

from trio_responses.testing._handshake import (
    AcceptAndDrop,
    Garbage,
    Hang,
    HangUp,
    HttpRefusal,
    judge,
    read_head,
    refuse_head,
    write_refusal,
)
from trio_responses.testing._request import Connection
from trio_responses.testing._session import Session
from trio_responses.testing._state import ServerState
from trio_responses.testing._streams import FaultyStream

if TYPE_CHECKING:
    from trio_responses.testing._handshake import HandshakeFault

_log: Final = logging.getLogger(__name__)

_QUEUE_SIZE: Final = 64
_RECEIVE_SIZE: Final = 65536


@final
class Acceptor:
    """Serves the streams of one server, each in a task of its own."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    async def serve(self, stream: Stream) -> None:
        """Serve one stream; whatever happens on it, the server goes on."""
        record = Connection(len(self._state.connections) + 1)
        self._state.connections.append(record)
        try:
            await self._shake_hands(FaultyStream(stream), record)
        except* (trio.BrokenResourceError, trio.ClosedResourceError, ConnectionClosed):
            pass  # the client left, which is no fault of the server
        except* LocalProtocolError:
            pass  # trio-websocket answers a ping behind its own close frame, and may not
        except* Exception as group:  # noqa: BLE001 - a connection must not take down the others
            _log.debug("connection %d failed", record.number, exc_info=group)
            self._state.crashes.extend(_leaves(group))
        finally:
            await trio.aclose_forcefully(stream)

    async def _shake_hands(self, stream: FaultyStream, record: Connection) -> None:
        fault: HandshakeFault | None
        try:
            head = await read_head(stream)
        except ValueError as error:
            head, fault = None, refuse_head(str(error))
        else:
            if head is None:
                return
            record.method, record.path = head.method, head.target
            record.headers = dict(head.headers)
            fault = self._state.take_handshake_fault() or judge(head, self._state.options.api_key)
        match fault:
            case HttpRefusal():
                record.status = fault.status
                await write_refusal(stream, fault)
            case Hang():
                while await stream.receive_some():
                    pass
            case HangUp(how="reset"):
                stream.reset()
            case HangUp():
                await stream.end()
            case Garbage():
                await stream.send_all(fault.data)
                await stream.end()
            case _:
                await self._upgrade(stream, record, fault)

    async def _upgrade(
        self, stream: FaultyStream, record: Connection, fault: AcceptAndDrop | None
    ) -> None:
        async with trio.open_nursery() as nursery:
            websocket = await self._accept(stream, nursery)
            record.status = 400 if websocket is None else 101
            if websocket is not None:
                session = Session(self._state, record, websocket, stream)
                if fault is not None:
                    nursery.start_soon(session.drop, fault.how, fault.reason)
                await session.run()
            nursery.cancel_scope.cancel()

    async def _accept(
        self, stream: FaultyStream, nursery: trio.Nursery
    ) -> WebSocketConnection | None:
        """Accept the upgrade; None if the stream was closed over it.

        trio-websocket waits for ever for the proposal of a stream that it has closed itself.
        """
        scope = trio.CancelScope()
        nursery.start_soon(_cancel_when, stream.closed, scope)
        with scope:
            proposal = await wrap_server_stream(
                nursery,
                stream,
                message_queue_size=_QUEUE_SIZE,
                max_message_size=self._state.options.max_message_size,
                receive_buffer_size=_RECEIVE_SIZE,
            )
            return await proposal.accept()
        return None


async def _cancel_when(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


def _leaves(group: BaseExceptionGroup[Exception]) -> list[Exception]:
    found: list[Exception] = []
    for error in group.exceptions:
        found.extend(_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    return found
