"""P7: a long conversation with tools sends a tenth of the bytes that full input would send."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.bytes import (
    DELTAS,
    FULL,
    LOST,
    STRATEGIES,
    USUAL,
    ConversationSize,
    SentTraffic,
    measure,
    open_counted_connection,
    rows_of_one,
    table,
)
from tests.testing.driver import NO_WAITING

if TYPE_CHECKING:
    from benchmarks.bytes import Strategy

PAGE = Path(__file__).resolve().parent.parent / "docs" / "conversations.md"
SHORT = ConversationSize(turns=4, output=500)


async def known(strategy: Strategy) -> list[object]:
    """Return the history that the model has at the end."""
    async with open_counted_connection() as counted:
        await strategy(counted, SHORT)
        history = counted.server.requests[-1].history
    ids = {"id", "call_id"}
    return [{name: item[name] for name in item if name not in ids} for item in history]


@NO_WAITING
async def test_the_model_has_the_same_history_in_every_way() -> None:
    everything = await known(STRATEGIES[FULL])
    assert len(everything) == 4 * SHORT.turns - 1
    assert await known(STRATEGIES[DELTAS]) == everything
    assert await known(STRATEGIES[LOST]) == everything


@NO_WAITING
async def test_30_turns_with_tools_send_a_tenth_of_the_bytes() -> None:
    size = ConversationSize(*USUAL)
    sent = {name: await measure(strategy, size) for name, strategy in STRATEGIES.items()}
    assert sent[FULL].size >= 10 * sent[DELTAS].size
    assert [sent[name].full for name in STRATEGIES] == [60, 1, 2]
    assert sent[LOST].size > sent[DELTAS].size
    assert table(rows_of_one(size, sent), markdown=True) in PAGE.read_text(encoding="utf-8")


def test_a_table_is_written_as_markdown_or_in_columns() -> None:
    rows = [["what", "bytes"], ["a", "1"], ["long one", "1,000"]]
    assert table(rows, markdown=True).splitlines() == [
        "| what | bytes |",
        "| --- | ---: |",
        "| a | 1 |",
        "| long one | 1,000 |",
    ]
    assert table(rows, markdown=False).splitlines() == [
        "what      bytes",
        "a             1",
        "long one  1,000",
    ]


def test_a_ratio_is_full_input_divided_by_the_other() -> None:
    sent = {FULL: SentTraffic(2, 0, 2, 30_000), DELTAS: SentTraffic(2, 1, 1, 12_000)}
    _, *rows = rows_of_one(SHORT, sent)
    assert [row[-2:] for row in rows] == [["30 KB", "1.0"], ["12 KB", "2.5"]]
