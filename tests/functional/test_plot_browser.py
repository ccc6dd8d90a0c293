"""A page of plots in a real browser: it draws, it can be clicked, nothing fails."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import subprocess
import time
import urllib.request

import numpy as np
import plotly.graph_objects as go
import pytest

from drytrack.core import log_events
from drytrack.core.experiment import Experiment
from drytrack.trackers.plotly import PlotlyPlotter

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not (shutil.which("chromium") and shutil.which("chromedriver")),
        reason="needs chromium and chromedriver",
    ),
]

OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1200,1600",
    # A page that asks for anything from the network gets an error, and says so.
    "--host-resolver-rules=MAP * ~NOTFOUND",
]
ODD = "<img src=x onerror=alert(1)>"


class Browser:
    """Chromium, driven by the WebDriver protocol (W3C, 2018)."""

    def __init__(self, port, profile):
        self._url = f"http://127.0.0.1:{port}/session"
        chrome = {
            "binary": shutil.which("chromium"),
            "args": [*OPTIONS, f"--user-data-dir={profile}"],
        }
        wanted = {"goog:chromeOptions": chrome, "goog:loggingPrefs": {"browser": "ALL"}}
        session = self._ask("", {"capabilities": {"alwaysMatch": wanted}})
        self._url += f"/{session['sessionId']}"

    def _ask(self, path, body=None, method="POST"):
        data = json.dumps(body or {}).encode() if method == "POST" else None
        request = urllib.request.Request(self._url + path, data, method=method)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)["value"]

    def open(self, path):
        self._ask("/url", {"url": path.as_uri()})

    def run(self, script):
        return self._ask("/execute/sync", {"script": script, "args": []})

    def click(self, selector):
        found = self._ask("/element", {"using": "css selector", "value": selector})
        (element,) = found.values()
        self._ask(f"/element/{element}/click")

    def wait_for(self, script, timeout_s=20.0):
        deadline = time.monotonic() + timeout_s
        while not (found := self.run(script)):
            assert time.monotonic() < deadline, f"never true: {script}"
            time.sleep(0.1)
        return found

    def problems(self):
        lines = self._ask("/se/log", {"type": "browser"})
        return [line["message"] for line in lines if line["level"] != "INFO"]

    def close(self):
        self._ask("", method="DELETE")


@pytest.fixture
def browser(tmp_path):
    driver = subprocess.Popen(
        [shutil.which("chromedriver"), "--port=0"], stdout=subprocess.PIPE, text=True
    )
    try:
        port = next(
            line.rpartition(" ")[2].strip(" .\n")
            for line in driver.stdout
            if "on port" in line and "successfully" in line
        )
        with contextlib.closing(Browser(port, tmp_path / "profile")) as opened:
            yield opened
    finally:
        driver.terminate()
        driver.communicate(timeout=10)


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
