"""Panels and media as windows of Visdom, which shows figures of an older plotly."""

from __future__ import annotations

import base64
import dataclasses
import html
import importlib
import math
import time
import urllib.parse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from drytrack.core._names import encode_file_name
from drytrack.trackers import _plotly_panels
from drytrack.trackers._backend import import_backend

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from drytrack.trackers._plot_data import Panel
    from drytrack.trackers._plot_media import Medium
    from drytrack.trackers._plot_style import Look

DEFAULT_PORT = 8097
LOCAL = ("127.0.0.1", "localhost", "::1")
TIMEOUTS_S = 5.0, 30.0
"""For a server to take a connection, and to answer: a hung one holds up a worker."""

_MARGIN = {"l": 55, "r": 15, "t": 15, "b": 80}


def draw_panel(panel: Panel, look: Look) -> Figure:
    """Return the figure of one metric, which fills a window of any size."""
    alone = dataclasses.replace(panel, metrics=(panel.metric,))
    figure = _plotly_panels.draw_panel(alone, None, look)
    legend = {"orientation": "h", "yref": None, "y": -0.18, "yanchor": "top"}
    # The window has the name in its title bar.
    figure.layout.annotations = ()
    figure.update_layout(title=None, height=None, margin=_MARGIN, legend=legend)
    return figure


def draw_medium(medium: Medium, look: Look) -> Figure:
    """Return the figure of a histogram, an image, a figure or a table."""
    figure = _plotly_panels.draw_medium(medium, look)
    figure.update_layout(title=None, height=None, width=None, margin=_MARGIN)
    return figure


def window_of(*names: str) -> str:
    """Return the id of a window, from what it shows."""
    return "/".join(encode_file_name(name, "") if name else "" for name in names)


def make_message(figure: Figure, title: str) -> dict[str, Any]:
    """Return what a server is sent to show a figure in a window.

    Args:
        figure: Curves, or what `draw_medium` has made.
        title: For the title bar.
    """
    opts = {"title": title}
    pictures = figure.layout.images
    if pictures and not figure.data:  # Visdom has windows for these
        notes = figure.layout.annotations
        caption = html.unescape(notes[0].text) if notes else ""
        content = {"src": pictures[0].source, "caption": caption}
        return {"data": [{"type": "image", "content": content}], "opts": opts}
    plain = _plain(figure.to_plotly_json())
    plain["layout"].pop("template", None)
    # Without a trace, a server does not know what kind of window it is.
    data = plain["data"] or [{"type": "scatter", "x": [], "y": []}]
    return {"data": data, "layout": plain["layout"], "opts": opts}


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; arrays as lists, which all versions read."""
    if isinstance(value, Mapping):
        if "bdata" in value:  # how newer ones write an array
            return _plain(_decode(value))
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None  # a gap
    return value


def _decode(array: Mapping[str, Any]) -> Any:
    items = np.frombuffer(base64.b64decode(array["bdata"]), array["dtype"])
    if "shape" in array:
        items = items.reshape([int(size) for size in str(array["shape"]).split(",")])
    return items


def connect(url: str, username: str | None, password: str | None) -> Any:
    """Return a client for the server at an address; nothing is sent yet."""
    visdom: Any = import_backend("visdom", extra="visdom", tracker="VisdomPlotter")
    parts = urllib.parse.urlsplit(url)

    class Client(visdom.Visdom):  # type: ignore[misc]  # untyped where it is missing
        """Fails where a server does not answer, or not as Visdom does."""

        def _handle_post(self, url: str, data: Any = None) -> str:
            self._last_post_time = time.time()  # newer ones close what is idle
            # What the environment says of proxies is not for this machine.
            self.session.trust_env = parts.hostname not in LOCAL
            reply = self.session.post(url, data=data or {}, timeout=TIMEOUTS_S)
            reply.raise_for_status()
            return str(reply.text)

    default = 443 if parts.scheme == "https" else DEFAULT_PORT
    # Told not to send, it neither asks the server at once nor listens to it.
    client = Client(
        server=f"{parts.scheme}://{parts.hostname}",
        port=parts.port or default,
        base_url=parts.path.rstrip("/") or "/",
        username=username,
        password=password,
        raise_exceptions=True,
        use_incoming_socket=False,
        send=False,
    )
    client.send = True
    if username is None:  # else it logs in when it makes one, and says so
        client._session = importlib.import_module("requests").Session()
    return client
