"""The command line on databases of real servers."""

from __future__ import annotations

import json

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

import drytrack
from drytrack import Experiment
from drytrack.cli._app import app
from drytrack.core import log_events
from drytrack.trackers.sqlalchemy import SQLConnection


@pytest.fixture(params=["postgres_url", "mariadb_url"])
def url(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def recorded(tmp_path, url):
    """Record two runs that the database watches."""
    drytrack.init_trackers("none")
    for run_id, lr in (("a", 0.1), ("b", 0.01)):
        experiment = Experiment({"lr": lr}, name="Digits", par_dir=tmp_path)
        experiment.trackers.subscribe(SQLConnection(url))
        with experiment.create_run(run_id):
            for step in range(50):
                metrics = {"loss": lr / (step + 1), "odd": float("-inf")}
                log_events.StepMetricEvent("t", step, metrics, model_name="net")
            log_events.MetricEvent("net", "t", 1, {"accuracy": lr})
    yield tmp_path
    drytrack.init_trackers("standard")


def call(*args, code=0):
    command = [*map(str, args), "--json"]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return json.loads(result.stdout) if result.stdout else result.stderr


def test_verbs_work_on_a_server(recorded, url, tmp_path):
    place = ("--dir", url)

    found = call("runs", "--param", "lr<0.05", "--show", "loss", *place)
    assert [(run["id"], run["metrics"]) for run in found] == [
        ("b", {"loss": 0.01 / 50})
    ]
    assert call("show", "last", *place)["params"] == {"lr": 0.01}
    odd = call("metrics", "a", "odd", *place)[0]
    assert (odd["count"], odd["last"]) == (50, {"$float": "-inf"})
    assert call("compare", "a", "b", *place)["params"] == {"lr": [0.1, 0.01]}
    assert call("tag", "a", "best", *place)["tags"] == ["best"]
    assert call("note", "a", "mine", *place)["notes"] == "mine"
    assert call("rename", "a", "first", *place)["name"] == "first"
    assert call("goal", "Digits", "loss", "lower", *place) == {"loss": "lower"}
    assert call("metrics", "a", "loss", *place)[0]["best_at"] == 49
    target = tmp_path / "points.csv"
    assert call("export", "a", "-o", target, *place)["rows"] == 101
    assert call("replay", "a", "--to", "null", *place)["failed"] == {"null": 0}
    assert call("delete", "b", "--yes", *place) == {"deleted": ["Digits/b"]}
    assert [run["id"] for run in call("runs", *place)] == ["a"]


def test_doctor_sets_a_server_right(recorded, url):
    check = ("doctor", "--dir", recorded, "--store", url)
    assert all(not result["problems"] for result in call(*check))
    before = list(map(str, drytrack.open_store(url).runs().metrics(axis=None)))
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM points WHERE step > 20"))
        connection.execute(sa.text("UPDATE params SET value = '7'"))
    engine.dispose()

    found = call(*check, code=1)
    assert "points, the journal 101" in found[0]["problems"][0]["text"]
    repaired = call(*check, "--repair")

    assert all(p["repaired"] for result in repaired for p in result["problems"])
    assert list(map(str, drytrack.open_store(url).runs().metrics(axis=None))) == before
    assert all(not result["problems"] for result in call("doctor", "--dir", url))


def test_a_server_that_does_not_answer_is_one_line(tmp_path):
    place = f"postgresql+psycopg://me@/runs?host={tmp_path}"

    for command in (("runs",), ("show", "last")):
        assert "connection" in call(*command, "--dir", place, code=1)
    problems = call("doctor", "--dir", tmp_path, "--store", place, "--repair", code=1)
    (problem,) = problems[0]["problems"]
    assert (problem["part"], problem["repairable"]) == ("store", False)
