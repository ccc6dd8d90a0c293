"""Records on disk: who holds a run, how it reads, and what a failure to write does."""

from __future__ import annotations

import errno
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drytrack.core import _record
from drytrack.core._atomic import create_exclusively, replace_file
from drytrack.core._process import this_process
from drytrack.core._record import RecordWriter
from drytrack.core.exceptions import (
    RecordError,
    RunExistsError,
    RunHeldError,
    StorageError,
)
from drytrack.core.run import new_record


@pytest.fixture
def folder(tmp_path):
    return _record.make_run_folder(tmp_path, new_record("E", "a"))


def dead_process():
    """Return the id of a process that has ended."""
    code = (
        "import json; from drytrack.core._process import this_process; "
        "print(json.dumps(this_process().to_dict()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def write_state(folder, *, process, status="running", next_check_in=math.inf, n=1):
    """Leave a run as a process would that has begun its n-th attempt."""
    data = new_record("E", "a", next_check_in=next_check_in)
    data["status"] = status
    data["attempts"] = [{"attempt": number} for number in range(1, n + 1)]
    (folder / "record.json").write_text(json.dumps(data))
    if process is not None:
        (folder / "attempts" / str(n)).write_text(json.dumps({"process": process}))
    return _record.read_record(folder)


# -- status ------------------------------------------------------------------------


def test_a_running_run_whose_process_lives_is_held(folder):
    record = write_state(folder, process=this_process().to_dict())

    assert record.status == "running"
    with pytest.raises(RunHeldError, match=f"process {os.getpid()} on"):
        _record.check_free(record)


def test_a_running_run_whose_process_is_gone_has_crashed(folder):
    record = write_state(folder, process=dead_process())

    assert record.status == "crashed"
    _record.check_free(record)


def test_a_process_of_the_same_number_that_began_later_is_another(folder):
    process = {**dead_process(), "pid": os.getpid()}

    assert write_state(folder, process=process).status == "crashed"


def test_a_run_of_another_machine_is_believed_until_its_check_in(folder):
    far = {**dead_process(), "host": "far.example", "boot_id": "other"}
    soon = write_state(folder, process=far, next_check_in=time.time() + 3600)

    assert soon.status == "running"
    with pytest.raises(RunHeldError, match="can be resumed after"):
        _record.check_free(soon)

    late = write_state(folder, process=far, next_check_in=time.time() - 1)
    assert late.status == "stalled"
    _record.check_free(late)


@pytest.mark.parametrize("status", ["completed", "failed", "interrupted"])
def test_a_run_that_has_ended_is_free_though_its_process_lives(folder, status):
    record = write_state(folder, process=this_process().to_dict(), status=status)

    assert record.status == status
    _record.check_free(record)


def test_an_unreadable_holder_is_believed_until_its_check_in(folder):
    write_state(folder, process=None)
    (folder / "attempts" / "1").write_text('{"proc')

    record = _record.read_record(folder)

    assert record.status == "running"
    with pytest.raises(RunHeldError, match="another process"):
        _record.check_free(record)


# -- attempts ----------------------------------------------------------------------


def test_an_attempt_is_claimed_once(folder):
    _record.claim(folder, 1, "a")
    with pytest.raises(RunHeldError, match="Attempt 1 of run 'a'"):
        _record.claim(folder, 1, "a")
    _record.claim(folder, 2, "a")

    assert _record.last_attempt(folder) == 2
    assert {path.name for path in (folder / "attempts").iterdir()} == {"1", "2"}


def test_of_many_threads_one_claims_an_attempt(folder):
    won = []
    together = threading.Barrier(8)

    def claim():
        together.wait()
        try:
            _record.claim(folder, 1, "a")
        except RunHeldError:
            return
        won.append(True)

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert won == [True]
    assert json.loads((folder / "attempts" / "1").read_text())["process"]


def test_an_attempt_is_claimed_where_links_are_not_supported(folder, monkeypatch):
    def no_links(*_):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", no_links)

    _record.claim(folder, 1, "a")
    with pytest.raises(RunHeldError):
        _record.claim(folder, 1, "a")

    assert [path.name for path in (folder / "attempts").iterdir()] == ["1"]


def test_strange_names_among_the_attempts_are_passed_over(folder):
    for name in (".1.77-5", "1", "12", "x", "-3"):
        (folder / "attempts" / name).write_text("")

    assert _record.last_attempt(folder) == 12


def test_a_folder_is_made_once(tmp_path):
    _record.make_run_folder(tmp_path, new_record("E", "a"))

    with pytest.raises(RunExistsError, match="resume=True"):
        _record.make_run_folder(tmp_path, new_record("E", "a"))


# -- writing -----------------------------------------------------------------------


def test_a_record_reads_back_as_written(folder):
    writer = RecordWriter(
        folder, new_record("E", "a", tags=["größe", "🙂"]), pytest.fail
    )
    writer.write(status="completed", summary={"best": 0.5, "worst": math.nan})

    record = _record.read_record(folder)

    assert (record.id, record.experiment, record.attempt) == ("a", "E", 0)
    assert record.tags == ["größe", "🙂"]
    assert record.data["summary"] == {"best": 0.5, "worst": {"$float": "nan"}}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(value=json_values)
def test_whatever_is_plain_makes_a_valid_record(value, tmp_path_factory):
    folder = _record.make_run_folder(
        tmp_path_factory.mktemp("runs"), new_record("E", "a")
    )

    RecordWriter(folder, new_record("E", "a"), pytest.fail).write(
        summary={"value": value}
    )

    def refuse(name):
        raise AssertionError(name)

    json.loads((folder / "record.json").read_bytes(), parse_constant=refuse)
    _record.read_record(folder)


def test_a_reader_sees_the_old_record_or_the_new_one(folder):
    writer = RecordWriter(folder, new_record("E", "a"), pytest.fail)
    writer.write(must=True)
    over = threading.Event()
    problems = []

    def read():
        while not over.is_set():
            try:
                _record.read_record(folder)
            except RecordError as err:
                problems.append(err)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(200):
        writer.write(notes="x" * (number * 50))
    over.set()
    reader.join()

    assert problems == []


def test_threads_that_write_at_once_leave_one_whole_record(folder):
    writer = RecordWriter(folder, new_record("E", "a"), pytest.fail)

    def write(name):
        for number in range(25):
            writer.write(**{name: number})

    threads = [threading.Thread(target=write, args=(f"t{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    data = _record.read_record(folder).data
    assert [data[f"t{n}"] for n in range(4)] == [24] * 4
    assert {path.name for path in folder.iterdir()} == {
        ".reserve",
        "attempts",
        "record.json",
    }


@pytest.fixture
def full_disk(monkeypatch):
    """Return a switch that makes every replacement fail as on a full disk."""
    move = pathlib.Path.replace
    full = threading.Event()

    def replace(path, target):
        if full.is_set():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return move(path, target)

    monkeypatch.setattr(pathlib.Path, "replace", replace)
    return full


def test_a_failure_to_write_is_said_once_until_it_works_again(folder, full_disk):
    told = []
    writer = RecordWriter(folder, new_record("E", "a"), told.append)
    writer.write(must=True)
    full_disk.set()
    writer.write(step=1)
    writer.write(step=2)
    assert len(told) == 1
    full_disk.clear()
    writer.write(step=3)
    full_disk.set()
    writer.write(step=4)

    assert len(told) == 2
    assert re.search("No space left.*The run goes on", told[0])
    assert _record.read_record(folder).data["step"] == 3
    names = {path.name for path in folder.iterdir()}
    assert names == {"attempts", "record.json", _record.RESERVE}  # for the last one


def test_a_failure_that_is_known_already_is_not_said(folder, full_disk):
    writer = RecordWriter(folder, new_record("E", "a"), pytest.fail)
    writer.write(must=True)
    full_disk.set()

    writer.write(quiet=True, step=1)


def test_a_failure_that_must_not_be_is_a_storage_error(folder, full_disk):
    full_disk.set()

    with pytest.raises(StorageError, match="No space left"):
        RecordWriter(folder, new_record("E", "a"), pytest.fail).write(must=True)


# -- files -------------------------------------------------------------------------


def test_a_file_is_replaced_as_a_whole_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "file"
    replace_file(path, b"old")
    replace_file(path, b"new", sync=True)

    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_replaced_is_untouched(tmp_path):
    path = tmp_path / "folder"
    (path / "inside").mkdir(parents=True)

    with pytest.raises(OSError, match=r".+"):
        replace_file(path, b"new")

    assert list(tmp_path.iterdir()) == [path]


def test_an_exclusive_file_is_never_overwritten(tmp_path):
    path = tmp_path / "file"
    create_exclusively(path, b"mine")

    with pytest.raises(FileExistsError):
        create_exclusively(path, b"yours")

    assert path.read_bytes() == b"mine"
    assert list(tmp_path.iterdir()) == [path]
