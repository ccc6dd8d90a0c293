"""Bringing an older database to the version that this drytrack writes."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

from drytrack.core.exceptions import MissingDependencyError
from drytrack.trackers import _sql_schema
from drytrack.trackers._sql_database import open_database, read_place

if TYPE_CHECKING:
    import os

    import sqlalchemy as sa
    from alembic.config import Config

SCRIPTS = pathlib.Path(__file__).parent / "_sql_migrations"


def upgrade(
    engine_or_url: sa.Engine | sa.URL | str | os.PathLike[str],
    version: str = _sql_schema.VERSION,
) -> str | None:
    """Upgrade the tables of a database; one that is up to date is left alone.

    Make a copy before, and let no run write meanwhile.

    Args:
        engine_or_url: An engine of SQLAlchemy, an address, or the path of an
            SQLite file.
        version: The version to go to, by default the newest.

    Returns:
        The version that it had; None where it had no tables, and got them.

    Raises:
        SchemaError: If the tables are somebody else's, or newer.
        MissingDependencyError: If Alembic is not installed.
    """
    config = _configure()
    from alembic import command

    database = open_database(read_place(engine_or_url))
    try:
        # One transaction where the database can: all of it happens, or nothing.
        with database.engine.begin() as connection:
            before = _sql_schema.read_version(connection)
            config.attributes["connection"] = connection
            command.upgrade(config, version)
    finally:
        database.release()
    return before


def _configure() -> Config:
    try:
        from alembic.config import Config
    except ImportError as error:
        msg = (
            "Upgrading a database needs the alembic package: "
            'pip install "drytrack[sql]"'
        )
        raise MissingDependencyError(msg) from error
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    return config
