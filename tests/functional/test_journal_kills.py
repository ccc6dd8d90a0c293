"""Processes that are killed at any moment lose nothing that was acknowledged."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import importlib.util
import math
import os
import pathlib
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from drytrack import open_store
from drytrack.core import log_events
from drytrack.core._record import read_record
from drytrack.core.journal import JournalReader

pytestmark = pytest.mark.usefixtures("no_default_trackers")

CHILD = pathlib.Path(__file__).with_name("journal_child.py")
POSIX = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
WRITTEN = (log_events.StepMetricEvent, log_events.TextEvent)


@pytest.fixture(scope="module")
def child():
    spec = importlib.util.spec_from_file_location("journal_child", CHILD)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def end_at_random(par_dir, number, pick, how):
    """Run the child, end it at a random moment; return what was acknowledged."""
    process = subprocess.Popen(
        [sys.executable, str(CHILD), str(par_dir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    acknowledged, errors = bytearray(), []
    first = threading.Event()

    def read():
        while block := os.read(process.stdout.fileno(), 1 << 16):
            acknowledged.extend(block)
            first.set()

    readers = [
        threading.Thread(target=read),
        threading.Thread(target=lambda: errors.append(process.stderr.read())),
    ]
    with process:
        for reader in readers:
            reader.start()
        if number % 4 == 3:  # while it starts, resumes, or catches up
            first.wait(pick.uniform(0, 0.6))
        else:
            assert first.wait(60), errors
            time.sleep(pick.uniform(0, 0.1))
        process.send_signal(how)
        for reader in readers:
            reader.join(60)
    assert process.returncode in (-how, 128 + how), errors
    # A cut last line is a write that had not returned.
    whole = bytes(acknowledged).rpartition(b"\n")[0]
    return [int(line) for line in whole.split()]


def check_journal(folder, acknowledged):
    """Check that the journal has what was acknowledged, in order, without gaps."""
    reader = JournalReader(folder)
    found = [event.stamp.seq for event in reader] if reader.exists else []
    assert found == list(range(1, len(found) + 1))
    assert acknowledged == sorted(acknowledged)
    assert set(acknowledged) <= set(found)
    return found


def kill_again_and_again(child, par_dir, kills, seed):
    pick = random.Random(seed)
    folder = par_dir / ".drytrack" / "E" / "a"
    everything = []
    for number in range(kills):
        acknowledged = end_at_random(par_dir, number, pick, signal.SIGKILL)
        everything += acknowledged
        check_journal(folder, everything)
        if acknowledged:
            record = read_record(folder)
            assert record.status == "crashed"
            assert record.data["status"] == "running"

    before = read_record(folder).attempt
    experiment = child.make_experiment(par_dir)
    with experiment.create_run("a", resume=True) as run:
        assert run.attempt > before or before == 0
        for number in range(1, 11):
            everything.append(child.publish(number))

    check_journal(folder, everything)
    assert read_record(folder).status == "completed"
    assert [record.id for record in experiment.previous_runs] == ["a"]
    written = [e.stamp.seq for e in JournalReader(folder) if isinstance(e, WRITTEN)]
    for name in ("inline", "behind"):
        assert child.Lines.numbers(par_dir / f"{name}.txt") == written
    check_stores(par_dir, folder)
    return run.attempt


def check_stores(par_dir, folder):
    """Check that files and database have each step once, as the journal has."""
    steps = [
        event
        for event in JournalReader(folder)
        if isinstance(event, log_events.StepMetricEvent)
    ]
    with (par_dir / "csv" / "E" / "a" / "trainer-steps.csv").open() as file:
        rows = [(int(row["seq"]), float(row["loss"])) for row in csv.DictReader(file)]
    assert rows == [(e.stamp.seq, e.metrics["loss"]) for e in steps]

    # Raw, since a reader would hide a point that is there twice.
    with contextlib.closing(sqlite3.connect(par_dir / "runs.db")) as connection:
        points = list(connection.execute("SELECT seq, value FROM points ORDER BY seq"))
    assert points == rows
    [stored] = open_store(f"sqlite:///{par_dir / 'runs.db'}").runs()
    [run] = open_store(par_dir).runs()
    assert (stored.status, stored.attempt) == (run.status, run.attempt)
    for ours, theirs in zip(stored.summaries(), run.summaries(), strict=True):
        assert dataclasses.replace(ours, mean=0.0) == dataclasses.replace(
            theirs, mean=0.0
        )
        assert math.isclose(ours.mean, theirs.mean, rel_tol=1e-12)


@POSIX
def test_what_was_acknowledged_survives_ten_kills_and_no_tracker_shows_it(
    child, tmp_path
):
    attempts = kill_again_and_again(child, tmp_path, kills=10, seed=1)

    assert 8 <= attempts <= 11


@POSIX
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(10))
def test_what_was_acknowledged_survives_two_hundred_kills(child, tmp_path, seed):
    kill_again_and_again(child, tmp_path, kills=20, seed=100 + seed)


@POSIX
def test_one_kill_reads_as_crashed_and_is_one_run_with_attempt_two(child, tmp_path):
    acknowledged = end_at_random(tmp_path, 0, random.Random(7), signal.SIGKILL)
    folder = tmp_path / ".drytrack" / "E" / "a"

    assert read_record(folder).status == "crashed"
    experiment = child.make_experiment(tmp_path)
    with experiment.create_run("a", resume=True) as run:
        child.publish(1)

    assert run.attempt == 2
    found = list(JournalReader(folder))
    assert {event.stamp.attempt for event in found} == {1, 2}
    assert set(acknowledged) <= {event.stamp.seq for event in found}


@POSIX
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_middle_of_publishing_leaves_a_whole_journal(tmp_path, how):
    folder = tmp_path / ".drytrack" / "E" / "a"
    everything = []
    for number in range(3):
        process_end = end_at_random_by_signal(tmp_path, number, how)
        everything += process_end

        reader = JournalReader(folder)
        found = list(reader)
        numbers = [event.stamp.seq for event in found]
        assert numbers == sorted(set(numbers))
        assert set(everything) <= set(numbers)
        assert reader.damaged == 0
        assert isinstance(found[-1], log_events.StopExperimentEvent)
        assert found[-1].status == "interrupted"
        assert read_record(folder).status == "interrupted"
        assert read_record(folder).attempt == number + 1


def end_at_random_by_signal(par_dir, number, how):
    """End the child while it publishes; its run has begun."""
    pick = random.Random(number)
    return end_at_random(par_dir, 0, pick, how)
