"""report and plot: pages, pictures, and curves on the terminal."""

from __future__ import annotations

import json
import math
import pathlib
import re

import pytest

from drytrack import Experiment
from drytrack.cli import _terminal
from drytrack.core import log_events
from drytrack.trackers.sqlalchemy import SQLConnection

BEGINNINGS = {
    "png": b"\x89PNG",
    "svg": b"<?xml",
    "pdf": b"%PDF",
    "html": b"<!DOCTYPE html>",
}


@pytest.fixture
def run(tmp_path):
    """Return a run with two sources, two models and steps, also in a database."""
    experiment = Experiment({}, name="Digits", par_dir=tmp_path)
    experiment.trackers.subscribe(SQLConnection(tmp_path / "runs.db"))
    with experiment.create_run("first") as run:
        for epoch in range(1, 11):
            for source in ("train", "validation"):
                loss = math.nan if epoch == 5 else 10.0**-epoch
                metrics = {"loss": loss, "accuracy": epoch / 10}
                log_events.MetricEvent("net", source, epoch, metrics)
        for step in range(100):
            log_events.StepMetricEvent("train", step, {"loss": 1.0}, model_name="net")
    return run


def dots(screen):
    """Return how many dots of braille are on a screen."""
    return sum((ord(char) - 0x2800).bit_count() for char in screen if "⠀" < char <= "⣿")


def test_a_report_is_written_about_runs(cli, told, make_run, tmp_path):
    make_run("a")
    make_run("b", lr=0.2)
    page = tmp_path / "page.html"

    said = cli("report", "a", "b", "a", "-o", page, "--title", "Two of them").stdout
    data = told("report", "last", "-o", page)

    assert f"Wrote {page} about 2 runs" in said
    assert data == {"file": str(page), "bytes": page.stat().st_size, "runs": 1}
    assert "<h1>Digits · b</h1>" in page.read_text(encoding="utf-8")


def test_a_report_is_written_about_a_run_of_a_database(cli, run, tmp_path):
    page = tmp_path / "page.html"

    cli("report", "last", "--dir", tmp_path / "runs.db", "-o", page)

    assert "<h1>Digits · first</h1>" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("verb", ["report", "plot"])
def test_a_file_that_cannot_be_written_is_told(verb, cli, make_run, tmp_path):
    make_run("a")
    (tmp_path / "page.html").mkdir()

    said = cli(verb, "a", "-o", tmp_path / "page.html", code=1)

    assert "cannot be written" in said.stderr
    assert list((tmp_path / "page.html").iterdir()) == []


@pytest.mark.parametrize("suffix", BEGINNINGS)
def test_curves_are_drawn_into_a_file(suffix, cli, run, tmp_path):
    path = tmp_path / f"loss.{suffix}"

    said = cli("plot", "first", "--metric", "loss", "-o", path, "--theme", "dark")

    assert said.stdout == f"Wrote {path}.\n"
    assert path.read_bytes().lstrip().startswith(BEGINNINGS[suffix])


def test_a_picture_shows_the_curves_that_were_asked_for(cli, run, make_run, tmp_path):
    make_run("second")
    path = tmp_path / "loss.svg"

    cli("plot", "first", "second", "--metric", "loss", "--source", "train", "-o", path)

    text = path.read_text(encoding="utf-8")
    assert "<!-- first · train -->" in text
    assert "validation" not in text
    assert "accuracy" not in text


def test_the_curves_of_a_plot_are_told_as_json(told, run):
    (loss, accuracy) = told("plot", "first")
    (by_step,) = told("plot", "first", "--metric", "loss", "--x", "step")
    (smooth,) = told("plot", "first", "--metric", "accuracy", "--smooth", "2")

    assert (loss["model"], loss["metric"], loss["axis"]) == ("net", "loss", "epoch")
    assert [curve["label"] for curve in loss["curves"]] == ["train", "validation"]
    assert loss["curves"][0]["steps"] == list(range(1, 11))
    assert loss["curves"][0]["values"][4] == {"$float": "nan"}
    assert accuracy["curves"][0]["values"] == [epoch / 10 for epoch in range(1, 11)]
    assert by_step["curves"][0]["steps"] == list(range(100))
    last = smooth["curves"][0]["values"][-1]
    assert 0.5 < last < 1.0


def test_several_runs_are_drawn_beside_each_other_or_as_their_mean(told, make_run):
    make_run("a", lr=1.0)
    make_run("b", lr=3.0)

    (beside,) = told("plot", "a", "b", "--metric", "loss")
    (mean,) = told("plot", "a", "b", "--metric", "loss", "--mean")

    labels = [curve["label"] for curve in beside["curves"]]
    assert labels == ["a · trainer", "b · trainer"]
    (curve,) = mean["curves"]
    assert curve["label"] == "trainer (mean of 2)"
    assert curve["values"] == pytest.approx([2.0, 1.0, 2 / 3])


def test_the_same_is_drawn_from_a_database(told, run, tmp_path):
    drawn = told("plot", "first", "--dir", tmp_path / "runs.db")

    assert drawn == told("plot", "first")


@pytest.mark.parametrize("width", [40, 60, 120])
def test_curves_on_a_terminal_are_no_wider_than_it(width, cli, run):
    screen = cli("plot", "first", "--metric", "loss", "--log", width=width).stdout

    columns = min(width, _terminal.MAX_WIDTH)
    lines = screen.splitlines()
    assert lines[0].startswith("loss by epoch, net · first")
    assert columns - 2 < max(map(len, lines)) <= columns
    # A line that falls from one corner to the other, with a gap at epoch 5.
    rows = [line.partition("│")[2] or line.partition("┤")[2] for line in lines[1:13]]
    assert dots(rows[0][: columns // 4]) > 0
    assert dots(rows[0][columns // 2 :]) == 0
    assert dots(rows[-1][: columns // 2]) == 0
    assert dots(rows[-1][columns // 2 :]) > 0
    assert "a train (NaN from 5)" in lines
    assert "b validation (NaN from 5)" in lines


def test_a_terminal_without_braille_gets_small_curves(cli, run, monkeypatch):
    monkeypatch.setattr("rich.console.Console.encoding", property(lambda self: "ascii"))

    screen = cli("plot", "first", "--metric", "accuracy").stdout

    assert screen.isascii()
    (curve,) = re.findall(r"accuracy *\| *train *\| *(\S+) *\|", screen)
    assert list(curve) == sorted(curve, key="_.-~=*%#".index)
    assert (curve[0], curve[-1]) == ("_", "#")


def test_a_metric_without_a_finite_value_is_drawn_as_nothing(cli, tmp_path):
    with Experiment({}, name="Digits", par_dir=tmp_path).create_run("odd"):
        log_events.MetricEvent("net", "train", 1, {"loss": math.nan, "best": 1.0})

    screen = cli("plot", "odd").stdout

    assert "train (NaN from 1)" in screen
    assert "best by epoch" in screen


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--metric", "nope"], "Metrics: accuracy, loss."),
        (["--model", "other"], "Metrics: accuracy, loss."),
    ],
)
def test_a_plot_of_nothing_tells_what_there_is(options, said, cli, run):
    assert said in cli("plot", "first", *options, code=1).stderr


def test_a_plot_that_no_file_can_hold_is_refused(cli, run, tmp_path):
    with Experiment({}, name="Digits", par_dir=tmp_path).create_run("two"):
        for model in ("a", "b"):
            log_events.MetricEvent(model, "train", 1, {"loss": 1.0})

    unknown = cli("plot", "first", "-o", tmp_path / "loss.gif", code=2).stderr
    several = cli("plot", "two", "-o", tmp_path / "loss.png", code=2).stderr
    cli("plot", "two", "--model", "a", "-o", tmp_path / "a.png")
    cli("plot", "two", "-o", tmp_path / "all.html")

    assert ".html, .pdf, .png, .svg" in unknown
    assert "'a', 'b'" in several
    names = {path.name for path in pathlib.Path(tmp_path).iterdir()}
    assert {"a.png", "all.html"} <= names
    assert not {"loss.gif", "loss.png"} & names
    assert json.dumps("b")[1:-1] in (tmp_path / "all.html").read_text(encoding="utf-8")
