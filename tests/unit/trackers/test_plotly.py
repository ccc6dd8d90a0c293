from __future__ import annotations

import base64
import datetime
import itertools
import json
import math
import pathlib
import webbrowser

import numpy as np
import plotly.graph_objects as go
import pytest
from matplotlib.figure import Figure as MatplotlibFigure

from drytrack.core import log_events
from drytrack.core.experiment import Experiment
from drytrack.testing import TrackerContract
from drytrack.trackers._plot_style import LOOKS
from drytrack.trackers._plotly_panels import sync
from drytrack.trackers.base import MemoryMetrics
from drytrack.trackers.plotly import PlotlyPlotter

NOW = datetime.datetime(2026, 11, 20, 23, 12, 1)
ODD = "<img src=x onerror=alert(1)>&</script><script>alert(2)</script>"


def start(par_dir="store", run_id="run", **fields):
    return log_events.StartExperimentEvent.unpublished(
        {}, "Digits", NOW, run_id, par_dir=pathlib.Path(par_dir), **fields
    )


def metric(epoch, model="mlp", source="train", **metrics):
    return log_events.MetricEvent.unpublished(model, source, epoch, metrics)


def losses(*values, **fields):
    return [metric(n, loss=value, **fields) for n, value in enumerate(values, start=1)]


def watch(*events, par_dir="store", **options):
    plotter = PlotlyPlotter(**{"save": "never", **options})
    plotter.notify(start(par_dir))
    for event in events:
        plotter.notify(event)
    return plotter


def traces(figure, part="line"):
    return [trace for trace in figure.data if trace.meta["part"] == part]


def points(trace):
    return dict(zip(np.asarray(trace.x).tolist(), np.asarray(trace.y), strict=True))


def titles(figure):
    return [note.text for note in figure.layout.annotations]


def run(tmp_path, *events, **options):
    experiment = Experiment({}, name="Digits", par_dir=tmp_path)
    experiment.trackers.remove_all()
    experiment.trackers.subscribe(PlotlyPlotter(tmp_path, **options))
    with experiment.create_run("run"):
        for event in events:
            experiment.trackers.publish(event)
    return tmp_path / "plotly" / "Digits" / "run" / "plots.html"


class TestPlotlyPlotterContract(TrackerContract):
    def make_tracker(self, tmp_path):
        return PlotlyPlotter(tmp_path, every_s=0.0)


class TestContent:
    def test_a_model_is_a_figure_with_a_panel_for_each_metric(self):
        plotter = watch(metric(1, loss=4.0, accuracy=0.5), metric(2, loss=3.0))

        figure = plotter.plot()

        assert isinstance(figure, go.Figure)
        assert titles(figure) == ["loss", "accuracy"]
        loss, accuracy = traces(figure)
        assert (points(loss), points(accuracy)) == ({1: 4.0, 2: 3.0}, {1: 0.5})
        assert (loss.xaxis, accuracy.xaxis) == ("x", "x2")
        assert figure.layout.xaxis.title.text == "epoch"
        assert figure.layout.title.text == "mlp · Digits · run"

    def test_the_legend_names_each_source_once_and_hides_it_everywhere(self):
        events = [
            metric(1, source=source, loss=1.0, f1=1.0) for source in ("train", "test")
        ]

        figure = watch(*events).plot(half_life=2)

        shown = [trace for trace in figure.data if trace.showlegend]
        assert [trace.name for trace in shown] == ["train", "test"]
        groups = {(trace.name, trace.legendgroup) for trace in figure.data}
        assert len(groups) == 2

    def test_units_stand_behind_the_metric(self):
        assert titles(watch(metric(1, time=4.0), units={"time": "s"}).plot()) == [
            "time [s]"
        ]

    def test_gaps_are_marked_and_explained(self):
        figure = watch(*losses(4.0, math.nan, 3.0, math.inf, 2.0)).plot()

        (line,) = traces(figure)
        assert np.isnan(line.y).tolist() == [False, True] * 2 + [False]
        assert not line.connectgaps
        ((nan_at, low),) = points(traces(figure, "nan")[0]).items()
        ((inf_at, high),) = points(traces(figure, "inf")[0]).items()
        assert (nan_at, inf_at) == (2, 4)
        assert low < 2.0 < 4.0 < high
        keys = [trace.name for trace in traces(figure, "key") if trace.showlegend]
        assert keys == ["NaN", "+inf"]

    def test_a_log_scale_is_one(self):
        figure = watch(*losses(4.0, -1.0), metric(1, f1=1.0)).plot(log_scale="loss")

        assert figure.layout.yaxis.type == "log"
        assert figure.layout.yaxis2.type is None
        assert points(traces(figure, "<= 0")[0]).popitem()[1] > 0

    def test_runs_are_a_mean_with_a_band_that_gaps_divide(self):
        runs = []
        for value in (1.0, 3.0):
            runs.append(MemoryMetrics())
            values = [value, value, math.nan, value, value]
            for event in (start(), *losses(*values)):
                runs[-1].notify(event)

        figure = PlotlyPlotter(band="range").plot("mlp", runs=runs)

        (band,) = traces(figure, "band")
        assert band.fill == "toself"
        xs = [None if math.isnan(x) else int(x) for x in band.x]
        assert xs == [1, 2, 2, 1, None, 4, 5, 5, 4]
        assert [y for y in band.y if y == y] == [1, 1, 3, 3, 1, 1, 3, 3]
        assert [v for v in traces(figure)[0].y if v == v] == [2.0] * 4

    def test_names_are_text_and_no_markup(self):
        figure = watch(
            metric(1, model=ODD, source=ODD, **{ODD: 1.0}), units={ODD: ODD}
        ).plot()

        texts = [figure.layout.title.text, *titles(figure)]
        texts += [trace.name for trace in figure.data]
        assert all("<" not in text for text in texts)
        assert all("&lt;img" in text for text in texts)

    @pytest.mark.parametrize("theme", ["light", "dark"])
    def test_a_theme_is_on_everything(self, theme):
        layout = watch(*losses(4.0), theme=theme).plot().layout
        look = LOOKS[theme]

        assert (layout.paper_bgcolor, layout.plot_bgcolor) == (look.paper, look.paper)
        assert layout.font.color == look.ink

    def test_a_short_run_has_a_tick_for_each_epoch(self):
        assert watch(*losses(4.0, 3.0)).plot().layout.xaxis.dtick == 1
        assert watch(*losses(*[1.0] * 50)).plot().layout.xaxis.dtick is None

    @pytest.mark.parametrize("count", [1, 4, 9, 25, 60])
    def test_panels_do_not_overlap(self, count):
        names = [f"metric {n}" for n in range(count)]

        layout = watch(metric(1, **dict.fromkeys(names, 1.0))).plot().layout

        domains = set()
        for n in range(1, count + 1):
            number = "" if n == 1 else str(n)
            x, y = layout[f"xaxis{number}"].domain, layout[f"yaxis{number}"].domain
            domains.add((x, y))
        assert len(domains) == count
        rows = sorted({y for _, y in domains})
        for (_, top), (bottom, _) in itertools.pairwise(rows):
            assert (bottom - top) * layout.height > 40  # ticks and a title


class TestMedia:
    def test_histograms_images_tables_and_figures_are_figures(self):
        image = np.full((4, 6, 3), 200, np.uint8)
        matplotlib_figure = MatplotlibFigure(figsize=(2, 1))
        matplotlib_figure.add_subplot().plot([1, 2])
        plotter = watch(
            log_events.HistogramEvent.unpublished("t", "w", 5, [1, 4, 2], [0, 1, 2, 3]),
            log_events.ImageEvent.unpublished("t", "sample", 5, image, "a <caption>"),
            log_events.TableEvent.unpublished(
                "t", "scores", 5, ["a", "b"], [[1, "<b>"], [0.25, None]]
            ),
            log_events.FigureEvent.unpublished("t", "curve", 5, matplotlib_figure),
            log_events.FigureEvent.unpublished(
                "t", "own", 5, go.Figure(go.Bar(x=["a"], y=[7]))
            ),
        )

        histogram, picture, table, drawn, own = plotter.plot_media()

        assert list(histogram.data[0].x) == [0, 1, 2, 3]
        assert list(histogram.data[0].y) == [1, 4, 2, 2]
        assert histogram.data[0].line.shape == "hv"
        head, _, data = picture.layout.images[0].source.partition(",")
        assert head == "data:image/png;base64"
        assert base64.b64decode(data).startswith(b"\x89PNG")
        assert titles(picture) == ["a &lt;caption&gt;"]
        assert [list(column) for column in table.data[0].cells.values] == [
            ["1", "0.25"],
            ["&lt;b&gt;", ""],
        ]
        assert drawn.layout.images[0].source.startswith("data:image/png;base64,")
        assert list(own.data[0].y) == [7]
        assert own.layout.title.text == "own · t · step 5"

    def test_formats_that_browsers_show_are_passed_on(self):
        svg = b"<svg xmlns='http://www.w3.org/2000/svg'/>"
        plotter = watch(log_events.ImageEvent.unpublished("t", "drawing", 1, svg))

        (figure,) = plotter.plot_media()

        source = figure.layout.images[0].source
        assert source.startswith("data:image/svg+xml;base64,")
        assert base64.b64decode(source.partition(",")[2]) == svg

    def test_a_long_table_says_how_much_is_left_out(self):
        rows = [[n] for n in range(700)]
        plotter = watch(log_events.TableEvent.unpublished("t", "s", 1, ["n"], rows))

        (column,) = plotter.plot_media()[0].data[0].cells.values

        assert column[-1] == "… 200 more"


class TestPage:
    def test_one_page_holds_models_and_media_and_needs_no_network(self, tmp_path):
        page = run(
            tmp_path,
            *losses(4.0, 3.0),
            metric(1, model="cnn", loss=1.0),
            log_events.HistogramEvent.unpublished("t", "w", 5, [1], [0, 1]),
        )

        text = page.read_text(encoding="utf-8")

        # What Plotly.newPlot is called with, once for each figure.
        assert text.count("Plotly.newPlot(") - text.count("e.Plotly.newPlot(") >= 3
        assert [f'id="plot-{n}"' in text for n in (1, 2, 3, 4)] == [True] * 3 + [False]
        assert 'src="http' not in text
        assert "<link" not in text
        assert len(text) > 1_000_000  # plotly is in it

    def test_names_cannot_become_script(self, tmp_path):
        text = run(tmp_path, metric(1, model=ODD, source=ODD, **{ODD: 1.0})).read_text(
            encoding="utf-8"
        )

        assert "<img" not in text[text.index('id="plot-1"') :]
        assert "<script>alert" not in text

    def test_by_default_the_page_is_written_at_the_end_alone(self, tmp_path):
        plotter = watch(*losses(4.0), par_dir=tmp_path, save="end", every_s=0.0)
        page = plotter.run_dir / "plots.html"

        plotter.flush()
        before = page.exists()
        plotter.notify(log_events.StopExperimentEvent.unpublished("Digits", "run"))

        assert (before, page.exists()) == (False, True)

    def test_it_may_be_written_at_each_update(self, tmp_path):
        plotter = watch(*losses(4.0), par_dir=tmp_path, save="update", every_s=0.0)

        plotter.flush()

        assert (plotter.run_dir / "plots.html").exists()

    def test_a_browser_is_opened_when_told_to_and_not_otherwise(
        self, tmp_path, monkeypatch
    ):
        opened = []
        monkeypatch.setattr(webbrowser, "open", opened.append)

        run(tmp_path / "quiet", *losses(4.0))
        assert opened == []

        page = run(tmp_path / "told", *losses(4.0), open_browser=True)
        assert opened == [page.as_uri()]


@pytest.mark.notebook
@pytest.mark.needs("anywidget")
class TestInPlace:
    def widget(self, plotter):
        return go.FigureWidget(plotter.plot())

    def test_an_update_changes_the_traces_that_are_shown(self):
        plotter = watch(*losses(4.0, 3.0))
        widget = self.widget(plotter)
        (line,) = widget.data
        widget.layout.xaxis.range = (0, 1)  # a reader has zoomed

        plotter.notify(metric(3, loss=2.0))
        sync(widget, plotter.plot())

        assert widget.data == (line,)
        assert points(line) == {1: 4.0, 2: 3.0, 3: 2.0}
        assert widget.layout.xaxis.range == (0, 1)

    def test_a_new_metric_becomes_a_panel_of_what_is_shown(self):
        plotter = watch(*losses(4.0))
        widget = self.widget(plotter)

        plotter.notify(metric(2, accuracy=0.5))
        sync(widget, plotter.plot())

        assert titles(widget) == ["loss", "accuracy"]
        assert [points(trace) for trace in widget.data] == [{1: 4.0}, {2: 0.5}]


def test_a_figure_can_be_kept_as_json_and_read_again():
    figure = watch(*losses(4.0, math.nan, 3.0)).plot()

    again = go.Figure(json.loads(figure.to_json()))

    assert [trace.meta for trace in again.data] == [t.meta for t in figure.data]
    assert json.loads(again.to_json()) == json.loads(figure.to_json())
