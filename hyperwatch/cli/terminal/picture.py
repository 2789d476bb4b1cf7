"""The live table as a picture: what a `Board` holds, for a terminal of any size."""

from __future__ import annotations

from collections import Counter

import attrs
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from hyperwatch.cli.terminal.board import Board, Row

__all__ = ["Picture"]

_WIDE = 104  # columns from which on there is room for the long form
_AROUND = 5  # lines that are no orders: title, numbers, statuses, a blank one, the table's head
_NOTICES = 2
_STATUSES = 12

_COLOURS = {"open": "green", "filled": "cyan", "triggered": "green", "canceled": "yellow"}

# Name, columns in 80, columns in _WIDE, justification. With a blank between two, 80 and 104 in all.
_COLUMNS = (
    ("time", 8, 12, "left"), ("coin", 9, 12, "left"), ("side", 4, 4, "left"), ("status", 16, 24, "left"),
    ("price", 8, 10, "right"), ("size/original", 15, 17, "right"), ("user", 6, 11, "left"), ("latency", 7, 7, "right"),
)  # fmt: skip
_DROPPED = ("user", "latency", "size/original", "time", "status", "side", "coin")
"""What goes first where there is no room. The price stays: it is never cut, for half a number is another one."""
_NUMBERS = {"price", "size/original"}


@attrs.frozen
class Picture:
    """A renderable of rich.

    Args:
        board: what is shown.
        title: stands above.
        rate: orders a second.
    """

    board: Board
    title: str
    rate: float

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Fills the height that there is."""
        width = options.max_width
        notices = list(self.board.notices)[-_NOTICES:]
        yield _line(self.title, "bold")
        yield _line(_numbers(self.board, self.rate), "")
        yield _line(_totals(self.board.statuses), "dim")
        for notice in notices:
            yield _line(notice, "yellow")
        yield Text()
        room = max(1, (options.height or console.height) - _AROUND - len(notices))
        yield _table(list(self.board.rows)[:room], width)


def _line(text: str, style: str) -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _numbers(board: Board, rate: float) -> str:
    block = "-" if board.block is None else f"{board.block:,}"
    lag = "-" if board.lag_ms is None else f"{board.lag_ms / 1000:.3f} s"
    gaps = f"   {board.gaps} gaps" if board.gaps else ""
    return f"{rate:,.0f} orders/s   {board.orders:,} orders   block {block}   lag {lag}{gaps}"


def _totals(statuses: Counter[str]) -> str:
    return "  ".join(f"{status} {count:,}" for status, count in statuses.most_common(_STATUSES))


def _table(rows: list[Row], width: int) -> Table:
    wide = width >= _WIDE
    cells = [_cells(row, wide=wide) for row in rows]
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    columns = _fitting(cells, width, wide=wide)
    for name, columns_wide, justify in columns:
        table.add_column(name, width=columns_wide, no_wrap=True, overflow="ellipsis", justify=justify)  # type: ignore[arg-type]  # a literal in a tuple is a str
    for row in cells:
        table.add_row(*(row[name] for name, _, _ in columns))
    return table


def _fitting(cells: list[dict[str, Text]], width: int, *, wide: bool) -> list[tuple[str, int, str]]:
    """(name, width, justification) of the columns that there is room for: as wide as their numbers, and whole."""
    columns = [(name, broad if wide else narrow, justify) for name, narrow, broad, justify in _COLUMNS]
    columns = [
        (name, max([least, *(row[name].cell_len for row in cells)]) if name in _NUMBERS else least, justify)
        for name, least, justify in columns
    ]
    for dropped in _DROPPED:
        if sum(each + 1 for _, each, _ in columns) - 1 <= width:
            break
        columns = [column for column in columns if column[0] != dropped]
    return columns


def _cells(row: Row, *, wide: bool) -> dict[str, Text]:
    latency = "-" if row.latency_ms is None else _duration(row.latency_ms)
    return {
        "time": Text(row.time if wide else row.time[:8]),
        "coin": Text(row.coin),
        "side": Text(row.side, style="green" if row.side == "bid" else "red"),
        "status": Text(row.status, style=_COLOURS.get(row.status, "dim")),
        "price": Text(row.price),
        "size/original": Text(row.size),
        "user": Text(f"{row.user[:6]}…{row.user[-4:]}" if wide else row.user[:6]),
        "latency": Text(latency),
    }


def _duration(ms: int) -> str:
    """In six columns at most where it is less than a day."""
    if ms < 10_000:  # noqa: PLR2004  four digits fit
        return f"{ms} ms"
    return f"{ms // 1000} s" if ms < 10_000_000 else f"{ms // 3_600_000} h"  # noqa: PLR2004
