"""The report: what stands in it, and that nothing in it can run."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import itertools
import json
import math
import re
import sys
from html.parser import HTMLParser

import numpy as np
import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st

import drytrack
from drytrack import Experiment, _report_media
from drytrack._report_contents import read_run
from drytrack._report_curves import build_curve, build_history
from drytrack.core import log_events
from drytrack.core._history import Series
from drytrack.core.exceptions import MissingDependencyError
from drytrack.report import make_report, write_report
from drytrack.trackers._plot_media import Medium
from drytrack.trackers.sqlalchemy import SQLConnection

HOSTILE = "</script><img src=x onerror=alert(1)>\"'{{ 7 * 7 }}"
EXECUTED = {None, "", "module", "text/javascript", "application/javascript"}


pytestmark = pytest.mark.usefixtures("no_default_trackers")


@pytest.fixture
def experiment(tmp_path):
    config = {"lr": 0.1, "opt": {"name": "adam"}}
    return Experiment(config, name="Digits", par_dir=tmp_path, tags=["mlp"])


def stored(folder, experiment="Digits"):
    return drytrack.open_store(folder).runs(experiment)


def publish_everything(run, name="loss"):
    """Publish one event of each kind, with one name for all that has one."""

    class Net:
        def __repr__(self):
            return f"Net({name})"

    run.register_model(Net(), "net")
    for epoch in (1, 2, 3):
        log_events.MetricEvent("net", "train", epoch, {name: 1 / epoch})
        log_events.LearningRateEvent("net", "train", epoch, 0.1 / epoch, "StepLR")
        log_events.HistogramEvent("train", name, epoch, [1, 3], [0, epoch, 2 * epoch])
        pixels = np.full((4, 4), 60 * epoch, np.uint8)
        log_events.ImageEvent("train", name, epoch, pixels, caption=name)
    log_events.SaveModelEvent("net", "weights", f"{name}.pt", 3)
    log_events.StepMetricEvent("train", 5, {name: 0.5}, {"split": name})
    log_events.TableEvent("test", name, 3, [name, "n"], [[name, 1]])
    log_events.TextEvent("test", name, 3, f"A note: {name}.")
    log_events.FigureEvent("test", name, 3, go.Figure(go.Bar(y=[7], name=name)))
    log_events.ParamsEvent({name: name})
    log_events.SummaryEvent({name: name})


def unpack(page):
    found = re.search(r'<script [^>]*id="data">([^<]*)</script>', page)
    return json.loads(gzip.decompress(base64.b64decode(found[1])))


class Page(HTMLParser):
    """What a browser makes of a page: its elements, and what can be read."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.elements = [("", {})]
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.elements[-1][0] not in ("script", "style"):
            self.text += data


def test_a_report_tells_what_ran_and_how_it_went(experiment, tmp_path):
    with experiment.create_run("first") as run:
        publish_everything(run)

    page = make_report(stored(tmp_path))

    read = Page(page).text
    for told in (
        "Digits · first",
        "completed",
        "mlp",
        "opt.name",
        "adam",
        "net · loss",
        "0.33333 @3",
        "StepLR",
        "loss.pt",
        "Net(loss)",
        "A note: loss.",
        "python.version",
        "Costs of trackers",
        "journal",
    ):
        assert told in read, told
    data = unpack(page)
    (epochs, steps) = data["curves"]
    assert (epochs["model"], epochs["axis"], epochs["labels"]) == (
        "net",
        "epoch",
        ["train"],
    )
    (panel,) = epochs["panels"]
    assert panel["metric"] == "loss"
    assert panel["curves"][0]["x"] == [1, 2, 3]
    assert panel["curves"][0]["y"] == pytest.approx([1, 1 / 2, 1 / 3])
    assert [p["metric"] for p in steps["panels"]] == ["loss [split=loss]"]
    (rates,) = data["rates"]
    assert rates["panels"][0]["curves"][0]["y"] == pytest.approx([0.1, 0.05, 0.1 / 3])
    assert data["histories"][0]["steps"] == [1, 2, 3]
    assert data["figures"][0]["data"][0]["type"] == "bar"
    images = [attrs["src"] for tag, attrs in Page(page).elements if tag == "img"]
    assert len(images) == 3
    assert all(source.startswith("data:image/png;base64,") for source in images)


def test_the_costs_of_each_tracker_are_those_that_the_run_has_counted(
    experiment, tmp_path
):
    class Slow(drytrack.core.track.Tracker):
        name = "slow"
        notify = drytrack.core.track.Tracker.notify.extend()

        @notify.register
        def _count(self, event: log_events.MetricEvent) -> None:
            sum(range(10_000))

    experiment.trackers.subscribe(Slow())
    with experiment.create_run("run"):
        log_events.MetricEvent("net", "train", 1, {"loss": 1.0})

    (run,) = stored(tmp_path)

    costs = {cost["name"]: cost for cost in run.record["attempts"][-1]["costs"]}
    assert costs.keys() == {"journal", "slow"}
    assert costs["slow"]["calls"] >= 1
    assert "slow" in Page(make_report(run)).text


def test_no_name_and_no_text_can_become_an_element_or_a_script(tmp_path):
    experiment = Experiment(
        {HOSTILE: HOSTILE},
        name="Digits",
        par_dir=tmp_path,
        tags=[HOSTILE],
        description=HOSTILE,
    )

    def fail():
        with experiment.create_run("run") as run:
            publish_everything(run, HOSTILE)
            raise RuntimeError(HOSTILE)

    with pytest.raises(RuntimeError):
        fail()
    (found,) = stored(tmp_path)
    found.edit(name=HOSTILE, notes=HOSTILE)

    page = make_report(found, title=HOSTILE)

    parsed = Page(page)
    assert parsed.text.count(HOSTILE) >= 15
    assert "49" not in re.findall(r"\b49\b", parsed.text)  # no template in a name
    assert all(
        attrs["src"].startswith("data:image/png;base64,")
        for tag, attrs in parsed.elements
        if tag == "img"
    )
    assert not [
        (tag, name)
        for tag, attrs in parsed.elements
        for name, value in attrs.items()
        if name.startswith("on") or (value or "").startswith("javascript:")
    ]
    executed = [
        attrs
        for tag, attrs in parsed.elements
        if tag == "script" and attrs.get("type") in EXECUTED
    ]
    assert executed == [{}]
    # The data that the script reads are letters and digits, whatever they say.
    assert unpack(page)["curves"][0]["panels"][0]["metric"] == HOSTILE


def test_no_script_may_run_but_the_two_of_the_page(experiment, tmp_path):
    with experiment.create_run("run") as run:
        publish_everything(run)

    page = make_report(stored(tmp_path))

    (policy,) = [
        attrs["content"]
        for tag, attrs in Page(page).elements
        if attrs.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.split(maxsplit=1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    (own,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    packed = re.search(r'id="plotly">([^<]*)</script>', page)[1]
    scripts = [own, gzip.decompress(base64.b64decode(packed)).decode()]
    hashes = [
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in scripts
    ]
    assert rules["script-src"].split() == [f"'sha256-{digest}'" for digest in hashes]


def test_a_report_asks_for_nothing_from_a_network(experiment, tmp_path):
    with experiment.create_run("run") as run:
        publish_everything(run)

    parsed = Page(make_report(stored(tmp_path)))

    addresses = [
        value
        for _, attrs in parsed.elements
        for name, value in attrs.items()
        if name in ("src", "href", "srcset", "action", "data")
    ]
    assert addresses
    assert all(address.startswith("data:") for address in addresses)


def test_what_is_not_finite_is_a_gap_with_a_mark(experiment, tmp_path):
    values = [1.0, math.nan, 3.0, math.inf, 5.0, -math.inf, 7.0]
    with experiment.create_run("run"):
        for epoch, value in enumerate(values, start=1):
            log_events.MetricEvent("net", "train", epoch, {"loss": value})

    (group,) = unpack(make_report(stored(tmp_path)))["curves"]

    (curve,) = group["panels"][0]["curves"]
    assert curve["x"] == [1, 2, 3, 4, 5, 6, 7]
    assert curve["y"] == [1, None, 3, None, 5, None, 7]
    assert curve["marks"] == {"nan": [2], "inf": [4], "-inf": [6]}
    assert curve["dots"] == [0, 2, 4, 6]


def publish_epochs(epochs, value):
    for epoch in epochs:
        log_events.MetricEvent("net", "train", epoch, {"loss": value})
        log_events.LearningRateEvent("net", "train", epoch, [value, 2 * value])
        log_events.HistogramEvent("train", "w", epoch, [value], [0, 1])
        pixels = np.zeros((2, 2), np.uint8)
        log_events.ImageEvent("train", "image", epoch, pixels, caption=f"{value}")


@pytest.mark.parametrize("place", ["folder", "database"])
def test_a_resumed_run_shows_each_attempt_up_to_the_next(place, experiment, tmp_path):
    experiment.trackers.subscribe(SQLConnection(tmp_path / "runs.db"))
    with experiment.create_run("run"):
        publish_epochs(range(1, 6), 1.0)
    with experiment.create_run("run", resume=True):
        publish_epochs(range(3, 5), 2.0)
    where = tmp_path if place == "folder" else tmp_path / "runs.db"

    page = make_report(stored(where))

    data = unpack(page)
    (curve,) = data["curves"][0]["panels"][0]["curves"]
    assert (curve["x"], curve["y"]) == ([1, 2, 3, 4], [1, 1, 2, 2])
    assert data["rates"][0]["labels"] == ["train · group 0", "train · group 1"]
    second = data["rates"][0]["panels"][0]["curves"][1]
    assert (second["x"], second["y"]) == ([1, 2, 3, 4], [2, 2, 4, 4])
    assert data["histories"][0]["steps"] == [1, 2, 3, 4]
    captions = re.findall(r"step (\d) · ([\d.]+)</figcaption>", page)
    assert captions == [("4", "2.0"), ("3", "2.0"), ("2", "1.0"), ("1", "1.0")]


def test_a_database_tells_the_same_as_the_folder(experiment, tmp_path):
    experiment.trackers.subscribe(SQLConnection(tmp_path / "runs.db", media="bytes"))
    with experiment.create_run("run") as run:
        publish_everything(run)
        rows = [[number, f"row {number}"] for number in range(20_000)]
        log_events.TableEvent("test", "long", 1, ["number", "text"], rows)

    folder = make_report(stored(tmp_path))
    database = make_report(stored(tmp_path / "runs.db"))

    assert unpack(database) == unpack(folder)
    for section in ("params", "values", "metrics", "images", "tables", "texts"):
        marked = f'<section id="{section}">'
        sections = [
            sorted(
                re.split(r"<tr|<figure", page.partition(marked)[2].split("<section")[0])
            )
            for page in (folder, database)
        ]
        assert sections[0] == sections[1]
        assert len(sections[0]) > 1, section


def test_runs_are_compared_side_by_side(experiment, tmp_path):
    for lr, name in ((0.1, "a"), (0.2, "b")):
        config = {**experiment.config, "lr": lr}
        other = Experiment(config, name="Digits", par_dir=tmp_path)
        with other.create_run(name):
            log_events.MetricEvent("net", "train", 1, {"loss": lr})

    page = make_report(stored(tmp_path))

    assert unpack(page)["curves"][0]["labels"] == ["a · train", "b · train"]
    rows = re.findall(r"<tr( class=\"differs\")?><th[^>]*>(lr|opt\.name)</th>", page)
    assert [(name, bool(differs)) for differs, name in rows] == [
        ("lr", True),
        ("opt.name", False),
    ]


def test_runs_that_are_called_alike_are_told_apart(tmp_path):
    for folder, name in (("a", "Digits"), ("a", "Letters"), ("b", "Letters")):
        other = Experiment({}, name=name, par_dir=tmp_path / folder)
        with other.create_run("run"):
            log_events.MetricEvent("net", "train", 1, {"loss": 1.0})
    some = list(drytrack.open_store(tmp_path / "a").runs())
    (another,) = drytrack.open_store(tmp_path / "b").runs()

    def labels(runs):
        return unpack(make_report(runs))["curves"][0]["labels"]

    assert labels(some) == ["Digits/run · train", "Letters/run · train"]
    assert labels([*some, *some]) == labels(some)
    assert labels([some[1], another]) == [
        f"run ({run.uuid[:8]}) · train" for run in (some[1], another)
    ]


def test_a_run_without_a_single_metric_has_a_report_without_plotly(
    experiment, tmp_path
):
    with experiment.create_run("run"):
        pass

    page = make_report(stored(tmp_path))

    assert len(page) < 50_000
    assert 'id="curves"' not in page


def test_pictures_that_have_no_room_are_left_out_and_counted(
    experiment, tmp_path, monkeypatch
):
    with experiment.create_run("run"):
        for step in (1, 2, 3):
            noise = np.random.default_rng(step).integers(0, 255, (32, 32), np.uint8)
            log_events.ImageEvent("train", "noise", step, noise)
    monkeypatch.setattr(_report_media, "MAX_BYTES", 1_500)

    page = make_report(stored(tmp_path))

    assert [a["alt"] for t, a in Page(page).elements if t == "img"] == [
        "noise · train · steps 1 to 3, step 3"
    ]
    assert "2 pictures" in Page(page).text


def test_a_report_is_written_as_a_whole(experiment, tmp_path):
    with experiment.create_run("run") as run:
        publish_everything(run)
    (found,) = stored(tmp_path)

    path = write_report(found, tmp_path / "new" / "page.html", title="Mine")

    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert "<h1>Mine</h1>" in path.read_text(encoding="utf-8")
    assert [entry.name for entry in path.parent.iterdir()] == ["page.html"]


def test_what_is_missing_is_named(experiment, tmp_path, monkeypatch):
    with experiment.create_run("run"):
        pass
    with pytest.raises(ValueError, match="at least one"):
        make_report([])

    monkeypatch.setitem(sys.modules, "jinja2", None)

    with pytest.raises(MissingDependencyError, match=r"drytrack\[report\]"):
        make_report(stored(tmp_path))


def test_texts_that_are_markup_are_shown_as_they_are(experiment, tmp_path):
    with experiment.create_run("run"):
        log_events.TextEvent("test", "note", 1, "a < b && <b>bold</b>\n{{ title }}")

    page = make_report(stored(tmp_path))

    assert html.escape("a < b && <b>bold</b>\n{{ title }}") in page


@pytest.mark.slow
def test_a_million_points_are_a_page_below_5_mb_and_keep_their_spike(
    experiment, tmp_path
):
    generator = np.random.default_rng(0)
    values = generator.normal(size=1_000_000).tolist()
    values[123_456] = 50.0
    with experiment.create_run("run"):
        for step, value in enumerate(values):
            log_events.StepMetricEvent("train", step, {"loss": value})

    path = write_report(stored(tmp_path), tmp_path / "report.html")

    assert path.stat().st_size < 5_000_000
    (group,) = unpack(path.read_text(encoding="utf-8"))["curves"]
    (curve,) = group["panels"][0]["curves"]
    assert 50.0 in curve["y"]
    assert 123_456 in curve["x"]
    assert len(curve["x"]) <= 2_000


@given(
    st.lists(st.floats(-1e6, 1e6) | st.just(math.nan), min_size=101, max_size=500),
    st.integers(50, 100),
)
def test_the_means_of_buckets_come_to_the_mean_of_all(values, limit):
    curve = build_curve(Series(list(range(len(values))), values), limit)

    _, means, counts = curve["mean"]

    finite = [value for value in values if math.isfinite(value)]
    total = math.fsum(
        mean * count for mean, count in zip(means, counts, strict=True) if count
    )
    assert sum(counts) == len(finite)
    assert [mean is None for mean in means] == [count == 0 for count in counts]
    assert total == pytest.approx(math.fsum(finite), rel=1e-6, abs=1e-2)


@given(
    st.lists(
        st.tuples(st.floats(-100, 100), st.floats(0.1, 10), st.integers(1, 20)),
        min_size=1,
        max_size=10,
    )
)
def test_histograms_over_other_bins_keep_their_counts(shapes):
    events = []
    for step, (low, width, n_bins) in enumerate(shapes):
        edges = [low + width * number for number in range(n_bins + 1)]
        counts = [number + 1 for number in range(n_bins)]
        events.append(
            log_events.HistogramEvent.unpublished("train", "w", step, counts, edges)
        )

    history = build_history(Medium("histogram", "train", "w", events))

    assert history["steps"] == list(range(len(shapes)))
    assert all(a < b for a, b in itertools.pairwise(history["edges"]))
    for shares in history["shares"]:
        assert sum(shares) == pytest.approx(1.0)
        assert min(shares) >= 0


def test_histograms_that_have_no_place_on_an_axis_are_not_drawn(experiment, tmp_path):
    with experiment.create_run("run"):
        log_events.HistogramEvent("train", "w", 1, [1], [-1.7e308, 1.7e308])
        log_events.HistogramEvent("train", "v", 1, [1, 2], [0.0, 1.0, 2.0])

    data = unpack(make_report(stored(tmp_path)))

    assert [history["steps"] for history in data["histories"]] == [[1]]


def test_of_many_images_some_are_kept_the_newest_among_them(experiment, tmp_path):
    with experiment.create_run("run"):
        for step in range(100):
            pixels = np.zeros((2, 2), np.uint8)
            log_events.ImageEvent("train", "sample", step, pixels)
    (run,) = stored(tmp_path)

    (medium,) = read_run(run).media.items()

    steps = [event.step for event in medium.events]
    assert steps[0] == 0
    assert steps[-1] == 99
    assert 4 <= len(steps) <= 8
