"""A conversation as bytes: versioned JSON that another process, machine or release can read.

What belongs elsewhere: when it is saved, and what goes on from it (`conversation.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from trio_responses._errors import ConfigurationError

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Checkpoint"]

T = TypeVar("T")

FORMAT: Final = "trio-responses conversation"
VERSION: Final = 1


class _Heading(msgspec.Struct, frozen=True, kw_only=True):
    format: str
    version: int


class Checkpoint(_Heading, frozen=True, kw_only=True):
    """What is saved of a conversation."""

    format: str = FORMAT
    version: int = VERSION
    settings: dict[str, Any]
    items: list[msgspec.Raw]
    """The history. Where it is to be written, one may be several with commas between."""
    last_response_id: str | None = None
    answers: list[msgspec.Raw] = msgspec.field(default_factory=list[msgspec.Raw])
    """Answers of tools that have not gone out yet."""
    unsent: list[msgspec.Raw] = msgspec.field(default_factory=list[msgspec.Raw])
    """The input of a run whose first turn has not ended well."""

    def write(self) -> bytes:
        """Encode it."""
        return msgspec.json.encode(self)

    @classmethod
    def read(cls, saved: bytes) -> Self:
        """Decode it.

        :raises ConfigurationError: for what is no checkpoint, or one of a later version.
        """
        heading = _read(saved, _Heading)
        if heading.format != FORMAT:
            raise ConfigurationError("the JSON is not the checkpoint of a conversation")
        if heading.version > VERSION:
            raise ConfigurationError(
                f"the checkpoint has version {heading.version}, which a later release wrote;"
                f" this one reads up to {VERSION}"
            )
        read = _read(saved, cls)
        for raw in (*read.items, *read.answers, *read.unsent):
            _read(raw, dict)
        return msgspec.structs.replace(read, answers=[raw.copy() for raw in read.answers])


def _read(saved: bytes | msgspec.Raw, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(saved, type=kind)
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        raise ConfigurationError(f"not a checkpoint: {error}") from None
