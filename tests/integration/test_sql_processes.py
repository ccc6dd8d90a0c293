"""Many processes that write to one database."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import textwrap

import pytest
import sqlalchemy as sa

from drytrack.trackers import _sql_schema as schema

SCRIPT = textwrap.dedent(
    """
    import sys
    import warnings

    import drytrack
    from drytrack.core import log_events
    from drytrack.trackers.sqlalchemy import SQLConnection

    warnings.simplefilter("error")
    address, folder, name, steps = sys.argv[1:]
    experiment = drytrack.Experiment({"worker": name}, name="Sweep", par_dir=folder)
    experiment.trackers.remove_all()
    experiment.trackers.subscribe(SQLConnection(address))
    sys.stdout.write("ready\\n")
    sys.stdout.flush()
    sys.stdin.readline()  # all start at once
    with experiment.create_run(name):
        for step in range(int(steps)):
            log_events.StepMetricEvent("train", step, {"loss": step, "acc": -step})
    """
)


def run_all(address, folder, n_processes, steps):
    """Run processes that start at the same moment; none may fail."""
    children = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                SCRIPT,
                str(address),
                str(folder),
                f"w{n}",
                str(steps),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(n_processes)
    ]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        _, errors = child.communicate(timeout=110)
        assert child.returncode == 0, errors


def check_file(database, n_processes, steps):
    with contextlib.closing(sqlite3.connect(database)) as connection:
        query = (
            "SELECT runs.name, count(*), sum(value) FROM runs "
            "JOIN series ON series.run_id = runs.id "
            "JOIN points ON series_id = series.id GROUP BY runs.id ORDER BY runs.name"
        )
        rows = connection.execute(query).fetchall()
        states = connection.execute("SELECT DISTINCT status FROM runs").fetchall()
    assert rows == [(f"w{n}", 2 * steps, 0.0) for n in range(n_processes)]
    assert states == [("completed",)]


def test_eight_processes_start_on_a_file_that_is_not_there(tmp_path):
    run_all(tmp_path / "new.db", tmp_path, 8, 60)

    check_file(tmp_path / "new.db", 8, 60)


@pytest.mark.slow
def test_eight_processes_lose_no_point(tmp_path):
    run_all(tmp_path / "new.db", tmp_path, 8, 500)

    check_file(tmp_path / "new.db", 8, 500)


@pytest.mark.parametrize(
    ("n_processes", "steps"), [(4, 60), pytest.param(32, 500, marks=pytest.mark.slow)]
)
def test_processes_share_a_server(tmp_path, postgres_url, n_processes, steps):
    run_all(postgres_url, tmp_path, n_processes, steps)

    engine = sa.create_engine(postgres_url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        query = sa.select(sa.func.count()).select_from(schema.points)
        assert connection.execute(query).scalar() == n_processes * steps * 2
        query = sa.select(schema.runs.c.status).distinct()
        assert connection.execute(query).scalars().all() == ["completed"]
    engine.dispose()
