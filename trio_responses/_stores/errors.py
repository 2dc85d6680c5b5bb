"""The exceptions of stores and of durable conversations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio_responses._errors import ResponsesError
from trio_responses._safe_text import printable

if TYPE_CHECKING:
    from trio_responses._stores.interface import Lease

__all__ = [
    "ConversationBusy",
    "ConversationTooLarge",
    "LeaseLost",
    "OutdatedCheckpoint",
    "RequestSuperseded",
    "StoreError",
    "StoreUnavailable",
    "UnsupportedVersion",
]

SHORT = 128
"""The greatest length of an id in a message."""


class StoreError(ResponsesError):
    """The base class of the exceptions of stores and of durable conversations."""


class StoreUnavailable(StoreError):
    """The engine of a store did not answer in time, in any attempt.

    Whether the operation had an effect is not known, and repeating it is safe. An open conversation
    saves what is missing with its next save.

    :ivar operation: the method of the store, such as ``append``.
    :ivar seconds: the duration of all attempts.
    """

    def __init__(self, operation: str, seconds: float, reason: str = "") -> None:
        why = f": {printable(reason)}" if reason else ""
        super().__init__(
            f"the store did not complete {operation} within {seconds:g} s{why}; check that its"
            " engine runs and can be reached"
        )
        self.operation = operation
        self.seconds = seconds


class ConversationBusy(StoreError):
    """Another owner has the lease of a conversation: another process, or another block.

    Pass ``wait=`` to wait for the end of the lease.

    :ivar conversation_id: the conversation.
    :ivar seconds_left: the seconds until the lease ends, unless it is renewed.
    """

    def __init__(self, conversation_id: str, seconds_left: float) -> None:
        super().__init__(
            f"the conversation {printable(conversation_id, SHORT)!r} has another owner, whose lease"
            f" ends in {seconds_left:.1f} s unless it is renewed: pass wait= to wait for it"
        )
        self.conversation_id = conversation_id
        self.seconds_left = seconds_left


class LeaseLost(StoreError):
    """The lease of a conversation was lost, so that its owner can save nothing more.

    Another owner took over after the lease had ended, the lease could not be renewed in time, or
    the conversation was deleted or has expired. Open the conversation again to continue from what
    was saved.

    :ivar conversation_id: the conversation.
    :ivar token: the fencing token of the lease.
    """

    def __init__(self, lease: Lease, reason: str) -> None:
        super().__init__(
            f"the lease of the conversation {printable(lease.conversation_id, SHORT)!r} was lost:"
            f" {reason}; open the conversation again to continue from what was saved"
        )
        self.conversation_id: str = lease.conversation_id
        self.token: int = lease.token


class ConversationTooLarge(StoreError):
    """A record or a conversation exceeds a limit of the store, so that it was not saved.

    To continue, call ``replace_history()`` with a shorter history, for example from
    ``/responses/compact``, or raise the limit of the store.

    :ivar size: the bytes that the record, or the conversation with it, would have.
    :ivar limit: the limit.
    """

    def __init__(self, what: str, size: int, limit: int, option: str) -> None:
        super().__init__(
            f"the {what} would have {size:,} bytes in the store, which is more than {option}"
            f"={limit:,}: replace the history by a shorter one, or raise the limit"
        )
        self.size = size
        self.limit = limit


class UnsupportedVersion(StoreError):
    """A later release wrote a record, or the tables of a store, in an unknown version.

    :ivar version: the version of the record or of the tables.
    """

    def __init__(self, what: str, version: int | str, supported: int) -> None:
        super().__init__(
            f"{what} has version {version}, which a later release wrote; this release reads"
            f" versions up to {supported}: upgrade trio-responses"
        )
        self.version = version


class RequestSuperseded(StoreError):
    """A repeated request was interrupted, and another turn has ended since.

    Its input is in the history, and its calls may have run, so it is neither continued nor started
    again. If an answer is needed, ask again with another request id.

    :ivar request_id: the request.
    """

    def __init__(self, request_id: str) -> None:
        super().__init__(
            f"the request {printable(request_id, SHORT)!r} was interrupted, and another turn has"
            " ended since: its input is in the history, and its calls may have run, so it is not"
            " repeated; if an answer is needed, ask again with another request_id"
        )
        self.request_id = request_id


class OutdatedCheckpoint(StoreError):
    """A store has a later revision than a checkpoint, or the checkpoint is of another conversation.

    :ivar conversation_id: the conversation in the store.
    """

    def __init__(self, conversation_id: str, reason: str) -> None:
        super().__init__(
            f"the checkpoint does not replace the conversation"
            f" {printable(conversation_id, SHORT)!r} in the store: {reason}; leave out checkpoint="
            " to continue from the store, or delete the conversation from it first"
        )
        self.conversation_id = conversation_id
