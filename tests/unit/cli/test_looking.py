"""runs, show, metrics, compare: what is told of runs."""

from __future__ import annotations

import json
import math
import pathlib
import re

import click
import pytest

from drytrack import Experiment
from drytrack.cli import _output
from drytrack.cli._app import app
from drytrack.core import log_events

PAGE = pathlib.Path(__file__).resolve().parents[3] / "docs" / "cli.md"
PRINT_JSON_ANYWAY = {("config", "schema")}


def leaves(group, path=()):
    """Return every command with the words that call it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from leaves(command, (*path, name))
        else:
            yield (*path, name), command


def test_every_verb_says_what_it_does_and_takes_json(cli):
    listed = cli("--help").stdout
    for words, command in leaves(app):
        assert f"\n  {words[0]} " in listed
        assert command.help, words
        if words not in PRINT_JSON_ANYWAY:
            assert "--json" in cli(*words, "--help").stdout, words


def test_the_page_tells_every_verb_and_how_curves_are_drawn():
    page = PAGE.read_text(encoding="utf-8")
    plot = app.get_command(click.Context(app), "plot")
    shared = {"runs", "par_dir", "as_json"}

    verbs = [" ".join(words) for words, _ in leaves(app)]
    options = [each.opts[0] for each in plot.params if each.name not in shared]

    assert [verb for verb in verbs if f"| `{verb}" not in page] == []
    assert [option for option in options if f"| `{option}" not in page] == []


def test_runs_are_listed_with_the_metrics_asked_for(cli, told, make_run):
    make_run("a")
    make_run("b", lr=0.01)

    table = cli("runs", "--show", "loss", "--show", "loss.max").stdout
    data = told("runs", "--show", "loss")

    assert [line.split()[0] for line in table.splitlines() if "completed" in line] == [
        "a",
        "b",
    ]
    assert "0.033333" in table
    assert [(run["id"], run["status"]) for run in data] == [
        ("a", "completed"),
        ("b", "completed"),
    ]
    assert data[1]["metrics"] == {"loss": pytest.approx(0.01 / 3)}


def test_runs_are_chosen_by_conditions(told, make_run):
    for name, lr in {"a": 0.1, "b": 0.01, "c": 0.001}.items():
        make_run(name, lr=lr)
    make_run("d", name="Other")

    def chosen(*options):
        return [run["id"] for run in told("runs", *options)]

    assert chosen("Digits") == ["a", "b", "c"]
    assert chosen("--param", "lr<=0.01") == ["b", "c"]
    assert chosen("--param", "opt.name=adam", "--param", "lr=0.1") == ["a", "d"]
    assert chosen("--metric", "loss.min>0.003", "Digits") == ["a", "b"]
    assert chosen("--status", "failed") == []
    assert chosen("-n", "2") == ["c", "d"]
    assert chosen("--tag", "mlp", "-n", "0") == []


def test_an_empty_folder_is_an_empty_list(cli, told):
    assert told("runs") == []
    assert "No runs in" in cli("runs").stderr


def test_runs_in_a_folder_below_are_pointed_to(cli, tmp_path, make_run):
    make_run("a")
    above = tmp_path / "above"
    (above / "experiments").mkdir(parents=True)
    (tmp_path / ".drytrack").rename(above / "experiments" / ".drytrack")

    hint = f"There are some below: --dir {above / 'experiments'}."
    assert hint in cli("runs", folder=above).stderr
    assert hint in cli("show", "a", folder=above, code=2).stderr


def test_a_wrong_condition_or_folder_is_a_usage_error(cli, tmp_path):
    assert "is no condition" in cli("runs", "--param", "lr", code=2).stderr
    absent = tmp_path / "absent"
    assert "There is no folder" in cli("runs", "--dir", absent, code=2).stderr


def test_a_run_is_shown_whole(cli, told, make_run):
    make_run("a")

    text = cli("show", "a").stdout
    data = told("show", "a")

    for part in ("Digits/a", "completed", "opt.name", "adam", "trainer", "3.pt, epoch"):
        assert part in text
    assert data["params"] == {"lr": 0.1, "opt.name": "adam"}
    assert data["metrics"][0]["min_at"] == 3
    assert data["record"]["uuid"] == data["uuid"]


def test_what_a_run_calls_things_is_never_markup(cli, tmp_path):
    experiment = Experiment({"[red]x": "[/bold]"}, name="E", par_dir=tmp_path)
    with experiment.create_run("a"):
        log_events.MetricEvent("net", "t", 1, {"[b]loss[/b]": 1.0})

    text = cli("show", "last").stdout

    for part in ("[red]x", "[/bold]", "[b]loss[/b]"):
        assert part in text


@pytest.mark.parametrize("name", ["a1", "Digits/a1", "a", "last", "uuid", "folder"])
def test_a_run_is_named_in_many_ways(told, make_run, tmp_path, name):
    make_run("b1")
    run = make_run("a1")
    name = {"uuid": run.uuid[:8], "folder": str(run.path)}.get(name, name)

    assert told("show", name)["id"] == "a1"


def test_a_name_of_several_runs_or_of_none_is_a_usage_error(cli, make_run):
    make_run("a1")
    make_run("a2")
    make_run("a1", name="Other")

    assert "any of 2 runs: Digits/a1, Other/a1" in cli("show", "a1", code=2).stderr
    assert "any of 3 runs" in cli("show", "a", code=2).stderr
    assert "There is no run 'x'" in cli("show", "x", code=2).stderr
    assert "There is no run 'Digits/x'" in cli("show", "Digits/x", code=2).stderr


def test_last_is_the_run_that_started_last(told, make_run):
    make_run("old")
    make_run("new")
    make_run("old", resume=True, epochs=(4,))

    assert told("show", "last")["id"] == "old"


def test_metrics_come_with_curves_and_points(cli, told, make_run):
    make_run("a", epochs=range(1, 101))

    text = cli("metrics", "a").stdout
    points = cli("metrics", "a", "loss", "--points", "-n", "2").stdout
    data = told("metrics", "a", "loss", "--points")

    assert re.search("█[▂-▄]+▁+ ", text)
    assert "net/trainer by epoch" in text
    assert [line.split() for line in points.splitlines()[-3:-1]] == [
        ["99", repr(0.1 / 99)],
        ["100", "0.001"],
    ]
    assert data[0]["steps"] == list(range(1, 101))
    assert data[0]["values"][0] == 0.1


@pytest.fixture
def rich_run(tmp_path):
    """Return a run of two models, two sources and two axes."""
    with Experiment(name="E", par_dir=tmp_path).create_run("rich") as run:
        for model, source in (("net", "train"), ("net", "test"), ("head", "train")):
            log_events.MetricEvent(model, source, 1, {"loss": 0.5, "acc": 0.75})
        log_events.StepMetricEvent("train", 7, {"loss": 0.25}, model_name="net")
    return run


def test_a_list_shows_values_of_epochs_before_those_of_steps(told, rich_run):
    (run,) = told("runs", "--show", "loss")

    assert run["metrics"] == {"loss": 0.5}


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ((), 7),
        (("--axis", "step"), 1),
        (("--axis", "epoch"), 6),
        (("--model", "head"), 2),
        (("--source", "test"), 2),
        (("loss", "--model", "net", "--source", "train"), 2),
    ],
)
def test_metrics_are_chosen(told, rich_run, options, count):
    assert len(told("metrics", "rich", *options)) == count


def test_events_are_shown_of_a_type_and_from_a_number_on(cli, rich_run):
    def shown(*options, fields=slice(1, 3)):
        lines = cli("tail", "rich", "--no-follow", *options).stdout.splitlines()
        return [line.split()[fields] for line in lines]

    kinds = ["StartExperiment", *["Metric"] * 3, "StepMetric", "StopExperiment"]
    numbered = [[str(seq), kind] for seq, kind in enumerate(kinds, 1)]
    assert shown() == numbered
    assert shown("-n", "2") == numbered[-2:]
    assert shown("--from-seq", "3", "-n", "1") == numbered[2:]
    assert shown("--type", "metric", "-n", "2") == numbered[2:4]
    assert (
        shown("--type", "stepmetricevent", "--type", "StopExperiment")
        == (numbered[-2:])
    )
    assert shown("--type", "StepMetric", fields=slice(3, None)) == [
        ["net", "train", "step=7", "loss=0.25"]
    ]


def test_a_metric_that_is_not_there_is_named_with_those_that_are(cli, make_run):
    make_run("a")

    assert "It has: loss." in cli("metrics", "a", "acc", code=1).stderr


def test_a_curve_has_blanks_where_values_are_not_finite():
    assert _output.sparkline([0.0, math.nan, 1.0, math.inf]) == "▁ █ "
    assert _output.sparkline([5.0, 5.0]) == "▁▁"
    assert _output.sparkline([-1.7e308, 1.7e308], "ascii") == "_#"
    assert _output.sparkline([]) == ""


def test_compare_shows_parameters_that_differ(cli, told, make_run):
    make_run("a")
    make_run("b", lr=0.01, extra=[1, 2])
    cli("goal", "Digits", "loss", "lower")

    text = cli("compare", "a", "b").stdout
    data = told("compare", "a", "b")

    assert "opt.name" not in text
    assert "opt.name" in cli("compare", "a", "b", "--all").stdout
    assert "0.033333, 0.033333 @3" in text
    assert data["params"] == {"lr": [0.1, 0.01], "extra": [None, [1, 2]]}
    assert data["metrics"][0]["last"] == [0.1 / 3, 0.01 / 3]
    assert data["metrics"][0]["best"] == [0.1 / 3, 0.01 / 3]


def test_compare_shows_the_metrics_asked_for(told, rich_run, tmp_path):
    with Experiment(name="E", par_dir=tmp_path).create_run("other"):
        log_events.MetricEvent("net", "train", 1, {"loss": 1.0, "acc": 0.5})

    (chosen,) = (
        each
        for each in told("compare", "rich", "other", "--metric", "acc")["metrics"]
        if None not in each["last"]
    )

    assert (chosen["metric"], chosen["last"]) == ("acc", [0.75, 0.5])


def test_runs_of_one_name_are_compared_by_their_ids(cli, make_run):
    for run_id in ("first", "second"):
        make_run(run_id)
        cli("rename", run_id, "same")

    text = cli("compare", "first", "second").stdout

    assert "same " not in text
    assert re.search("first +second", text)


def test_compare_wants_two_runs(cli, make_run):
    make_run("a")

    assert "two different runs" in cli("compare", "a", "last", code=2).stderr


def test_json_holds_what_is_not_finite(told, tmp_path):
    with Experiment({"p": math.inf}, name="E", par_dir=tmp_path).create_run("a"):
        log_events.MetricEvent("net", "t", 1, {"x": math.nan})

    data = told("show", "a")

    assert data["params"] == {"p": {"$float": "inf"}}
    assert data["metrics"][0]["last"] == {"$float": "nan"}
    json.dumps(data, allow_nan=False)


# -- narrow screens ----------------------------------------------------------------


@pytest.mark.parametrize("width", [60, 80, 120, 200])
@pytest.mark.parametrize(
    "command",
    [
        ("runs", "--show", "loss", "--show", "loss.min"),
        ("metrics", "a"),
        ("show", "a"),
        ("compare", "a", "b"),
        ("compare", "a", "b", "c", "d", "e", "f"),
    ],
    ids=" ".join,
)
def test_tables_fit_the_screen_and_no_number_is_cut(cli, make_run, command, width):
    for number, run_id in enumerate("abcdef"):
        make_run(run_id, lr=123.45 / 10**number)

    text = cli(*command, width=width).stdout

    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    last = [123.45 / 10**number / 3 for number in range(6)]
    chosen = last if command[0] == "runs" else last[: len(command) - 1]
    for value in chosen:
        assert f"{value:.5g}" in text


def test_runs_without_epochs_are_compared_by_what_they_have(cli, told, tmp_path):
    for run_id in "ab":
        with Experiment(name="Steps", par_dir=tmp_path).create_run(run_id):
            log_events.StepMetricEvent("t", 1, {"loss": 0.25})
            log_events.StepMetricEvent("t", 2, {"load": 0.5}, axis="seconds")

    assert "metrics by step" in cli("compare", "a", "b").stdout
    (chosen,) = told("compare", "a", "b")["metrics"]
    assert (chosen["metric"], chosen["last"]) == ("loss", [0.25, 0.25])
    (chosen,) = told("compare", "a", "b", "--axis", "seconds")["metrics"]
    assert chosen["metric"] == "load"
