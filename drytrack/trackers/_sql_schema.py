"""The tables of a drytrack database, and which version of them one has.

Names of any length are kept as text and told apart by a digest of 32 characters
(`name_key`), since no server indexes text of any length. Structured values are
JSON text, NaN and infinity tagged as in the journal. A float that is NaN or
infinite is NULL with ``nan``, ``inf`` or ``-inf`` in the column ``odd`` beside it:
SQLite turns NaN into NULL by itself, MariaDB knows neither. (So is ``-0.0``, which
SQLite would keep as 0: the value is 0 then.)
"""

from __future__ import annotations

import hashlib
from typing import Any

import sqlalchemy as sa

from drytrack.core.exceptions import SchemaError
from drytrack.trackers._sql_types import BYTES, ID, OPTIONS, TEXT

VERSION = "0002"
"""Version that this drytrack writes; see ``_sql_migrations/versions``."""

KNOWN_VERSIONS = ("0001", "0002")
VERSION_TABLE = "drytrack_version"

metadata = sa.MetaData()

_Key = sa.String(32)
_Odd = sa.String(4)  # nan, inf, -inf or -0.0


def name_key(*parts: str) -> str:
    """Return what stands for names of any length in a unique index."""
    # Names hold no control characters, so that the separator is in none of them.
    text = "\x1f".join(parts).encode("utf-8", "backslashreplace")
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def _table(name: str, *items: Any, key: tuple[str, ...], **options: Any) -> sa.Table:
    """Declare a table; ``key`` is what makes two rows the same."""
    return sa.Table(
        name,
        metadata,
        *items,
        info={"key": key},
        **OPTIONS,
        **options,
    )


def _id() -> sa.Column[int]:
    return sa.Column("id", ID, primary_key=True, autoincrement=True)


def _whole(name: str, **options: Any) -> sa.Column[int]:
    options = {"nullable": False, "autoincrement": False, **options}
    return sa.Column(name, sa.BigInteger, **options)


def _text(name: str, *, nullable: bool = True) -> sa.Column[str]:
    return sa.Column(name, TEXT, nullable=nullable)


def _run_id(*, primary_key: bool = True) -> sa.Column[int]:
    reference = sa.ForeignKey("runs.id", ondelete="CASCADE")
    return sa.Column(
        "run_id",
        ID,
        reference,
        primary_key=primary_key,
        nullable=False,
        autoincrement=False,
    )


def _seq(*, primary_key: bool = False) -> sa.Column[int]:
    return _whole("seq", primary_key=primary_key)


def _key(*, primary_key: bool = True) -> sa.Column[str]:
    return sa.Column("name_key", _Key, primary_key=primary_key, nullable=False)


def _float(name: str) -> sa.Column[float]:
    return sa.Column(name, sa.Double)


def _time(name: str) -> sa.Column[float]:
    """Declare seconds since the epoch: no zone to lose, alike on every server."""
    return sa.Column(name, sa.Double)


version_table = sa.Table(
    VERSION_TABLE,
    metadata,
    sa.Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name=f"{VERSION_TABLE}_pkc"),
)
"""As Alembic makes it."""

experiments = _table(
    "experiments",
    _id(),
    _key(primary_key=False),
    _text("name", nullable=False),
    _time("created"),
    sa.UniqueConstraint("name_key", name="uq_experiments_name_key"),
    key=("name_key",),
)

runs = _table(
    "runs",
    _id(),
    sa.Column("uuid", sa.String(36), nullable=False),
    sa.Column("experiment_id", ID, sa.ForeignKey("experiments.id"), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("parent_uuid", sa.String(36)),
    _text("description"),
    _text("par_dir"),
    _time("created"),
    _time("started"),
    _time("ended"),
    _text("config"),
    _text("error"),
    _text("record"),
    _whole("last_seq"),
    _text("progress"),
    sa.UniqueConstraint("uuid", name="uq_runs_uuid"),
    sa.Index("ix_runs_experiment_id_name", "experiment_id", "name"),
    key=("uuid",),
)

attempts = _table(
    "attempts",
    _run_id(),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    _whole("first_seq"),
    _time("started"),
    _time("ended"),
    sa.Column("status", sa.String(16)),
    key=("run_id", "number"),
)

rewinds = _table(
    "rewinds",
    _run_id(),
    _seq(primary_key=True),
    sa.Column("attempt", sa.Integer, nullable=False),
    _text("model", nullable=False),
    _whole("epoch"),
    key=("run_id", "seq"),
)

spans = _table(
    "spans",
    _run_id(),
    _key(),
    sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("rewind", sa.Integer, primary_key=True, autoincrement=False),
    _text("model", nullable=False),
    _text("axis", nullable=False),
    _whole("first_step"),
    key=("run_id", "name_key", "attempt", "rewind"),
)


def _named(name: str, *items: Any) -> sa.Table:
    """Declare a table with one row for each name in a run."""
    return _table(name, _run_id(), _key(), *items, key=("run_id", "name_key"))


def _values(name: str) -> sa.Table:
    """Declare a table of named values, of which the newest counts."""
    return _named(
        name,
        _text("name", nullable=False),
        _text("value", nullable=False),
        _float("number"),
        _seq(),
        sa.Index(f"ix_{name}_name_key_number", "name_key", "number"),
    )


tags = _named(
    "tags",
    _text("tag", nullable=False),
    sa.Index("ix_tags_name_key", "name_key"),
)

params = _values("params")
summary_values = _values("summary_values")

models = _named(
    "models",
    _text("name", nullable=False),
    _text("registered"),
    _text("architecture"),
    _seq(),
)

sources = _named(
    "sources",
    _text("name", nullable=False),
    _text("model", nullable=False),
    _text("registered"),
    _text("metadata"),
    _seq(),
)

series = _table(
    "series",
    _id(),
    _run_id(primary_key=False),
    _key(primary_key=False),
    sa.Column("metric_key", _Key, nullable=False),
    _text("model", nullable=False),
    _text("source", nullable=False),
    _text("axis", nullable=False),
    _text("metric", nullable=False),
    _text("context", nullable=False),
    sa.UniqueConstraint("run_id", "name_key", name="uq_series_run_id_name_key"),
    sa.Index("ix_series_metric_key_run_id", "metric_key", "run_id"),
    key=("run_id", "name_key"),
)

# No foreign key: a server would look up the series of every single point.
points = _table(
    "points",
    sa.Column("series_id", ID, primary_key=True, autoincrement=False),
    _whole("step", primary_key=True),
    _seq(primary_key=True),
    _float("value"),
    sa.Column("odd", _Odd),
    key=("series_id", "step", "seq"),
    sqlite_with_rowid=False,  # 25 bytes for a point; with an index beside it, 43
)

series_summaries = _table(
    "series_summaries",
    sa.Column(
        "series_id",
        ID,
        sa.ForeignKey("series.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    _whole("n"),
    _whole("n_finite"),
    _whole("first_step"),
    _float("first_value"),
    sa.Column("first_odd", _Odd),
    _whole("last_step"),
    _float("last_value"),
    sa.Column("last_odd", _Odd),
    _whole("min_step", nullable=True),
    _float("min_value"),
    _whole("max_step", nullable=True),
    _float("max_value"),
    _float("mean"),
    sa.Column("stale", sa.SmallInteger, nullable=False),
    key=("series_id",),
)

learning_rates = _table(
    "learning_rates",
    _run_id(),
    _seq(primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    _text("model", nullable=False),
    _text("source", nullable=False),
    _whole("epoch"),
    _text("param_group", nullable=False),
    _float("lr"),
    sa.Column("odd", _Odd),
    _text("scheduler"),
    key=("run_id", "seq", "position"),
)


def _happening(name: str, *columns: sa.Column[Any]) -> sa.Table:
    """Declare a table with one row for each event of a kind."""
    return _table(
        name, _run_id(), _seq(primary_key=True), *columns, key=("run_id", "seq")
    )


def _at_step() -> list[sa.Column[Any]]:
    return [
        _text("source", nullable=False),
        _text("name", nullable=False),
        _whole("step"),
    ]


checkpoints = _happening(
    "checkpoints",
    sa.Column("kind", sa.String(8), nullable=False),
    _text("model", nullable=False),
    _text("definition", nullable=False),
    _text("location", nullable=False),
    _whole("epoch", nullable=True),
)
artifacts = _happening(
    "artifacts",
    _text("name", nullable=False),
    _text("path", nullable=False),
    _text("kind", nullable=False),
    _text("artifact_path"),
    _text("metadata", nullable=False),
)
histograms = _happening(
    "histograms",
    *_at_step(),
    _text("context", nullable=False),
    _text("counts", nullable=False),
    _text("bin_edges", nullable=False),
)
data_tables = _happening(
    "data_tables",
    *_at_step(),
    _text("header", nullable=False),
    _text("cells", nullable=False),
)
texts = _happening("texts", *_at_step(), _text("content", nullable=False))
images = _happening(
    "images",
    *_at_step(),
    sa.Column("kind", sa.String(8), nullable=False),
    _text("caption"),
    sa.Column("hash", sa.String(64), nullable=False),
)
events = _happening(
    "events",
    sa.Column("attempt", sa.Integer, nullable=False),
    _time("time"),
    _text("type", nullable=False),
    _text("fields", nullable=False),
)

media = _table(
    "media",
    sa.Column("hash", sa.String(64), primary_key=True),
    sa.Column("format", sa.String(16), nullable=False),
    _whole("size"),
    _text("path"),
    sa.Column("content", BYTES),
    key=("hash",),
)

goals = _table(
    "goals",
    sa.Column(
        "experiment_id",
        ID,
        sa.ForeignKey("experiments.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    _key(),
    _text("metric", nullable=False),
    sa.Column("better", sa.String(8), nullable=False),
    key=("experiment_id", "name_key"),
)


def check_version(connection: sa.Connection) -> bool:
    """Look at the tables of a database.

    Returns:
        Whether they are there and as this version writes them; False where
        there are none yet.

    Raises:
        SchemaError: If they are somebody else's, older or newer.
    """
    version = read_version(connection)
    if version in (None, VERSION):
        return version is not None
    msg = (
        f"{describe(connection.engine)} has tables of version {version}, this drytrack "
        f"writes {VERSION}. Upgrade them: drytrack.trackers.sqlalchemy.upgrade(url)."
    )
    raise SchemaError(msg)


def read_version(connection: sa.Connection) -> str | None:
    """Return which version the tables of a database have; None without any.

    Raises:
        SchemaError: If they are somebody else's, or newer.
    """
    found = set(sa.inspect(connection).get_table_names())
    where = describe(connection.engine)
    if VERSION_TABLE not in found:
        foreign = sorted(found & set(metadata.tables))
        if not foreign:
            return None
        msg = (
            f"{where} has a table {foreign[0]!r} that drytrack did not make. Choose "
            f"another database, or another schema of it."
        )
        raise SchemaError(msg)
    rows = connection.execute(sa.select(version_table.c.version_num)).scalars().all()
    version: str | None = rows[0] if len(rows) == 1 else None
    if version in KNOWN_VERSIONS:
        return version
    msg = (
        f"{where} has tables of version {version!r}, which this drytrack does not "
        f"know (its own is {VERSION}): a newer one made them. Update drytrack: "
        f"pip install -U drytrack."
    )
    raise SchemaError(msg)


def create(connection: sa.Connection) -> None:
    """Create the tables; called by one process at a time."""
    metadata.create_all(connection, checkfirst=False)
    connection.execute(version_table.insert().values(version_num=VERSION))


def delete_content(connection: sa.Connection, run_id: int) -> None:
    """Delete all that the tables have of a run, but its own row."""
    own = sa.select(series.c.id).where(series.c.run_id == run_id)
    tables = list(reversed(metadata.sorted_tables))
    # Before the series, by which they are found: no foreign key sorts points.
    for table in tables:
        if "series_id" in table.c:
            connection.execute(table.delete().where(table.c.series_id.in_(own)))
    for table in tables:
        if "run_id" in table.c:
            connection.execute(table.delete().where(table.c.run_id == run_id))


def describe(engine: sa.Engine) -> str:
    """Return how to call a database in a message: never with its password."""
    url = engine.url
    if url.get_backend_name() == "sqlite":
        return url.database or "the SQLite database in memory"
    return f"{url.get_backend_name()} database {url.database!r} on {url.host}"
