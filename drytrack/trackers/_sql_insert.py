"""Inserting many rows at once, in the words of each database.

SQLAlchemy's `exec_driver_sql` hands the text and a flat tuple to the driver as
they are. Many rows in one statement cost SQLite a third less than
``executemany``, and release the interpreter lock once instead of once a row.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from drytrack.core.exceptions import ConfigurationError

if TYPE_CHECKING:
    import sqlalchemy as sa

Conflict = Literal["ignore", "replace", "newest"]
"""What becomes of a row that is there: it stays, goes, or the newer seq wins."""

SIZES = (2048, 512, 128, 64, 32, 16, 8, 4, 2, 1)
"""Rows in one statement; few sizes, so that drivers know the statements again."""

MAX_VARIABLES = 999
"""Bound variables in one statement, as old builds of SQLite have them."""

WANTED_VARIABLES = 8192
"""As many are enough. Each statement gives up the interpreter lock, and a thread that
computes takes its time to give it back."""


class Inserter:
    """Inserts rows; what is there already is kept or updated."""

    def __init__(self, dialect: sa.Dialect) -> None:
        """Choose the words.

        Raises:
            ConfigurationError: If the database is of a kind not known here.
        """
        if dialect.name not in ("sqlite", "postgresql", "mysql", "mariadb"):
            msg = (
                f"SQLConnection cannot write to {dialect.name!r}. Choose SQLite, "
                f"PostgreSQL, MySQL or MariaDB."
            )
            raise ConfigurationError(msg)
        self._mark = {"qmark": "?", "format": "%s", "pyformat": "%s"}.get(
            dialect.paramstyle, ""
        )
        if not self._mark:
            msg = (
                f"The driver {dialect.driver!r} takes parameters as "
                f"{dialect.paramstyle!r}. Choose sqlite3, psycopg or pymysql."
            )
            raise ConfigurationError(msg)
        self._is_mysql = dialect.name in ("mysql", "mariadb")
        self._quote = dialect.identifier_preparer.quote
        self._texts: dict[tuple[str, tuple[str, ...], str, int], str] = {}
        self._max_variables = MAX_VARIABLES

    def look_at(self, driver_connection: object) -> None:
        """Find out how much a connection to SQLite takes at once."""
        limit = getattr(driver_connection, "getlimit", None)
        if limit is not None:
            known = limit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
            self._max_variables = min(known, WANTED_VARIABLES)

    def insert(
        self,
        connection: sa.Connection,
        table: sa.Table,
        columns: Sequence[str],
        rows: Iterable[Sequence[Any]],
        conflict: Conflict = "ignore",
    ) -> None:
        """Insert rows.

        Args:
            connection: Where to.
            table: The table; its ``info["key"]`` says what makes rows the same.
            columns: Names of the columns.
            rows: Values, in the order of the columns.
            conflict: What to do where a row is there.
        """
        flat = list(itertools.chain.from_iterable(rows))
        self.insert_flat(connection, table, columns, flat, conflict)

    def insert_flat(
        self,
        connection: sa.Connection,
        table: sa.Table,
        columns: Sequence[str],
        flat: list[Any],
        conflict: Conflict = "ignore",
    ) -> None:
        """Insert rows that are given as one list, row behind row."""
        width = len(columns)
        left, at = len(flat) // width, 0
        largest = self._max_variables // width
        for size in SIZES:
            if size > largest:
                continue
            while left >= size:
                text = self._text(table, tuple(columns), conflict, size)
                end = at + size * width
                connection.exec_driver_sql(text, tuple(flat[at:end]))
                at, left = end, left - size

    def _text(
        self, table: sa.Table, columns: tuple[str, ...], conflict: Conflict, size: int
    ) -> str:
        key = table.name, columns, conflict, size
        if key not in self._texts:
            names = ", ".join(map(self._quote, columns))
            row = f"({', '.join([self._mark] * len(columns))})"
            parts = (
                *("INSERT INTO", self._quote(table.name), f"({names})"),
                *("VALUES", ", ".join([row] * size)),
                self._on_conflict(table, columns, conflict),
            )
            self._texts[key] = " ".join(parts)
        return self._texts[key]

    def _on_conflict(
        self, table: sa.Table, columns: tuple[str, ...], conflict: Conflict
    ) -> str:
        key = table.info["key"]
        others = [name for name in columns if name not in key]
        others.sort(key=lambda name: name == "seq")  # MySQL sets one after the other
        if conflict == "ignore" or not others:
            if self._is_mysql:  # INSERT IGNORE would cut what is too long
                first = self._quote(key[0])
                return f"ON DUPLICATE KEY UPDATE {first} = {first}"
            return "ON CONFLICT DO NOTHING"
        sets = ", ".join(self._set(table.name, name, conflict) for name in others)
        if self._is_mysql:
            return f"ON DUPLICATE KEY UPDATE {sets}"
        return f"ON CONFLICT ({', '.join(map(self._quote, key))}) DO UPDATE SET {sets}"

    def _set(self, table: str, name: str, conflict: Conflict) -> str:
        column = self._quote(name)
        old = f"{self._quote(table)}.{column}"
        old_seq = f"{self._quote(table)}.{self._quote('seq')}"
        new, new_seq = f"excluded.{column}", "excluded.seq"
        if self._is_mysql:
            new, new_seq = f"VALUES({column})", "VALUES(seq)"
        if conflict == "replace":
            return f"{column} = {new}"
        return f"{column} = CASE WHEN {new_seq} >= {old_seq} THEN {new} ELSE {old} END"
