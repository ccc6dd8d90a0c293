"""The store that is a database: the same queries over the tables of SQLConnection."""

from __future__ import annotations

import itertools
import json
import pathlib
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from drytrack import _edits
from drytrack._shelf import SeriesEntry, Shelf, read_json
from drytrack._summaries import Checkpoint, SeriesKey, SeriesSummary
from drytrack.core import _record
from drytrack.core._process import ProcessId, is_alive
from drytrack.core.exceptions import ConfigurationError, RecordError, RunHeldError
from drytrack.store import Store, StoredRun, meets_all
from drytrack.trackers import _sql_schema as schema
from drytrack.trackers._sql_curves import AttemptRule, read_curves
from drytrack.trackers._sql_database import open_database, read_place
from drytrack.trackers._sql_progress import find_breaks

if TYPE_CHECKING:
    import os

    from drytrack._conditions import Query
    from drytrack._summaries import Better


_COLUMNS = (
    *("id", "uuid", "name", "status", "attempt", "description"),
    *("par_dir", "created", "started", "ended", "error"),
)
"""What a list of runs needs; a record is read when it is asked for."""


class SQLStore(Store):
    """Reads the runs of a database; it is let go with the last run of it."""

    def __init__(self, place: sa.Engine | sa.URL | str | os.PathLike[str]) -> None:
        """Choose the database.

        Args:
            place: An engine, an address, or the path of an SQLite file.
        """
        self.database = open_database(read_place(place))
        self.url = schema.describe(self.database.engine)
        self._close = weakref.finalize(self, self.database.release)
        with self.database.read():
            pass  # say at once that it is none of ours

    def close(self) -> None:
        """Let the database go."""
        self._close()

    def find(self, query: Query) -> Iterator[StoredRun]:
        """Return the runs that a query means; see `Store.find`."""
        table, experiments = schema.runs, schema.experiments
        columns = [table.c[name] for name in _COLUMNS]
        select = sa.select(*columns, experiments.c.name.label("experiment"))
        select = select.join_from(table, experiments)
        tagged = schema.tags.select()
        if query.experiment is not None:
            key = schema.name_key(query.experiment)
            select = select.where(experiments.c.name_key == key)
        with self.database.read() as connection:
            rows = connection.execute(
                select.order_by(table.c.created, table.c.id)
            ).all()
            tags: dict[int, list[str]] = {}
            for row in connection.execute(tagged):
                tags.setdefault(row.run_id, []).append(row.tag)
            goals = _read_goals(connection)
        shelf = Shelf(self.database, [row[0] for row in rows])
        wanted = set(query.tags)
        for row in rows:
            run_id, experiment = row[0], row[-1]
            own_tags, own_goals = tags.get(run_id, []), goals.get(experiment, {})
            run = SQLRun(self, shelf, row, own_tags, own_goals)
            if query.statuses and run.status not in query.statuses:
                continue
            if wanted.issubset(run.tags) and meets_all(run, query):
                yield run

    def goals(self, experiment: str) -> dict[str, Better]:
        """Return what is declared; see `Store.goals`."""
        with self.database.read() as connection:
            return _read_goals(connection).get(experiment, {})

    def _keep_goal(self, experiment: str, metric: str, better: Better | None) -> None:
        goals, experiments = schema.goals, schema.experiments
        with self.database.write() as connection:
            found = connection.execute(
                sa.select(experiments.c.id).where(
                    experiments.c.name_key == schema.name_key(experiment)
                )
            ).scalar_one_or_none()
            if found is None:
                raise ConfigurationError(f"There is no experiment {experiment!r}.")
            key = schema.name_key(metric)
            connection.execute(
                goals.delete().where(
                    goals.c.experiment_id == found, goals.c.name_key == key
                )
            )
            if better is not None:
                columns = ("experiment_id", "name_key", "metric", "better")
                values = (found, key, metric, better)
                self.database.inserter.insert(connection, goals, columns, [values])


class SQLRun(StoredRun):
    """A run that is read from a database."""

    def __init__(
        self,
        store: SQLStore,
        shelf: Shelf,
        row: Any,
        tags: list[str],
        goals: Mapping[str, Better],
    ) -> None:
        """Take over a row.

        Args:
            store: Where it is from.
            shelf: What is read for all runs of a query at once.
            row: Its `_COLUMNS`, and the name of its experiment.
            tags: Its labels.
            goals: What is declared better for its experiment.
        """
        self._store = store
        self._shelf = shelf
        self._row = row
        self._goals = goals
        self._record: Mapping[str, Any] | None = None
        _, self.uuid, self.id, status, self.attempt, self.description, *rest = row
        _, created, self.started, self.ended, error, self.experiment = rest
        self.tags = tags
        self.created = created or 0.0
        self.error = None if error is None else read_json(error)
        self.status = status if status != "running" else self._find_status()

    @property
    def record(self) -> Mapping[str, Any]:
        """What ``record.json`` had held when an attempt last started or ended."""
        if self._record is None:
            self._record = self._shelf.record(self._row.id)
        return self._record

    @property
    def path(self) -> pathlib.Path | None:
        """The run's folder, where it is on this machine."""
        local = self._find_local()
        return None if local is None else local.path

    def params(self) -> dict[str, Any]:
        """Return configuration and parameters; see `StoredRun.params`."""
        return dict(self._shelf.values(schema.params, self._row.id))

    def values(self) -> dict[str, Any]:
        """Return the final values; see `StoredRun.values`."""
        return dict(self._shelf.values(schema.summary_values, self._row.id))

    def checkpoints(self) -> list[Checkpoint]:
        """Return the saved models, in order."""
        return [found for found, _ in self._shelf.saved(self._row.id)]

    def read_points(
        self, wanted: Sequence[SeriesKey]
    ) -> Iterator[tuple[SeriesKey, list[int], list[float]]]:
        """Read series by the attempt rule, in parts; see `StoredRun.read_points`."""
        chosen = frozenset(wanted)
        entries = [
            entry
            for entry in self._shelf.series(self._row.id)
            if entry.summary.key in chosen
        ]
        if not entries:
            return
        with self._store.database.read() as connection:
            for (model, axis), group in itertools.groupby(entries, _axis_of):
                keys = {entry.id: entry.summary.key for entry in group}
                rule = self._rule(model, axis)
                found = read_curves(connection, list(keys), rule)
                for series_id, steps, values in found:
                    yield keys[series_id], steps, values

    def _change(self, changes: Mapping[str, Any]) -> None:
        """Change entries of the record here, and of the file where it is at hand.

        Where that is not on this machine, the next attempt of the run brings its
        name and notes back from there.
        """
        if (local := self._find_local()) is not None:
            _edits.edit(local.path, changes)
        run_id = self._row.id
        record = {**self.record, **changes}
        with self._store.database.write() as connection:
            if "tags" in changes:
                table = schema.tags
                connection.execute(table.delete().where(table.c.run_id == run_id))
                rows = [(run_id, schema.name_key(t), t) for t in changes["tags"]]
                columns = ("run_id", "name_key", "tag")
                self._store.database.inserter.insert(connection, table, columns, rows)
            text = json.dumps(_record.tag_non_finite(record))
            connection.execute(
                schema.runs.update()
                .where(schema.runs.c.id == run_id)
                .values(record=text)
            )
        self._record = record
        self.tags = changes.get("tags", self.tags)

    def delete(self) -> None:
        """Delete the run from the database; its record and journal stay."""
        if self.status in ("running", "stalled"):
            msg = (
                f"Run {self.id!r} of experiment {self.experiment!r} is {self.status}. "
                f"Wait until it ends, or stop it."
            )
            raise RunHeldError(msg)
        run_id = self._row.id
        with self._store.database.write() as connection:
            schema.delete_content(connection, run_id)
            connection.execute(schema.runs.delete().where(schema.runs.c.id == run_id))

    def _read_goals(self) -> Mapping[str, Better]:
        return self._goals

    def _read_summaries(self) -> Iterator[SeriesSummary]:
        for entry in self._shelf.series(self._row.id):
            if entry.stale:
                summary = SeriesSummary(entry.summary.key)
                for _, steps, values in self.read_points([summary.key]):
                    for step, value in zip(steps, values, strict=True):
                        summary.add(step, value)
                entry.summary, entry.stale = summary, False
            yield entry.summary

    def _rule(self, model: str, axis: str) -> AttemptRule:
        starts, rewinds, spans = self._shelf.attempts(self._row.id)
        breaks = find_breaks(starts, rewinds, model)
        return AttemptRule(breaks, spans.get((model, axis), []))

    def _find_checkpoint(self, model: str, epoch: int) -> Checkpoint | None:
        rule = self._rule(model, "epoch")
        for found, seq in reversed(self._shelf.saved(self._row.id)):
            if (found.model, found.epoch) == (model, epoch) and rule.counts(seq, epoch):
                return found
        return None

    def _find_status(self) -> str:
        """Return what has become of a run that did not end."""
        if (local := self._find_local()) is not None:
            return local.status
        try:
            environment = self.record["attempts"][-1]["environment"]
            process = ProcessId.from_dict(environment["process"])
        except (KeyError, IndexError, TypeError, ValueError):
            return "running"
        return "crashed" if is_alive(process) is False else "running"

    def _find_local(self) -> _record.RunRecord | None:
        """Return the run's own record, where it is on this machine."""
        if not self._row.par_dir:
            return None
        par_dir = pathlib.Path(self._row.par_dir)
        try:
            found = _record.read_record(
                _record.run_folder(par_dir, self.experiment, self.id)
            )
        except RecordError:
            return None
        return found if found.uuid == self.uuid else None


def _read_goals(connection: sa.Connection) -> dict[str, dict[str, Better]]:
    """Return what is declared for the metrics of each experiment."""
    goals, experiments = schema.goals, schema.experiments
    select = sa.select(experiments.c.name, goals.c.metric, goals.c.better)
    found: dict[str, dict[str, Better]] = {}
    for name, metric, better in connection.execute(
        select.join_from(goals, experiments)
    ):
        found.setdefault(name, {})[metric] = better
    return found


def _axis_of(entry: SeriesEntry) -> tuple[str, str]:
    return entry.summary.key.model, entry.summary.key.axis
