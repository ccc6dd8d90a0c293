"""Histograms, images, figures, tables and texts as a report shows them."""

from __future__ import annotations

import base64
import dataclasses
import json
from typing import TYPE_CHECKING, Any

from drytrack._report_contents import MAX_KEPT, Medium
from drytrack.core._media import MediaFile, png

if TYPE_CHECKING:
    from drytrack._report_contents import Contents

MAX_BYTES = 20_000_000
"""Bytes of all pictures of a page; what is older goes first."""

MAX_ROWS, MAX_COLUMNS = 500, 50
"""Rows and columns of a table in a page."""

MAX_TEXT = 100_000
"""Characters of a text in a page."""

_MIME_TYPES = {"jpeg": "jpeg", "svg": "svg+xml"}


@dataclasses.dataclass(slots=True)
class Picture:
    """One image of a row of them.

    Attributes:
        step: When it was published.
        caption: What stands below it.
        content: The file; a ``plotly`` one is no picture but a chart.
        source: Address of the data, or "" where it was left out.
    """

    step: int
    caption: str
    content: MediaFile
    source: str = ""


@dataclasses.dataclass(slots=True)
class Exhibit:
    """A medium as the page shows it.

    Attributes:
        kind: As of the medium.
        title: What it is called, by whom, and when.
        number: Place among the histories or the figures, or None.
        pictures: The images, the newest first.
        header: The columns of a table.
        rows: Its cells.
        text: The text.
    """

    kind: str
    title: str
    number: int | None = None
    pictures: list[Picture] = dataclasses.field(default_factory=list)
    header: list[str] = dataclasses.field(default_factory=list)
    rows: list[list[str]] = dataclasses.field(default_factory=list)
    text: str = ""


class Cabinet:
    """Holds the media of all runs of a page, in the room that it has.

    Attributes:
        histories: What `build_history` has made of histograms.
        figures: Charts, as plotly's JSON.
        left_out: How many pictures there was no room for.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.histories: list[dict[str, Any]] = []
        self.figures: list[dict[str, Any]] = []
        self.left_out = 0
        self._pictures: list[Picture] = []

    def add(self, contents: Contents) -> dict[str, list[Exhibit]]:
        """Take in what a run has published; return it by kind."""
        shown: dict[str, list[Exhibit]] = {kind: [] for kind in MAX_KEPT}
        for medium in contents.media.values():
            exhibit = self._show(medium)
            if exhibit is not None:
                shown[exhibit.kind].append(exhibit)
        return shown

    def fill(self) -> None:
        """Put the pictures into the page, those of late steps first."""
        room = MAX_BYTES
        for picture in sorted(self._pictures, key=lambda one: -one.step):
            room -= len(picture.content.data)
            if room < 0:
                self.left_out += 1
                continue
            kind = _MIME_TYPES.get(picture.content.format, picture.content.format)
            data = base64.b64encode(picture.content.data).decode("ascii")
            picture.source = f"data:image/{kind};base64,{data}"

    def _show(self, medium: Medium) -> Exhibit | None:
        from drytrack.trackers._plot_media import table_cells

        events = medium.events
        exhibit = Exhibit(medium.kind, f"{medium.name} · {medium.source}")
        exhibit.title += _say_steps(events)
        match medium.kind:
            case "histogram":
                return self._add_history(exhibit, medium)
            case "table":
                shown = table_cells(events[-1], MAX_ROWS, MAX_COLUMNS)
                exhibit.header, exhibit.rows = shown
            case "text":
                exhibit.text = events[-1].text[:MAX_TEXT]
            case _:
                self._add_pictures(exhibit, medium)
        return exhibit

    def _add_history(self, exhibit: Exhibit, medium: Medium) -> Exhibit | None:
        from drytrack._report_curves import build_history

        history = build_history(medium)
        if history is None:
            return None
        exhibit.number = len(self.histories)
        self.histories.append(history)
        return exhibit

    def _add_pictures(self, exhibit: Exhibit, medium: Medium) -> None:
        for event in reversed(medium.events):
            content = event.image if medium.kind == "image" else event.figure
            if not isinstance(content, MediaFile):
                content = MediaFile("png", png(content))
            if content.format == "plotly":
                exhibit.number = len(self.figures)
                self.figures.append(_read_figure(content.data))
            else:
                picture = Picture(event.step, event.caption or "", content)
                exhibit.pictures.append(picture)
        self._pictures += exhibit.pictures


def _say_steps(events: list[Any]) -> str:
    first, last = events[0].step, events[-1].step
    return f" · step {last}" if first == last else f" · steps {first} to {last}"


def _read_figure(data: bytes) -> dict[str, Any]:
    """Return the part of a figure that is drawn; nothing of it where it is damaged."""
    try:
        figure = json.loads(data, parse_constant=lambda _: None)  # browsers know none
    except ValueError:
        figure = {}
    if not isinstance(figure, dict):
        figure = {}
    return {key: figure.get(key) for key in ("data", "layout")}
