"""What a query reads from a database for all of its runs at once, when first asked.

One statement for a hundred runs costs what one for a single run does; a list of
a thousand runs would else take a thousand.
"""

from __future__ import annotations

import dataclasses
import json
import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from drytrack._summaries import Checkpoint, SeriesKey, SeriesSummary, to_json
from drytrack.core import _codec
from drytrack.core._history import Attempt, series_name
from drytrack.core.exceptions import JournalError
from drytrack.trackers import _sql_schema as schema
from drytrack.trackers._sql_read import read_context
from drytrack.trackers._sql_summary import join_float

if TYPE_CHECKING:
    from drytrack.trackers._sql_database import Database

CHUNK = 100
"""Runs that one statement names; of many, the first and the last if it can."""


@dataclasses.dataclass(slots=True)
class SeriesEntry:
    """A series of a run.

    Attributes:
        id: Its number in the database.
        summary: Its summary.
        stale: Whether the summary has to be made from the points.
    """

    id: int
    summary: SeriesSummary
    stale: bool


Starts = list[tuple[int, int]]
Rewinds = list[tuple[int, int, str]]
Spans = dict[tuple[str, str], list[tuple[Attempt, int]]]


class Shelf:
    """Reads for all runs of a query what one of them is asked for."""

    def __init__(self, database: Database, run_ids: Sequence[int]) -> None:
        """Read nothing yet.

        Args:
            database: The database.
            run_ids: Numbers of the runs.
        """
        self._database = database
        self._run_ids = run_ids
        self._values: dict[str, dict[int, dict[str, Any]]] = {}
        self._series: dict[int, list[SeriesEntry]] | None = None
        self._records: dict[int, str] | None = None
        self._saved: dict[int, list[tuple[Checkpoint, int]]] | None = None
        self._attempts: dict[int, tuple[Starts, Rewinds, Spans]] | None = None

    def values(self, table: sa.Table, run_id: int) -> dict[str, Any]:
        """Return the named values of a run."""
        if table.name not in self._values:
            read: dict[int, dict[str, Any]] = {}
            select = table.select().order_by(table.c.seq)
            for row in self._select(select, table.c.run_id):
                read.setdefault(row.run_id, {})[row.name] = read_json(row.value)
            self._values[table.name] = read
        return self._values[table.name].get(run_id, {})

    def record(self, run_id: int) -> dict[str, Any]:
        """Return the record of a run, as it was kept with it."""
        if self._records is None:
            self._records = {}
            table = schema.runs
            select = sa.select(table.c.id, table.c.record)
            for row in self._select(select, table.c.id):
                if row.record:
                    self._records[row.id] = row.record
        text = self._records.get(run_id)
        return (read_json(text) if text else None) or {}

    def saved(self, run_id: int) -> list[tuple[Checkpoint, int]]:
        """Return the checkpoints of a run, each with its sequence number."""
        if self._saved is None:
            self._saved = {}
            table = schema.checkpoints
            select = table.select().where(table.c.kind == "saved")
            for row in self._select(select.order_by(table.c.seq), table.c.run_id):
                found = Checkpoint(row.model, row.definition, row.location, row.epoch)
                self._saved.setdefault(row.run_id, []).append((found, row.seq))
        return self._saved.get(run_id, [])

    def series(self, run_id: int) -> list[SeriesEntry]:
        """Return the series of a run."""
        if self._series is None:
            self._series = {}
            series, summaries = schema.series, schema.series_summaries
            select = sa.select(
                *(series.c[name] for name in _SERIES),
                *(summaries.c[name] for name in _SUMMARY),
            ).join_from(series, summaries, isouter=True)
            for row in self._select(select, series.c.run_id):
                self._series.setdefault(row[0], []).append(_read_entry(row))
            for entries in self._series.values():
                entries.sort(key=operator.attrgetter("id"))
        return self._series.get(run_id, [])

    def attempts(self, run_id: int) -> tuple[Starts, Rewinds, Spans]:
        """Return what tells the attempts of a run: see `_sql_progress.find_breaks`."""
        if self._attempts is None:
            found: dict[int, tuple[Starts, Rewinds, Spans]]
            found = {each: ([], [], {}) for each in self._run_ids}
            table = schema.attempts
            for row in self._select(table.select(), table.c.run_id):
                found[row.run_id][0].append((row.number, row.first_seq))
            table = schema.rewinds
            for row in self._select(table.select(), table.c.run_id):
                found[row.run_id][1].append((row.seq, row.attempt, row.model))
            table = schema.spans
            for row in self._select(table.select(), table.c.run_id):
                known = found[row.run_id][2].setdefault((row.model, row.axis), [])
                known.append(((row.attempt, row.rewind), row.first_step))
            self._attempts = found
        return self._attempts[run_id]

    def _select(self, select: Any, column: sa.Column[int]) -> Iterator[Any]:
        """Read rows of the runs; the run's number is the first column."""
        ids = self._run_ids
        with self._database.read() as connection:
            if len(ids) > CHUNK and max(ids) - min(ids) < 2 * len(ids):
                # A long list of values takes longer to pass than to do without.
                wanted = set(ids)
                chosen = column.between(min(ids), max(ids))
                for row in connection.execute(select.where(chosen)).all():
                    if row[0] in wanted:
                        yield row
                return
            for start in range(0, len(ids), CHUNK):
                chosen = column.in_(ids[start : start + CHUNK])
                yield from connection.execute(select.where(chosen)).all()


def read_json(text: str) -> Any:
    """Return what JSON text holds; arrays and media are left as what they say."""
    value = json.loads(text)
    if '"$' not in text:
        return value
    try:
        return to_json(_codec.decode(value, _codec.Blobs(_no_blob, limit=1)))
    except JournalError:
        return value


def _no_blob(name: str) -> bytes:
    raise JournalError(f"blob {name} is not read here.")


_SERIES = ("run_id", "id", "model", "source", "axis", "metric", "context")
_SUMMARY = (
    *("stale", "n", "n_finite", "first_step", "first_value", "first_odd"),
    *("last_step", "last_value", "last_odd", "min_step", "min_value"),
    *("max_step", "max_value", "mean"),
)


def _read_entry(row: Iterable[Any]) -> SeriesEntry:
    """Return a series from its columns, `_SERIES` and `_SUMMARY`."""
    _, series_id, model, source, axis, metric, context, stale, count, *counted = row
    if context != "{}":
        metric = series_name(metric, read_context(context))
    key = SeriesKey(model, source, axis, metric)
    if count is None:
        return SeriesEntry(series_id, SeriesSummary(key), stale=True)
    n_finite, first_at, first, first_odd, last_at, last, last_odd, *rest = counted
    min_at, least, max_at, largest, mean = rest
    summary = SeriesSummary(
        key,
        count,
        n_finite,
        join_float(first, first_odd),
        first_at,
        join_float(last, last_odd),
        last_at,
        least,
        min_at,
        largest,
        max_at,
        mean,
    )
    return SeriesEntry(series_id, summary, stale=bool(stale))
