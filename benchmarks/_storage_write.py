"""Writing points: five floats for each step, until they can be read."""

from __future__ import annotations

import contextlib
import pathlib
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable

from _storage_peers import installed_peers, write_peer

import drytrack
from drytrack.core import log_events
from drytrack.trackers.sqlalchemy import SQLConnection

STEPS = 20_000
PACED_STEPS = 2_000
STEP_S = 0.0002
NAMES = ("loss", "accuracy", "f1", "recall", "auc")

KEYED = (
    "CREATE TABLE points (series INTEGER, step INTEGER, seq INTEGER, value REAL, "
    "PRIMARY KEY (series, step, seq)) WITHOUT ROWID"
)
PLAIN = "CREATE TABLE points (series INTEGER, step INTEGER, seq INTEGER, value REAL)"

Metrics = list[dict[str, float]]
Write = Callable[[pathlib.Path, Metrics], tuple[float, float]]
"""Returns the time that the publisher takes, and until all can be read."""


def measure_writing(rounds: int = 9) -> dict[str, float]:
    """Print a table; return what has a limit."""
    draw = random.Random(0).random  # noqa: S311  # any digits will do
    metrics = [{name: draw() for name in NAMES} for _ in range(STEPS)]
    paced = metrics[:PACED_STEPS]
    ways: dict[str, Write] = {
        "sqlite3, the same table": lambda folder, rows: write_raw(folder, rows, KEYED),
        "sqlite3, a table without key": lambda folder, rows: write_raw(
            folder, rows, PLAIN
        ),
        "journal alone": lambda folder, rows: publish(folder, rows, watched=False),
        "SQLConnection": lambda folder, rows: publish(folder, rows, watched=True),
        "journal alone, paced": lambda folder, _: publish(
            folder, paced, watched=False, step_s=STEP_S
        ),
        "SQLConnection, paced": lambda folder, _: publish(
            folder, paced, watched=True, step_s=STEP_S
        ),
    }
    peers = installed_peers()
    caller: dict[str, list[float]] = {name: [] for name in (*ways, *peers)}
    total: dict[str, list[float]] = {name: [] for name in (*ways, *peers)}
    size = 0.0
    for _ in range(rounds):
        for name, write in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                caller_s, total_s = write(pathlib.Path(folder), metrics)
                n = PACED_STEPS if "paced" in name else STEPS
                caller[name].append(caller_s / n)
                total[name].append(total_s / n)
                if name == "SQLConnection":
                    size = (pathlib.Path(folder) / "drytrack.db").stat().st_size
        for name in peers:
            with tempfile.TemporaryDirectory() as folder:
                caller_s, total_s = write_peer(name, pathlib.Path(folder), NAMES)
                caller[name].append(caller_s)
                total[name].append(total_s)
    print(f"{'':<32} caller, µs/step   until readable, µs/step")
    for name in total:
        each = statistics.median(caller[name]) * 1e6
        until = statistics.median(total[name]) * 1e6
        print(f"{name:<32} {each:15.2f}   {until:23.2f}")
    yardstick = total["sqlite3, the same table"]

    def ratio(ours: list[float], theirs: list[float]) -> float:
        # Of what ran side by side: the machine may be busy with something else.
        return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))

    return {
        "of sqlite3": ratio(yardstick, total["SQLConnection"]),
        "caller, paced": ratio(
            caller["SQLConnection, paced"], caller["journal alone, paced"]
        ),
        "caller, flat out": ratio(caller["SQLConnection"], caller["journal alone"]),
        "bytes a point": size / STEPS / len(NAMES),
    }


def write_raw(
    folder: pathlib.Path, metrics: Metrics, table: str
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
    folder: pathlib.Path, metrics: Metrics, *, watched: bool, step_s: float = 0.0
) -> tuple[float, float]:
    """Return the time spent publishing, and until all can be read.

    Args:
        folder: Where to.
        metrics: One mapping for each step.
        watched: Whether the database is written, beside the journal.
        step_s: How long the interpreter computes between two steps.
    """
    experiment = drytrack.Experiment({"lr": 0.1}, name="Storage", par_dir=folder)
    if watched:
        experiment.trackers.subscribe(SQLConnection())
    with experiment.create_run() as run:
        run.flush()
        event, now = log_events.StepMetricEvent, time.perf_counter
        began = now()
        if step_s:
            caller_s = 0.0
            for step, values in enumerate(metrics):
                until = now() + step_s
                while now() < until:
                    pass
                called = now()
                event("train", step, values, model_name="mlp")
                caller_s += now() - called
        else:
            for step, values in enumerate(metrics):
                event("train", step, values, model_name="mlp")
            caller_s = now() - began
        run.flush()
        total_s = now() - began
    if watched:
        path = folder / "drytrack.db"
        with contextlib.closing(sqlite3.connect(path)) as connection:
            [(count,)] = connection.execute("SELECT count(*) FROM points").fetchall()
        assert count == len(metrics) * len(NAMES), f"{count} points"
    return caller_s, total_s
