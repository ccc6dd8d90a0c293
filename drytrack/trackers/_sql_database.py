"""A database as one process uses it: one connection that writes, under one lock.

Runs of one process that go to the same address share it. On SQLite the journal
is a write-ahead log, so that readers and the writer do not wait for each
other; except on a network file system, where the log's shared memory does not
work and a rollback journal takes its place.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pathlib
import re
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator

import sqlalchemy as sa

from drytrack.core._warn import warn
from drytrack.core.exceptions import (
    ConfigurationError,
    MissingDependencyError,
    RunWarning,
    SchemaError,
    StorageError,
)
from drytrack.trackers import _sql_schema
from drytrack.trackers._sql_insert import Inserter

BUSY_TIMEOUT_S = 10.0
"""How long a writer waits for another process to commit."""

MOUNTS = pathlib.Path("/proc/mounts")

_NETWORK = re.compile(
    r"nfs\d?|cifs|smb\w*|lustre|gpfs|beegfs|ceph|afs|9p|ncpfs|orangefs|pvfs2|panfs"
    r"|fuse\.(?:sshfs|ceph\S*|glusterfs|s3fs|gcsfuse|rclone|davfs\S*|beegfs|lizardfs)"
)
_DRIVERS = {
    "postgresql": ("psycopg", "psycopg2", "postgresql"),
    "mysql": ("pymysql", "MySQLdb", "mysql"),
    "mariadb": ("pymysql", "MySQLdb", "mysql"),
}
_CURE = "The tracker tries again, and catches up from the run's journal."
_CURES = {
    "locked": "Another process holds it; the tracker tries again.",
    "readonly": "Make the file and its folder writable.",
    "full": "Free some space.",
    "disk I/O": "Free some space, or look at the disk.",
    "malformed": "Move it away: a new one is filled from the runs' journals.",
    "not a database": "Move it away: a new one is filled from the runs' journals.",
}
_LOCK_NUMBER = 0x64727974
"""Key of the lock under which a server's tables are made ("dryt")."""


class Database:
    """One database; made by `open_database`.

    Attributes:
        engine: SQLAlchemy's engine.
        inserter: Writes rows in the database's own words.
        generation: Grows with every connection that had to be opened anew:
            what was known of the content may not hold any longer.
    """

    def __init__(self, engine: sa.Engine, *, is_owned: bool) -> None:
        """Take an engine; nothing is opened yet."""
        self.engine = engine
        self.inserter = Inserter(engine.dialect)
        self.generation = 0
        self.lock = threading.RLock()
        self._is_owned = is_owned
        self._writer: sa.Connection | None = None
        self._file_id: tuple[int, int] | None = None
        self._is_known = False
        self._known_file: tuple[int, int] | None = None
        self._users = 0
        self._warned = False

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file, or memory, of this very process."""
        return self.engine.dialect.name == "sqlite"

    @property
    def path(self) -> pathlib.Path | None:
        """The file; None for a server, and for a database in memory."""
        name = self.engine.url.database
        if not self.is_sqlite or not name or name == ":memory:":
            return None
        if name.startswith("file:"):
            return None if "mode=memory" in name else pathlib.Path(name[5:])
        return pathlib.Path(name)

    @contextlib.contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Enter a transaction that ends with the block; an error takes it back.

        Raises:
            SchemaError: If the tables are not ours.
            StorageError: If the database refuses.
        """
        with self.lock:
            try:
                connection = self._connect()
                self._begin(connection)
                yield connection
                self._end(connection, "COMMIT")
            except sa.exc.SQLAlchemyError as error:
                self._drop_connection()
                raise StorageError(self._explain(error, _CURE)) from error
            except BaseException:
                self._drop_connection()
                raise

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Enter a block that reads, beside whoever writes.

        Raises:
            FileNotFoundError: If there is no such file.
            SchemaError: If the tables are not ours.
            StorageError: If the database refuses.
        """
        if self.is_sqlite and self.path is not None and not self.path.exists():
            msg = f"There is no database {self.path}. Pass the file of one."
            raise FileNotFoundError(msg)
        try:
            with self.engine.connect() as connection:
                self._check(connection)
                yield connection
        except (sa.exc.SQLAlchemyError, sqlite3.Error) as error:
            raise StorageError(self._explain(error, "Try again later.")) from error

    def release(self) -> None:
        """Give up one use; the last one closes what is open."""
        with _lock:
            self._users -= 1
            if self._users:
                return
            for key, database in list(_open.items()):
                if database is self:
                    del _open[key]
        with self.lock:
            connection, self._writer = self._writer, None
            if connection is not None:
                with contextlib.suppress(sa.exc.SQLAlchemyError):  # its server is gone
                    connection.close()
            if self._is_owned:
                self.engine.dispose()

    # -- inside ------------------------------------------------------------------

    def _check(self, connection: sa.Connection) -> None:
        """Look at the tables, once for each file."""
        file_id = self._read_file_id()
        if self._is_known and file_id == self._known_file:
            return
        if not _sql_schema.check_version(connection):
            where = _sql_schema.describe(self.engine)
            raise SchemaError(f"{where} holds no runs of drytrack. Pass another one.")
        self._is_known, self._known_file = True, file_id

    def _explain(self, error: Exception, cure: str) -> str:
        """Say what is wrong without the statement, and what to do."""
        cause = getattr(error, "orig", None) or error
        reason = " ".join(str(cause).split())[:300] or type(cause).__name__
        for hint, remedy in _CURES.items():
            if self.is_sqlite and hint in reason:
                cure = remedy
        return f"{_sql_schema.describe(self.engine)} refuses: {reason}. {cure}"

    def _drop_connection(self) -> None:
        """Forget the connection: a new one is opened when next needed."""
        connection, self._writer = self._writer, None
        if connection is not None:
            for let_go in (connection.invalidate, connection.close):
                with contextlib.suppress(Exception):  # it may be broken already
                    let_go()

    def _connect(self) -> sa.Connection:
        if self._writer is not None and self._file_id != self._read_file_id():
            self._drop_connection()  # the file was deleted or replaced
        if self._writer is None:
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = self.engine.connect()
            try:
                if self.is_sqlite:
                    self._writer = self._writer.execution_options(
                        isolation_level="AUTOCOMMIT"  # transactions are begun below
                    )
                    self._set_up_sqlite(self._writer)
                self._prepare(self._writer)
            except BaseException:
                self._drop_connection()
                raise
            self._file_id = self._read_file_id()
            self.generation += 1
        return self._writer

    def _read_file_id(self) -> tuple[int, int] | None:
        if self.path is None:
            return None
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return (0, 0)
        return found.st_dev, found.st_ino

    def _set_up_sqlite(self, connection: sa.Connection) -> None:
        mode = "WAL"
        if self.path is not None and (kind := network_file_system(self.path)):
            mode = "DELETE"
            if not self._warned:
                self._warned = True
                msg = (
                    f"{self.path} is on a network file system ({kind}), where SQLite's "
                    f"write-ahead log is not safe; a rollback journal is used. For "
                    f"several writers use a local folder, or a PostgreSQL server."
                )
                warn(msg, RunWarning)
        timeout_ms = round(BUSY_TIMEOUT_S * 1000)
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {timeout_ms}")
        _retry_locked(
            lambda: connection.exec_driver_sql(f"PRAGMA journal_mode = {mode}").close()
        )
        connection.exec_driver_sql("PRAGMA synchronous = NORMAL")
        self.inserter.look_at(connection.connection.driver_connection)

    def _prepare(self, connection: sa.Connection) -> None:
        """Create the tables where there are none: one process, the others wait."""
        self._begin(connection)
        try:
            name = self.engine.dialect.name
            if name == "postgresql":
                connection.exec_driver_sql(
                    f"SELECT pg_advisory_xact_lock({_LOCK_NUMBER})"
                )
            elif name in ("mysql", "mariadb"):
                connection.exec_driver_sql("SELECT GET_LOCK('drytrack', 60)")
            if not _sql_schema.check_version(connection):
                _sql_schema.create(connection)
            if name in ("mysql", "mariadb"):
                connection.exec_driver_sql("SELECT RELEASE_LOCK('drytrack')")
        except BaseException:
            with contextlib.suppress(sa.exc.SQLAlchemyError):  # what failed is told
                self._end(connection, "ROLLBACK")
            raise
        self._end(connection, "COMMIT")

    def _begin(self, connection: sa.Connection) -> None:
        if self.is_sqlite:
            # Not a plain BEGIN: who reads first and then writes may be refused.
            _retry_locked(lambda: connection.exec_driver_sql("BEGIN IMMEDIATE").close())

    def _end(self, connection: sa.Connection, how: str) -> None:
        if self.is_sqlite:
            connection.exec_driver_sql(how)
        elif how == "COMMIT":
            connection.commit()
        else:
            connection.rollback()


def _retry_locked(action: Callable[[], None]) -> None:
    """Try again what SQLite refuses at once, whatever the busy time-out."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            action()
        except sa.exc.OperationalError as error:
            if "locked" not in str(error.orig) or time.monotonic() > deadline:
                raise
            time.sleep(0.005)
        else:
            return


# -- which one -------------------------------------------------------------------

# Reentrant: the garbage collector may let a database go, from wherever it runs.
_lock = threading.RLock()
_open: dict[tuple[object, ...], Database] = {}


def open_database(place: sa.Engine | sa.URL) -> Database:
    """Return the database of an address, shared within the process.

    Args:
        place: An engine, or an address.

    Raises:
        MissingDependencyError: If its driver is not installed.
    """
    is_owned = isinstance(place, sa.URL)
    key = (place if isinstance(place, sa.URL) else id(place), os.getpid())
    with _lock:
        database = _open.get(key)
        if database is None:
            engine = _make_engine(place) if isinstance(place, sa.URL) else place
            database = _open[key] = Database(engine, is_owned=is_owned)
        database._users += 1
        _open[key] = database  # it may have been let go a moment ago
    return database


def read_place(
    value: sa.Engine | sa.URL | str | os.PathLike[str],
) -> sa.Engine | sa.URL:
    """Return an engine as it is, anything else as an address.

    Args:
        value: An engine, an address, or the path of an SQLite file.

    Raises:
        ConfigurationError: If a text looks like an address and is none.
    """
    if isinstance(value, (sa.Engine, sa.URL)):
        return value
    text = os.fspath(value)
    if "://" not in text:
        path = pathlib.Path(text).absolute()
        return sa.URL.create("sqlite", database=str(path))
    try:
        url = sa.make_url(text)
        backend = url.get_backend_name()
    except (sa.exc.ArgumentError, ValueError):
        # Neither the text nor the cause, which repeats it: a password may be in it.
        msg = (
            "The address of the database cannot be read. Pass one such as "
            "postgresql://user@host/database, or the path of an SQLite file."
        )
        raise ConfigurationError(msg) from None
    if backend == "sqlite" and url.database and url.database != ":memory:":
        if not url.database.startswith("file:"):
            url = url.set(database=str(pathlib.Path(url.database).absolute()))
    elif backend in _DRIVERS and "+" not in url.drivername:
        preferred, other, _ = _DRIVERS[backend]
        has = importlib.util.find_spec
        if has(preferred) is not None or has(other) is None:
            url = url.set(drivername=f"{backend}+{preferred}")
    return url


def _make_engine(url: sa.URL) -> sa.Engine:
    try:
        if url.get_backend_name() != "sqlite":
            return sa.create_engine(url, pool_pre_ping=True)
        in_memory = url.database in (None, "", ":memory:")
        return sa.create_engine(
            url,
            connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_S},
            poolclass=sa.StaticPool if in_memory else sa.NullPool,
        )
    except ImportError as error:
        backend = url.get_backend_name()
        driver = url.drivername.partition("+")[2]
        extra = _DRIVERS[backend][2] if backend in _DRIVERS else None
        cure = f'"drytrack[{extra}]"' if extra else (error.name or driver)
        msg = (
            f"SQLConnection needs the {error.name or driver} package for {backend}: "
            f"pip install {cure}"
        )
        raise MissingDependencyError(msg) from error
    except sa.exc.NoSuchModuleError:
        msg = (
            f"There is no database of kind {url.drivername!r}. Choose sqlite, "
            f"postgresql, mysql or mariadb."
        )
        raise ConfigurationError(msg) from None


def network_file_system(path: pathlib.Path) -> str | None:
    """Return the type of the network file system that a path is on, if it is.

    Known on Linux, by its table of mounts, and on Windows, by the path itself.
    """
    path = pathlib.Path(os.path.realpath(path))
    if sys.platform == "win32":
        return "UNC" if path.drive.startswith("\\\\") else None
    try:
        table = MOUNTS.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    best, kind = -1, ""
    for line in table.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:  # device, folder, type
            continue
        folder = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), fields[1])
        # The last one wins: it lies over those before.
        if path.is_relative_to(folder) and len(folder) >= best:
            best, kind = len(folder), fields[2]
    return kind if _NETWORK.fullmatch(kind) else None
