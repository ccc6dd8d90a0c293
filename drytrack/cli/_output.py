"""How results are printed: JSON, tables, times, numbers and small curves."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from drytrack._wording import at as at
from drytrack._wording import duration as duration
from drytrack._wording import moment as moment
from drytrack._wording import number as number
from drytrack.core._record import tag_non_finite

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

BARS = "▁▂▃▄▅▆▇█"
PLAIN_BARS = "_.-~=*%#"

STYLES = {
    "completed": "green",
    "running": "cyan",
    "created": "dim",
    "failed": "red",
    "crashed": "red",
    "interrupted": "yellow",
    "stalled": "yellow",
}

NARROW = 110
"""Columns of a screen below which tables leave out what can be missed."""

GAP = 3
"""Columns of the screen between two columns of a table."""

FOLDED = 16
"""Columns that text which goes on below should have at least."""

PIPE_WIDTH = 160
"""Columns of a table that goes to a file or another program."""


def print_json(data: Any, *, indent: int | None = 2) -> None:
    """Print data as JSON; NaN and ±inf as ``{"$float": "nan"}``."""
    plain = not is_utf(sys.stdout.encoding)
    click.echo(json.dumps(tag_non_finite(data), indent=indent, ensure_ascii=plain))


def is_utf(encoding: str | None) -> bool:
    """Return whether a stream of an encoding takes every letter."""
    return "utf" in (encoding or "").lower()


def make_console(*, err: bool = False) -> Console:
    """Return what tables are printed on; colours as NO_COLOR and the terminal say."""
    from rich.console import Console

    stream = sys.stderr if err else sys.stdout
    width = None
    if not stream.isatty() and not os.environ.get("COLUMNS"):
        width = PIPE_WIDTH
    return Console(stderr=err, width=width, highlight=False, emoji=False, markup=False)


def make_table(
    *columns: str,
    title: str | None = None,
    right: Iterable[str] = (),
    fold: Iterable[str] = (),
) -> Table:
    """Return an empty table.

    Args:
        *columns: The header.
        title: A line above it.
        right: Columns of numbers.
        fold: Columns that go on below where the screen is narrow.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=box.SIMPLE_HEAD,
        # A title may be longer than the table is wide.
        title=None if title is None else Text(title, no_wrap=True, overflow="ignore"),
        title_justify="left",
        title_style="bold",
        header_style="bold",
        pad_edge=False,
        padding=(0, 1),
    )
    for column in columns:
        table.add_column(
            column,
            justify="right" if column in right else "left",
            overflow="fold" if column in fold else "ellipsis",
            no_wrap=column not in fold,
        )
    return table


def fit(console: Console, table: Table, droppable: Sequence[str]) -> Table:
    """Leave out columns until a table fits the screen; numbers are never cut.

    Args:
        console: Where it is printed.
        table: The table, with all its rows.
        droppable: Columns that can be missed, the first to go first.
    """
    for name in droppable:
        if _measure(table) <= console.width:
            break
        table = _without(table, name)
    return table


def _without(table: Table, name: str) -> Table:
    """Return a table without a column; rich knows no way to take one out."""
    kept = [column for column in table.columns if column.header != name]
    slim = make_table(
        *(str(column.header) for column in kept),
        title=str(table.title) if table.title is not None else None,
        right=[str(column.header) for column in kept if column.justify == "right"],
        fold=[str(column.header) for column in kept if not column.no_wrap],
    )
    for cells in zip(*(column.cells for column in kept), strict=True):
        slim.add_row(*cells)
    return slim


def _measure(table: Table) -> int:
    """Return how wide a table must be; what can go on below need not be wide."""
    from rich.cells import cell_len

    width = 2 + GAP * (len(table.columns) - 1)
    for column in table.columns:
        texts = [str(column.header), *map(str, column.cells)]
        longest = max(cell_len(line) for text in texts for line in text.split("\n"))
        width += longest if column.no_wrap else min(longest, FOLDED)
    return width


def add_row(table: Table, *cells: object, style: str | None = None) -> None:
    """Add a row; what a run calls things is text, never markup."""
    from rich.text import Text

    table.add_row(
        *(cell if isinstance(cell, Text) else Text(str(cell)) for cell in cells),
        style=style,
    )


def status_cell(status: str) -> Any:
    """Return a status in its colour."""
    from rich.text import Text

    return Text(status, style=STYLES.get(status, ""))


def sparkline(values: Sequence[float], encoding: str = "utf-8") -> str:
    """Return a small curve, one column for each value.

    Args:
        values: The values; what is not finite is a blank.
        encoding: Of the stream that it goes to.
    """
    bars = BARS if is_utf(encoding) else PLAIN_BARS
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    # Halves, since the difference of two floats may exceed the largest.
    span = high / 2 - low / 2
    top = len(bars) - 1
    drawn = []
    for value in values:
        share = (value / 2 - low / 2) / span if span else 0.0
        drawn.append(bars[round(share * top)] if math.isfinite(value) else " ")
    return "".join(drawn)
