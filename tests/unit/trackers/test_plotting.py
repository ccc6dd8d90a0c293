"""The base of plotters, and what plots are made of."""

from __future__ import annotations

import datetime
import itertools
import math
import pathlib
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drytrack.core import log_events
from drytrack.core.exceptions import ConfigurationError, MissingDependencyError
from drytrack.core.experiment import Experiment
from drytrack.testing import TrackerContract
from drytrack.trackers._plot_points import MAX_MARKS, reduce, smooth
from drytrack.trackers.base import BasePlotter, MemoryMetrics, MetricLoader, Series
from drytrack.trackers.csv import CSVDumper

NOW = datetime.datetime(2026, 11, 20, 23, 12, 1)


class PanelPlotter(BasePlotter[list]):
    """Returns the panels themselves."""

    def plot_metric(self, panel, figure):
        return [*(figure or []), panel]


class LivePlotter(PanelPlotter):
    """Keeps what it was updated with."""

    def _begin_output(self, event):
        self.updates = []
        self.updated = threading.Event()

    def update_model(self, model, figure):
        (curve,) = figure[0].curves
        self.updates.append((model, curve.values.tolist()))
        self.updated.set()


class Stored(MetricLoader):
    """A stored run with a loss."""

    def __init__(self, *values, first=1):
        self.series = Series([first + n for n in range(len(values))], list(values))

    def load_metrics(self, model_name, max_epoch=-1, *, axis="epoch"):
        found = axis == "epoch" and model_name == "mlp"
        return {"train": {"loss": self.series}} if found else {}


def start(run_id="run", **fields):
    return log_events.StartExperimentEvent.unpublished(
        {}, "Digits", NOW, run_id, par_dir=pathlib.Path("store"), **fields
    )


def metric(epoch, value=0.0, name="loss", model="mlp", source="train"):
    return log_events.MetricEvent.unpublished(model, source, epoch, {name: value})


def step_metric(step, value, name="loss", model="mlp", axis="step"):
    return log_events.StepMetricEvent.unpublished(
        "train", step, {name: value}, axis=axis, model_name=model
    )


def watch(*events, plotter=None):
    plotter = plotter or PanelPlotter()
    for event in (start(), *events):
        plotter.notify(event)
    return plotter


def losses(*values, **fields):
    return [metric(n, value, **fields) for n, value in enumerate(values, start=1)]


def points(curve):
    return dict(zip(curve.steps.tolist(), curve.values.tolist(), strict=True))


def only(panels):
    (panel,) = panels
    (curve,) = panel.curves
    return panel, curve


class TestPanelPlotterContract(TrackerContract):
    def make_tracker(self, tmp_path):
        return PanelPlotter()


class TestChoice:
    def test_a_panel_holds_a_metric_and_a_curve_each_source(self):
        plotter = watch(
            *losses(4.0, 3.0),
            *losses(5.0, 4.5, source="validation"),
            *losses(0.5, 0.75, name="accuracy"),
        )

        loss, accuracy = plotter.plot("mlp")

        assert (loss.metric, accuracy.metric) == ("loss", "accuracy")
        assert [curve.label for curve in loss.curves] == ["train", "validation"]
        assert points(loss.curves[1]) == {1: 5.0, 2: 4.5}
        assert points(accuracy.curves[0]) == {1: 0.5, 2: 0.75}

    def test_a_source_has_the_same_color_in_all_panels(self):
        plotter = watch(
            *losses(4.0),
            *losses(5.0, source="validation"),
            *losses(0.5, name="accuracy", source="validation"),
        )

        loss, accuracy = plotter.plot()

        assert [curve.color for curve in loss.curves] == [0, 1]
        assert [curve.color for curve in accuracy.curves] == [1]

    def test_sources_and_metrics_are_chosen_in_the_order_given(self):
        plotter = watch(
            *losses(4.0),
            *losses(5.0, source="validation"),
            *losses(6.0, source="test"),
            *losses(0.5, name="accuracy"),
        )

        shown = plotter.plot(
            sources=["test", "train"], metrics=["accuracy", "loss", "none"]
        )

        assert [panel.metric for panel in shown] == ["accuracy", "loss"]
        assert [curve.label for curve in shown[1].curves] == ["test", "train"]

    def test_a_name_alone_chooses_it(self):
        plotter = watch(*losses(4.0), *losses(0.5, name="accuracy"))

        panel, _ = only(plotter.plot(metrics="accuracy"))

        assert panel.metric == "accuracy"

    def test_what_the_constructor_chose_holds_until_plot_says_otherwise(self):
        plotter = watch(*losses(4.0, 3.0, 2.0), plotter=PanelPlotter(first=2))

        assert points(only(plotter.plot())[1]) == {2: 3.0, 3: 2.0}
        assert points(only(plotter.plot(first=3))[1]) == {3: 2.0}

    def test_a_negative_first_epoch_shows_the_last_ones(self):
        plotter = watch(*losses(5.0, 4.0, 3.0, 2.0))

        assert points(only(plotter.plot(first=-2))[1]) == {3: 3.0, 4: 2.0}
        assert len(only(plotter.plot(first=-9))[1].steps) == 4

    def test_epochs_come_before_steps_unless_steps_are_asked_for(self):
        plotter = watch(*losses(4.0), step_metric(10, 4.5), step_metric(20, 4.25))

        epochs, _ = only(plotter.plot())
        steps, curve = only(plotter.plot(axis="step"))

        assert (epochs.axis, steps.axis) == ("epoch", "step")
        assert points(curve) == {10: 4.5, 20: 4.25}

    def test_a_model_without_epochs_is_shown_over_what_it_has(self):
        plotter = watch(step_metric(3, 1.0, axis="tokens"))

        assert only(plotter.plot())[0].axis == "tokens"

    def test_the_only_model_needs_no_name_and_of_several_one_must_be_named(self):
        plotter = watch(*losses(4.0), *losses(8.0, model="cnn"))

        assert points(only(plotter.plot("cnn"))[1]) == {1: 8.0}
        with pytest.raises(LookupError, match="'mlp', 'cnn'"):
            plotter.plot()

    @pytest.mark.parametrize(
        ("model", "options"),
        [("rnn", {}), ("mlp", {"metrics": "f1"}), ("mlp", {"axis": "step"})],
    )
    def test_nothing_to_draw_is_an_error_that_names_the_models(self, model, options):
        plotter = watch(*losses(4.0))

        with pytest.raises(LookupError, match=r"can be plotted: 'mlp'\."):
            plotter.plot(model, **options)

    @pytest.mark.parametrize(
        "options", [{"half_life": 0}, {"half_life": math.nan}, {"band": "sem"}]
    )
    def test_an_option_that_cannot_be_is_refused_at_once(self, options):
        with pytest.raises(ConfigurationError):
            PanelPlotter(**options)

    def test_units_reach_their_panels(self):
        plotter = watch(*losses(4.0), *losses(9.0, name="time"))

        loss, time = plotter.plot(units={"time": "s"})

        assert (loss.unit, time.unit) == ("", "s")


class TestHistory:
    def test_a_resumed_run_is_shown_by_the_attempt_rule(self):
        plotter = watch(
            *losses(4.0, 3.0, 9.0),
            start(resumed=True, attempt=2),
            metric(3, 2.0),
            metric(4, 1.0),
        )

        assert points(only(plotter.plot())[1]) == {1: 4.0, 2: 3.0, 3: 2.0, 4: 1.0}

    def test_a_second_run_begins_clean(self):
        plotter = watch(*losses(4.0, 3.0), start("second"), metric(1, 0.5))

        assert points(only(plotter.plot())[1]) == {1: 0.5}

    def test_a_stored_run_is_plotted_without_any_run(self):
        plotter = PanelPlotter(metric_loader=Stored(4.0, 3.0))

        assert points(only(plotter.plot("mlp"))[1]) == {1: 4.0, 2: 3.0}

    def test_a_stored_run_stands_before_the_one_that_is_watched(self):
        plotter = PanelPlotter(metric_loader=Stored(4.0, 3.0, 9.0))
        watch(metric(3, 2.0), metric(4, 1.0), plotter=plotter)

        assert points(only(plotter.plot())[1]) == {1: 4.0, 2: 3.0, 3: 2.0, 4: 1.0}
        assert plotter.load_metrics("mlp") == {
            "train": {"loss": Series([1, 2, 3, 4], [4.0, 3.0, 2.0, 1.0])}
        }

    def test_what_a_csv_dumper_wrote_is_plotted(self, tmp_path):
        dumper = CSVDumper(tmp_path)
        experiment = Experiment({}, name="Digits", par_dir=tmp_path)
        experiment.trackers.remove_all()
        experiment.trackers.subscribe(dumper)
        with experiment.create_run("run"):
            log_events.MetricEvent("mlp", "train", 1, {"loss": 0.5})

        stored = CSVDumper.from_folder(tmp_path / "csv" / "Digits" / "run")

        plotter = PanelPlotter(metric_loader=stored)
        assert points(only(plotter.plot("mlp"))[1]) == {1: 0.5}


class TestGaps:
    def test_what_is_not_finite_is_a_gap_with_a_mark(self):
        plotter = watch(*losses(4.0, math.nan, 3.0, math.inf, 2.0, -math.inf))

        _, curve = only(plotter.plot())

        assert np.isnan(curve.values).tolist() == [False, True] * 3
        marked = {marks.kind: marks.steps.tolist() for marks in curve.marks}
        assert marked == {"nan": [2], "inf": [4], "-inf": [6]}

    def test_a_log_scale_marks_what_it_cannot_show(self):
        plotter = watch(*losses(4.0, 0.0, -1.0, 2.0))

        panel, curve = only(plotter.plot(log_scale=True))

        assert panel.log
        assert [(marks.kind, marks.steps.tolist()) for marks in curve.marks] == [
            ("<= 0", [2, 3])
        ]
        assert panel.y_range[0] > 0

    def test_a_log_scale_may_be_for_some_metrics_alone(self):
        plotter = watch(*losses(4.0), *losses(0.5, name="accuracy"))

        assert [panel.log for panel in plotter.plot(log_scale="loss")] == [True, False]

    def test_without_a_positive_value_the_scale_stays_linear(self):
        panel, curve = only(watch(*losses(0.0, -1.0)).plot(log_scale=True))

        assert not panel.log
        assert points(curve) == {1: 0.0, 2: -1.0}

    def test_a_point_between_gaps_is_a_dot(self):
        values = [1.0] * 40 + [math.nan, 2.0, math.nan] + [1.0] * 40

        _, curve = only(watch(*losses(*values)).plot())

        assert curve.dots.tolist() == [41]

    def test_a_curve_without_a_finite_value_has_marks_alone(self):
        panel, curve = only(watch(*losses(math.nan, math.nan)).plot())

        assert np.isnan(curve.values).all()
        assert panel.y_range == (0.0, 1.0)
        assert panel.x_range[0] < 1 < 2 < panel.x_range[1]

    @pytest.mark.parametrize("values", [[1e308, -1e308], [5e-324], [0.0], [1e308]])
    def test_the_ends_of_an_axis_are_finite_and_hold_all_values(self, values):
        panel, _ = only(watch(*losses(*values)).plot())

        low, high = panel.y_range

        assert math.isfinite(low)
        assert math.isfinite(high)
        assert low < min(values) or low == -sys.float_info.max
        assert high > max(values) or high == sys.float_info.max


class TestSmoothing:
    def test_the_average_is_corrected_for_its_beginning(self):
        steps, values = np.arange(4.0), np.array([1.0, 2.0, 4.0, 8.0])

        smoothed = smooth(steps, values, half_life=1.0)

        # Adam's way: m = β m + (1 - β) x, over 1 - β^t.
        mean, expected = 0.0, []
        for count, value in enumerate(values, start=1):
            mean = 0.5 * mean + 0.5 * value
            expected.append(mean / (1 - 0.5**count))
        np.testing.assert_allclose(smoothed, expected, rtol=1e-12)

    def test_a_value_counts_half_after_its_half_life_however_far_the_next(self):
        smoothed = smooth(np.array([0.0, 10.0]), np.array([0.0, 3.0]), half_life=10.0)

        np.testing.assert_allclose(smoothed, [0.0, 2.0])

    @given(
        st.lists(st.floats(-1e6, 1e6) | st.just(math.nan), min_size=1, max_size=50),
        st.floats(0.1, 100),
    )
    def test_smoothing_stays_within_the_values_and_keeps_gaps(self, values, half_life):
        given = np.array(values)

        smoothed = smooth(np.arange(float(len(values))), given, half_life=half_life)

        assert (np.isnan(smoothed) == np.isnan(given)).all()
        finite = np.isfinite(given)
        if finite.any():
            slack = 1e-6
            assert smoothed[finite].max() <= given[finite].max() + slack
            assert smoothed[finite].min() >= given[finite].min() - slack

    def test_a_smoothed_curve_keeps_its_raw_values_behind(self):
        plotter = watch(*losses(4.0, 2.0))

        _, curve = only(plotter.plot(half_life=1))

        assert curve.raw[1].tolist() == [4.0, 2.0]
        np.testing.assert_allclose(curve.values, [4.0, (4.0 / 2 + 2.0) / 1.5])

    def test_what_is_cut_off_counts_in_the_average(self):
        plotter = watch(*losses(4.0, 2.0))

        _, curve = only(plotter.plot(half_life=1, first=2))

        np.testing.assert_allclose(curve.values, [(4.0 / 2 + 2.0) / 1.5])


class TestReduction:
    def test_a_short_curve_is_drawn_as_it_is(self):
        assert reduce(np.arange(2000.0), np.zeros(2000)).tolist() == list(range(2000))

    @given(st.integers(0, 2**32 - 1), st.integers(2001, 30_000), st.booleans())
    def test_no_spike_disappears_and_both_ends_stay(self, seed, count, gaps):
        chance = np.random.default_rng(seed)
        values = chance.normal(size=count)
        up, down = chance.choice(count, 2, replace=False)
        values[up], values[down] = 50.0, -50.0
        if gaps:
            holes = chance.random(count) < chance.random()
            holes[[up, down, 0, -1]] = False
            values[holes] = np.nan
        steps = np.cumsum(chance.integers(1, 5, count)).astype(float)

        keep = reduce(steps, values)

        assert len(keep) <= 2000
        assert (np.diff(keep) > 0).all()
        assert {0, up, down, count - 1} <= set(keep.tolist())

    @given(st.integers(0, 2**32 - 1))
    def test_no_line_crosses_a_gap(self, seed):
        chance = np.random.default_rng(seed)
        values = chance.normal(size=5000)
        values[chance.choice(5000, 40)] = np.nan

        keep = reduce(np.arange(5000.0), values)

        for left, right in itertools.pairwise(keep):
            if np.isfinite(values[left]) and np.isfinite(values[right]):
                assert np.isfinite(values[left:right]).all()

    def test_a_band_is_reduced_with_its_mean(self):
        steps = np.arange(10_000.0)
        mean, low, high = np.zeros(10_000), np.full(10_000, -1.0), np.full(10_000, 1.0)
        mean[10], low[5000], high[7777] = 0.5, -9.0, 9.0

        keep = reduce(steps, mean, low, high)

        assert len(keep) <= 2000
        assert {10, 5000, 7777} <= set(keep.tolist())

    def test_many_marks_are_thinned(self):
        values = [math.nan if n % 2 else 1.0 for n in range(3000)]

        _, curve = only(watch(*losses(*values)).plot())

        (marks,) = curve.marks
        assert len(marks.steps) <= MAX_MARKS
        assert marks.steps[0] == 2


class TestSeveralRuns:
    def test_runs_become_their_mean_with_a_band(self):
        runs = [Stored(1.0, 4.0), Stored(3.0, 8.0)]

        _, curve = only(PanelPlotter().plot("mlp", runs=runs))

        assert curve.label == "train (mean of 2)"
        assert points(curve) == {1: 2.0, 2: 6.0}
        np.testing.assert_allclose(curve.low, [2 - 2**0.5, 6 - 8**0.5])
        np.testing.assert_allclose(curve.high, [2 + 2**0.5, 6 + 8**0.5])

    def test_a_band_may_show_the_range(self):
        runs = [Stored(1.0, 4.0), Stored(3.0, 8.0), Stored(2.0, 5.0)]

        _, curve = only(PanelPlotter(band="range").plot("mlp", runs=runs))

        assert (curve.low.tolist(), curve.high.tolist()) == ([1.0, 4.0], [3.0, 8.0])

    def test_runs_that_lack_a_step_do_not_count_there(self):
        runs = [Stored(1.0, 4.0, 6.0), Stored(3.0), Stored(5.0, math.nan)]

        _, curve = only(PanelPlotter().plot("mlp", runs=runs))

        assert points(curve) == {1: 3.0, 2: 4.0, 3: 6.0}
        assert [marks.steps.tolist() for marks in curve.marks] == [[2]]

    def test_labels_stand_beside_each_other(self):
        runs = {"adam": [Stored(1.0), Stored(2.0)], "sgd": Stored(4.0)}

        (panel,) = PanelPlotter().plot("mlp", runs=runs)

        labels = [curve.label for curve in panel.curves]
        assert labels == ["adam · train (mean of 2)", "sgd · train"]
        assert [curve.color for curve in panel.curves] == [0, 1]

    def test_a_band_on_a_log_scale_stays_above_zero(self):
        runs = [Stored(0.1, 1.0), Stored(10.0, 1.0)]

        _, curve = only(PanelPlotter(log_scale=True).plot("mlp", runs=runs))

        assert (curve.low > 0).all()

    def test_the_watched_run_may_be_among_them(self):
        plotter = watch(*losses(4.0))

        (panel,) = plotter.plot("mlp", runs={"now": plotter, "before": Stored(5.0)})

        assert [points(curve) for curve in panel.curves] == [{1: 4.0}, {1: 5.0}]


class TestLiveUpdates:
    def make_run(self, tmp_path, plotter):
        experiment = Experiment({}, name="Digits", par_dir=tmp_path)
        experiment.trackers.remove_all()
        experiment.trackers.subscribe(plotter)
        return experiment.create_run("run")

    def test_what_comes_too_soon_is_drawn_later_without_a_further_event(self, tmp_path):
        plotter = LivePlotter(every_s=0.3)
        with self.make_run(tmp_path, plotter) as run:
            log_events.MetricEvent("mlp", "train", 1, {"loss": 4.0})
            run.flush(10)
            plotter.updated.clear()
            log_events.MetricEvent("mlp", "train", 2, {"loss": 3.0})
            run.flush(10)
            assert plotter.updated.wait(10)
            last = plotter.updates[-1]
        assert last == ("mlp", [4.0, 3.0])

    def test_updates_are_fewer_than_events_and_the_last_state_is_drawn(self, tmp_path):
        plotter = LivePlotter(every_s=60)
        with self.make_run(tmp_path, plotter):
            for epoch in range(1, 200):
                log_events.MetricEvent("mlp", "train", epoch, {"loss": 1.0 / epoch})

        assert len(plotter.updates) <= 2
        assert len(plotter.updates[-1][1]) == 199

    def test_no_timer_outlives_the_run(self, tmp_path):
        before = threading.active_count()
        plotter = LivePlotter(every_s=600)
        with self.make_run(tmp_path, plotter) as run:
            for epoch in range(1, 4):
                log_events.MetricEvent("mlp", "train", epoch, {"loss": 1.0})
                run.flush(10)
            timers = [
                t for t in threading.enumerate() if isinstance(t, threading.Timer)
            ]
            assert len(timers) == 1
        timers[0].join(10)
        assert threading.active_count() <= before

    def test_a_late_update_that_failed_is_tried_again_by_itself(self):
        failed = threading.Event()

        class Failing(LivePlotter):
            broken = True

            def update_model(self, model, figure):
                if self.broken:
                    failed.set()
                    raise OSError("no answer")
                super().update_model(model, figure)

        plotter = Failing()
        plotter.notify(start())
        plotter.notify(metric(1, 4.0))
        plotter._set_timer(0.0)  # as where an event comes too soon
        assert failed.wait(30)
        plotter.broken = False

        assert plotter.updated.wait(30)
        assert plotter.updates == [("mlp", [4.0])]
        plotter.flush()  # there is nothing left to tell
        plotter.clean_up()

    def test_models_that_were_not_chosen_are_not_drawn(self, tmp_path):
        plotter = LivePlotter(models="cnn")
        with self.make_run(tmp_path, plotter):
            log_events.MetricEvent("mlp", "train", 1, {"loss": 4.0})
            log_events.MetricEvent("cnn", "train", 1, {"loss": 8.0})

        assert {model for model, _ in plotter.updates} == {"cnn"}

    def test_a_plot_can_be_had_while_the_worker_updates(self, tmp_path):
        plotter = LivePlotter(every_s=0.0)
        lengths = []
        with self.make_run(tmp_path, plotter) as run:
            for epoch in range(1, 300):
                log_events.MetricEvent("mlp", "train", epoch, {"loss": 1.0})
                if epoch == 1:
                    run.flush(10)
                lengths.append(len(only(plotter.plot())[1].steps))

        assert lengths == sorted(lengths)

    def test_after_the_run_it_can_still_be_plotted(self, tmp_path):
        plotter = LivePlotter()
        with self.make_run(tmp_path, plotter):
            log_events.MetricEvent("mlp", "train", 1, {"loss": 4.0})

        assert points(only(plotter.plot())[1]) == {1: 4.0}


def test_a_missing_package_is_named_with_the_extra_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tsdownsample", None)

    with pytest.raises(MissingDependencyError, match=r"tsdownsample.*drytrack\[plot\]"):
        PanelPlotter()


def test_plotters_are_imported_without_the_libraries_that_they_drive():
    code = (
        "import sys\n"
        "from drytrack.trackers.base import BasePlotter\n"
        "from drytrack.trackers.matplotlib import MatPlotter\n"
        "from drytrack.trackers.plotly import PlotlyPlotter\n"
        "MatPlotter(), PlotlyPlotter()\n"
        "print(sorted({'numpy', 'matplotlib', 'plotly'} & set(sys.modules)))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert done.stdout == "[]\n"


def test_a_plotter_reads_back_what_memory_metrics_would():
    events = [*losses(4.0, 3.0), step_metric(7, 1.5)]
    memory = MemoryMetrics()
    for event in (start(), *events):
        memory.notify(event)
    plotter = watch(*events)

    for axis in ("epoch", "step"):
        loaded = plotter.load_metrics("mlp", axis=axis)
        assert loaded == memory.load_metrics("mlp", axis=axis)
