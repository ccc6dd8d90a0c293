"""Reading: one long series into NumPy, and a list of many runs."""

from __future__ import annotations

import contextlib
import pathlib
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable

import numpy as np

import drytrack
from drytrack.core import log_events
from drytrack.trackers.sqlalchemy import SQLConnection

N_RUNS = 1_000
METRICS = ("loss", "accuracy", "f1")
SERIES = "SELECT step, value FROM points WHERE series_id = 1 ORDER BY step"
LAST = """
    SELECT runs.name, series.metric, (
        SELECT value FROM points
        WHERE series_id = series.id ORDER BY step DESC LIMIT 1
    )
    FROM runs JOIN series ON series.run_id = runs.id ORDER BY runs.id
"""
NUMBERS = """
    WITH RECURSIVE numbers(k) AS (
        SELECT 1 UNION ALL SELECT k + 1 FROM numbers WHERE k < ?
    )
"""


def measure_reading(n_points: int) -> dict[str, float]:
    """Print what reading takes; return what has a limit.

    Args:
        n_points: Points of the list's runs, all together.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = fill(pathlib.Path(folder), 100_000, 1)
        series = measure(
            {
                "sqlite3: SELECT, fetchall": lambda: query(file, SERIES),
                "sqlite3: the same, into NumPy": lambda: to_numpy(file),
                "store: series, into NumPy": lambda: read_series(file),
            },
            "a series of 100,000 points",
        )
        steps, values = read_series(file)
        expected = to_numpy(file)
        assert (expected[:, 0] == steps).all()
        assert (expected[:, 1] == values).all()
    with tempfile.TemporaryDirectory() as folder:
        file = fill(pathlib.Path(folder), n_points // N_RUNS // 3, N_RUNS)
        assert sorted(query(file, LAST)) == sorted(list_runs(file))
        title = f"{N_RUNS:,} runs, the last values of 3 metrics, of {n_points:,} points"
        listing = measure(
            {
                "sqlite3: on the points' index": lambda: query(file, LAST),
                "store: runs and summaries": lambda: list_runs(file),
            },
            title,
        )
    return {
        "a series": series["store: series, into NumPy"],
        "the list": listing["store: runs and summaries"],
    }


def fill(folder: pathlib.Path, n_steps: int, n_runs: int) -> pathlib.Path:
    """Make a database of runs: the first is tracked, the others are its copies."""
    experiment = drytrack.Experiment({"lr": 0.1}, name="Storage", par_dir=folder)
    experiment.trackers.subscribe(SQLConnection())
    draw = random.Random(0).random  # noqa: S311  # any digits will do
    names = METRICS if n_runs > 1 else METRICS[:1]
    with experiment.create_run("run"):
        for step in range(n_steps):
            values = {name: draw() for name in names}
            log_events.StepMetricEvent("train", step, values)
    file = folder / "drytrack.db"
    if n_runs > 1:
        with contextlib.closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("PRAGMA synchronous = OFF")
            copy_runs(connection, n_runs - 1)
    return file


def copy_runs(connection: sqlite3.Connection, n: int) -> None:
    """Copy the only run with all that it has."""
    moved = {"run_id": "run_id + k", "series_id": "series_id + 3 * k"}
    changed: dict[str, dict[str, str]] = {
        "runs": {"id": "id + k", "uuid": "uuid || k", "name": "name || k"},
        "series": {"id": "id + 3 * k"},
    }
    tables = ("params", "attempts", "spans", "points", "series_summaries")
    for table in (*changed, *tables):
        own = changed.get(table, {})
        found = connection.execute(f"PRAGMA table_info({table})")
        columns = [row[1] for row in found]
        values = [{**moved, **own}.get(column, column) for column in columns]
        text = (
            f"INSERT INTO {table} SELECT {', '.join(values)} "  # noqa: S608  # ours
            f"FROM numbers, {table}"
        )
        connection.execute(f"{NUMBERS} {text}", (n,))


def query(file: pathlib.Path, text: str) -> list[tuple[object, ...]]:
    """Return the rows that SQLite has."""
    with contextlib.closing(sqlite3.connect(file)) as connection:
        return connection.execute(text).fetchall()


def to_numpy(file: pathlib.Path) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return steps and values of the series as SQLite has them."""
    return np.array(query(file, SERIES))


def read_series(file: pathlib.Path) -> tuple[object, object]:
    """Return steps and values of the series as the store has them."""
    store = drytrack.open_store(file)
    steps, values = store.runs()[0].series("loss")
    return np.array(steps), np.array(values)


def list_runs(file: pathlib.Path) -> list[tuple[object, ...]]:
    """Return run, metric and last value of all runs."""
    store = drytrack.open_store(file)
    return [
        (run.id, summary.key.metric, summary.last)
        for run in store.runs()
        for summary in run.summaries()
    ]


def measure(
    ways: dict[str, Callable[[], object]], title: str, rounds: int = 15
) -> dict[str, float]:
    """Print medians; return them as multiples of the first way's, side by side."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - began)
    yardstick = next(iter(times.values()))
    print(f"\n{title}")
    ratios = {}
    for name, taken in times.items():
        pairs = zip(taken, yardstick, strict=True)
        ratios[name] = statistics.median(a / b for a, b in pairs)
        median = statistics.median(taken) * 1e3
        print(f"{name:<32} {median:9.1f} ms {ratios[name]:7.2f} x")
    return ratios
