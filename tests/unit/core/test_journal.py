"""The journal: what is written, what is read back, and what damage costs."""

from __future__ import annotations

import gzip
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import tracemalloc
import zlib

import duckdb
import orjson
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drytrack import Experiment
from drytrack.core import journal
from drytrack.core.exceptions import JournalError
from drytrack.core.journal import JournalReader, JournalWriter, Position, compact
from drytrack.core.log_events import (
    ImageEvent,
    MetricEvent,
    StepMetricEvent,
    TextEvent,
    UnknownEvent,
)

pytestmark = pytest.mark.usefixtures("no_default_trackers")

FILE = "journal.jsonl"
DEVICE = pathlib.Path("/dev/full")


def step(number, **metrics):
    return StepMetricEvent.unpublished("s", number, metrics or {"loss": number / 7})


def no_problem(what):
    raise AssertionError(what)


@pytest.fixture
def writer(tmp_path):
    made = JournalWriter(tmp_path, 1, tell=no_problem)
    yield made
    if not made._closed:
        made.close()


def fill(folder, count, attempt=1):
    writer = JournalWriter(folder, attempt, tell=no_problem)
    events = [step(number) for number in range(writer.seq + 1, writer.seq + 1 + count)]
    for event in events:
        writer.append(event)
    writer.close()
    return events


def steps(reader, *arguments, **keywords):
    return [event.step for event in reader.read(*arguments, **keywords)]


def lines_of(folder):
    return (folder / FILE).read_bytes().splitlines(keepends=True)


def signed(**entries):
    """Make a line as the writer would, of whatever content."""
    head = {"v": 1, "type": "StepMetricEvent", "attempt": 1, "seq": 1, "time_us": 1}
    text = orjson.dumps({**head, "fields": {}, **entries})[:-1]
    return text + b',"crc":%d}\n' % zlib.crc32(text)


# -- writing -----------------------------------------------------------------------


def test_a_line_is_in_the_file_when_append_returns(tmp_path, writer):
    for number in range(1, 6):
        writer.append(step(number))

        assert steps(JournalReader(tmp_path)) == list(range(1, number + 1))
        assert writer.size == (tmp_path / FILE).stat().st_size


def test_events_are_stamped_with_number_attempt_and_time(tmp_path):
    fill(tmp_path, 2)
    (*_, written) = fill(tmp_path, 2, attempt=2)

    found = list(JournalReader(tmp_path))

    assert [event.stamp.seq for event in found] == [1, 2, 3, 4]
    assert [event.stamp.attempt for event in found] == [1, 1, 2, 2]
    assert found[-1].stamp == written.stamp
    times = [event.stamp.time for event in found]
    assert times == sorted(times)


def test_each_line_is_json_with_a_checksum_that_anyone_can_compute(tmp_path):
    fill(tmp_path, 3)

    for line in lines_of(tmp_path):
        text, _, rest = line.rpartition(b',"crc":')
        assert json.loads(line)["crc"] == zlib.crc32(text) == int(rest[:-2])


def test_the_short_way_writes_what_the_long_one_reads(tmp_path, writer):
    events = [
        StepMetricEvent.unpublished('tr/ä"in', 5, {"a": 1.0}, {}, "sample", "m\\x"),
        StepMetricEvent.unpublished("s", -1, {"$float": 0.0, "ö": 1e300}),
        StepMetricEvent.unpublished("s", 1, {}),
        StepMetricEvent.unpublished("s", 1, {"a": 1.0}, {"split": "val"}),
    ]
    for event in events:
        writer.append(event)

    assert list(JournalReader(tmp_path)) == events


@pytest.mark.skipif(not DEVICE.exists(), reason="no /dev/full here")
def test_a_disk_that_refuses_delays_lines_and_loses_none(tmp_path, monkeypatch):
    told = []
    writer = JournalWriter(tmp_path, 1, tell=told.append)
    writer.append(step(1))
    monkeypatch.setattr(journal, "RETRY_S", 0.0)
    good = writer._fd
    full = os.open(DEVICE, os.O_WRONLY)
    writer._fd = full
    for number in range(2, 5):
        writer.append(step(number))

    assert writer.incomplete_from == 2
    assert steps(JournalReader(tmp_path)) == [1]
    assert len(told) == 1
    assert "from event 2 on: [Errno 28]" in told[0]

    writer._fd = good
    os.close(full)
    writer.append(step(5))
    assert (writer.incomplete_from, writer.missing) == (None, [])
    writer.close()
    assert steps(JournalReader(tmp_path)) == [1, 2, 3, 4, 5]


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on file sizes")
def test_half_a_line_is_taken_back_and_written_whole_when_there_is_room(tmp_path):
    # In a process of its own: the limit holds for all files of the process.
    code = f"""
import pathlib, resource, signal
from drytrack.core.journal import JournalReader, JournalWriter
from drytrack.core.log_events import TextEvent
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder = pathlib.Path({str(tmp_path)!r})
told = []
writer = JournalWriter(folder, 1, tell=told.append)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
for number in range(10):
    writer.append(TextEvent.unpublished("s", "t", number, "x" * 100))
raw = (folder / "journal.jsonl").read_bytes()
assert len(raw) <= 1000 and raw.endswith(b"\\n"), len(raw)
inside = len(list(JournalReader(folder)))
assert writer.incomplete_from == inside + 1, (writer.incomplete_from, inside)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
writer.close()
assert len(told) == 1, told
assert [e.step for e in JournalReader(folder)] == list(range(10))
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_neither_disk_nor_memory_holds_is_named(tmp_path, monkeypatch):
    told = []
    writer = JournalWriter(tmp_path, 1, tell=told.append)
    monkeypatch.setattr(journal, "MAX_BACKLOG", 400)
    good, (read, write) = writer._fd, os.pipe()
    os.close(read)
    writer._fd = write  # a pipe that nobody reads: every write fails
    for number in range(1, 9):
        writer.append(step(number))
    writer._fd = good
    os.close(write)

    first, last = writer.missing[0]
    assert (last, writer.lost_upto(first - 1), writer.lost_upto(last)) == (8, 0, 8)
    assert writer.incomplete_from == 1  # it waits in memory
    writer.close()
    assert writer.incomplete_from == first
    assert steps(JournalReader(tmp_path)) == list(range(1, first))


def test_a_long_backlog_is_written_a_part_at_a_time(tmp_path, monkeypatch):
    writer = JournalWriter(tmp_path, 1, tell=lambda what: None)
    monkeypatch.setattr(journal, "CATCH_UP_LINES", 10)
    good, (read, write) = writer._fd, os.pipe()
    os.close(read)
    writer._fd = write
    for number in range(1, 101):
        writer.append(step(number))
    writer._fd = good
    os.close(write)
    writer._next_try = 0.0

    writer.append(step(101))
    assert steps(JournalReader(tmp_path)) == list(range(1, 11))

    writer.settle()
    assert steps(JournalReader(tmp_path)) == list(range(1, 102))
    writer.close()


# -- reading -----------------------------------------------------------------------


def test_reading_starts_anywhere(tmp_path):
    fill(tmp_path, 5_000)
    reader = JournalReader(tmp_path)

    for seq in (0, 1, 2, 2_499, 4_999, 5_000, 6_000):
        place = reader.find(seq)
        assert steps(reader, place) == list(range(seq + 1, 5_001))
    assert reader.find(4_000).offset > 0


def test_a_position_continues_where_it_was_taken(tmp_path):
    fill(tmp_path, 10)
    reader = JournalReader(tmp_path)
    for event in reader.read():
        if event.step == 4:
            break

    assert steps(JournalReader(tmp_path), reader.position) == [5, 6, 7, 8, 9, 10]


def test_a_live_journal_is_followed(tmp_path, writer):
    writer.append(step(1))
    found, over = [], threading.Event()

    def follow():
        for event in JournalReader(tmp_path).read(
            follow=True, poll_s=0.001, stop=over.is_set
        ):
            found.append(event.step)
            if event.step == 50:
                over.set()

    thread = threading.Thread(target=follow)
    thread.start()
    for number in range(2, 51):
        writer.append(step(number))
    thread.join(30)

    assert found == list(range(1, 51))


def test_a_line_that_is_still_being_written_is_waited_for(tmp_path):
    fill(tmp_path, 2)
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[:-20])
    reader = JournalReader(tmp_path)
    following = reader.read(follow=True, poll_s=0.001)

    assert next(following).step == 1
    (tmp_path / FILE).write_bytes(whole)
    assert next(following).step == 2
    assert reader.damaged == 0
    following.close()


def test_no_journal_is_an_error_that_says_what_to_pass(tmp_path):
    with pytest.raises(JournalError, match="has no journal to read"):
        list(JournalReader(tmp_path / "nothing"))


def test_other_tools_read_the_file(tmp_path):
    fill(tmp_path, 20)
    path = tmp_path / FILE

    frame = pd.read_json(path, lines=True)
    (counted,) = duckdb.sql(
        f"select count(*), sum(fields.step), max(fields.metrics.loss) "
        f"from read_json('{path}', format='newline_delimited')"
    ).fetchall()

    assert list(frame["seq"]) == list(range(1, 21))
    assert frame["fields"][6]["metrics"]["loss"] == 1.0
    assert counted == (20, 210, 20 / 7)
    if jq := shutil.which("jq"):
        done = subprocess.run(
            [jq, ".fields.step", str(path)], capture_output=True, check=True
        )
        assert done.stdout.split() == [b"%d" % number for number in range(1, 21)]


# -- damage ------------------------------------------------------------------------


@given(where=st.floats(0, 1, exclude_max=True), mask=st.integers(1, 255))
def test_a_flipped_byte_costs_one_line_at_the_most(tmp_path_factory, where, mask):
    folder = tmp_path_factory.mktemp("flipped")
    fill(folder, 20)
    raw = bytearray((folder / FILE).read_bytes())
    place = int(where * len(raw))
    raw[place] ^= mask
    (folder / FILE).write_bytes(raw)
    reader = JournalReader(folder)

    found = steps(reader)

    assert len(found) >= 19
    assert found == sorted(set(found))
    # A newline more or less leaves one piece or two that are no line.
    assert (len(found) == 20 and reader.damaged <= 1) or reader.damaged in (1, 2)
    if reader.damage:
        line = max(0, raw.rfind(b"\n", 0, place) + 1)
        assert abs(reader.damage[0].offset - line) < 300


@given(cut=st.integers(1, 3_000))
def test_a_cut_tail_costs_what_was_cut_and_the_run_goes_on(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("cut")
    fill(folder, 20)
    raw = (folder / FILE).read_bytes()
    kept = raw[: max(0, len(raw) - cut)]
    (folder / FILE).write_bytes(kept)
    whole = kept.count(b"\n")
    reader = JournalReader(folder)

    assert steps(reader) == list(range(1, whole + 1))
    assert reader.damaged == (not kept.endswith(b"\n") and bool(kept))

    again = JournalWriter(folder, 2, tell=no_problem)
    again.append(step(100))
    again.close()
    # Where nothing but the end of line was missing, the line is whole again.
    whole += raw[len(kept) : len(kept) + 1] == b"\n" and bool(kept)
    assert steps(JournalReader(folder)) == [*range(1, whole + 1), 100]


def test_damage_is_reported_with_its_place_and_reason(tmp_path):
    fill(tmp_path, 5)
    lines = lines_of(tmp_path)
    lines[1] = lines[1].replace(b'"step":2', b'"step":9')
    lines[3] = b"no json\n"
    (tmp_path / FILE).write_bytes(b"".join(lines))
    reader = JournalReader(tmp_path)

    assert steps(reader) == [1, 3, 5]
    assert reader.damaged == 2
    offsets = [len(lines[0]), sum(map(len, lines[:3]))]
    assert [damage.offset for damage in reader.damage] == offsets
    assert {damage.reason for damage in reader.damage} == {"its checksum is wrong"}


def test_the_damage_kept_is_bounded_and_all_of_it_is_counted(tmp_path):
    (tmp_path / FILE).write_bytes(b"rubbish\n" * 10_000)
    reader = JournalReader(tmp_path)

    assert steps(reader) == []
    assert (reader.damaged, len(reader.damage)) == (10_000, 100)


def test_the_number_of_a_damaged_last_line_is_not_given_again(tmp_path):
    fill(tmp_path, 5)
    lines = lines_of(tmp_path)
    lines[4] = lines[4].replace(b'"loss"', b'"lost"')
    (tmp_path / FILE).write_bytes(b"".join(lines))

    writer = JournalWriter(tmp_path, 2, tell=no_problem)
    writer.append(step(6))
    writer.close()

    assert [event.stamp.seq for event in JournalReader(tmp_path)] == [1, 2, 3, 4, 6]


def test_a_number_that_others_know_of_is_not_given_again(tmp_path):
    fill(tmp_path, 5)
    (tmp_path / FILE).write_bytes(b"".join(lines_of(tmp_path)[:3]))  # a lost machine

    writer = JournalWriter(tmp_path, 2, at_least=5, tell=no_problem)
    writer.append(step(6))
    writer.close()

    assert [event.stamp.seq for event in JournalReader(tmp_path)] == [1, 2, 3, 6]


def test_a_newer_version_is_refused_with_the_remedy(tmp_path):
    fill(tmp_path, 2)
    with (tmp_path / FILE).open("ab") as file:
        file.write(signed(v=2))
    reading = JournalReader(tmp_path).read()

    assert [next(reading).step, next(reading).step] == [1, 2]
    with pytest.raises(JournalError, match=r"newer drytrack.*pip install -U drytrack"):
        next(reading)
    with pytest.raises(JournalError, match="newer drytrack"):
        JournalWriter(tmp_path, 2, tell=no_problem)


def test_a_newer_version_with_another_checksum_is_refused_too(tmp_path):
    (tmp_path / FILE).write_bytes(b'{"v":3,"anything":"else"}\n')

    with pytest.raises(JournalError, match="newer drytrack"):
        list(JournalReader(tmp_path))


# -- hostile files -----------------------------------------------------------------


def test_a_huge_line_is_passed_over_and_not_read_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "MAX_LINE", 100_000)
    fill(tmp_path, 2)
    first, second = lines_of(tmp_path)
    (tmp_path / FILE).write_bytes(first + b"x" * 30_000_000 + b"\n" + second)
    reader = JournalReader(tmp_path)

    tracemalloc.start()
    try:
        found = steps(reader)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert found == [1, 2]
    assert reader.damage == [(len(first), "longer than 100000 bytes")]
    assert peak < 5_000_000


def test_a_huge_line_without_end_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "MAX_LINE", 100_000)
    fill(tmp_path, 1)
    with (tmp_path / FILE).open("ab") as file:
        file.write(b"x" * 1_000_000)
    reader = JournalReader(tmp_path)

    assert steps(reader) == [1]
    assert reader.damaged == 1


HOSTILE = {
    "deep lists": b'{"v":1,"fields":' + b"[" * 100_000 + b"\n",
    "deep tags": signed(fields={"source_name": "s"}).replace(
        b'"s"', b'{"$set":[' * 200 + b"1" + b"]}" * 200
    ),
    "a list": b"[]\n",
    "a number": b"7\n",
    "no object": signed()[1:],
    "a huge checksum": b'{"v":1,"type":"A","crc":' + b"9" * 5_000 + b"}\n",
    "a negative checksum": b'{"v":1,"crc":-1}\n',
    "seq is text": signed(seq="1"),
    "seq is true": signed(seq=True),
    "seq is null": signed(seq=None),
    "time is text": signed(time_us="now"),
    "attempt is a list": signed(attempt=[]),
    "type is a list": signed(type=["MetricEvent"]),
    "type is null": signed(type=None),
    "fields is a list": signed(fields=[1]),
    "metrics is a number": signed(fields={"metrics": 1, "x": {"$float": "nan"}}),
    "metrics is a list": signed(fields={"metrics": [{"$float": "nan"}]}),
    "version is text": signed(v="1"),
    "version is zero": signed(v=0),
    "a blob outside": signed(fields={"a": {"$bytes": "../../../etc/passwd"}}),
    "a blob that is missing": signed(fields={"a": {"$bytes": "0" * 64}}),
    "an array of objects": signed(fields={"a": {"$array": ["O", [1], "0" * 64]}}),
    "an unknown tag": signed(fields={"a": {"$os.system": "true"}}),
    "bytes that are no text": b"\xff\xfe\x00\x00\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_line_costs_itself_alone(tmp_path, name):
    fill(tmp_path, 2)
    first, second = lines_of(tmp_path)
    (tmp_path / FILE).write_bytes(first + HOSTILE[name] + second)
    reader = JournalReader(tmp_path)

    assert steps(reader) == [1, 2]
    assert [damage.offset for damage in reader.damage] == [len(first)]


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "subprocess:Popen",
        "builtins:eval",
        "antigravity:fly_to",
        "drytrack.core.journal:JournalWriter",
        "drytrack.core.track:Tracker",
        "x" * 100_000,
        "../../evil",
        "",
    ],
)
def test_a_type_name_imports_and_runs_nothing(tmp_path, name):
    before = set(sys.modules)
    fields = {"args": "touch hacked", "command": "touch hacked", "folder": "hacked"}
    (tmp_path / FILE).write_bytes(signed(type=name, fields=fields))

    (found,) = JournalReader(tmp_path)

    assert isinstance(found, UnknownEvent)
    assert (found.type_name, found.fields) == (name, fields)
    assert set(sys.modules) == before
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_fields_that_the_class_refuses_leave_an_unknown_event(tmp_path):
    (tmp_path / FILE).write_bytes(
        signed(type="MetricEvent", fields={"__class__": "x", "self": 1})
    )

    (found,) = JournalReader(tmp_path)

    assert isinstance(found, UnknownEvent)


def test_a_million_type_names_are_not_remembered(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "MAX_TYPES", 10)
    (tmp_path / FILE).write_bytes(
        b"".join(signed(type=f"m:T{number}", seq=number + 1) for number in range(100))
    )
    reader = JournalReader(tmp_path)

    assert len(list(reader)) == 100
    assert len(reader._types) == 10


def test_blobs_of_a_line_have_a_limit_together(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "MAX_BLOBS", 1_000)
    writer = JournalWriter(tmp_path, 1, tell=no_problem)
    name = writer.put_blob(b"x" * 400)
    writer.close()
    bomb = signed(type="m:T", fields={"a": [{"$bytes": name}] * 3})
    fine = signed(type="m:T", seq=2, fields={"a": [{"$bytes": name}] * 2})
    (tmp_path / FILE).write_bytes(bomb + fine)
    reader = JournalReader(tmp_path)

    (found,) = reader

    assert found.stamp.seq == 2
    assert "too long together" in reader.damage[0].reason


def test_a_damaged_blob_is_said_and_costs_its_event_alone(tmp_path, writer):
    writer.append(step(1))
    image = b"\x89PNG\r\n\x1a\n" + b"x" * 100
    path = tmp_path / "a.png"
    path.write_bytes(image)
    writer.append(ImageEvent.unpublished("s", "i", 1, path))
    writer.append(step(2))
    (blob,) = (tmp_path / "blobs").iterdir()
    blob.write_bytes(image + b"!")
    reader = JournalReader(tmp_path)

    assert steps(reader) == [1, 2]
    assert "is damaged: its hash is another" in reader.damage[0].reason


# -- compressed --------------------------------------------------------------------


def test_a_compressed_journal_reads_the_same_and_goes_on(tmp_path):
    fill(tmp_path, 3_000)
    before = list(JournalReader(tmp_path))

    size, packed = compact(tmp_path)

    assert packed < size / 2
    assert not (tmp_path / FILE).exists()
    reader = JournalReader(tmp_path)
    assert reader.exists
    assert list(reader) == before
    assert steps(reader, reader.find(2_990)) == list(range(2_991, 3_001))
    fill(tmp_path, 2, attempt=2)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert steps(JournalReader(tmp_path)) == list(range(1, 3_003))


def test_a_damaged_compressed_journal_is_read_as_far_as_it_goes(tmp_path):
    fill(tmp_path, 3_000)
    compact(tmp_path)
    packed = tmp_path / f"{FILE}.gz"
    packed.write_bytes(packed.read_bytes()[:-5_000])
    reader = JournalReader(tmp_path)

    found = steps(reader)

    assert found == list(range(1, len(found) + 1))
    assert 500 < len(found) < 3_000
    assert "cannot be decompressed" in reader.damage[-1].reason

    told = []
    writer = JournalWriter(tmp_path, 2, tell=told.append)
    writer.append(step(9_999))
    writer.close()
    assert "is damaged" in told[0]
    assert steps(JournalReader(tmp_path))[-1] == 9_999
    assert (tmp_path / f"{FILE}.gz.damaged").exists()


def test_what_is_no_gzip_at_all_is_damage(tmp_path):
    (tmp_path / f"{FILE}.gz").write_bytes(b"no gzip")
    reader = JournalReader(tmp_path)

    assert steps(reader) == []
    assert reader.damaged == 1


def test_a_crash_between_compressing_and_deleting_loses_nothing(tmp_path):
    fill(tmp_path, 3)
    with gzip.open(tmp_path / f"{FILE}.gz", "wb") as file:
        file.write((tmp_path / FILE).read_bytes()[:50])

    fill(tmp_path, 1, attempt=2)

    assert steps(JournalReader(tmp_path)) == [1, 2, 3, 4]


def test_the_journal_of_a_run_that_goes_on_is_not_compressed(tmp_path):
    with Experiment(name="E", par_dir=tmp_path).create_run() as run:
        with pytest.raises(JournalError, match="is running"):
            compact(run.path)
        TextEvent("s", "t", 1, "still here")

    compact(run.path)
    names = [type(event).__name__ for event in JournalReader(run.path)]
    assert names == ["StartExperimentEvent", "TextEvent", "StopExperimentEvent"]


def test_nothing_to_compress_is_an_error(tmp_path):
    with pytest.raises(JournalError, match="to compress"):
        compact(tmp_path)


def test_a_run_that_is_resumed_while_it_is_compressed_keeps_its_journal(
    tmp_path, monkeypatch
):
    experiment = Experiment(None, name="E", par_dir=tmp_path)
    with experiment.create_run("a") as run:
        MetricEvent("m", "s", 1, {"loss": 1.0})
    resumed = experiment.create_run("a", resume=True)

    def open_late(*arguments):
        resumed.start()
        return gzip.GzipFile(*arguments)

    monkeypatch.setattr(journal.gzip, "open", open_late)
    with pytest.raises(JournalError, match="is running"):
        compact(run.path)
    resumed.stop()

    assert len(list(JournalReader(run.path))) == 5
    assert not (run.path / "journal.jsonl.gz").exists()


# -- any history -------------------------------------------------------------------

NAMES = st.sampled_from(["train", "val/ü", "$x"])
VALUES = st.floats() | st.just(float("nan"))
EVENTS = st.one_of(
    st.builds(
        StepMetricEvent.unpublished,
        NAMES,
        st.integers(-(2**40), 2**40),
        st.dictionaries(NAMES, VALUES, max_size=3),
        st.dictionaries(NAMES, st.text(max_size=3), max_size=2),
    ),
    st.builds(
        MetricEvent.unpublished,
        NAMES,
        NAMES,
        st.integers(0, 5),
        st.dictionaries(NAMES, VALUES),
    ),
    st.builds(
        TextEvent.unpublished, NAMES, NAMES, st.integers(0, 5), st.text(max_size=20)
    ),
)
TORN = st.binary(max_size=30).filter(lambda tail: b"\n" not in tail)


@given(
    attempts=st.lists(
        st.tuples(st.lists(EVENTS, max_size=6), st.none() | TORN), max_size=5
    )
)
def test_any_sequence_of_events_kills_and_resumes_reads_as_it_was_published(
    tmp_path_factory, attempts
):
    folder = tmp_path_factory.mktemp("history")
    published = []

    for number, (events, torn) in enumerate(attempts, 1):
        writer = JournalWriter(folder, number, tell=no_problem)
        for event in events:
            writer.append(event)
            published.append((event, event.stamp))
        if torn is None:
            writer.close()
        else:  # killed: nobody closes it, and a last line may be unfinished
            os.write(writer._fd, torn)
            os.close(writer._fd)

    reader = JournalReader(folder)
    found = [(event, event.stamp) for event in reader] if attempts else []
    assert found == published
    assert [stamp.seq for _, stamp in found] == list(range(1, len(found) + 1))
    assert reader.damaged <= sum(torn is not None for _, torn in attempts)


def test_the_last_step_of_each_source_is_known_again(tmp_path):
    writer = JournalWriter(tmp_path, 1, tell=no_problem)
    for number in range(1, 4):
        writer.append(StepMetricEvent.unpublished("a", number, {"x": 1.0}))
        writer.append(StepMetricEvent.unpublished("b", 10 * number, {"x": 1.0}))
    writer.close()

    again = JournalWriter(tmp_path, 2, tell=no_problem)
    again.close()

    assert (again.seq, again.steps) == (6, {"a": 3, "b": 30})


def test_a_place_names_number_and_offset(tmp_path):
    fill(tmp_path, 1)
    reader = JournalReader(tmp_path / FILE)
    list(reader)

    assert reader.position == Position(1, (tmp_path / FILE).stat().st_size)
