"""Writing one run: what is buffered, what a transaction holds, what is lost.

Handlers append to lists; `RunWriter.flush` writes them in one transaction,
together with the newest sequence number. When it fails nothing of it is in the
database, the lists are kept, and what was known of the database is read again
with the next one. Where the database has less than it should have (it was
deleted, or replaced by a backup) the rest is read from the run's journal.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time as clock
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from drytrack.core._bus import UNRECORDED
from drytrack.core._history import Attempt
from drytrack.core._warn import warn
from drytrack.core.exceptions import (
    JournalError,
    RecordWarning,
    SchemaError,
    StorageError,
)
from drytrack.core.journal import JournalReader
from drytrack.core.log_events import (
    EndEpochEvent,
    Event,
    LoadModelEvent,
    MetricEvent,
    StartEpochEvent,
    StartExperimentEvent,
    StepMetricEvent,
    StopExperimentEvent,
)
from drytrack.trackers import _sql_schema as schema
from drytrack.trackers._sql_points import Bucket, Group, PointWriter, context_text
from drytrack.trackers._sql_progress import Progress
from drytrack.trackers._sql_rows import MediaStore, Row, RowMaker, clean
from drytrack.trackers._sql_schema import name_key

if TYPE_CHECKING:
    from drytrack.trackers._sql_database import Database
    from drytrack.trackers._sql_identity import Identity

MAX_BUFFERED = 20_000
"""Points after which a transaction is made at once, so that memory is bounded."""

_Timed = (
    MetricEvent | StepMetricEvent | StartEpochEvent | EndEpochEvent | LoadModelEvent
)

_Place = tuple[sa.Table, tuple[str, ...], Any]


@dataclasses.dataclass
class _Buffer:
    """What is not in the database yet.

    Attributes:
        timeline: Sequence number, start and event, of what makes points and of
            what tells which attempt they belong to.
        rows: Everything else.
        changes: Columns of the run's own row.
        n_points: Points in the timeline.
        final: Whether the run has ended.
    """

    timeline: list[tuple[int, int, _Timed]] = dataclasses.field(default_factory=list)
    rows: list[Row] = dataclasses.field(default_factory=list)
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)
    n_points: int = 0
    final: bool = False


class RunWriter:
    """Writes the events of one run; used by one thread at a time.

    Attributes:
        start: The start event.
        committed: The newest sequence number that the database has.
    """

    def __init__(
        self,
        database: Database,
        start: StartExperimentEvent,
        identity: Identity,
        store: MediaStore,
        goals: Mapping[str, str],
    ) -> None:
        """Take what a run needs; nothing is written yet."""
        self.start = start
        self.committed = 0
        self._database = database
        self._identity = identity
        self._goals = goals
        self._points = PointWriter(database.inserter)
        self._progress = Progress()
        self._maker = RowMaker(store)
        self._buffer = _Buffer()
        self._limit = MAX_BUFFERED
        self._generation = -1
        self._run_id = 0
        self._attempt = 0
        self._began: tuple[int, float] = (0, 0.0)
        self._seen = 0
        self._offset = 0
        self._failed: set[int] = set()
        self._is_behind = False

    # -- taking events -----------------------------------------------------------

    def take(self, event: Event) -> None:
        """Buffer an event; one that was taken before is left alone.

        Raises:
            OSError: If an image cannot be written.
        """
        stamp = getattr(event, "_stamp", None)
        if stamp is None:  # driven by hand: nobody else counts
            start = self.start.attempt
            seq = max(self._seen, self.committed) + 1
        else:
            seq, start = stamp[0] + self._offset, stamp[1]
            if seq <= self._seen and seq not in self._failed:
                return
        buffer = self._buffer
        if isinstance(event, (StepMetricEvent, MetricEvent)):
            buffer.timeline.append((seq, start, event))
            buffer.n_points += len(event.metrics)
        elif isinstance(event, (StartEpochEvent, EndEpochEvent)):
            buffer.timeline.append((seq, start, event))
        elif isinstance(event, StartExperimentEvent):
            self._take_start(event, seq)
            return  # missed events of earlier attempts may follow it
        else:
            self._take_rows(event, seq, start, stamp)
        if seq > self._seen:
            self._seen = seq
        if buffer.n_points > self._limit:
            self._flush_early()

    def _take_rows(
        self, event: Event, seq: int, start: int, stamp: tuple[int, int, float] | None
    ) -> None:
        buffer = self._buffer
        when = clock.time() if stamp is None else stamp[2]
        if isinstance(event, StopExperimentEvent):
            self._take_stop(event, seq, start, when)
            return
        try:
            buffer.rows += self._maker.make(event, seq, start, when)
        except BaseException:
            self._failed.add(seq)
            raise
        self._failed.discard(seq)
        if isinstance(event, LoadModelEvent):
            buffer.timeline.append((seq, start, event))

    def _take_start(self, event: StartExperimentEvent, seq: int) -> None:
        stamp = event.stamp
        when = clock.time() if stamp is None else stamp.time
        number = event.attempt if stamp is None else stamp.attempt
        buffer = self._buffer
        columns = ("number", "first_seq", "started", "status")
        self._began = seq, when
        buffer.rows.append(
            Row(schema.attempts, columns, (number, seq, when, "running"), "replace")
        )
        self._progress.note_start(number, seq)
        for tag in event.tags:
            values = name_key(tag), tag
            buffer.rows.append(Row(schema.tags, ("name_key", "tag"), values))
        buffer.rows += self._maker.values(schema.params, event.config, seq)
        if number < self._attempt:
            return
        self._attempt = number
        rows = buffer.rows
        buffer.changes |= {
            "status": "running",
            "attempt": number,
            "description": event.description and clean(event.description),
            "par_dir": clean(str(event.par_dir)),
            "config": self._maker.json(event.config, rows),
            "error": None,
            "ended": None,
            "record": self._maker.json(self._identity.read_record(), rows),
        }
        if number == 1:
            buffer.changes["started"] = when

    def _take_stop(
        self, event: StopExperimentEvent, seq: int, start: int, when: float
    ) -> None:
        buffer = self._buffer
        buffer.rows += self._maker.values(schema.summary_values, event.summary, seq)
        columns = ("number", "first_seq", "started", "ended", "status")
        values = (start, *self._began, when, event.status)
        buffer.rows.append(Row(schema.attempts, columns, values, "replace"))
        buffer.final = True
        if start < self._attempt:
            return
        rows = buffer.rows
        buffer.changes |= {
            "status": event.status[:16],
            "ended": when,
            "error": None
            if event.error is None
            else self._maker.json(event.error, rows),
            "record": self._maker.json(self._identity.read_record(), rows),
        }

    def _flush_early(self) -> None:
        """Write before the worker asks for it; it will tell if that fails."""
        try:
            self.flush()
        except (StorageError, SchemaError):
            self._limit *= 2
        else:
            self._limit = MAX_BUFFERED

    # -- writing -----------------------------------------------------------------

    def open(self) -> None:
        """Find or make the run.

        Raises:
            StorageError: If the database refuses.
            SchemaError: If its tables are not ours.
        """
        stamp = self.start.stamp
        with self._database.write() as connection:
            self._load(connection)
            new = not self._progress.knows(self.start.attempt)
            if new and stamp is not None and 0 < stamp.seq <= self.committed:
                self._wipe(connection)
        self._generation = self._database.generation
        if stamp is not None and stamp.seq < 0:
            # Without a journal every attempt counts anew, from far below 0.
            self._offset = self.committed - UNRECORDED

    @property
    def last_seq(self) -> int | None:
        """The newest sequence number in the database; None without a journal."""
        return None if self._offset else self.committed

    def flush(self) -> None:
        """Write what is buffered.

        Raises:
            StorageError: If the database refuses; nothing is written then.
            SchemaError: If its tables are not ours.
        """
        buffer = self._buffer
        if not (buffer.rows or buffer.n_points or buffer.changes):
            return
        if self._is_behind or not self._write():
            self._is_behind = True
            self._catch_up()
            self._is_behind = False
            self._write()

    def _write(self) -> bool:
        """Write what is buffered; return False if the database lacks older events."""
        try:
            with self._database.write() as connection:
                if self._generation != self._database.generation:
                    lacks = self._load(connection)
                    self._generation = self._database.generation
                    if lacks:
                        return False
                newest = self._write_buffer(connection)
        except BaseException:
            self._generation = -1
            raise
        self.committed = max(self.committed, newest)
        self._buffer = _Buffer()
        return True

    def _load(self, connection: sa.Connection) -> bool:
        """Find or make the run; return whether the database has lost something."""
        insert = self._database.inserter.insert
        name, identity = self.start.exp_name, self._identity
        key = name_key(name)
        insert(
            connection,
            schema.experiments,
            ("name_key", "name", "created"),
            [(key, name, clock.time())],
        )
        table = schema.experiments
        experiment_id = connection.execute(
            sa.select(table.c.id).where(table.c.name_key == key)
        ).scalar_one()
        columns = (
            *("uuid", "experiment_id", "name", "status", "attempt", "last_seq"),
            *("parent_uuid", "created"),
        )
        values = identity.uuid, experiment_id, self.start.run_id, "running", 0, 0
        more = identity.parent_uuid, identity.created
        insert(connection, schema.runs, columns, [(*values, *more)])
        table = schema.runs
        found = connection.execute(
            table.select().where(table.c.uuid == identity.uuid)
        ).one()
        goals = [
            (experiment_id, name_key(metric), metric, better)
            for metric, better in self._goals.items()
        ]
        names = ("experiment_id", "name_key", "metric", "better")
        insert(connection, schema.goals, names, goals, "replace")
        self._run_id = found.id
        self._points = PointWriter(self._database.inserter)
        self._points.load(connection, found.id)
        self._progress = Progress()
        self._progress.load(connection, found.id, found.progress, found.last_seq)
        for row in self._buffer.rows:
            if row.table is schema.attempts:
                self._progress.note_start(*row.values[:2])
        lacks: bool = found.last_seq < self.committed
        self.committed = found.last_seq
        return lacks

    def _write_buffer(self, connection: sa.Connection) -> int:
        """Write everything; return the newest sequence number."""
        buffer = self._buffer
        extra: list[Row] = []
        newest = self._write_timeline(connection, extra)
        self._write_rows(connection, [*buffer.rows, *extra])
        self._points.save_summaries(
            connection, self._progress.breaks, final=buffer.final
        )
        newest = max(newest, self._seen, self.committed)
        changes = {**buffer.changes, "last_seq": newest}
        if newest == self._seen or not self.committed:
            changes["progress"] = self._progress.dump()
        table = schema.runs
        connection.execute(
            table.update().where(table.c.id == self._run_id).values(**changes)
        )
        return newest

    def _write_timeline(self, connection: sa.Connection, extra: list[Row]) -> int:
        """Write points, split where an attempt begins; return the newest seq."""
        progress = self._progress
        buckets: dict[Group, Bucket] = {}
        last, current = progress.at, progress.start
        for seq, start, event in self._buffer.timeline:
            if start != current or seq <= last:
                self._write_points(connection, buckets)
                extra += progress.move(seq, start)
                current = start
            last = seq
            if isinstance(event, StepMetricEvent):
                context = context_text(event.context) if event.context else "{}"
                group = event.model_name, event.source_name, event.axis, context
                step = event.step
            elif isinstance(event, MetricEvent):
                step = event.epoch
                progress.see_epoch(event.model_name, step)
                group = event.model_name, event.source_name, "epoch", "{}"
            elif isinstance(event, LoadModelEvent):
                if progress.is_rewind(seq, event):
                    self._write_points(connection, buckets)
                    extra.append(progress.rewind(seq, event))
                continue
            else:
                progress.see_epoch(event.model_name, event.epoch)
                continue
            bucket = buckets.get(group)
            if bucket is None:
                bucket = buckets[group] = Bucket()
            bucket.add(step, seq, event.metrics)
        progress.at = last
        self._write_points(connection, buckets)
        return last

    def _write_points(
        self, connection: sa.Connection, buckets: dict[Group, Bucket]
    ) -> None:
        if not buckets:
            return
        progress = self._progress
        attempts: dict[str, Attempt] = {
            group[0]: progress.attempt(group[0]) for group in buckets
        }
        self._points.write(
            connection, buckets, attempts, progress.breaks, self.committed
        )
        buckets.clear()

    def _write_rows(self, connection: sa.Connection, rows: list[Row]) -> None:
        groups: dict[_Place, list[tuple[Any, ...]]] = {}
        for row in rows:
            columns, values = row.columns, row.values
            if "run_id" in row.table.c:
                columns, values = ("run_id", *columns), (self._run_id, *values)
            groups.setdefault((row.table, columns, row.conflict), []).append(values)
        for (table, columns, conflict), group in groups.items():
            if conflict != "ignore":
                # No server updates the same row twice in one statement.
                places = [columns.index(name) for name in table.info["key"]]
                last = {tuple(row[at] for at in places): row for row in group}
                group = list(last.values())  # without the older ones
            self._database.inserter.insert(connection, table, columns, group, conflict)

    # -- what is lost ------------------------------------------------------------

    def _catch_up(self) -> None:
        """Read from the journal what the database has lost."""
        wanted, folder = self._seen, self._identity.folder
        if folder is None or not JournalReader(folder).exists:
            msg = (
                f"{schema.describe(self._database.engine)} has lost what run "
                f"{self.start.run_id!r} had written, and the run keeps no journal. It "
                f"goes on from here."
            )
            warn(msg, RecordWarning)
            self.take(self.start)
            return
        self._buffer = _Buffer()
        self._seen = self.committed
        reader = JournalReader(folder)
        try:
            for event in reader.read(reader.find(self.committed)):
                assert event.stamp is not None  # as all that are read have
                if event.stamp.seq > wanted:
                    break
                self.take(event)
                if self._buffer.n_points > MAX_BUFFERED // 2:
                    self._write()
        except JournalError as error:
            raise StorageError(f"The journal cannot be read: {error}") from error
        finally:
            self._seen = max(self._seen, wanted)

    def _wipe(self, connection: sa.Connection) -> None:
        """Forget the run, whose journal has lost its end with a machine.

        A new attempt has been given numbers that the database has for others. It
        gets everything that the journal has, from the beginning.
        """
        schema.delete_content(connection, self._run_id)
        table = schema.runs
        values = {"last_seq": 0, "progress": None}
        connection.execute(
            table.update().where(table.c.id == self._run_id).values(values)
        )
        self._load(connection)

    def close(self) -> None:
        """Write what is left, and let the database go."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._database.release)
            self.flush()
