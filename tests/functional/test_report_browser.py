"""A report in a real browser: switches, themes, paper, and names that would run."""

from __future__ import annotations

import base64
import math

import numpy as np
import plotly.graph_objects as go
import pytest

import drytrack
from drytrack import Experiment
from drytrack.core import log_events
from drytrack.report import write_report
from drytrack.trackers._plot_points import smooth

pytestmark = [pytest.mark.browser, pytest.mark.needs("selenium")]

HOSTILE = "</script></template><img src=x onerror='window.ran=1'>%{y}<b>"
READY = "return document.documentElement.dataset.ready"
LOSS = "document.querySelector('#curves .plot')"


@pytest.fixture
def make_report(tmp_path):
    """Return what writes a report about runs of the given names."""
    drytrack.init_trackers("none")

    def make(*run_ids, name="loss"):
        for number, run_id in enumerate(run_ids, start=1):
            config = {name: number, "seed": 0}
            experiment = Experiment(config, name="Digits", par_dir=tmp_path)
            with experiment.create_run(run_id):
                publish(number, name)
        path = tmp_path / "report.html"
        return write_report(drytrack.open_store(tmp_path).runs(), path)

    yield make
    drytrack.init_trackers("standard")


def publish(number, name):
    for epoch in range(1, 41):
        for source, part in (("train", 1.0), ("validation", 1.5)):
            loss = math.nan if epoch == 5 else part / epoch / number
            metrics = {name: loss, "change": 0.5 - epoch / 10}
            log_events.MetricEvent("net", source, epoch, metrics)
    for step in range(5_000):
        log_events.StepMetricEvent("train", step, {"noisy": math.sin(step / 500)})
    for step in (1, 2, 3):
        log_events.HistogramEvent("train", name, step, [1, 3, step], [0, 1, 2, 3])
    log_events.LearningRateEvent("net", "train", 1, 0.1, name)
    pixels = np.full((8, 8), 100, np.uint8)
    log_events.ImageEvent("train", name, 1, pixels, caption=name)
    log_events.TableEvent("test", name, 1, [name], [[name]])
    log_events.TextEvent("test", name, 1, name)
    figure = go.Figure(go.Bar(x=[name], y=[1], name=name), {"title": {"text": name}})
    log_events.FigureEvent("test", name, 1, figure)


def show(browser, path):
    """Open a page and wait until each of its charts is drawn."""
    browser.open(path)
    browser.wait_for(READY)
    count = browser.run("return document.querySelectorAll('.plot').length")
    for number in range(count):
        place = f"document.querySelectorAll('.plot')[{number}]"
        browser.run(f"{place}.scrollIntoView()")
        browser.wait_for(f"return {place}.dataset.drawn && {place}.layout")
    browser.run("scrollTo(0, 0)")
    return count


def set_smoothing(browser, value):
    browser.run(
        "const s = document.getElementById('smooth'); s.value = arguments[0];"
        "s.dispatchEvent(new Event('input'))",
        value,
    )


def traces(browser, place=LOSS):
    return browser.run(
        f"return {place}.data.map(t => [t.meta, t.name, [...t.x], [...t.y]])"
    )


def test_a_report_draws_and_its_legend_can_be_clicked(browser, make_report):
    browser.look(width=1400)
    count = show(browser, make_report("a", "b"))

    assert count == 8  # 3 metrics, learning rate, 2 histograms, 2 figures
    legend = browser.run(
        "const box = document.querySelector('#curves .legend');"
        "return [...box.querySelectorAll('button')].map(b => b.textContent)"
    )
    assert legend == ["a · train", "a · validation", "b · train", "b · validation"]
    lines = [name for part, name, _, _ in traces(browser) if part == "line"]
    assert lines == legend

    browser.click("#curves .legend button:nth-child(2)")

    for place in (LOSS, "document.querySelectorAll('#curves .plot')[1]"):
        lines = [name for part, name, _, _ in traces(browser, place) if part == "line"]
        assert lines == ["a · train", "b · train", "b · validation"]
    assert "b · train" in [name for _, name, _, _ in traces(browser)]

    browser.click("#curves .legend button:nth-child(2)")

    assert len([1 for part, *_ in traces(browser) if part == "line"]) == 4
    assert browser.problems() == []


def test_a_double_click_shows_a_curve_alone_and_another_all_again(browser, make_report):
    browser.look(width=1400)
    show(browser, make_report("a", "b"))

    def double_click(selector):
        # As a mouse does, whatever time a busy machine takes between the clicks.
        browser.run(
            "const place = document.querySelector(arguments[0]);"
            "place.click(); place.click();"
            "place.dispatchEvent(new MouseEvent('dblclick', {bubbles: true}))",
            selector,
        )

    def drawn():
        return [name for part, name, _, _ in traces(browser) if part == "line"]

    every = drawn()
    double_click("#curves .legend button:nth-child(3)")
    assert drawn() == ["b · train"]

    double_click("#curves .legend button:nth-child(3)")
    assert drawn() == every
    assert browser.problems() == []


def test_parameters_that_are_the_same_can_be_hidden(browser, make_report):
    path = make_report("a", "b")
    rows = (
        "return [...document.querySelectorAll('#params tbody tr')]"
        ".filter(row => row.offsetHeight).map(row => row.cells[0].textContent)"
    )
    show(browser, path)
    assert browser.run(rows) == ["loss", "seed"]

    browser.click("#differing")
    assert browser.run(rows) == ["loss"]

    browser.click("#differing")
    assert browser.run(rows) == ["loss", "seed"]
    assert browser.problems() == []


def test_log_scale_is_switched_for_what_has_a_logarithm(browser, make_report):
    browser.look(width=1400)
    show(browser, make_report("a"))
    scales = (
        "return [...document.querySelectorAll('#curves .plot')]"
        ".map(p => p._fullLayout.yaxis.type)"
    )
    change = "[...document.querySelectorAll('#curves .plot')][1]"
    assert browser.run(scales) == ["linear"] * 3

    browser.click("#log")

    assert browser.run(scales) == ["log"] * 3
    found = {part: (x, y) for part, _, x, y in traces(browser, change)}
    assert found["line"][1][:6] == [0.4, 0.3, 0.2, 0.1, None, None]
    assert found["<= 0"][0] == list(range(5, 41))

    browser.click("#log")

    assert browser.run(scales) == ["linear"] * 3
    assert "<= 0" not in {part for part, *_ in traces(browser, change)}
    assert browser.problems() == []


def test_smoothing_is_the_average_that_plotters_draw(browser, make_report):
    browser.look(width=1400)
    show(browser, make_report("a"))
    before = traces(browser)

    set_smoothing(browser, 50)

    said = browser.run("return document.getElementById('half-life').textContent")
    assert said == "half-life 6.3 % of a curve"
    found = [t for t in traces(browser) if t[1] == "train" and t[0] in ("raw", "line")]
    (_, _, _, raw), (_, _, steps, drawn) = found
    assert raw == next(y for part, _, _, y in before if part == "line")
    values = [math.nan if value is None else value for value in raw]
    half_life = 0.25 * 0.5**2 * (steps[-1] - steps[0])
    expected = smooth(np.array(steps, float), np.array(values), half_life=half_life)
    assert [value is None for value in drawn] == np.isnan(expected).tolist()
    assert [v for v in drawn if v is not None] == pytest.approx(
        expected[~np.isnan(expected)].tolist()
    )

    set_smoothing(browser, 0)

    assert traces(browser) == before
    assert browser.problems() == []


def test_a_long_curve_is_smoothed_as_if_all_its_points_were_there(browser, make_report):
    show(browser, make_report("a"))
    noisy = "document.querySelectorAll('#curves .plot')[2]"

    set_smoothing(browser, 40)

    (steps, drawn) = next(t[2:] for t in traces(browser, noisy) if t[0] == "line")
    assert len(drawn) == 1_000
    every = np.arange(5_000, dtype=float)
    # From where a curve begins the slider counts as it does for the points drawn.
    half_life = 0.25 * 0.4**2 * every[-1]
    expected = smooth(every, np.sin(every / 500), half_life=half_life)
    assert drawn == pytest.approx(np.interp(steps, every, expected).tolist(), abs=0.01)


@pytest.mark.parametrize("width", [400, 1400])
def test_a_page_fits_the_screen_in_light_and_dark(width, browser, make_report):
    path = make_report("a", "b")
    ink = f"return {LOSS}._fullLayout.font.color"
    seen = {}
    for dark in (False, True):
        browser.look(width=width, dark=dark)
        show(browser, path)

        assert browser.run("return document.documentElement.scrollWidth") <= width
        paper = browser.run("return getComputedStyle(document.body).backgroundColor")
        seen[dark] = paper, browser.run(ink)
        assert browser.driver.get_screenshot_as_png().startswith(b"\x89PNG")

    assert seen[False] == ("rgb(255, 255, 255)", "#1b1f24")
    assert seen[True] == ("rgb(20, 23, 28)", "#e8eaed")
    # A reader may change the theme of an open page.
    browser.look(width=width, dark=False)
    browser.wait_for(f"{ink} == '#1b1f24'")
    assert browser.problems() == []


def test_paper_gets_light_colors_and_everything_unfolded(browser, make_report):
    browser.look(width=1000, dark=True)
    browser.open(make_report("a"))
    browser.wait_for(READY)

    # The page's own listener comes first.
    browser.run(
        "addEventListener('beforeprint', () => { window.seen = ["
        "  getComputedStyle(document.querySelector('.legend line')).stroke,"
        f"  {LOSS}._fullLayout.font.color,"
        "  document.querySelectorAll('details:not([open])').length] })"
    )

    printed = base64.b64decode(browser.driver.print_page())

    assert printed.startswith(b"%PDF")
    assert browser.run("return window.seen") == ["rgb(0, 114, 178)", "#1b1f24", 0]
    browser.wait_for(
        "return [...document.querySelectorAll('.plot')].every(p => p.dataset.drawn)"
    )
    # Afterwards the page is as it was.
    browser.wait_for(f"return {LOSS}._fullLayout.font.color == '#e8eaed'")
    browser.wait_for(
        f"return Math.abs({LOSS}._fullLayout.width - {LOSS}.clientWidth) < 1"
    )
    folded = browser.run(
        "return document.querySelectorAll('details:not([open])').length"
    )
    assert folded > 0
    assert browser.problems() == []


def test_names_are_text_wherever_they_stand(browser, make_report):
    show(browser, make_report("a", "b", name=HOSTILE))

    sources = browser.run("return [...document.images].map(i => i.src.slice(0, 22))")
    titles = browser.run(
        "return [...document.querySelectorAll('#curves figcaption')]"
        ".map(c => c.textContent)"
    )
    assert sources == ["data:image/png;base64,"] * 2
    assert titles[0] == HOSTILE
    browser.run(f"Plotly.Fx.hover({LOSS}, [{{curveNumber: 0, pointNumber: 3}}])")
    assert browser.run("return window.ran") is None
    assert browser.run("return performance.getEntriesByType('resource').length") == 0
    assert browser.problems() == []


def test_a_script_that_came_into_the_page_would_not_run(browser, make_report):
    browser.open(make_report("a"))
    browser.wait_for(READY)

    browser.run(
        "const s = document.createElement('script'); s.textContent = 'window.ran = 1';"
        "document.body.append(s);"
        "const d = document.createElement('div');"
        'd.innerHTML = \'<img src="data:," onerror="window.ran = 2">\';'
        "document.body.append(d)"
    )

    blocked = browser.wait_for("return document.images[1].complete")
    assert blocked
    assert browser.run("return window.ran") is None
    problems = browser.problems()
    assert problems
    assert all("Content Security Policy" in problem for problem in problems)
