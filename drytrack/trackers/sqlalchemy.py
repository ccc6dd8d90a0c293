"""Tracker that keeps runs in a database: SQLite, PostgreSQL, MySQL or MariaDB."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, Self

from drytrack.core import log_events
from drytrack.core.exceptions import (
    AccessOutsideScopeError,
    ConfigurationError,
    SchemaError,
)
from drytrack.core.track import Tracker
from drytrack.trackers import _sql_read
from drytrack.trackers._sql_database import open_database, read_place
from drytrack.trackers._sql_identity import identify
from drytrack.trackers._sql_rows import MediaStore
from drytrack.trackers._sql_upgrade import upgrade
from drytrack.trackers._sql_writer import RunWriter
from drytrack.trackers.base import MetricLoader, SourcedMetrics

if TYPE_CHECKING:
    import os

    import sqlalchemy as sa

__all__ = ["SQLConnection", "SchemaError", "upgrade"]

FILE = "drytrack.db"
MEDIA_FOLDER = "drytrack_media"


class SQLConnection(Tracker, MetricLoader):
    """Keeps runs in a database, and reads their metrics back.

    By default all experiments of a folder share ``<par_dir>/drytrack.db``, an
    SQLite file. An address such as ``postgresql://user@host/database`` goes to
    a server that many machines can share.

    Runs are told apart by the UUID of their record, points by series, step and
    the sequence number of their event, so that an event that comes again (after
    a failure, a resume, in a replay) changes nothing. What is committed is
    committed with the sequence number up to which it goes, so that a resumed
    run goes on without gaps. Nothing is deleted: `load_metrics` applies the
    attempt rule.

    A background tracker: a transaction for each drained batch, and at once when
    the load is light. While the database refuses (locked, full, stopped) the run
    goes on, and the tracker catches up from the journal. An SQLite file that is
    deleted in mid-run, or moved away since it was damaged, is made anew and
    filled from the journal. The tables are described in ``docs/storage.md``.

    Neither the address nor its password is recorded or logged.
    """

    name = "sqlalchemy"
    background = True
    notify = Tracker.notify.extend()

    def __init__(
        self,
        engine_or_url: sa.Engine | sa.URL | str | os.PathLike[str] | None = None,
        *,
        par_dir: str | os.PathLike[str] | None = None,
        media: Literal["files", "bytes"] | None = None,
        media_dir: str | os.PathLike[str] | None = None,
        goals: Mapping[str, Literal["lower", "higher"]] | None = None,
    ) -> None:
        """Choose the database; it is opened when a run starts.

        Args:
            engine_or_url: An engine of SQLAlchemy, an address, or the path of an
                SQLite file; by default ``drytrack.db`` in ``par_dir``.
            par_dir: By default the experiment's.
            media: Whether images are ``"files"`` or ``"bytes"`` in the database;
                by default files beside an SQLite file, bytes on a server.
            media_dir: Folder of the files, by default ``drytrack_media`` beside
                the SQLite file, or in ``par_dir``.
            goals: Metric → whether ``"lower"`` or ``"higher"`` is better.

        Raises:
            ConfigurationError: If the address cannot be read, or an argument is
                none of those named above.
        """
        super().__init__()
        if media not in (None, "files", "bytes"):
            msg = f"media is {media!r}. Pass 'files' or 'bytes'."
            raise ConfigurationError(msg)
        for metric, better in (goals or {}).items():
            if better not in ("lower", "higher"):
                msg = f"The goal of {metric!r} is {better!r}. Pass 'lower' or 'higher'."
                raise ConfigurationError(msg)
        self._place = None if engine_or_url is None else read_place(engine_or_url)
        self._par_dir = None if par_dir is None else pathlib.Path(par_dir).absolute()
        self._media = media
        self._media_dir = None if media_dir is None else pathlib.Path(media_dir)
        self._goals = dict(goals or {})
        self._writer: RunWriter | None = None
        self._run: tuple[sa.Engine | sa.URL, str] | None = None

    @classmethod
    def from_run(
        cls,
        engine_or_url: sa.Engine | sa.URL | str | os.PathLike[str],
        exp_name: str,
        run_id: str,
    ) -> Self:
        """Return a tracker whose `load_metrics` reads a run that it did not watch.

        Args:
            engine_or_url: The database.
            exp_name: Name of the experiment.
            run_id: Id of the run, or its UUID where several have the id.

        Raises:
            RunNotFoundError: If there is no such run, or several.
            SchemaError: If the tables are not ours.
            FileNotFoundError: If there is no such file.
        """
        tracker = cls(engine_or_url)
        assert tracker._place is not None  # given above
        database = open_database(tracker._place)
        try:
            with database.read() as connection:
                uuid = _sql_read.find_uuid(connection, exp_name, run_id)
        finally:
            database.release()
        tracker._run = tracker._place, uuid
        return tracker

    # -- writing -----------------------------------------------------------------

    @notify.register
    def _open_run(self, event: log_events.StartExperimentEvent) -> None:
        par_dir = self._par_dir or event.par_dir
        place = self._place or read_place(par_dir / FILE)
        identity = identify(event)
        database = open_database(place)
        folder = None
        if self._media == "files" or (self._media is None and database.path):
            beside = database.path.parent if database.path else par_dir
            folder = self._media_dir or beside / MEDIA_FOLDER
        writer = RunWriter(database, event, identity, MediaStore(folder), self._goals)
        try:
            writer.open()
            writer.take(event)
            writer.flush()
        except BaseException:
            database.release()
            raise
        self.enter_context(contextlib.closing(writer))
        self._writer = writer
        self._run = place, identity.uuid

    @notify.register
    def _add_event(self, event: log_events.Event) -> None:
        writer = self._writer
        if writer is None:
            raise self._no_writer()
        writer.take(event)

    def flush(self) -> None:
        """Commit what was received.

        Raises:
            StorageError: If the database refuses; what was received is kept.
        """
        writer = self._own_writer()
        if writer is not None:
            writer.flush()

    def clean_up(self) -> None:
        """Let go of the run; what is left is written when it is closed."""
        self._writer = None

    def last_seq(self) -> int | None:
        """Return the newest sequence number that the database has of this run.

        None where the run keeps no journal, from which it could be read again.
        """
        writer = self._own_writer()
        if writer is None:
            raise self._no_writer()
        return writer.last_seq

    def _own_writer(self) -> RunWriter | None:
        """Return the writer of this run: a copy for another run begins with ours."""
        writer = self._writer
        if (
            writer is None
            or self._scope is None
            or writer.start is not self._scope.start
        ):
            return None
        return writer

    def _no_writer(self) -> AccessOutsideScopeError:
        return AccessOutsideScopeError(
            f"Tracker {self.name!r} watches no run whose start it has taken. Pass "
            f"it the start event first."
        )

    # -- reading -----------------------------------------------------------------

    def load_metrics(
        self, model_name: str, max_epoch: int = -1, *, axis: str = "epoch"
    ) -> SourcedMetrics:
        """Load metrics of the current run, or the last one.

        What was published a moment ago may be on its way: `Run.flush` waits for it.
        See `MetricLoader.load_metrics`.

        Raises:
            AccessOutsideScopeError: If the tracker has watched no run.
        """
        if self._run is None:
            msg = (
                "This SQLConnection has watched no run. Read another one: "
                "SQLConnection.from_run(url, exp_name, run_id).load_metrics(…)."
            )
            raise AccessOutsideScopeError(msg)
        place, uuid = self._run
        database = open_database(place)
        try:
            with database.read() as connection:
                return _sql_read.load_metrics(
                    connection, uuid, model_name, max_epoch, axis
                )
        finally:
            database.release()
