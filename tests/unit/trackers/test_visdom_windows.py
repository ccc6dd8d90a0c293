"""What a Visdom server is sent, without a server."""

from __future__ import annotations

import json
import math
import sys

import numpy as np
import plotly.graph_objects as go
import pytest

from drytrack.core import log_events
from drytrack.core.exceptions import MissingDependencyError
from drytrack.trackers._plot_data import build_panels
from drytrack.trackers._plot_media import Shelf
from drytrack.trackers._plot_style import find_look
from drytrack.trackers._plot_view import make_view
from drytrack.trackers._visdom_windows import (
    draw_medium,
    draw_panel,
    make_message,
    window_of,
)
from drytrack.trackers.base import Series
from drytrack.trackers.visdom import VisdomPlotter

LOOK = find_look("light")


def panels(**options):
    loss = Series([1, 2, 3], [1.0, math.nan, 0.25])
    runs = {"": [{"train": {"loss": loss, "accuracy": loss}}]}
    view = make_view(options)
    return build_panels("mlp", runs, view, axis="epoch", title="title")


def media(*events):
    shelf = Shelf()
    for event in events:
        shelf.put(event)
    return shelf.items()


def test_values_are_lists_and_a_gap_is_null():
    message = make_message(draw_panel(panels()[0], LOOK), "loss · mlp")

    line, *_ = message["data"]
    assert (line["x"], line["y"]) == ([1, 2, 3], [1.0, None, 0.25])
    assert line["marker"]["size"] == [6, 0, 6]
    text = json.dumps(message, allow_nan=False)
    assert "bdata" not in text
    assert message["opts"] == {"title": "loss · mlp"}


def test_a_window_has_one_metric_and_fills_any_size():
    _, accuracy = panels(log_scale="accuracy")

    layout = make_message(draw_panel(accuracy, LOOK), "accuracy")["layout"]

    assert layout.get("height") is None
    assert "annotations" not in layout
    assert layout["yaxis"]["type"] == "log"
    assert layout["xaxis"]["title"]["text"] == "epoch"
    assert "xaxis2" not in layout


def test_an_image_has_the_window_that_visdom_has_for_images():
    pixels = np.zeros((2, 2, 3), np.uint8)
    event = log_events.ImageEvent.unpublished("t", "dot", 1, pixels, caption="a < b")
    (medium,) = media(event)

    message = make_message(draw_medium(medium, LOOK), "dot")

    (content,) = message["data"]
    assert content["type"] == "image"
    assert content["content"]["caption"] == "a < b"
    assert content["content"]["src"].startswith("data:image/png;base64,")


def test_a_figure_without_curves_has_a_kind_all_the_same():
    event = log_events.FigureEvent.unpublished("t", "empty", 1, go.Figure())
    (medium,) = media(event)

    message = make_message(draw_medium(medium, LOOK), "empty")

    assert message["data"] == [{"type": "scatter", "x": [], "y": []}]


def test_windows_of_different_things_have_different_ids():
    places = [
        ("metrics", "", "a/b"),
        ("metrics", "a", "b"),
        ("metrics", "a/b", "c"),
        ("metrics", "a", "b/c"),
    ]

    assert len({window_of(*place) for place in places}) == len(places)


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "visdom", None)

    with pytest.raises(MissingDependencyError, match=r'pip install "drytrack\[visdom'):
        VisdomPlotter()
