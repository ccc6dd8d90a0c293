"""Every verb on a database, as on the folder that the runs were recorded in."""

from __future__ import annotations

import gc
import json
import re
import shutil

import pytest

import drytrack
from drytrack import Experiment
from drytrack.core import log_events
from drytrack.replay import replay
from drytrack.trackers import _sql_database
from drytrack.trackers.sqlalchemy import SQLConnection


@pytest.fixture
def file(tmp_path):
    return tmp_path / "drytrack.db"


@pytest.fixture
def database(file, make_run):
    """Return the address of a database that has two runs, ``a`` and ``b``."""
    for run in (make_run("a"), make_run("b", lr=0.01)):
        replay(run.path, SQLConnection(file))
    return f"sqlite:///{file.as_posix()}"


def plain(found):
    """Return an answer without what two readers may have differently.

    A database has the times of events, a record those of the run; and a mean may
    differ in its last digit.
    """
    if isinstance(found, dict):
        own = ("started", "ended", "created", "record")
        return {key: plain(found[key]) for key in found if key not in own}
    if isinstance(found, list):
        return [plain(item) for item in found]
    return round(found, 9) if isinstance(found, float) else found


@pytest.mark.parametrize(
    "command",
    [
        ("runs", "--show", "loss", "--param", "lr<0.05"),
        ("runs", "Digits", "--metric", "loss.min<0.01"),
        ("show", "last"),
        ("metrics", "a", "loss", "--points"),
        ("metrics", "Digits/b"),
        ("compare", "a", "b"),
        ("tail", "a", "--no-follow"),
        ("goal", "Digits"),
        ("tag", "a"),
        ("note", "a"),
    ],
    ids=" ".join,
)
def test_a_database_answers_as_the_folder_does(told, cli, database, command):
    if command[0] == "tail":
        assert cli(*command, "--dir", database).stdout == cli(*command).stdout
        return
    folder = told(*command)

    assert plain(told(*command, "--dir", database)) == plain(folder)


def test_tables_are_printed_as_of_a_folder(cli, database, file):
    def lines(*command):
        # Times may be read a moment apart, parameters come in another order.
        times = r"\d{4}-\d\d-\d\d \d\d:\d\d|\d+\.\ds"
        text = re.sub(times, "(time)", cli(*command).stdout)
        return sorted(line.rstrip() for line in text.splitlines())

    for command in (("runs",), ("show", "a"), ("metrics", "b"), ("compare", "a", "b")):
        assert lines(*command, "--dir", file) == lines(*command)
    assert cli("runs", "Absent", "--dir", file).stderr == f"No runs in {file}.\n"


@pytest.mark.parametrize("what", ["metrics", "params", "summary", "runs"])
def test_a_database_is_exported_as_the_folder_is(cli, database, what):
    command = ("export", "--what", what, "--format", "jsonl")

    def rows(*place):
        text = cli(*command, *place).stdout
        return [plain(json.loads(line)) for line in text.splitlines()]

    assert rows("--dir", database) == rows()


def test_changes_reach_the_database_and_the_record(cli, told, database):
    cli("tag", "a", "best", "--remove", "mlp", "--dir", database)
    cli("note", "a", "mine", "--dir", database)
    cli("rename", "a", "baseline", "--dir", database)
    cli("goal", "Digits", "loss", "lower", "--dir", database)

    for place in ((), ("--dir", database)):
        found = told("show", "a", *place)
        assert found["tags"] == ["best"]
        assert (found["notes"], found["name"]) == ("mine", "baseline")
    (loss,) = told("metrics", "a", "--dir", database)
    assert (loss["best_at"], loss["checkpoint"]["location"]) == (3, "3.pt")
    assert "no experiment 'Absent'" in cli(
        "goal", "Absent", "x", "lower", "--dir", database, code=2
    ).stderr  # fmt: skip


def test_a_change_in_the_database_keeps_what_was_changed_in_the_record(
    cli, told, database
):
    cli("tag", "a", "of-record")
    cli("note", "a", "first")

    cli("tag", "a", "of-database", "--dir", database)
    cli("note", "a", "second", "--append", "--dir", database)

    for place in ((), ("--dir", database)):
        found = told("show", "a", *place)
        assert found["tags"] == ["mlp", "of-record", "of-database"]
        assert found["notes"] == "first\nsecond"


def test_delete_asks_and_takes_the_rows_alone(cli, told, database):
    result = cli("delete", "a", "--dir", database, stdin="y\n")

    assert "Digits/a from the database for good?" in result.stderr
    assert [run["id"] for run in told("runs", "--dir", database)] == ["b"]
    assert [run["id"] for run in told("runs")] == ["a", "b"]


def test_a_run_that_goes_on_is_not_deleted(cli, database, tmp_path):
    experiment = Experiment(name="Digits", par_dir=tmp_path)
    experiment.trackers.subscribe(SQLConnection(database))
    with experiment.create_run("live") as run:
        log_events.MetricEvent("net", "t", 1, {"x": 1.0})
        assert run.flush()
        result = cli("delete", "a", "live", "--yes", "--dir", database, code=1)

    assert "'live' of experiment 'Digits' is running" in result.stderr
    assert len(drytrack.open_store(database).runs()) == 3


def test_verbs_that_need_a_journal_say_so_where_it_is_gone(cli, database, tmp_path):
    assert cli("replay", "a", "--to", "null", "--dir", database).exit_code == 0
    shutil.rmtree(tmp_path / ".drytrack")

    for command in (("tail", "a"), ("replay", "a", "--to", "null"), ("compact", "a")):
        stderr = cli(*command, "--dir", database, code=2).stderr
        assert "the journal of run 'a'" in " ".join(stderr.split())
    source = tmp_path / "x.csv"
    source.write_text("loss\n1\n")
    command = ("import", "csv", source, "--experiment", "X", "--dir", database)
    assert "Name the folder: --dir" in " ".join(cli(*command, code=2).stderr.split())
    assert cli("show", "a", "--dir", database).exit_code == 0


def test_runs_of_one_name_from_two_machines_are_told_apart(
    cli, told, database, file, tmp_path
):
    folder = tmp_path / ".drytrack" / "Digits" / "a"
    record = json.loads((folder / "record.json").read_bytes())
    uuid = record["uuid"]
    # As on another machine: the same names, another UUID.
    other = f"{'0' * 8}{uuid[8:]}"
    (folder / "record.json").write_text(json.dumps({**record, "uuid": other}))
    replay(folder, SQLConnection(file))

    stderr = " ".join(cli("show", "a", "--dir", database, code=2).stderr.split())

    assert "may be any of 2 runs" in stderr
    assert uuid in stderr
    assert told("show", other[:10], "--dir", database)["uuid"] == other
    cli("compare", uuid[:8], other[:8], "--dir", database)


@pytest.mark.parametrize(
    ("place", "said", "code"),
    [
        ("sqlite:///absent.db", "There is no database", 2),
        ("nonsense://x", "no database of kind 'nonsense'", 2),
        ("sqlite:///text.db", "file is not a database", 1),
        ("absent", "There is no folder", 2),
    ],
)
def test_a_place_that_is_none_is_one_line(cli, tmp_path, place, said, code):
    (tmp_path / "text.db").write_text("no database at all" * 100)

    stderr = " ".join(cli("runs", "--dir", place, code=code).stderr.split())

    assert said in stderr
    assert "Traceback" not in stderr


def test_runs_of_a_database_are_completed(database):
    from drytrack.cli._options import RUN

    class Context:
        params = {"par_dir": database}

    items = RUN.shell_complete(Context(), None, "")
    assert [item.value for item in items] == [
        "last", "a", "Digits/a", "b", "Digits/b",
    ]  # fmt: skip
    Context.params = {"par_dir": "sqlite:///absent.db"}
    assert RUN.shell_complete(Context(), None, "") == []


def test_a_store_may_be_collected_while_another_one_is_opened(database):
    store = drytrack.open_store(database)
    store.itself = store  # only the garbage collector finds it
    del store

    with _sql_database._lock:  # as while a database is opened
        gc.collect()

    assert len(drytrack.open_store(database).runs()) == 2
