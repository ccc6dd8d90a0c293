"""Logging on the run: what each call publishes, and what it refuses."""

from __future__ import annotations

import threading

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from drytrack.core.exceptions import (
    ConfigurationError,
    EventValueError,
    InvalidNameError,
    MetricValueError,
    RunStateError,
    RunWarning,
)
from drytrack.core.experiment import Experiment
from drytrack.core.log_events import (
    FigureEvent,
    HistogramEvent,
    ImageEvent,
    ParamsEvent,
    StepMetricEvent,
    StopExperimentEvent,
    SummaryEvent,
    TableEvent,
    TextEvent,
)
from drytrack.core.track import Tracker
from drytrack.testing import Recorder
from drytrack.trackers.base import Backend
from drytrack.trackers.csv import CSVDumper

pytestmark = pytest.mark.usefixtures("no_default_trackers")


def points(recorder, axis="step"):
    return [
        (event.step, dict(event.metrics))
        for event in recorder.events
        if isinstance(event, StepMetricEvent) and event.axis == axis
    ]


def only(recorder, kind):
    (event,) = [event for event in recorder.events if isinstance(event, kind)]
    return event


# -- steps ---------------------------------------------------------------------------


def test_steps_count_by_themselves_from_one(run, recorder):
    run.log({"loss": 3.0})
    run.log({"loss": 2.0})

    assert points(recorder) == [(1, {"loss": 3.0}), (2, {"loss": 2.0})]


def test_steps_go_on_after_a_given_one(run, recorder):
    run.log({"loss": 3.0}, step=100)
    run.log({"loss": 2.0})

    assert [step for step, _ in points(recorder)] == [100, 101]


def test_a_step_that_goes_back_is_kept_and_the_count_goes_on_from_the_newest(
    run, recorder
):
    run.log({"loss": 3.0}, step=100)
    run.log({"loss": 2.0}, step=50)
    run.log({"loss": 1.0})

    assert [step for step, _ in points(recorder)] == [100, 50, 101]


def test_each_axis_counts_for_itself(run, recorder):
    run.log({"loss": 3.0}, step=100)
    run.log({"loss": 2.0}, axis="epoch")
    run.log({"loss": 1.0}, axis="epoch")

    assert points(recorder, "epoch") == [(1, {"loss": 2.0}), (2, {"loss": 1.0})]


def test_a_chosen_step_holds_until_the_next_choice(run, recorder):
    run.set_step(7)
    run.scalar("loss", 3.0)
    run.scalar("acc", 0.5)
    run.set_step(None)
    run.scalar("loss", 2.0)

    assert points(recorder) == [
        (7, {"loss": 3.0}),
        (7, {"acc": 0.5}),
        (8, {"loss": 2.0}),
    ]


def test_a_resumed_run_counts_on(experiment, recorder):
    with experiment.create_run("a") as run:
        run.log({"loss": 3.0}, step=41)
    with experiment.create_run("a", resume=True) as run:
        run.log({"loss": 2.0})

    assert points(recorder) == [(41, {"loss": 3.0}), (42, {"loss": 2.0})]


def test_threads_that_log_without_a_step_get_one_each_at_least(run, recorder):
    def work():
        for _ in range(50):
            run.log({"loss": 1.0}, context={"split": "val"})

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(points(recorder)) == 200
    assert max(step for step, _ in points(recorder)) <= 200


# -- routing -------------------------------------------------------------------------


def test_numbers_booleans_and_nested_mappings_become_one_event(run, recorder):
    run.log({"a": 1, "b": {"c": np.float32(2), "d": {3: True}}}, step=5)

    assert points(recorder) == [(5, {"a": 1.0, "b/c": 2.0, "b/d/3": 1.0})]


def test_each_type_goes_to_its_event_at_one_step(run, recorder):
    run.log(
        {
            "loss": 1.0,
            "note": "good",
            "picture": np.zeros((4, 5, 3), np.uint8),
            "weights": np.arange(12.0).reshape(3, 4),
            "table": [{"x": 1, "y": 2}, {"x": 3}],
        }
    )

    assert points(recorder) == [(1, {"loss": 1.0})]
    assert only(recorder, TextEvent).text == "good"
    assert only(recorder, ImageEvent).image.shape == (4, 5, 3)
    assert sum(only(recorder, HistogramEvent).counts) == 12
    table = only(recorder, TableEvent)
    assert (table.columns, table.rows) == (["x", "y"], [[1, 2], [3, None]])
    steps = {event.step for event in recorder.events if hasattr(event, "step")}
    assert steps == {1}


def test_data_frames_become_tables(run, recorder):
    run.log({"table": pd.DataFrame({"x": [1, 2], "y": ["a", "b"]})})

    table = only(recorder, TableEvent)
    assert (table.columns, table.rows) == (["x", "y"], [[1, "a"], [2, "b"]])


def test_a_matplotlib_figure_becomes_a_figure(run, recorder):
    figure = Figure()
    figure.subplots().plot([1, 2])

    run.log({"curve": figure})

    assert only(recorder, FigureEvent).figure.format == "png"


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 3), (4, 5, 4), (3, 4, 5)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_images_of_every_usual_shape_are_taken(run, recorder, shape, dtype):
    run.log_image("picture", np.ones(shape, dtype), caption="ones")

    event = only(recorder, ImageEvent)
    assert event.image.dtype == np.uint8
    assert event.image.shape[:2] == (4, 5)
    assert event.image.max() == (255 if dtype is np.float32 else 1)
    assert event.caption == "ones"


def test_an_image_out_of_range_is_cut_off_with_a_warning(run, recorder):
    with pytest.warns(RunWarning, match="cut off at 0 and 1"):
        run.log_image("picture", np.full((4, 5), 3.0))

    assert only(recorder, ImageEvent).image.max() == 255


def test_an_image_can_be_given_by_its_path(run, recorder, tmp_path):
    path = tmp_path / "picture.gif"
    path.write_bytes(b"GIF89a...")

    run.log_image("picture", path, step=3, caption="moving")

    event = only(recorder, ImageEvent)
    assert (event.step, event.image.format, event.caption) == (3, "gif", "moving")


def test_media_without_a_step_belong_to_the_newest_one(run, recorder):
    run.log({"loss": 1.0}, step=12)
    run.log_text("note", "good")
    run.log({"loss": 1.0})

    assert only(recorder, TextEvent).step == 12
    assert [step for step, _ in points(recorder)] == [12, 13]


# -- what is refused -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"loss": None}, "metric 'loss' must be a number, got NoneType"),
        ({"loss": [1.0, 2.0]}, r"got list of length 2. Pass its mean"),
        ({"loss": 1j}, "real part"),
        ({"loss": object()}, "must be a number, got object"),
        ({"a": {"loss": None}}, "metric 'a/loss' must be a number"),
        ({("a", "b"): 1.0}, r"must be text, got tuple .*join its parts"),
        ({"a": {None: 1.0}}, "must be text, got NoneType"),
        ({"": 1.0}, "is empty"),
        ({"a\nb": 1.0}, "control character"),
        ({"a": {"b": 1.0}, "a/b": 2.0}, "'a/b' twice"),
        ([1.0], r"must map names to values, got list. Pass a dictionary"),
        ("loss", "must map names to values, got str"),
    ],
)
def test_a_value_that_is_no_good_leaves_no_trace(run, recorder, values, message):
    good = {"good": 1.0} if isinstance(values, dict) else None
    before = len(recorder.events)

    with pytest.raises(EventValueError, match=message):
        run.log({**good, **values} if good else values)

    assert len(recorder.events) == before
    run.log({"loss": 1.0})
    assert points(recorder) == [(1, {"loss": 1.0})]


def test_a_mapping_in_itself_is_refused(run):
    values = {}
    values["self"] = values

    with pytest.raises(EventValueError, match="Is it in itself"):
        run.log(values)


def test_lenient_logging_leaves_out_what_is_no_good(run, recorder):
    with pytest.warns(RunWarning, match=r"Left out .*'bad' must be a number"):
        run.log({"good": 1.0, "bad": None}, on_error="warn")

    assert points(recorder) == [(1, {"good": 1.0})]


def test_an_unknown_way_of_taking_errors_is_refused(run):
    with pytest.raises(ConfigurationError, match="'raise' or 'warn'"):
        run.log({"bad": None}, on_error="ignore")


def test_log_metrics_takes_numbers_alone(run):
    with pytest.raises(MetricValueError, match="'note' must be a number"):
        run.log_metrics({"note": "good"})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda run: run.log({"a": 1}, context="val"), "context must map .* str 'val'"),
        (
            lambda run: run.log_artifacts(["a.txt"]),
            r"paths must map .* list \['a.txt'\]",
        ),
        (lambda run: run.summary.update(3), "a summary must map .* int 3"),
        (lambda run: run.finish([0.9]), r"a summary must map .* list \[0.9\]"),
        (lambda run: run.log_params([0.9]), "params must be a mapping, got list"),
        (lambda run: run.log([0.9]), "values must map names to values, got list"),
        (
            lambda run: run.bins("b", [1, [2, [3]]]),
            "real numbers, got one of type list",
        ),
        (lambda run: run.log({1.5: 1}), "must be text, got float 1.5"),
    ],
)
def test_what_is_no_mapping_or_of_the_wrong_kind_is_told_with_what_to_pass(
    run, recorder, call, message
):
    before = len(recorder.events)

    with pytest.raises(EventValueError, match=message):
        call(run)

    assert len(recorder.events) == before
    assert run.status == "running"


def test_a_step_that_is_no_integer_is_refused(run):
    with pytest.raises(EventValueError, match="step must be an integer"):
        run.log({"loss": 1.0}, step="soon")
    with pytest.raises(EventValueError, match="step must be an integer"):
        run.set_step(1.5)


@pytest.mark.parametrize(
    "call",
    [
        lambda run: run.log({"loss": 1.0}),
        lambda run: run.log_metrics({"loss": 1.0}),
        lambda run: run.scalar("loss", 1.0),
        lambda run: run.bins("w", [1.0]),
        lambda run: run.log_params({"lr": 1.0}),
        lambda run: run.log_config({"lr": 1.0}),
        lambda run: run.log_text("note", "good"),
        lambda run: run.log_table("t", ["a"], [[1]]),
        lambda run: run.log_artifact("file"),
        lambda run: run.log_model("file", "m"),
        lambda run: run.summary.update({"best": 1}),
        lambda run: run.watch({}),
    ],
)
def test_logging_outside_of_the_run_says_which_side(experiment, call):
    run = experiment.create_run("b")
    with pytest.raises(RunStateError, match="'b' has not started"):
        call(run)
    run.start()
    run.finish()

    with pytest.raises(RunStateError, match="'b' has ended"):
        call(run)


def test_logging_to_an_ended_run_does_not_reach_another_one(experiment, recorder):
    first = experiment.create_run("b").start()
    first.finish()

    with (
        experiment.create_run("c"),
        pytest.raises(RunStateError, match="'b' has ended"),
    ):
        first.log({"loss": 1.0})


def test_a_run_logs_to_itself_whatever_run_is_current(experiment, tmp_path):
    inner_recorder = Recorder()
    other = Experiment(name="Other", par_dir=tmp_path)
    other.trackers.subscribe(inner_recorder)

    with experiment.create_run() as outer, other.create_run(parent=outer):
        outer.log({"loss": 1.0})

    assert points(inner_recorder) == []


# -- commit, labels ------------------------------------------------------------------


def test_uncommitted_values_go_with_the_next_call(run, recorder):
    run.log({"a": 1.0}, commit=False)
    run.log({"b": 2.0, "note": "good"}, commit=False)
    run.log({"c": 3.0})
    run.log({"a": 4.0})

    assert points(recorder) == [(1, {"a": 1.0, "b": 2.0, "c": 3.0}), (2, {"a": 4.0})]
    assert only(recorder, TextEvent).step == 1


def test_uncommitted_values_of_another_step_go_first(run, recorder):
    run.log({"a": 1.0}, step=1, commit=False)
    run.log({"b": 2.0}, step=2)

    assert points(recorder) == [(1, {"a": 1.0}), (2, {"b": 2.0})]


def test_uncommitted_values_are_not_lost_at_the_end(experiment, recorder):
    with experiment.create_run() as run:
        run.log({"a": 1.0}, commit=False)

    assert points(recorder) == [(1, {"a": 1.0})]


def test_uncommitted_values_are_snapshots(run, recorder):
    values = {"a": np.zeros(())}
    run.log(values, commit=False)
    values["a"] += 5
    run.log({"b": 1.0})

    assert points(recorder) == [(1, {"a": 0.0, "b": 1.0})]


def test_labels_hold_within_their_block(run, recorder):
    with run.context(split="val"), run.context(fold=2):
        run.log({"loss": 1.0}, context={"fold": 3})
        run.log_text("note", "good")
    run.log({"loss": 2.0})

    contexts = [
        dict(e.context) for e in recorder.events if isinstance(e, StepMetricEvent)
    ]
    assert contexts == [{"split": "val", "fold": 3}, {}]
    assert only(recorder, TextEvent).name == "note [fold=2, split=val]"


def test_labels_of_a_block_are_unknown_to_other_threads(run, recorder):
    with run.context(split="val"):
        thread = threading.Thread(target=run.log, args=({"loss": 1.0},))
        thread.start()
        thread.join()

    assert dict(only(recorder, StepMetricEvent).context) == {}


def test_fixed_labels_hold_until_they_are_removed(run, recorder):
    run.set_context(split="val", fold=1)
    run.log({"loss": 1.0})
    run.set_context(fold=None)
    run.bins("w", [1.0, 2.0])

    assert dict(only(recorder, StepMetricEvent).context) == {"split": "val", "fold": 1}
    assert dict(only(recorder, HistogramEvent).context) == {"split": "val"}


# -- histograms ----------------------------------------------------------------------


def test_bins_count_an_array_or_take_counts(run, recorder):
    run.bins("counted", np.array([[0.0, 1.0], [1.0, 4.0]]), n_bins=4)
    run.bins("given", counts=[1, 2], edges=[0, 1, 2], step=9)

    counted, given = (e for e in recorder.events if isinstance(e, HistogramEvent))
    assert counted.counts == [1, 2, 0, 1]
    assert counted.bin_edges == [0, 1, 2, 3, 4]
    assert (given.step, given.counts, given.bin_edges) == (9, [1, 2], [0, 1, 2])


def test_values_that_are_not_finite_are_left_out_with_a_warning(run, recorder):
    with pytest.warns(RunWarning, match="2 values that are NaN or infinite"):
        run.log_histogram("w", [1.0, float("nan"), float("inf"), 2.0], step=4)

    assert sum(only(recorder, HistogramEvent).counts) == 2


def test_an_array_without_a_finite_value_warns_and_publishes_nothing(run, recorder):
    with pytest.warns(RunWarning, match="no finite value"):
        run.bins("w", [float("nan")])

    assert not [e for e in recorder.events if isinstance(e, HistogramEvent)]


@pytest.mark.parametrize(
    "arguments",
    [{}, {"counts": [1]}, {"edges": [1, 2]}, {"values": [1], "counts": [1]}],
)
def test_a_histogram_needs_values_or_counts_and_edges(run, arguments):
    with pytest.raises(EventValueError, match="needs values, or both"):
        run.bins("w", **arguments)


# -- parameters and summary ----------------------------------------------------------


def test_parameters_stay_nested(run, recorder):
    run.log_params({"optimizer": {"lr": 0.1, "token": "abc"}})

    params = only(recorder, ParamsEvent).params
    assert params["optimizer"]["lr"] == 0.1
    assert "abc" not in str(params)


def test_a_parameter_that_changes_warns_and_the_newest_is_published(run, recorder):
    run.log_params({"optimizer": {"lr": 0.1}})

    with pytest.warns(RunWarning, match=r"'optimizer/lr' was 0.1 and is 0.2"):
        run.log_params({"optimizer": {"lr": 0.2}})

    assert recorder.events[-1].params["optimizer"]["lr"] == 0.2


def test_configuration_is_merged(run, experiment, recorder):
    run.log_config({"epochs": 3})
    run.log_config({"epochs": 4})

    assert run.config == {"lr": 0.1, "epochs": 4}
    assert experiment.config == {"lr": 0.1}
    assert recorder.events[-1].params == {"epochs": 4}


def test_the_summary_is_published_and_in_the_stop_event(experiment, recorder):
    with experiment.create_run("s") as run:
        run.summary["best"] = 0.9
        run.finish({"epochs": 3})

    first, second = (e for e in recorder.events if isinstance(e, SummaryEvent))
    assert (dict(first.summary), dict(second.summary)) == ({"best": 0.9}, {"epochs": 3})
    stop = only(recorder, StopExperimentEvent)
    assert (stop.status, dict(stop.summary)) == (
        "completed",
        {"best": 0.9, "epochs": 3},
    )
    assert dict(run.summary) == {"best": 0.9, "epochs": 3}


@pytest.mark.parametrize("record", [True, False])
def test_a_summary_that_is_published_as_an_event_is_in_the_stop_event(
    experiment, recorder, record
):
    with experiment.create_run("s", record=record) as run:
        SummaryEvent({"best": 0.9})
        assert dict(run.summary) == {"best": 0.9}

    assert dict(only(recorder, StopExperimentEvent).summary) == {"best": 0.9}


def test_a_resumed_run_keeps_its_summary(experiment):
    with experiment.create_run("s") as run:
        run.summary["best"] = 0.9

    with experiment.create_run("s", resume=True) as run:
        assert run.summary["best"] == 0.9


def test_finishing_twice_warns_and_does_nothing(experiment, recorder):
    run = experiment.create_run().start()
    run.finish()

    with pytest.warns(RunWarning, match="has ended"):
        run.finish({"late": 1})

    assert only(recorder, StopExperimentEvent).summary == {}


# -- backends, ranks -----------------------------------------------------------------


def test_a_backend_is_found_by_its_name_in_the_run(experiment, tmp_path):
    csv = CSVDumper(tmp_path)
    experiment.trackers.subscribe(csv)

    with experiment.create_run() as run:
        assert run.get_backend(csv.name) is csv
        assert run.get_backend("CSVDumper") is csv
        assert run.get_backend("wandb") is None


def test_a_backend_under_another_name_is_found_by_its_module(experiment, tmp_path):
    csv = CSVDumper(tmp_path)
    experiment.trackers.subscribe(tables=csv)

    with experiment.create_run() as run:
        assert run.get_backend("csv") is csv


def test_an_ended_run_still_knows_its_backends(experiment, tmp_path):
    class Remote(Backend):
        def open(self, info):
            pass

        def log_metrics(self, metrics, at):
            pass

        def finish(self, status, error):
            pass

    experiment.trackers.subscribe(Remote())
    with experiment.create_run() as run:
        backend = run.get_backend("Remote")

    assert backend is not None
    assert run.get_backend("Remote") is backend


def test_on_another_rank_nothing_is_logged_and_nothing_raises(experiment, tmp_path):
    with experiment.create_run(rank=1) as run:
        run.log({"bad": None})
        run.log_model(object(), "net")
        run.log_artifact(tmp_path / "missing")
        run.summary["best"] = 1.0
        run.finish()

    assert not (tmp_path / "store").exists()


def test_a_tracker_that_wants_every_rank_is_served_on_another_rank(tmp_path):
    class Everywhere(Recorder):
        every_rank = True

    everywhere = Everywhere()
    experiment = Experiment(name="Digits", par_dir=tmp_path)
    experiment.trackers.subscribe(everywhere)

    with experiment.create_run(rank=1) as run:
        run.log({"loss": 1.0})

    assert points(everywhere) == [(1, {"loss": 1.0})]


def test_what_is_logged_is_read_back_from_csv(tmp_path):
    csv = CSVDumper(tmp_path)
    experiment = Experiment(name="Digits", par_dir=tmp_path)
    experiment.trackers.subscribe(csv)

    with experiment.create_run() as run:
        for loss in (3.0, 2.0, float("nan")):
            run.log({"train": {"loss": loss}})
        with run.context(split="val"):
            run.log({"loss": 1.0}, step=3)
        loaded = csv.load_metrics("", axis="step")

    assert loaded["run"]["train/loss"].steps == [1, 2, 3]
    assert loaded["run"]["train/loss"].values[:2] == [3.0, 2.0]
    assert loaded["run"]["loss [split=val]"].values == [1.0]


def test_a_tracker_that_fails_costs_the_caller_no_value(experiment, recorder):
    class Broken(Tracker):
        notify = Tracker.notify.extend()

        @notify.register
        def _fail(self, event: StepMetricEvent) -> None:
            raise MetricValueError("not the caller's")

    experiment.trackers.subscribe(Broken())

    with pytest.warns(UserWarning, match="Broken"), experiment.create_run() as run:
        run.log({"loss": 1.0})

    assert points(recorder) == [(1, {"loss": 1.0})]


def test_a_name_that_cannot_be_kept_is_refused_in_media_too(run):
    with pytest.raises(InvalidNameError, match="empty"):
        run.log_text("", "good")
