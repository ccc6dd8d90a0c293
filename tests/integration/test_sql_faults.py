"""Databases that fail in mid-run: the run goes on, and nothing is lost."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import time
import warnings

import pytest

import drytrack
from drytrack.core import log_events
from drytrack.core.exceptions import StorageError
from drytrack.replay import replay
from drytrack.trackers import _sql_database
from drytrack.trackers.sqlalchemy import SQLConnection


@contextlib.contextmanager
def told():
    """Collect what is said instead of raising it."""
    messages = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")  # also what was told before
        yield messages
        messages += [str(warning.message) for warning in caught]


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_suspended(run):
    return run.bus.guests["sqlalchemy"].suspended_at is not None


def publish(steps):
    for step in steps:
        log_events.StepMetricEvent("train", step, {"loss": step / 2, "acc": -step})


def go_on(experiment, run):
    """Let a suspended tracker try again at once, until it has all."""

    def try_again():
        experiment.trackers.resume("sqlalchemy")
        return run.flush(1.0)

    wait_until(try_again)


@pytest.fixture
def database(tmp_path):
    return tmp_path / "drytrack.db"


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Return a function that makes an experiment; locks are waited for briefly."""
    monkeypatch.setattr(_sql_database, "BUSY_TIMEOUT_S", 0.1)

    def make_experiment(*arguments):
        experiment = drytrack.Experiment({"lr": 0.1}, name="Digits", par_dir=tmp_path)
        experiment.trackers.remove_all()
        experiment.trackers.subscribe(SQLConnection(*arguments))
        return experiment

    return make_experiment


def check(database, steps, run_id="run"):
    loaded = SQLConnection.from_run(database, "Digits", run_id)
    metrics = loaded.load_metrics("", axis="step")["train"]
    assert metrics["loss"].steps == list(steps)
    assert metrics["loss"].values == [step / 2 for step in steps]
    assert metrics["acc"].values == [float(-step) for step in steps]


def check_summary(database, n):
    with contextlib.closing(sqlite3.connect(database)) as connection:
        query = "SELECT n, stale FROM series_summaries"
        assert connection.execute(query).fetchall() == [(n, 0)] * 2


def test_a_locked_database_is_caught_up_with(make, database):
    experiment = make()
    with told() as messages, experiment.create_run("run") as run:
        publish(range(10))
        assert run.flush()
        with contextlib.closing(sqlite3.connect(database)) as other:
            other.execute("BEGIN EXCLUSIVE")
            publish(range(10, 2_000))
            wait_until(lambda: is_suspended(run))
        go_on(experiment, run)
        publish(range(2_000, 2_010))

    check(database, range(2_010))
    check_summary(database, 2_010)
    assert any("database is locked" in message for message in messages)
    assert not any("INSERT" in message for message in messages)


def test_a_deleted_database_is_made_anew_from_the_journal(make, database):
    experiment = make()
    with experiment.create_run("run") as run:
        publish(range(3_000))
        assert run.flush()
        for suffix in ("", "-wal", "-shm"):
            database.with_name(database.name + suffix).unlink(missing_ok=True)
        publish(range(3_000, 3_010))
        assert run.flush()
        publish(range(3_010, 3_020))

    check(database, range(3_020))
    check_summary(database, 3_020)
    with contextlib.closing(sqlite3.connect(database)) as connection:
        rows = connection.execute("SELECT name, value FROM params").fetchall()
        assert rows == [("lr", "0.1")]
        query = "SELECT status FROM runs"
        assert connection.execute(query).fetchall() == [("completed",)]


def test_a_database_put_back_from_a_copy_is_caught_up_with(make, database, tmp_path):
    experiment = make()
    copy = tmp_path / "copy.db"
    with experiment.create_run("run") as run:
        publish(range(100))
        assert run.flush()
        with (
            contextlib.closing(sqlite3.connect(database)) as source,
            contextlib.closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
        publish(range(100, 700))
        assert run.flush()
        for suffix in ("", "-wal", "-shm"):
            database.with_name(database.name + suffix).unlink(missing_ok=True)
        shutil.move(copy, database)
        publish(range(700, 710))

    check(database, range(710))
    check_summary(database, 710)


@pytest.mark.parametrize("lost", ["the end of the journal", "the record's too"])
def test_the_journal_is_right_where_it_has_less_than_the_database(
    make, database, tmp_path, lost
):
    experiment = make()
    with experiment.create_run("run") as run:
        publish(range(100))
    lines = (run.path / "journal.jsonl").read_bytes().splitlines(keepends=True)
    # What a machine that loses its power leaves of a file that was not synced.
    (run.path / "journal.jsonl").write_bytes(b"".join(lines[:51]))
    if lost == "the record's too":  # the numbers of lost events are given anew
        record = json.loads((run.path / "record.json").read_text("utf-8"))
        record.update(journal={}, trackers={})
        (run.path / "record.json").write_text(json.dumps(record), "utf-8")
    with experiment.create_run("run", resume=True):
        publish(range(50, 120))

    check(database, range(120))
    check_summary(database, 120)
    with contextlib.closing(sqlite3.connect(database)) as connection:
        [(count,)] = connection.execute("SELECT count(*) FROM points").fetchall()
    assert count == 2 * (50 + 70 if lost == "the record's too" else 100 + 70)


def test_a_corrupt_database_is_told_and_replaced_when_moved_away(make, database):
    database.write_bytes(b"no database at all" * 1_000)
    experiment = make()
    with told() as messages, experiment.create_run("run") as run:
        publish(range(100))
        wait_until(lambda: is_suspended(run))
        database.rename(database.with_suffix(".broken"))
        go_on(experiment, run)
        publish(range(100, 110))

    check(database, range(110))
    assert any("Move it away" in message for message in messages)


@pytest.mark.parametrize("damage", ["cut in half", "head overwritten"])
def test_a_damaged_database_says_so_and_is_made_again(make, database, damage):
    experiment = make()
    finished = []
    for name in ("first", "second"):
        with experiment.create_run(name) as run:
            publish(range(2_000))
        finished.append(run.path)
    content = database.read_bytes()
    if damage == "cut in half":
        database.write_bytes(content[: len(content) // 2])
    else:
        database.write_bytes(bytes(100) + content[100:])

    with pytest.raises(StorageError, match="Move it away"):
        drytrack.open_store(database)
    with pytest.raises(StorageError, match="Move it away"):
        SQLConnection.from_run(database, "Digits", "first")
    database.unlink()
    for path in finished:
        replay(path, SQLConnection(database))

    for name in ("first", "second"):
        check(database, range(2_000), name)


def test_a_damaged_page_does_not_stop_the_run(make, database):
    experiment = make()
    with experiment.create_run("first"):
        publish(range(5_000))
    content = bytearray(database.read_bytes())
    for at in range(4096, len(content), 4096):
        content[at] ^= 0xFF  # the type of each page but the first
    database.write_bytes(content)
    with told() as messages, experiment.create_run("run") as run:
        publish(range(100))
        wait_until(lambda: is_suspended(run))
        database.rename(database.with_suffix(".broken"))
        go_on(experiment, run)

    check(database, range(100))
    assert any("malformed" in message for message in messages)


def test_a_database_that_cannot_be_written_does_not_stop_the_run(make, database):
    experiment = make()
    with experiment.create_run("first"):
        publish(range(10))
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")  # readable without writing
    read_only = make(f"sqlite:///file:{database}?mode=ro&uri=true")
    with told() as messages, read_only.create_run("run") as run:
        publish(range(10))
        wait_until(lambda: is_suspended(run))

    check(database, range(10), "first")
    assert run.status == "completed"
    assert any("readonly database" in message for message in messages)


@pytest.mark.skipif(sys.platform == "win32", reason="files have no size limit there")
def test_a_full_disk_is_caught_up_with_when_there_is_room(tmp_path, database):
    script = """
        import pathlib, resource, sys, time, warnings
        import drytrack
        from drytrack.core import log_events
        from drytrack.trackers.sqlalchemy import SQLConnection

        def publish(steps):
            for step in steps:
                metrics = {"loss": step / 2, "acc": -step}
                log_events.StepMetricEvent("train", step, metrics)

        folder = pathlib.Path(sys.argv[1])
        experiment = drytrack.Experiment({}, name="Digits", par_dir=folder)
        experiment.trackers.remove_all()
        experiment.trackers.subscribe(SQLConnection())
        with warnings.catch_warnings(record=True) as told, \\
                experiment.create_run("run") as run:
            warnings.simplefilter("always")  # also what was told before
            publish(range(500))
            run.flush()
            files = [p.stat().st_size for p in folder.rglob("*") if p.is_file()]
            soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (max(files) + 4096, hard))
            publish(range(500, 5_000))
            deadline = time.monotonic() + 60
            while not any("refuses" in str(each.message) for each in told):
                assert time.monotonic() < deadline
                time.sleep(0.01)
                log_events.ParamsEvent({"lr": 0.1})  # what publishes is told
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            publish(range(5_000, 5_010))
            experiment.trackers.resume("sqlalchemy")
            while not run.flush(1.0):
                experiment.trackers.resume("sqlalchemy")
                assert time.monotonic() < deadline
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )

    assert done.returncode == 0, done.stderr
    check(database, range(5_010))
    check_summary(database, 5_010)


def test_a_server_that_comes_back_is_caught_up_with(
    make, postgres_server, postgres_url
):
    experiment = make(postgres_url)
    with told() as messages, experiment.create_run("run") as run:
        publish(range(500))
        assert run.flush()
        postgres_server.stop()
        publish(range(500, 3_000))
        wait_until(lambda: is_suspended(run))
        postgres_server.start()
        go_on(experiment, run)
        publish(range(3_000, 3_010))

    check(postgres_url, range(3_010))
    assert any(
        "PostgreSQL" in message or "postgresql" in message for message in messages
    )


def test_a_server_that_is_down_at_the_start_gets_everything(
    make, postgres_server, postgres_url
):
    postgres_server.stop()
    experiment = make(postgres_url)
    with told(), experiment.create_run("run") as run:
        publish(range(100))
        wait_until(lambda: is_suspended(run))
        postgres_server.start()
        go_on(experiment, run)

    check(postgres_url, range(100))


def test_a_run_survives_a_password_that_is_wrong_without_telling_it(
    make, tmp_path, caplog
):
    secret = "hunter2hunter2"
    experiment = make(f"postgresql://me:{secret}@localhost:1/none")
    caplog.set_level("DEBUG", logger="drytrack")
    with told() as messages, experiment.create_run("run") as run:
        publish(range(10))
        wait_until(lambda: is_suspended(run))

    assert messages
    assert secret not in "".join(messages) + caplog.text
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes()


def test_a_network_file_system_has_no_write_ahead_log(
    make, database, tmp_path, monkeypatch
):
    mounts = tmp_path / "mounts"
    folder = str(tmp_path).replace(" ", "\\040")
    mounts.write_text(f"/dev/sda1 / ext4 rw 0 0\nserver:/x {folder} nfs4 rw 0 0\n")
    monkeypatch.setattr(_sql_database, "MOUNTS", mounts)
    monkeypatch.setattr(sys, "platform", "linux")
    experiment = make()
    with told() as messages, experiment.create_run("run"):
        publish(range(100))

    check(database, range(100))
    with contextlib.closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert any("network file system (nfs4)" in message for message in messages)


@pytest.mark.parametrize(
    ("kind", "is_network"),
    [
        ("nfs", True),
        ("cifs", True),
        ("smb3", True),
        ("lustre", True),
        ("fuse.sshfs", True),
        ("9p", True),
        ("ext4", False),
        ("overlay", False),
        ("tmpfs", False),
        ("fuse.ntfs-3g", False),
    ],
)
def test_network_file_systems_are_known_by_their_type(
    tmp_path, monkeypatch, kind, is_network
):
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/sda1 / ext4 rw 0 0\nx {tmp_path} {kind} rw 0 0\n")
    monkeypatch.setattr(_sql_database, "MOUNTS", mounts)
    monkeypatch.setattr(sys, "platform", "linux")

    found = _sql_database.network_file_system(tmp_path / "sub" / "drytrack.db")
    assert found == (kind if is_network else None)
