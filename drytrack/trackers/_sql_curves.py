"""Reading the points of series by the attempt rule, many at a time.

SQLite's rows go past SQLAlchemy, and never lie in a list of tuples: those take
as long to make, and to collect as garbage, as all the rest of reading.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from drytrack.core._history import Attempt
from drytrack.trackers import _sql_schema as schema
from drytrack.trackers._sql_summary import is_ascending, join_float

if TYPE_CHECKING:
    from drytrack.trackers._sql_points import Break

BATCH = 65_536
"""Points that are in memory at once, or twice as many where a series is longer."""

CHUNK = 500
"""Series for one statement; servers limit how many values it may hold."""

_Part = tuple[int, list[int], list[float], list[int] | None]
"""Series, steps, values, and sequence numbers where the rule needs them."""


class AttemptRule:
    """Which points of one model on one axis count.

    Attributes:
        is_simple: Whether all points are of one attempt, and count.
    """

    def __init__(
        self, breaks: Sequence[Break], firsts: Iterable[tuple[Attempt, int]]
    ) -> None:
        """Work out where each attempt ends.

        Args:
            breaks: First sequence number of each attempt, ascending.
            firsts: The first step of each attempt that has points.
        """
        known = sorted(firsts)
        self.is_simple = len(known) <= 1
        self._seqs = [seq for seq, _ in breaks]
        # Attempt number n, and one without points in front of it, end at ends[n].
        starts = (first for _, first in reversed(known))
        ends = list(itertools.accumulate(starts, min, initial=math.inf))[::-1]
        attempts = [attempt for attempt, _ in known]
        self._limits = [
            ends[bisect.bisect_right(attempts, attempt)] for _, attempt in breaks
        ]

    def counts(self, seq: int, step: int) -> bool:
        """Return whether a point counts."""
        if not self._seqs:
            return True
        at = bisect.bisect_right(self._seqs, seq) - 1
        return step < self._limits[max(0, at)]

    def choose(
        self, steps: list[int], values: list[float], seqs: list[int]
    ) -> tuple[list[int], list[float]]:
        """Return the steps and values that count."""
        keep = list(map(self.counts, seqs, steps))
        return (
            list(itertools.compress(steps, keep)),
            list(itertools.compress(values, keep)),
        )


def read_curves(
    connection: sa.Connection,
    series_ids: Sequence[int],
    rule: AttemptRule,
    max_step: int = -1,
) -> Iterator[tuple[int, list[int], list[float]]]:
    """Read series of one model on one axis.

    Args:
        connection: The database.
        series_ids: Numbers of the series, ascending.
        rule: Which points count.
        max_step: The last step to read; negative for all.

    Yields:
        Number of the series, steps and values; a long series in parts, its steps
        ascending.
    """
    is_sqlite = connection.dialect.name == "sqlite"
    fetch = _fetch_from_file if is_sqlite else _fetch_from_server
    at, steps, values = -1, list[int](), list[float]()
    for series_id, more, points, seqs in fetch(connection, series_ids, rule, max_step):
        if seqs is not None:
            more, points = rule.choose(more, points, seqs)
        if not more:
            continue
        if series_id == at:  # its last step may go on here
            more.insert(0, steps.pop())
            points.insert(0, values.pop())
        if steps:
            yield at, steps, values
        at, steps, values = series_id, more, points
        if not is_ascending(steps):  # within a step the newest counts
            chosen = dict(zip(steps, values, strict=True))
            steps, values = list(chosen), list(chosen.values())
    if steps:
        yield at, steps, values


def _fetch_from_file(
    connection: sa.Connection,
    series_ids: Sequence[int],
    rule: AttemptRule,
    max_step: int,
) -> Iterator[_Part]:
    width = 2 if rule.is_simple else 3
    parts = ["SELECT step, coalesce(odd, value, 'nan')"]
    if not rule.is_simple:
        parts.append(", seq")
    parts.append("FROM points WHERE series_id = ?")
    limits = () if max_step < 0 else (max_step,)
    if limits:
        parts.append("AND step <= ?")
    parts.append("ORDER BY step, seq")
    text = " ".join(parts)
    cursor = connection.connection.cursor()
    try:
        for series_id in series_ids:
            cursor.execute(text, (series_id, *limits))
            rows = iter(cursor)  # type: ignore[call-overload]  # sqlite3's can
            while flat := list(_chain(itertools.islice(rows, BATCH))):
                values = flat[1::width]
                try:
                    sum(values)  # what finds text among them soonest
                except TypeError:
                    values = list(map(float, values))
                seqs = None if rule.is_simple else flat[2::width]
                yield series_id, flat[::width], values, seqs
    finally:
        cursor.close()


def _fetch_from_server(
    connection: sa.Connection,
    series_ids: Sequence[int],
    rule: AttemptRule,
    max_step: int,
) -> Iterator[_Part]:
    points = schema.points
    columns: list[sa.Column[Any]] = [
        *(points.c.series_id, points.c.step, points.c.value, points.c.odd)
    ]
    if not rule.is_simple:
        columns.append(points.c.seq)
    select = sa.select(*columns).order_by(
        points.c.series_id, points.c.step, points.c.seq
    )
    if max_step >= 0:
        select = select.where(points.c.step <= max_step)
    for start in range(0, len(series_ids), CHUNK):
        chosen = points.c.series_id.in_(series_ids[start : start + CHUNK])
        found = connection.execute(
            select.where(chosen).execution_options(yield_per=BATCH)
        )
        for part in found.partitions():
            ids, steps, values, odds, *seqs = map(list, zip(*part, strict=True))
            if odds.count(None) != len(odds):
                values = list(map(join_float, values, odds))
            begin = 0
            while begin < len(ids):
                end = bisect.bisect_right(ids, ids[begin])
                at = slice(begin, end)
                more = seqs[0][at] if seqs else None
                yield ids[begin], steps[at], values[at], more
                begin = end


_chain = itertools.chain.from_iterable
