"""Histograms, images, figures, tables and texts as a report shows them."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from drytrack._report_contents import MAX_KEPT
from drytrack.trackers._plot_media import (
    Medium,
    as_file,
    content_of,
    data_uri,
    table_cells,
)

if TYPE_CHECKING:
    from drytrack._report_contents import Contents
    from drytrack.core._media import MediaFile

MAX_BYTES = 20_000_000
"""Bytes of all pictures of a page; what is older goes first."""

MAX_ROWS, MAX_COLUMNS = 500, 50
"""Rows and columns of a table in a page."""

MAX_TEXT = 100_000
"""Characters of a text in a page."""


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
        for medium in contents.media.items():
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
            picture.source = data_uri(picture.content)

    def _show(self, medium: Medium) -> Exhibit | None:
        exhibit = Exhibit(medium.kind, medium.title)
        match medium.kind:
            case "histogram":
                return self._add_history(exhibit, medium)
            case "table":
                shown = table_cells(medium.newest, MAX_ROWS, MAX_COLUMNS)
                exhibit.header, exhibit.rows = shown
            case "text":
                exhibit.text = medium.newest.text[:MAX_TEXT]
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
            content = as_file(content_of(event))
            if content.format == "plotly":
                exhibit.number = len(self.figures)
                self.figures.append(_read_figure(content.data))
            else:
                picture = Picture(event.step, event.caption or "", content)
                exhibit.pictures.append(picture)
        self._pictures += exhibit.pictures


def _read_figure(data: bytes) -> dict[str, Any]:
    """Return the part of a figure that is drawn; nothing of it where it is damaged."""
    try:
        figure = json.loads(data, parse_constant=lambda _: None)  # browsers know none
    except ValueError:
        figure = {}
    if not isinstance(figure, dict):
        figure = {}
    return {key: figure.get(key) for key in ("data", "layout")}
