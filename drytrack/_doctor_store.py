"""Checking a database against the records and journals of runs, and repairing it.

The journal is what happened; the database is what came of it. So whatever the
database lacks, or has otherwise, is made anew from the journal.
"""

from __future__ import annotations

import contextlib
import pathlib
import sqlite3
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from drytrack import _doctor
from drytrack._doctor import Problem
from drytrack._store_journal import JournalRun, JournalStore
from drytrack._store_sql import SQLStore
from drytrack.core import _record
from drytrack.core.exceptions import (
    JournalError,
    RecordError,
    SchemaError,
    StorageError,
)
from drytrack.replay import replay
from drytrack.trackers import _sql_schema as schema
from drytrack.trackers._sql_database import read_place
from drytrack.trackers.sqlalchemy import SQLConnection

if TYPE_CHECKING:
    from drytrack.store import StoredRun

DAMAGED = ".damaged"
LIVE = ("created", "running", "stalled")
MAX_TOLD = 5
"""Series of one run that are told one by one."""


class StoreDoctor:
    """Checks one database.

    Attributes:
        url: How it is called.
        problem: What is wrong with it as a whole, or None.
        is_open: Whether it can be compared with journals.
    """

    def __init__(self, place: str) -> None:
        """Look at the database as a whole.

        Args:
            place: An address, or the path of an SQLite file.

        Raises:
            ConfigurationError: If the address cannot be read.
            MissingDependencyError: If its driver is not installed.
        """
        found = read_place(place)
        assert isinstance(found, sa.URL)  # of a text
        self._place = found
        self.url = self._place.render_as_string(hide_password=True)
        self._file = None
        if self._place.get_backend_name() == "sqlite" and self._place.database:
            self._file = pathlib.Path(self._place.database)
            self.url = str(self._file)
        self.problem: Problem | None = None
        self._store: SQLStore | None = None
        self._runs: dict[str, StoredRun] = {}
        self._n_points: dict[str, int] = {}
        self._last_seqs: dict[str, int] = {}
        self.is_open = False
        try:
            self.problem = self._check_file()
            if self.problem is None:
                self._read()
        except SchemaError as err:
            self.problem = Problem("store", str(err), repairable=self._is_empty())
        except StorageError as err:
            source = err.__cause__
            cause = " ".join(str(getattr(source, "orig", None) or source).split())
            text = f"{self.url} cannot be read: {cause}"
            # A server that does not answer may have everything.
            damaged = self._file is not None and "locked" not in cause
            self.problem = Problem("store", text, repairable=damaged)

    def close(self) -> None:
        """Let the database go."""
        if self._store is not None:
            self._store.close()
            self._store = None
        self._runs = {}

    def start_anew(self) -> None:
        """Go on with a database that has nothing yet, and is made with a run."""
        self.is_open = True

    @property
    def folders(self) -> list[pathlib.Path]:
        """The folders of its runs, of those that are on this machine."""
        found = [getattr(run, "path", None) for run in self._runs.values()]
        return [path for path in found if path is not None]

    def knows(self, uuid: str) -> bool:
        """Return whether it has a run."""
        return uuid in self._runs

    def find_uuid(self, folder: pathlib.Path) -> str | None:
        """Return the UUID of the run of a folder whose record is lost."""
        found = [
            run.uuid
            for run in self._runs.values()
            if (run.experiment, run.id) == (folder.parent.name, folder.name)
        ]
        return found[0] if len(found) == 1 else None

    def count_missing(self) -> int:
        """Return how many of its runs are not on this machine."""
        return len(self._runs) - len(self.folders)

    def check(self, folder: pathlib.Path) -> list[Problem]:
        """Look for what the database lacks of a run, or has otherwise.

        Args:
            folder: The run's folder.
        """
        try:
            record = _record.read_record(folder)
            story = _doctor.read_story(folder)
        except (RecordError, JournalError):
            return []
        if record.status in LIVE or story.last is None:
            return []
        run = self._runs.get(record.uuid)
        if run is None:
            return [Problem("store", "it does not have the run", repairable=True)]
        # What only the database has still, nothing else can give back.
        whole = not story.reader.damaged and not story.missing
        texts = []
        assert story.last.stamp is not None  # as all that are read have
        last, n_points = story.last.stamp.seq, story.n_points
        if self._last_seqs[run.uuid] < last:
            known = self._last_seqs[run.uuid]
            texts.append(f"it ends with event {known}, the journal with event {last}")
        if self._n_points.get(run.uuid, 0) < n_points:
            known = self._n_points.get(run.uuid, 0)
            texts.append(f"it has {known} points, the journal {n_points}")
        elif whole and not texts:
            texts += _compare(run, JournalRun(record, dict))
        return [Problem("store", text, repairable=whole) for text in texts]

    def set_aside(self) -> pathlib.Path | None:
        """Move a damaged SQLite file away; return where it is now."""
        self.close()
        if self._file is None or not self._file.exists():
            return None
        target = self._file.with_name(self._file.name + DAMAGED)
        number = 1
        while target.exists():
            number += 1
            target = self._file.with_name(f"{self._file.name}{DAMAGED}{number}")
        for suffix in ("-wal", "-shm"):
            beside = self._file.with_name(self._file.name + suffix)
            with contextlib.suppress(FileNotFoundError):  # not always there
                beside.replace(target.with_name(target.name + suffix))
        self._file.replace(target)
        return target

    def rebuild(self, folder: pathlib.Path) -> None:
        """Make a run anew from its journal.

        Args:
            folder: The run's folder.

        Raises:
            RunHeldError: If the run goes on.
            StorageError: If the database refuses.
            JournalError: If the journal cannot be read.
        """
        record = _record.read_record(folder)
        if (run := self._runs.pop(record.uuid, None)) is not None:
            run.delete()
            self._n_points.pop(record.uuid, None)
        done = replay(folder, SQLConnection(self._place))
        if any(done.failed.values()):
            msg = f"{self.url} has not taken all of run {record.id!r}."
            raise StorageError(msg)
        self._read(record.experiment, record.uuid)
        assert self._store is not None  # read a moment ago
        made = self._runs[record.uuid]
        if made.tags != record.tags:  # changed since the run had started
            made.edit(tags=record.tags)
        par_dir = folder.parent.parent.parent
        for metric, better in JournalStore(par_dir).goals(record.experiment).items():
            self._store.set_goal(record.experiment, metric, better)

    # -- inside ------------------------------------------------------------------

    def _check_file(self) -> Problem | None:
        """Look for damage that a query would meet only by chance."""
        if self._file is None:
            return None
        if not self._file.exists():
            return Problem("store", f"there is no {self._file}", repairable=True)
        try:
            address = f"{self._file.absolute().as_uri()}?mode=ro"
            with contextlib.closing(sqlite3.connect(address, uri=True)) as connection:
                rows = connection.execute("PRAGMA integrity_check(1)").fetchall()
        except sqlite3.DatabaseError as err:
            text = f"{self._file} cannot be read: {err}"
            locked = "locked" in str(err)
            return Problem("store", text, repairable=not locked)
        if rows == [("ok",)]:
            return None
        text = f"{self._file} is damaged: {' '.join(str(rows[0][0]).split())}"
        return Problem("store", text, repairable=True)

    def _is_empty(self) -> bool:
        """Return whether there are no tables at all, also nobody else's."""
        engine = sa.create_engine(self._place, poolclass=sa.NullPool)
        try:
            return not sa.inspect(engine).get_table_names()
        finally:
            engine.dispose()

    def _read(self, experiment: str | None = None, uuid: str | None = None) -> None:
        """Read what there is of all runs, or of one."""
        if self._store is None:
            self._store = SQLStore(self._place)
        self.is_open = True
        runs, series, points = schema.runs, schema.series, schema.points
        chosen = sa.true() if uuid is None else runs.c.uuid == uuid
        counted = (
            sa.select(runs.c.uuid, sa.func.count(points.c.step))
            .join_from(runs, series, series.c.run_id == runs.c.id)
            .join(points, points.c.series_id == series.c.id)
            .where(chosen)
            .group_by(runs.c.uuid)
        )
        for run in self._store.runs(experiment):
            if uuid in (None, run.uuid):
                self._runs[run.uuid] = run
        with self._store.database.read() as connection:
            last = sa.select(runs.c.uuid, runs.c.last_seq).where(chosen)
            self._last_seqs |= {
                row.uuid: row.last_seq for row in connection.execute(last)
            }
            self._n_points |= {row[0]: row[1] for row in connection.execute(counted)}


def _compare(run: StoredRun, recorded: StoredRun) -> list[str]:
    """Return what the database has otherwise than record and journal."""
    texts = []
    for name, found, told in (
        ("status", run.status, recorded.status),
        ("number of attempts", run.attempt, recorded.attempt),
        ("number of checkpoints", len(run.checkpoints()), len(recorded.checkpoints())),
        *_pair("parameter", run.params(), recorded.params()),
        *_pair("final value", run.values(), recorded.values()),
    ):
        if repr(found) != repr(told):
            texts.append(f"its {name} is {found!r}, by record and journal {told!r}")
    known = {each.key: each for each in run.summaries()}
    wrong = []
    for told in recorded.summaries():
        found = known.get(told.key)
        if found is None:
            wrong.append(f"it has no series {'/'.join(filter(None, told.key))}")
            continue
        for name in ("count", "first", "last", "last_at", "min", "max"):
            ours, theirs = getattr(told, name), getattr(found, name)
            if repr(ours) != repr(theirs):
                where = "/".join(filter(None, told.key))
                wrong.append(f"{name} of {where} is {theirs}, by the journal {ours}")
                break
    if len(wrong) > MAX_TOLD:
        wrong[MAX_TOLD:] = [f"{len(wrong) - MAX_TOLD} more series differ"]
    return texts + wrong


def _pair(
    what: str, found: Mapping[str, Any], told: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """Return how many there are, and those that every database keeps as they are."""
    yield f"number of {what}s", len(found), len(told)
    for name in found.keys() & told.keys():
        if isinstance(told[name], (bool, int, float, str)):
            yield f"{what} {name}", found[name], told[name]
