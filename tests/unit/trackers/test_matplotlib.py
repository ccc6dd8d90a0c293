from __future__ import annotations

import datetime
import gc
import math
import os
import pathlib
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from matplotlib import colors, rcParams
from matplotlib import image as mpl_image
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from drytrack.core import log_events
from drytrack.core.exceptions import ConfigurationError
from drytrack.core.experiment import Experiment
from drytrack.testing import TrackerContract
from drytrack.trackers._plot_style import LOOKS
from drytrack.trackers.base import MemoryMetrics
from drytrack.trackers.matplotlib import MatPlotter

NOW = datetime.datetime(2026, 11, 20, 23, 12, 1)
PNG = b"\x89PNG\r\n\x1a\n"


def start(par_dir="store", run_id="run", **fields):
    return log_events.StartExperimentEvent.unpublished(
        {}, "Digits", NOW, run_id, par_dir=pathlib.Path(par_dir), **fields
    )


def metric(epoch, model="mlp", source="train", **metrics):
    return log_events.MetricEvent.unpublished(model, source, epoch, metrics)


def watch(*events, par_dir="store", **options):
    plotter = MatPlotter(**{"formats": (), **options})
    plotter.notify(start(par_dir))
    for event in events:
        plotter.notify(event)
    return plotter


def losses(*values, **fields):
    return [metric(n, loss=value, **fields) for n, value in enumerate(values, start=1)]


def lines(axes):
    """The curves of a panel, without marks and what is behind."""
    return [line for line in axes.lines if line.get_zorder() == 3]


def data(line):
    return [column.tolist() for column in line.get_data()]


def legend_texts(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def boxes(figure):
    """Draw a figure; return what its panels and its legends cover, in pixels."""
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    panels = [axes.get_tightbbox(renderer) for axes in figure.axes]
    legends = [legend.get_window_extent(renderer) for legend in figure.legends]
    return panels, legends


def overlap(one, other):
    return min(one.x1, other.x1) - max(one.x0, other.x0) > 1 and (
        min(one.y1, other.y1) - max(one.y0, other.y0) > 1
    )


class TestMatPlotterContract(TrackerContract):
    def make_tracker(self, tmp_path):
        return MatPlotter(tmp_path, every_s=0.0)


class TestContent:
    def test_a_model_is_a_figure_with_a_panel_for_each_metric(self):
        plotter = watch(metric(1, loss=4.0, accuracy=0.5), metric(2, loss=3.0))

        figure = plotter.plot()

        assert isinstance(figure, Figure)
        assert [axes.get_title() for axes in figure.axes] == ["loss", "accuracy"]
        assert data(lines(figure.axes[0])[0]) == [[1, 2], [4, 3]]
        assert data(lines(figure.axes[1])[0]) == [[1], [0.5]]
        assert figure.axes[0].get_xlabel() == "epoch"
        assert figure.get_suptitle() == "mlp · Digits · run"

    def test_the_legend_names_the_sources_once(self):
        plotter = watch(
            *losses(4.0, 3.0),
            *losses(5.0, source="validation"),
            metric(1, accuracy=1.0),
        )

        assert legend_texts(plotter.plot()) == ["train", "validation"]

    def test_units_stand_behind_the_metric(self):
        plotter = watch(metric(1, time=4.0), units={"time": "s"})

        assert plotter.plot().axes[0].get_title() == "time [s]"

    def test_names_are_shown_as_they_are(self):
        plotter = watch(metric(1, source="_$x_1$", **{"$loss_2$": 1.0}))

        figure = plotter.plot()
        figure.canvas.draw()

        assert figure.axes[0].get_title() == "$loss_2$"
        assert legend_texts(figure) == ["_$x_1$"]
        assert not figure.axes[0].title.get_parse_math()

    def test_characters_that_the_font_lacks_cost_no_warning(self):
        plotter = watch(metric(1, source="訓練", **{"損失 é": 1.0}))

        figure = plotter.plot()
        figure.canvas.draw()  # a warning is an error in all tests

        assert figure.axes[0].get_title() == "□□ é"

    @pytest.mark.parametrize("last", [1, 2, 3, 7, 40, 5000])
    def test_ticks_are_whole_epochs(self, last):
        plotter = watch(metric(1, loss=1.0), metric(last, loss=1.0))
        figure = plotter.plot()
        figure.canvas.draw()

        ticks = figure.axes[0].get_xticks()

        assert len(ticks) > 0
        assert all(float(tick).is_integer() for tick in ticks)

    def test_gaps_are_marked_at_the_edge_and_explained(self):
        figure = watch(*losses(4.0, math.nan, 3.0, math.inf, 2.0)).plot()

        (axes,) = figure.axes
        ((_, values),) = [data(line) for line in lines(axes)]
        assert [math.isnan(value) for value in values] == [False, True] * 2 + [False]
        marks = {line.get_marker(): data(line) for line in axes.lines[1:]}
        assert [marks["x"][0], marks["^"][0]] == [[2], [4]]
        low, high = axes.get_ylim()
        assert low < marks["x"][1][0] < 2.0 < 4.0 < marks["^"][1][0] < high
        assert legend_texts(figure) == ["train", "NaN", "+inf"]

    def test_a_log_scale_is_one(self):
        plotter = watch(*losses(100.0, 1.0, 0.01))

        (axes,) = plotter.plot(log_scale=True).axes

        assert axes.get_yscale() == "log"
        assert axes.get_ylim()[0] < 0.01 < 100 < axes.get_ylim()[1]

    def test_a_smoothed_curve_stands_before_the_raw_one(self):
        plotter = watch(*losses(4.0, 2.0, 4.0))

        raw, smoothed = plotter.plot(half_life=1).axes[0].lines

        assert data(raw)[1] == [4.0, 2.0, 4.0]
        assert data(smoothed)[1] != [4.0, 2.0, 4.0]
        assert raw.get_alpha() < 1
        assert raw.get_zorder() < smoothed.get_zorder()

    def test_runs_are_a_mean_with_a_band(self):
        runs = []
        for value in (1.0, 3.0):
            runs.append(MemoryMetrics())
            for event in (start(), *losses(value, value)):
                runs[-1].notify(event)

        (axes,) = MatPlotter(band="range").plot("mlp", runs=runs).axes

        (band,) = axes.collections
        heights = band.get_paths()[0].vertices[:, 1]
        assert (heights.min(), heights.max()) == (1.0, 3.0)
        assert data(lines(axes)[0]) == [[1, 2], [2, 2]]
        assert axes.get_ylim()[0] < 1 < 3 < axes.get_ylim()[1]

    @pytest.mark.parametrize("theme", ["light", "dark"])
    def test_a_theme_is_on_everything_whatever_the_users_settings(
        self, theme, monkeypatch
    ):
        other = {"light": "black", "dark": "white"}[theme]
        for key in ("figure.facecolor", "axes.facecolor", "savefig.facecolor"):
            monkeypatch.setitem(rcParams, key, other)
        figure = watch(*losses(4.0), theme=theme).plot()
        look = LOOKS[theme]

        assert colors.to_hex(figure.get_facecolor()) == look.paper
        assert colors.to_hex(figure.axes[0].get_facecolor()) == look.paper
        assert colors.to_hex(figure.axes[0].title.get_color()) == look.ink
        assert lines(figure.axes[0])[0].get_color() == look.palette[0]

    def test_more_sources_than_colors_differ_by_their_dashes(self):
        names = [f"source {number}" for number in range(20)]
        figure = watch(*(metric(1, source=name, loss=1.0) for name in names)).plot()

        styles = {
            (line.get_color(), str(line._dash_pattern))
            for line in lines(figure.axes[0])
        }

        assert len(styles) == 20

    @pytest.mark.parametrize("count", [1, 4, 9, 25])
    @pytest.mark.parametrize("size", [None, (7.0, 5.0)])
    def test_panels_and_legend_cover_nothing_of_each_other(self, count, size):
        names = [f"layer {n}/gradient norm" for n in range(count)]
        events = [
            metric(epoch, source=source, **dict.fromkeys(names, 1234.5 / epoch))
            for epoch in range(1, 30)
            for source in ("train", "validation", "test")
        ]
        if size and count == 25:
            size = (14.0, 10.0)
        panels, legends = boxes(watch(*events, size=size).plot())

        everything = panels + legends
        assert len(panels) == count
        assert len(legends) == 1
        for number, box in enumerate(everything):
            for other in everything[number + 1 :]:
                assert not overlap(box, other)

    def test_a_long_name_stays_inside_its_panel(self):
        names = [f"{n}/" + "very_long_name" * 20 for n in range(4)]
        figure = watch(metric(1, **dict.fromkeys(names, 1.0)), size=(6.0, 4.0)).plot()

        panels, _ = boxes(figure)

        assert not overlap(panels[0], panels[1])
        assert all("…" in axes.get_title() for axes in figure.axes)

    def test_a_long_curve_is_reduced_with_its_spike(self):
        values = np.zeros(20_000)
        values[12_345] = 7.0
        events = [
            log_events.StepMetricEvent.unpublished(
                "train", step, {"loss": value}, model_name="mlp"
            )
            for step, value in enumerate(values.tolist())
        ]

        (axes,) = watch(*events).plot().axes

        steps, drawn = data(lines(axes)[0])
        assert len(steps) <= 2000
        assert dict(zip(steps, drawn, strict=True))[12_345] == 7.0
        assert axes.get_xlabel() == "step"


class TestMedia:
    def titles(self, figure):
        return [axes.get_title() for axes in figure.axes]

    def test_what_was_published_is_on_one_sheet(self):
        image = np.zeros((4, 6, 3), np.uint8)
        image[1, 2] = (255, 128, 0)
        figure = Figure(figsize=(2, 1))
        figure.add_subplot().plot([1, 2])
        plotter = watch(
            log_events.HistogramEvent.unpublished("t", "w", 5, [1, 4, 2], [0, 1, 2, 3]),
            log_events.ImageEvent.unpublished("t", "sample", 5, image, "a caption"),
            log_events.TableEvent.unpublished("t", "scores", 5, ["a", "b"], [[1, "x"]]),
            log_events.FigureEvent.unpublished("t", "curve", 5, figure),
        )

        (sheet,) = plotter.plot_media()

        assert self.titles(sheet) == [
            f"{name} · t · step 5" for name in ("w", "sample", "scores", "curve")
        ]
        histogram, picture, table, drawn = sheet.axes
        counts = histogram.patches[0].get_data()
        assert (list(counts.values), list(counts.edges)) == ([1, 4, 2], [0, 1, 2, 3])
        assert (np.asarray(picture.images[0].get_array()) == image).all()
        assert picture.get_xlabel() == "a caption"
        cells = table.tables[0].get_celld()
        found = [cells[place].get_text().get_text() for place in sorted(cells)]
        assert found == ["a", "b", "1", "x"]
        assert np.asarray(drawn.images[0].get_array()).ndim == 3

    def test_the_newest_counts_and_histograms_are_shown_over_time(self):
        plotter = watch(
            *(
                log_events.HistogramEvent.unpublished("t", "w", step, [step], [0, 1])
                for step in range(1, 200)
            ),
            *(
                log_events.ImageEvent.unpublished("t", "i", n, np.full((2, 2), n))
                for n in (1, 2)
            ),
        )

        (sheet,) = plotter.plot_media()

        drawn = [int(patch.get_data().values[0]) for patch in sheet.axes[0].patches]
        assert 2 < len(drawn) <= 6
        assert drawn == sorted(drawn)
        assert drawn[-1] == 199
        assert np.asarray(sheet.axes[1].images[0].get_array()).max() == 2

    def test_what_matplotlib_cannot_draw_is_said(self):
        svg = b"<svg xmlns='http://www.w3.org/2000/svg'/>"
        plotter = watch(log_events.ImageEvent.unpublished("t", "drawing", 1, svg))

        (sheet,) = plotter.plot_media()

        assert "svg" in sheet.axes[0].texts[0].get_text()

    def test_more_than_a_sheet_holds_goes_to_the_next(self):
        events = [
            log_events.HistogramEvent.unpublished("t", f"w{n}", 1, [1], [0, 1])
            for n in range(30)
        ]

        assert [len(sheet.axes) for sheet in watch(*events).plot_media()] == [25, 5]


class TestFiles:
    def run(self, tmp_path, *events, **options):
        plotter = MatPlotter(tmp_path, **options)
        experiment = Experiment({}, name="Digits", par_dir=tmp_path)
        experiment.trackers.remove_all()
        experiment.trackers.subscribe(plotter)
        with experiment.create_run("run") as run:
            for event in events:
                run.experiment.trackers.publish(event)
        return tmp_path / "matplotlib" / "Digits" / "run"

    def test_each_model_has_a_file_in_each_format(self, tmp_path):
        folder = self.run(
            tmp_path,
            metric(1, model="gen/a", loss=1.0),
            metric(1, model="disc", loss=1.0),
            log_events.StepMetricEvent.unpublished("train", 1, {"loss": 1.0}),
            formats=["png", "svg", "pdf"],
        )

        found = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")}

        stems = ("models/disc", "models/gen%2Fa", "run")
        assert found == {f"{s}.{kind}" for s in stems for kind in ("png", "svg", "pdf")}
        assert (folder / "run.png").read_bytes().startswith(PNG)
        assert (folder / "run.pdf").read_bytes().startswith(b"%PDF")
        assert b"<svg" in (folder / "run.svg").read_bytes()

    def test_models_that_differ_in_case_alone_have_files_of_their_own(self, tmp_path):
        folder = self.run(
            tmp_path,
            *(metric(1, model=name, loss=1.0) for name in ("MLP", "mlp", "Mlp")),
        )

        names = [path.name.casefold() for path in (folder / "models").iterdir()]

        assert len(set(names)) == 3

    @pytest.mark.parametrize("save", ["update", "end"])
    def test_the_file_at_the_end_shows_the_whole_run(self, tmp_path, save):
        theirs = self.run(tmp_path / save, *losses(4.0, 3.0, 2.0), save=save)
        plotter = watch(*losses(4.0, 3.0, 2.0))
        plotter.plot().savefig(tmp_path / "expected.png")

        found = mpl_image.imread(theirs / "models" / "mlp.png")

        expected = mpl_image.imread(tmp_path / "expected.png")
        assert (found == expected).all()

    def test_a_file_at_each_update_is_there_before_the_end(self, tmp_path):
        plotter = MatPlotter(tmp_path, every_s=0.0)
        plotter.notify(start())
        plotter.notify(metric(1, loss=1.0))
        plotter.flush()

        assert (plotter.run_dir / "models" / "mlp.png").exists()

    def test_media_are_saved_beside_the_curves(self, tmp_path):
        event = log_events.HistogramEvent.unpublished("t", "w", 1, [1], [0, 1])

        folder = self.run(tmp_path, event)

        assert (folder / "media.png").read_bytes().startswith(PNG)

    def test_media_are_drawn_where_they_are_seen_alone(self, tmp_path):
        drawn = []

        class Counting(MatPlotter):
            def plot_media(self):
                drawn.append(super().plot_media())
                return drawn[-1]

        plotter = Counting(tmp_path, save="end", every_s=0.0)
        plotter.notify(start())
        histogram = log_events.HistogramEvent.unpublished("t", "w", 1, [1], [0, 1])
        plotter.notify(histogram)
        plotter.flush()
        before, path = len(drawn), plotter.run_dir / "media.png"
        plotter.notify(log_events.StopExperimentEvent.unpublished("Digits", "run"))

        assert (before, len(drawn)) == (0, 1)
        assert path.exists()

    def test_an_unknown_format_or_theme_is_refused_at_once(self):
        with pytest.raises(ConfigurationError, match="'gif'"):
            MatPlotter(formats="gif")
        with pytest.raises(ConfigurationError, match="'sepia'"):
            MatPlotter(theme="sepia")

    def test_what_fails_late_is_told_by_the_next_flush(self, tmp_path):
        plotter = MatPlotter(tmp_path, every_s=0.05)
        plotter.notify(start())
        plotter.notify(metric(1, loss=1.0))
        plotter.flush()
        blocked = plotter.run_dir / "models" / "mlp.png"
        blocked.unlink()
        blocked.mkdir()

        def update_until_it_fails():
            for epoch in range(2, 2000):
                plotter.notify(metric(epoch, loss=1.0))
                plotter.flush()
                time.sleep(0.01)

        with pytest.raises(OSError, match="mlp"):
            update_until_it_fails()

        blocked.rmdir()
        plotter.notify(log_events.StopExperimentEvent.unpublished("Digits", "run"))
        assert blocked.is_file()


class TestUpdates:
    def test_an_update_moves_the_same_artists(self):
        plotter = watch(*losses(4.0), every_s=0.0)
        plotter.flush()
        figure = plotter._figures["mlp"]
        (line,) = lines(figure.axes[0])

        plotter.notify(metric(2, loss=3.0))
        plotter._update()

        assert plotter._figures["mlp"] is figure
        assert lines(figure.axes[0]) == [line]
        assert data(line) == [[1, 2], [4, 3]]
        assert figure.axes[0].get_xlim()[1] > 2

    def test_a_new_metric_is_a_new_panel_of_the_same_figure(self):
        plotter = watch(*losses(4.0), every_s=0.0)
        plotter.flush()
        figure = plotter._figures["mlp"]

        plotter.notify(metric(2, accuracy=0.5))
        plotter._update()

        assert plotter._figures["mlp"] is figure
        assert [axes.get_title() for axes in figure.axes] == ["loss", "accuracy"]

    def test_what_is_no_longer_shown_is_removed(self):
        plotter = watch(*losses(math.nan, 4.0), first=-1)
        plotter.flush()
        plotter.notify(metric(1, loss=math.nan))
        figure = plotter._figures["mlp"]
        assert len(figure.axes[0].lines) == 1

        plotter.notify(metric(3, loss=math.nan))
        plotter._update()
        assert len(figure.axes[0].lines) == 2

        plotter.notify(metric(4, loss=1.0))
        plotter._update()
        assert len(figure.axes[0].lines) == 1
        assert legend_texts(figure) == ["train"]

    def test_a_plot_is_not_the_live_figure(self):
        plotter = watch(*losses(4.0))
        plotter.flush()

        assert plotter.plot() is not plotter._figures["mlp"]
        assert plotter.plot() is not plotter.plot()

    def test_many_updates_keep_as_many_objects_as_few(self, tmp_path):
        plotter = MatPlotter(tmp_path)
        plotter.notify(start())

        def update(first, last):
            for epoch in range(first, last):
                for source in ("train", "validation"):
                    plotter.notify(metric(epoch, source=source, loss=math.nan, f1=1.0))
                plotter._update()
            gc.collect()
            kinds = (Figure, FigureCanvasAgg)
            artists = sum(len(axes.lines) for axes in plotter._figures["mlp"].axes)
            return artists, sum(issubclass(type(o), kinds) for o in gc.get_objects())

        few, many = update(1, 4), update(4, 24)

        assert many[0] == few[0]
        assert many[1] <= few[1]  # those of other tests may have gone

    def test_the_end_lets_go_of_the_figures(self, tmp_path):
        def count():
            gc.collect()
            return sum(issubclass(type(o), Figure) for o in gc.get_objects())

        before = count()
        plotter = watch(*losses(4.0), par_dir=tmp_path)
        plotter.flush()
        assert count() == before + 1

        plotter.notify(log_events.StopExperimentEvent.unpublished("Digits", "run"))

        assert count() == before


def test_pyplot_and_its_settings_are_left_alone(tmp_path):
    code = (
        "import sys, matplotlib\n"
        "before = dict.__getitem__(matplotlib.rcParams, 'backend')\n"
        "from drytrack import Experiment, init_trackers\n"
        "from drytrack.core import log_events\n"
        "from drytrack.trackers.matplotlib import MatPlotter\n"
        "init_trackers('none')\n"
        f"experiment = Experiment({{}}, name='Digits', par_dir={str(tmp_path)!r})\n"
        "plotter = MatPlotter()\n"
        "experiment.trackers.subscribe(plotter)\n"
        "with experiment.create_run('run'):\n"
        "    log_events.MetricEvent('mlp', 'train', 1, {'loss': 1.0})\n"
        "plotter.plot()\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "assert dict.__getitem__(matplotlib.rcParams, 'backend') is before\n"
    )

    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)

    assert list(tmp_path.rglob("mlp.png"))


def test_a_notebook_shows_a_figure_that_plot_returns():
    figure = watch(*losses(4.0)).plot()

    data, size = figure._repr_png_()
    assert data.startswith(PNG)
    # Sharp where pixels are small, and as large as a live figure.
    assert int.from_bytes(data[16:20], "big") > size["width"] > size["height"]


class TestWindows:
    def test_without_a_backend_for_windows_show_says_what_to_do(self, monkeypatch):
        monkeypatch.setenv("MPLBACKEND", "agg")

        with pytest.raises(ConfigurationError, match="opens windows"):
            watch(*losses(4.0)).show()

    @pytest.mark.backend
    @pytest.mark.needs("PySide6")
    def test_a_window_is_opened_once_and_follows_the_run(self):
        screen = [] if os.environ.get("DISPLAY") else ["xvfb-run", "-a"]
        if screen and not shutil.which("xvfb-run"):
            pytest.skip("needs a screen, or Debian's xvfb")  # Qt ends without one
        code = (
            "import os\n"
            "os.environ.update(MPLBACKEND='qtagg')\n"
            "import datetime, pathlib, sys, threading\n"
            "from drytrack.core import log_events as e\n"
            "from drytrack.trackers.matplotlib import MatPlotter\n"
            "plotter = MatPlotter(formats=())\n"
            "plotter.notify(e.StartExperimentEvent.unpublished(\n"
            "    {}, 'Digits', datetime.datetime.now(), 'run'))\n"
            "for epoch in (1, 2, 3):\n"
            "    plotter.notify(e.MetricEvent.unpublished(\n"
            "        'mlp', 'train', epoch, {'loss': 1 / epoch}))\n"
            "    plotter.show()\n"
            "(window,) = plotter._windows.values()\n"
            "(axes,) = window.canvas.figure.axes\n"
            "assert window.window.isVisible()\n"
            "assert axes.lines[0].get_xdata().tolist() == [1, 2, 3]\n"
            "assert 'matplotlib.pyplot' not in sys.modules or not "
            "sys.modules['matplotlib.pyplot'].get_fignums()\n"
            "failed = []\n"
            "def off_the_main_thread():\n"
            "    try:\n"
            "        plotter.show()\n"
            "    except ValueError as err:\n"
            "        failed.append(str(err))\n"
            "thread = threading.Thread(target=off_the_main_thread)\n"
            "thread.start(); thread.join()\n"
            "assert 'main thread' in failed[0]\n"
            "plotter.close()\n"
            "assert not window.window.isVisible()\n"
            "plotter.show()\n"
            "assert plotter._windows['mlp'] is not window\n"
        )

        done = subprocess.run(
            [*screen, sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=False,
        )

        assert done.returncode == 0, done.stderr
