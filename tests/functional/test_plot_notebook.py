"""Plots in a real notebook kernel: shown once, and changed where they are."""

from __future__ import annotations

import base64

import pytest

pytestmark = [
    pytest.mark.notebook,
    pytest.mark.needs("anywidget", "ipykernel", "nbclient"),
]

SETUP = """
from drytrack import Experiment, init_trackers
from drytrack.core import log_events
init_trackers("none")
experiment = Experiment({}, name="Digits", par_dir="experiments")
experiment.trackers.subscribe(PLOTTER)
run = experiment.create_run("run")
run.start();
"""
FIRST = """
log_events.MetricEvent("mlp", "train", 1, {"loss": 4.0})
run.flush(20);
"""
SECOND = """
log_events.MetricEvent("mlp", "train", 2, {"loss": 3.0, "accuracy": 0.5})
run.flush(20);
run.stop();
"""


@pytest.fixture
def execute(tmp_path, monkeypatch):
    import nbclient
    import nbformat

    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")

    def run(*sources):
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        notebook = nbformat.v4.new_notebook(cells=cells)
        folder = {"metadata": {"path": str(tmp_path)}}
        nbclient.NotebookClient(notebook, timeout=60, resources=folder).execute()
        return notebook

    return run


def data_of(cell):
    return [output.data for output in cell.outputs if output.output_type != "stream"]


def test_a_matplotlib_figure_is_shown_once_and_updated_in_its_cell(execute):
    plotter = "from drytrack.trackers.matplotlib import MatPlotter\n"
    setup = SETUP.replace("PLOTTER", "MatPlotter(every_s=0.0)")

    half = execute(plotter + setup, FIRST, "run.stop();")
    full = execute(plotter + setup.replace('"run"', '"again"'), FIRST, SECOND)

    assert [len(data_of(cell)) for cell in half.cells] == [0, 1, 0]
    assert [len(data_of(cell)) for cell in full.cells] == [0, 1, 0]
    pictures = [data_of(nb.cells[1])[0]["image/png"] for nb in (half, full)]
    sizes = [_width(base64.b64decode(picture)) for picture in pictures]
    assert sizes[0] < sizes[1]  # two panels have come to stand where one was


def _width(png):
    assert png.startswith(b"\x89PNG")
    return int.from_bytes(png[16:20], "big")


def test_a_plotly_figure_is_a_widget_that_is_updated_in_its_cell(execute):
    setup = "from drytrack.trackers.plotly import PlotlyPlotter\nplotter = "
    setup += "PlotlyPlotter(every_s=0.0)" + SETUP.replace("PLOTTER", "plotter")
    look = (
        "(widget,) = plotter._shown.values()\n"
        "before = len(widget.data), [*widget.data[0].x]"
    )

    notebook = execute(setup, FIRST, look, SECOND, "before, len(widget.data)")

    assert [len(data_of(cell)) for cell in notebook.cells] == [0, 1, 0, 0, 1]
    kind = "application/vnd.jupyter.widget-view+json"
    assert kind in data_of(notebook.cells[1])[0]
    (result,) = data_of(notebook.cells[4])
    assert result["text/plain"] in ("((1, [1.0]), 2)", "((1, [np.float64(1.0)]), 2)")


def test_a_figure_that_plot_returns_is_shown(execute):
    setup = (
        "from drytrack.trackers.matplotlib import MatPlotter\n"
        "plotter = MatPlotter(in_notebook=False)" + SETUP.replace("PLOTTER", "plotter")
    )

    notebook = execute(setup, FIRST, "plotter.plot()", "run.stop();")

    assert [len(data_of(cell)) for cell in notebook.cells] == [0, 0, 1, 0]
    assert "image/png" in data_of(notebook.cells[2])[0]
