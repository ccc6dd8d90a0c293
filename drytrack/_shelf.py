"""What a query reads from a database for all of its runs at once, when first asked.

One statement for a hundred runs costs what one for a single run does; a list of
a thousand runs would else take a thousand.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from drytrack._summaries import Checkpoint, SeriesKey, SeriesSummary, to_json
from drytrack.core import _codec
from drytrack.core._history import Attempt, series_name
from drytrack.core.exceptions import JournalError
from drytrack.trackers import _sql_schema as schema
from drytrack.trackers._sql_summary import join_float

if TYPE_CHECKING:
    from drytrack.trackers._sql_database import Database

CHUNK = 500
"""Runs for one statement; servers limit how many values it may hold."""


@dataclasses.dataclass
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
        self._saved: dict[int, list[tuple[Checkpoint, int]]] | None = None
        self._attempts: dict[int, tuple[Starts, Rewinds, Spans]] | None = None

    def values(self, table: sa.Table, run_id: int) -> dict[str, Any]:
        """Return the named values of a run."""
        if table.name not in self._values:
            read: dict[int, dict[str, Any]] = {}
            for row in self._select(table.select().order_by(table.c.seq), table):
                read.setdefault(row.run_id, {})[row.name] = read_json(row.value)
            self._values[table.name] = read
        return self._values[table.name].get(run_id, {})

    def saved(self, run_id: int) -> list[tuple[Checkpoint, int]]:
        """Return the checkpoints of a run, each with its sequence number."""
        if self._saved is None:
            self._saved = {}
            table = schema.checkpoints
            select = table.select().where(table.c.kind == "saved")
            for row in self._select(select.order_by(table.c.seq), table):
                found = Checkpoint(row.model, row.definition, row.location, row.epoch)
                self._saved.setdefault(row.run_id, []).append((found, row.seq))
        return self._saved.get(run_id, [])

    def series(self, run_id: int) -> list[SeriesEntry]:
        """Return the series of a run."""
        if self._series is None:
            self._series = {}
            series, summaries = schema.series, schema.series_summaries
            select = sa.select(series, summaries).join_from(
                series, summaries, isouter=True
            )
            for row in self._select(select.order_by(series.c.id), series):
                self._series.setdefault(row.run_id, []).append(_read_entry(row))
        return self._series.get(run_id, [])

    def attempts(self, run_id: int) -> tuple[Starts, Rewinds, Spans]:
        """Return what tells the attempts of a run: see `_sql_progress.find_breaks`."""
        if self._attempts is None:
            found: dict[int, tuple[Starts, Rewinds, Spans]]
            found = {each: ([], [], {}) for each in self._run_ids}
            for row in self._select(schema.attempts.select(), schema.attempts):
                found[row.run_id][0].append((row.number, row.first_seq))
            for row in self._select(schema.rewinds.select(), schema.rewinds):
                found[row.run_id][1].append((row.seq, row.attempt, row.model))
            for row in self._select(schema.spans.select(), schema.spans):
                known = found[row.run_id][2].setdefault((row.model, row.axis), [])
                known.append(((row.attempt, row.rewind), row.first_step))
            self._attempts = found
        return self._attempts[run_id]

    def _select(self, select: Any, table: sa.Table) -> Iterator[Any]:
        with self._database.read() as connection:
            for start in range(0, len(self._run_ids), CHUNK):
                chosen = table.c.run_id.in_(self._run_ids[start : start + CHUNK])
                yield from connection.execute(select.where(chosen))


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


def _read_entry(row: Any) -> SeriesEntry:
    metric = row.metric
    if row.context != "{}":
        labels = {
            key: _codec.decode(item, _codec.Blobs(bytes.fromhex, limit=1 << 20))
            for key, item in json.loads(row.context).items()
        }
        metric = series_name(metric, labels)
    key = SeriesKey(row.model, row.source, row.axis, metric)
    if row.n is None:
        return SeriesEntry(row.id, SeriesSummary(key), stale=True)
    summary = SeriesSummary(
        key,
        count=row.n,
        n_finite=row.n_finite,
        first=join_float(row.first_value, row.first_odd),
        first_at=row.first_step,
        last=join_float(row.last_value, row.last_odd),
        last_at=row.last_step,
        min=row.min_value,
        min_at=row.min_step,
        max=row.max_value,
        max_at=row.max_step,
        mean=row.mean,
    )
    return SeriesEntry(row.id, summary, stale=bool(row.stale))
