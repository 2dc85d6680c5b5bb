"""An instrument that collects the names of all hooks and the records, but no frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio_responses import Instrument

if TYPE_CHECKING:
    from trio_responses import ResponsesError
    from trio_responses.typing import SocketRecord, ToolRecord, TurnRecord


class Notes(Instrument):
    """An instrument that collects the names of the called hooks, and the records."""

    def __init__(self) -> None:
        self.hooks: list[str] = []
        self.sockets: list[SocketRecord] = []
        self.turns: list[TurnRecord] = []
        self.tools: list[ToolRecord] = []
        self.delays: list[tuple[int, float, str]] = []
        self.ends: list[ResponsesError] = []

    def of_turns(self) -> list[str]:
        return [hook for hook in self.hooks if hook.startswith("turn_")]

    def of_sockets(self) -> list[str]:
        return [hook for hook in self.hooks if not hook.startswith(("turn_", "tool_"))]

    def socket_opening(self, socket: SocketRecord) -> None:
        self.hooks.append("socket_opening")
        self.sockets.append(socket)

    def socket_opened(self, socket: SocketRecord) -> None:
        assert socket is self.sockets[-1]
        self.hooks.append("socket_opened")

    def socket_failed(self, socket: SocketRecord) -> None:
        assert socket is self.sockets[-1]
        self.hooks.append("socket_failed")

    def socket_ended(self, socket: SocketRecord) -> None:
        assert socket in self.sockets
        self.hooks.append("socket_ended")

    def reconnecting(self, attempt: int, delay: float, error: ResponsesError) -> None:
        self.hooks.append("reconnecting")
        self.delays.append((attempt, delay, type(error).__name__))

    def rotated(self, socket: SocketRecord) -> None:
        assert socket is self.sockets[-1]
        self.hooks.append("rotated")

    def connection_ended(self, error: ResponsesError) -> None:
        self.hooks.append("connection_ended")
        self.ends.append(error)

    def turn_started(self, turn: TurnRecord) -> None:
        self.hooks.append("turn_started")
        self.turns.append(turn)

    def turn_sent(self, turn: TurnRecord) -> None:
        assert turn in self.turns
        self.hooks.append("turn_sent")

    def turn_first_event(self, turn: TurnRecord) -> None:
        assert turn in self.turns
        self.hooks.append("turn_first_event")

    def turn_ended(self, turn: TurnRecord) -> None:
        assert turn in self.turns
        self.hooks.append("turn_ended")

    def tool_started(self, tool: ToolRecord) -> None:
        self.hooks.append("tool_started")
        self.tools.append(tool)

    def tool_finished(self, tool: ToolRecord) -> None:
        assert tool in self.tools
        self.hooks.append("tool_finished")
