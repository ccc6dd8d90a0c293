"""A page of plots in a real browser: it draws, it can be clicked, nothing fails."""

from __future__ import annotations

import math

import numpy as np
import plotly.graph_objects as go
import pytest

from drytrack.core import log_events
from drytrack.core.experiment import Experiment
from drytrack.trackers.plotly import PlotlyPlotter

pytestmark = [pytest.mark.browser, pytest.mark.needs("selenium")]

ODD = "<img src=x onerror=alert(1)>"


@pytest.fixture
def page(tmp_path):
    experiment = Experiment({}, name="Digits", par_dir=tmp_path)
    experiment.trackers.remove_all()
    experiment.trackers.subscribe(PlotlyPlotter(tmp_path))
    with experiment.create_run("run"):
        for epoch in range(1, 21):
            for source in ("train", "validation"):
                loss = math.nan if epoch == 5 else 1 / epoch
                metrics = {"loss": loss, "accuracy": 1 - 1 / epoch, ODD: 1.0}
                log_events.MetricEvent("mlp", source, epoch, metrics)
        log_events.HistogramEvent("trainer", "weights", 1, [1, 3, 2], [0, 1, 2, 3])
        pixels = np.full((8, 8, 3), 128, np.uint8)
        log_events.ImageEvent("trainer", "sample", 1, pixels, caption=ODD)
        log_events.TableEvent("test", ODD, 1, [ODD], [[ODD]])
        log_events.FigureEvent("test", "own", 1, go.Figure(go.Bar(y=[1, 2])))
    return tmp_path / "plotly" / "Digits" / "run" / "plots.html"


def test_a_page_draws_and_its_legend_can_be_clicked(browser, page):
    browser.open(page)
    browser.wait_for("return document.querySelectorAll('.js-plotly-plot').length == 5")
    browser.wait_for("return document.querySelectorAll('#plot-1 .legendtext').length")

    shown = browser.run(
        "return document.getElementById('plot-1')._fullData"
        ".map(t => [t.meta.part, t.name, t.visible])"
    )
    lines = [trace for trace in shown if trace[0] == "line"]
    assert sorted(lines) == sorted(
        ["line", name, True] for name in ("train", "validation") for _ in range(3)
    )

    legend = browser.run(
        "return [...document.querySelectorAll('#plot-1 .legendtext')]"
        ".map(t => t.textContent)"
    )
    assert legend == ["train", "validation", "NaN"]

    browser.click("#plot-1 .legendtoggle")
    browser.wait_for(
        "return document.getElementById('plot-1')._fullData"
        ".filter(t => t.name == 'train').every(t => t.visible == 'legendonly')"
    )
    others = browser.run(
        "return document.getElementById('plot-1')._fullData"
        ".filter(t => t.name == 'validation').every(t => t.visible === true)"
    )
    assert others

    assert browser.problems() == []


def test_names_in_a_page_are_text_and_nothing_is_sent_anywhere(browser, page):
    browser.open(page)
    browser.wait_for("return document.querySelectorAll('#plot-5 .bars path').length")

    titles = browser.run(
        "return [...document.querySelectorAll('#plot-1 .annotation-text')]"
        ".map(t => t.textContent)"
    )
    assert titles == ["loss", "accuracy", ODD]
    assert browser.run("return document.querySelectorAll('img').length") == 0

    buttons = browser.run(
        "return [...document.querySelectorAll('.modebar-btn')]"
        ".map(b => b.dataset.title)"
    )
    assert any("Zoom" in title for title in buttons)
    assert not any(
        word in title.lower()
        for title in buttons
        for word in ("share", "cloud", "edit")
    )
    assert browser.run("return performance.getEntriesByType('resource').length") == 0
    assert browser.problems() == []
