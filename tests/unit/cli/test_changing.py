"""tag, note, rename, goal, delete, doctor: what changes runs."""

from __future__ import annotations

import json
import shutil

import pytest

import drytrack
from drytrack import Experiment, _doctor
from drytrack.core import log_events
from drytrack.core._record import read_record


def test_tags_are_added_removed_and_shown(cli, told, make_run):
    make_run("a")

    cli("tag", "a", "best", "best", "--remove", "mlp")

    assert told("tag", "a")["tags"] == ["best"]
    assert cli("tag", "a").stdout == "best\n"
    assert "control character" in cli("tag", "a", "x\ny", code=2).stderr


def test_notes_are_set_appended_and_read_from_the_input(cli, make_run):
    make_run("a")

    cli("note", "a", "-", stdin="from a pipe\n")
    cli("note", "a", "more", "--append")

    assert cli("note", "a").stdout == "from a pipe\nmore\n"


def test_a_renamed_run_keeps_its_id(cli, told, make_run):
    make_run("a")

    assert told("rename", "a", "baseline")["name"] == "baseline"

    assert told("show", "a")["name"] == "baseline"
    assert "a (baseline)" in cli("runs").stdout
    assert told("rename", "a", "")["name"] == "a"


def test_goals_are_declared_for_an_experiment(cli, told, make_run):
    make_run("a")

    cli("goal", "Digits", "loss", "lower")

    assert told("goal", "Digits") == {"loss": "lower"}
    assert told("metrics", "a")[0]["checkpoint"]["location"] == "3.pt"
    assert "loss ↓" in cli("metrics", "a").stdout
    assert told("goal", "Digits", "loss", "none") == {}
    cli("goal", "Absent", code=2)
    cli("goal", "Digits", "loss", code=2)


def test_delete_asks_and_then_deletes(cli, told, make_run):
    kept, gone = make_run("kept"), make_run("gone")

    result = cli("delete", "gone", stdin="n\n", code=1)
    assert "Digits/gone for good?" in result.stderr
    assert gone.path.exists()

    cli("delete", "gone", stdin="y\n")
    assert not gone.path.exists()
    assert kept.path.exists()
    assert told("delete", "kept", "--yes") == {"deleted": ["Digits/kept"]}
    assert told("runs") == []


def test_delete_refuses_a_running_run_and_all_that_go_with_it(cli, make_run, tmp_path):
    over = make_run("over")
    with Experiment(name="Digits", par_dir=tmp_path).create_run("live") as live:
        result = cli("delete", "over", "live", "--yes", code=1)

    assert "is held by process" in result.stderr
    assert over.path.exists()
    assert live.path.exists()


# -- doctor ------------------------------------------------------------------------


def problems(told, *args, code):
    (result,) = told("doctor", *args, code=code)
    return [(p["part"], p["repairable"], p["repaired"]) for p in result["problems"]]


def test_doctor_finds_nothing_wrong_with_healthy_runs(cli, make_run, tmp_path):
    make_run("a")
    make_run("a", resume=True, epochs=(2, 3))
    Experiment(name="Digits", par_dir=tmp_path).create_run("new")
    with Experiment(name="Digits", par_dir=tmp_path).create_run("live"):
        assert cli("doctor").stdout == "3 runs checked, 0 with problems.\n"


@pytest.mark.parametrize("damage", ["gone", "cut", "garbage"])
def test_doctor_rebuilds_a_record_from_the_journal(cli, told, make_run, damage):
    run = make_run("a")
    make_run("a", resume=True, epochs=(2, 3, 4))
    path = run.path / "record.json"
    before = read_record(run.path)
    text = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(text[: len(text) // 2] if damage == "cut" else b"\0\xff{")

    assert "missing or damaged" in cli("show", "a", code=1).stderr
    assert problems(told, "a", code=1) == [("record", True, False)]
    assert "--repair" in cli("doctor", code=1).stdout
    assert problems(told, "a", "--repair", code=0) == [("record", True, True)]

    after = read_record(run.path)
    assert (after.status, after.attempt, after.tags) == ("completed", 2, ["mlp"])
    assert after.data["created"] == pytest.approx(before.data["created"], abs=1)
    assert after.data["journal"] == {
        **before.data["journal"],
        "steps": after.data["journal"]["steps"],
    }
    assert (after.uuid == before.uuid) == (damage == "cut")
    assert (run.path / "record.json.damaged").exists() == (damage != "gone")
    assert told("metrics", "a")[0]["last_at"] == 4
    make_run("a", resume=True, epochs=(5,))
    assert read_record(run.path).attempt == 3
    assert cli("doctor").exit_code == 0


def test_doctor_sets_a_status_right_that_the_journal_contradicts(told, make_run):
    run = make_run("a")
    path = run.path / "record.json"
    data = json.loads(path.read_bytes())
    path.write_text(json.dumps({**data, "status": "failed", "notes": "mine"}))

    assert problems(told, "a", "--repair", code=0) == [("record", True, True)]

    record = read_record(run.path)
    assert (record.status, record.data["notes"]) == ("completed", "mine")
    assert record.data["attempts"][0]["environment"]["host"]


def test_doctor_reports_damaged_lines_and_what_is_missing(cli, told, make_run):
    run = make_run("a")
    path = run.path / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b"loss", b"lost")
    path.write_bytes(b"".join(lines))

    text = cli("doctor", "a", code=1).stdout

    assert "cannot be read: its checksum is wrong" in text
    assert "events 2 to 2 are missing" in text
    assert problems(told, "a", "--repair", code=1) == [
        ("journal", False, False),
        ("journal", False, False),
    ]


def test_doctor_reports_a_journal_that_was_cut_or_lost(cli, make_run):
    run = make_run("a")
    path = run.path / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:4]))
    assert (
        "knows 8 events, the journal ends with event 4" in cli("doctor", code=1).stdout
    )

    path.unlink()
    assert "has no journal to read" in cli("doctor", code=1).stdout


def test_doctor_reports_a_run_in_the_folder_of_another(cli, make_run):
    run = make_run("a")
    shutil.copytree(run.path, run.path.with_name("b"))

    text = cli("doctor", "b", code=1).stdout

    assert "it is of Digits/a, its folder is Digits/b" in text


def test_doctor_clears_away_what_a_deletion_has_left(cli, make_run, tmp_path):
    make_run("a")
    left = tmp_path / ".drytrack" / ".deleted-half"
    left.mkdir()

    assert "1 deleted runs still take room" in cli("doctor").stdout
    assert left.exists()
    assert cli("doctor", "--repair").stdout == "1 runs checked, 0 with problems.\n"
    assert not left.exists()


def test_doctor_does_not_touch_a_running_run(cli, tmp_path):
    experiment = Experiment(name="Digits", par_dir=tmp_path)
    with experiment.create_run("live") as run:
        log_events.MetricEvent("net", "t", 1, {"x": 1.0})
        (run.path / "record.json").write_bytes(b"{")
        result = cli("doctor", "live", "--repair", code=1)
        assert "not repaired" in result.stderr
        assert (run.path / "record.json").read_bytes() == b"{"

    assert drytrack.runs(tmp_path)[0].status == "completed"
    assert _doctor.check(run.path) == []
