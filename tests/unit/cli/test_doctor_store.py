"""doctor on databases: what is damaged, deleted or incomplete, and made anew."""

from __future__ import annotations

import json
import shutil
import sqlite3

import pytest

import drytrack
from drytrack import Experiment
from drytrack.core import log_events
from drytrack.replay import replay
from drytrack.trackers.sqlalchemy import SQLConnection

STEPS = range(400)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "drytrack.db"


@pytest.fixture
def recorded(tmp_path, file):
    """Record two runs that a database watches, and one that it does not."""
    for run_id, lr in (("a", 0.1), ("b", 0.01), ("c", 0.001)):
        experiment = Experiment({"lr": lr}, name="Digits", par_dir=tmp_path)
        if run_id != "c":
            experiment.trackers.subscribe(SQLConnection(goals={"loss": "lower"}))
        with experiment.create_run(run_id):
            for step in STEPS:
                metrics = {"loss": lr / (step + 1), "odd": float("nan")}
                log_events.StepMetricEvent("t", step, metrics, model_name="net")
            log_events.SaveModelEvent("net", "checkpoint", "net.pt", None)
            log_events.ParamsEvent({"late": [1, 2]})
            log_events.SummaryEvent({"best": lr})
    return file


def content(file):
    """Return everything that a store tells of its runs."""
    runs = drytrack.open_store(file).runs()
    return [
        (run.uuid, run.status, run.params(), run.values(), run.tags, run.checkpoints())
        for run in runs
    ], list(map(str, runs.metrics(axis=None)))


def problems(told, *args, code):
    return [
        (problem["part"], problem["repairable"], problem["repaired"])
        for result in told("doctor", *args, code=code)
        for problem in result["problems"]
    ]


def flip_bytes(file):
    data = bytearray(file.read_bytes())
    assert len(data) > 3 * 4096
    for page in range(1, len(data) // 4096):
        data[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    file.write_bytes(data)


def cut_in_half(file):
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


def fill_with_text(file):
    file.write_bytes(b"this is no database" * 1000)


def empty(file):
    file.write_bytes(b"")


def test_a_healthy_database_has_nothing_wrong(cli, recorded):
    assert cli("doctor").stdout == "3 runs checked, 0 with problems.\n"
    assert (
        cli("doctor", "--dir", recorded).stdout == "2 runs checked, 0 with problems.\n"
    )


@pytest.mark.parametrize("damage", [flip_bytes, cut_in_half, fill_with_text, empty])
def test_a_corrupt_database_is_made_anew_from_the_journals(
    cli, told, recorded, tmp_path, damage
):
    before = content(recorded)
    damage(recorded)
    spoilt = recorded.read_bytes()

    assert ("store", True, False) in problems(told, code=1)
    assert "[--store URL] --repair" in cli("doctor", code=1).stdout
    assert recorded.read_bytes() == spoilt
    repaired = problems(told, "--repair", code=0)

    assert all(done for _, _, done in repaired)
    assert content(recorded) == before
    assert (tmp_path / "drytrack.db.damaged").read_bytes() == spoilt
    assert cli("doctor").stdout == "3 runs checked, 0 with problems.\n"


@pytest.mark.parametrize("option", ["--store", "--dir"])
def test_a_deleted_database_is_made_anew(cli, told, recorded, option):
    before = content(recorded)
    for path in recorded.parent.glob("drytrack.db*"):
        path.unlink()
    address = f"sqlite:///{recorded.as_posix()}"

    if option == "--dir":  # which runs were in it is not known any longer
        found = problems(told, option, address, "--repair", code=1)
        assert found == [("store", True, False)]
        return
    assert problems(told, option, address, "--repair", code=0) == [
        ("store", True, True),
        *[("store", True, True)] * 3,
    ]
    uuids = {run.uuid for run in drytrack.open_store(recorded).runs()}
    assert uuids > {row[0] for row in before[0]}
    assert drytrack.open_store(recorded).runs()[0].series("loss").values == [
        0.1 / (step + 1) for step in STEPS
    ]


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("DELETE FROM points WHERE step > 100", "points, the journal 800"),
        ("DELETE FROM runs WHERE name = 'a'", "it does not have the run"),
        ("UPDATE runs SET last_seq = 5", "it ends with event 5"),
        ("UPDATE runs SET status = 'failed'", "its status is 'failed'"),
        ("UPDATE series_summaries SET last_value = 7", "last of net/t/step/loss is 7"),
        ("DELETE FROM params WHERE name = 'lr'", "number of parameters is 1"),
        ("UPDATE params SET value = '9' WHERE name = 'lr'", "parameter lr is 9"),
        ("DELETE FROM checkpoints", "number of checkpoints is 0"),
    ],
)
def test_rows_that_are_lost_or_wrong_are_found_and_set_right(
    cli, told, recorded, statement, said
):
    before = content(recorded)
    with sqlite3.connect(recorded) as connection:
        connection.execute(statement)
    connection.close()

    assert said in cli("doctor", code=1).stdout
    assert all(done for _, _, done in problems(told, "--repair", code=0))

    assert content(recorded) == before
    assert cli("doctor").exit_code == 0


def test_runs_that_a_named_database_lacks_are_put_there(cli, told, recorded, tmp_path):
    other = f"sqlite:///{(tmp_path / 'other.db').as_posix()}"

    assert problems(told, "--store", other, "c", "--repair", code=0) == [
        ("store", True, True),
        ("store", True, True),
    ]
    assert [run.id for run in drytrack.open_store(other).runs()] == ["c"]
    said = cli("doctor", "--store", other, code=1).stdout
    assert "Digits/a: store: it does not have" in said


def test_a_lost_record_gets_its_uuid_from_the_database(told, recorded, tmp_path):
    path = tmp_path / ".drytrack" / "Digits" / "a" / "record.json"
    uuid = json.loads(path.read_bytes())["uuid"]
    path.unlink()

    assert problems(told, "--repair", code=0) == [("record", True, True)]

    assert json.loads(path.read_bytes())["uuid"] == uuid
    assert len(drytrack.open_store(recorded).runs()) == 2


def test_tags_and_goals_outlive_a_repair(cli, told, recorded):
    cli("tag", "a", "best")
    cli("goal", "Digits", "loss", "lower")
    fill_with_text(recorded)

    cli("doctor", "--repair")

    found = told("show", "a", "--dir", recorded)
    assert found["tags"] == ["best"]
    loss = told("metrics", "a", "loss", "--dir", recorded)[0]
    assert (loss["better"], loss["best_at"]) == ("lower", 399)


def test_a_run_that_goes_on_is_left_alone(cli, recorded, tmp_path):
    experiment = Experiment(name="Digits", par_dir=tmp_path)
    experiment.trackers.subscribe(SQLConnection())
    with experiment.create_run("live"):
        log_events.StepMetricEvent("t", 1, {"x": 1.0})
        assert cli("doctor", "--repair").stdout == "4 runs checked, 0 with problems.\n"


def test_what_only_the_database_has_still_is_not_thrown_away(
    cli, told, recorded, tmp_path
):
    journal = tmp_path / ".drytrack" / "Digits" / "a" / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:50] + lines[60:]))
    before = content(recorded)

    assert "events 51 to 60 are missing" in cli("doctor", "--repair", code=1).stdout
    with sqlite3.connect(recorded) as connection:
        connection.execute("UPDATE runs SET last_seq = 5 WHERE name = 'a'")
    connection.close()
    assert ("store", False, False) in problems(told, "a", "--repair", code=1)

    assert content(recorded)[1] == before[1]


def test_a_database_of_somebody_else_is_left_alone(cli, told, recorded, tmp_path):
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE runs (id INTEGER)")
    connection.close()
    before = other.read_bytes()

    assert problems(told, "--store", other, "--repair", code=1) == [
        ("store", False, False)
    ]

    assert other.read_bytes() == before


def test_runs_whose_folders_are_elsewhere_are_counted(cli, recorded, tmp_path):
    shutil.rmtree(tmp_path / ".drytrack" / "Digits" / "b")

    assert cli("doctor", "--dir", recorded).stdout == (
        "1 runs checked, 0 with problems.\n"
        "1 runs are elsewhere, and were not checked.\n"
    )


def test_a_compacted_journal_repairs_as_well(cli, recorded, tmp_path):
    before = content(recorded)
    cli("compact", "a", "b")
    fill_with_text(recorded)

    cli("doctor", "--repair")

    assert content(recorded) == before


def test_a_resumed_run_is_compared_by_the_attempt_rule(cli, recorded, tmp_path):
    experiment = Experiment({"lr": 1.0}, name="Digits", par_dir=tmp_path)
    experiment.trackers.subscribe(SQLConnection())
    with experiment.create_run("a", resume=True):
        for step in range(200, 300):
            log_events.StepMetricEvent("t", step, {"loss": 1.0}, model_name="net")
    assert cli("doctor").exit_code == 0
    before = content(recorded)
    cut_in_half(recorded)

    cli("doctor", "--repair")

    assert content(recorded) == before
    replay(tmp_path / ".drytrack" / "Digits" / "a", SQLConnection(recorded))
    assert content(recorded) == before
