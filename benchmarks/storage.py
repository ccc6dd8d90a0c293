"""What it takes to bring points into a database: five floats for each step.

The yardstick is ``sqlite3`` alone: ``executemany`` in WAL mode, transactions of
1,000 rows, into the same table, floats made beforehand. Ours is timed from the
first publish until all points are readable, journal included.
"""

from __future__ import annotations

import contextlib
import pathlib
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable

import drytrack
from drytrack.core import log_events
from drytrack.trackers.sqlalchemy import SQLConnection

STEPS = 20_000
ROUNDS = 5
NAMES = ("loss", "accuracy", "f1", "recall", "auc")
LIMIT = 0.45
MAX_BYTES = 30

KEYED = (
    "CREATE TABLE points (series INTEGER, step INTEGER, seq INTEGER, value REAL, "
    "PRIMARY KEY (series, step, seq)) WITHOUT ROWID"
)
PLAIN = "CREATE TABLE points (series INTEGER, step INTEGER, seq INTEGER, value REAL)"


def main() -> None:
    """Print the tables; fail where a limit is missed."""
    draw = random.Random(0).random  # noqa: S311  # any digits will do
    metrics = [{name: draw() for name in NAMES} for _ in range(STEPS)]
    ways: dict[str, Callable[[pathlib.Path], tuple[float, float]]] = {
        "sqlite3, the same table": lambda folder: write_raw(folder, metrics, KEYED),
        "sqlite3, a table without key": lambda folder: write_raw(
            folder, metrics, PLAIN
        ),
        "journal alone": lambda folder: publish(folder, metrics, watched=False),
        "SQLConnection": lambda folder: publish(folder, metrics, watched=True),
    }
    caller: dict[str, list[float]] = {name: [] for name in ways}
    total: dict[str, list[float]] = {name: [] for name in ways}
    size = 0.0
    for _ in range(ROUNDS):
        for name, write in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                caller_s, total_s = write(pathlib.Path(folder))
                caller[name].append(caller_s)
                total[name].append(total_s)
                if name == "SQLConnection":
                    size = (pathlib.Path(folder) / "drytrack.db").stat().st_size
    medians = {name: statistics.median(times) for name, times in total.items()}
    callers = {name: statistics.median(times) for name, times in caller.items()}
    reference = medians["sqlite3, the same table"]
    print(f"{'':<32} caller, µs/step   until readable, µs/step   of sqlite3")
    for name in ways:
        row = f"{name:<32} {callers[name] / STEPS * 1e6:15.2f}"
        row += f"   {medians[name] / STEPS * 1e6:23.2f}"
        print(f"{row}   {reference / medians[name]:10.2f}")
    ratio = reference / medians["SQLConnection"]
    cost = callers["SQLConnection"] / callers["journal alone"]
    per_point = size / STEPS / len(NAMES)
    print(f"bytes for each point: {per_point:.1f}; caller: {cost:.2f} x the journal")
    if ratio < LIMIT or per_point > MAX_BYTES:
        raise SystemExit(f"{ratio:.2f} of sqlite3, {per_point:.1f} bytes a point")


def write_raw(
    folder: pathlib.Path, metrics: list[dict[str, float]], table: str
) -> tuple[float, float]:
    """Return the time that `sqlite3` takes, twice."""
    rows = [
        (series, step, step, value)
        for step, values in enumerate(metrics)
        for series, value in enumerate(values.values())
    ]
    path = folder / "raw.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(table)
        began = time.perf_counter()
        for at in range(0, len(rows), 1_000):
            connection.execute("BEGIN")
            connection.executemany(
                "INSERT INTO points VALUES (?, ?, ?, ?)", rows[at : at + 1_000]
            )
            connection.execute("COMMIT")
        taken = time.perf_counter() - began
    return taken, taken


def publish(
    folder: pathlib.Path, metrics: list[dict[str, float]], *, watched: bool
) -> tuple[float, float]:
    """Return the time of the publisher, and until all can be read."""
    experiment = drytrack.Experiment({}, name="Storage", par_dir=folder)
    if watched:
        experiment.trackers.subscribe(SQLConnection())
    with experiment.create_run() as run:
        run.flush()
        event = log_events.StepMetricEvent
        began = time.perf_counter()
        for step, values in enumerate(metrics):
            event("train", step, values, model_name="mlp")
        caller_s = time.perf_counter() - began
        run.flush()
        total_s = time.perf_counter() - began
    if watched:
        path = folder / "drytrack.db"
        with contextlib.closing(sqlite3.connect(path)) as connection:
            [(count,)] = connection.execute("SELECT count(*) FROM points").fetchall()
        assert count == len(metrics) * len(NAMES), f"{count} points"
    return caller_s, total_s


if __name__ == "__main__":
    drytrack.init_trackers("none")
    main()
