"""What was published beside metrics and can be drawn: the newest of each name."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping
from typing import Any

from drytrack.core import log_events
from drytrack.core._history import series_name
from drytrack.core._media import MediaFile, png

MAX_KEPT = {"histogram": 32, "image": 1, "figure": 1, "table": 1}
"""Kind → how many of one name a plotter keeps."""

MAX_LINES = 6
"""Histograms of one name that are drawn, from the first to the newest."""


_KINDS: dict[str, type[Any]] = {
    "histogram": log_events.HistogramEvent,
    "image": log_events.ImageEvent,
    "figure": log_events.FigureEvent,
    "table": log_events.TableEvent,
    "text": log_events.TextEvent,
}

_MIME_TYPES = {"svg": "svg+xml"}
"""Those that are not called as the format is."""


@dataclasses.dataclass(slots=True)
class Medium:
    """What was published under one name.

    Attributes:
        kind: ``"histogram"``, ``"image"``, ``"figure"``, ``"table"`` or ``"text"``.
        source: Who published it.
        name: What it is called, with its context where it has one.
        events: Some of the events, the newest among them; their steps ascend.
    """

    kind: str
    source: str
    name: str
    events: list[Any]

    def add(self, event: Any, limit: int) -> None:
        """Keep an event; one whose step comes again replaces what is from there on.

        Args:
            event: The event.
            limit: How many are kept; beyond it every second one goes.
        """
        events = [kept for kept in self.events if kept.step < event.step]
        if len(events) >= limit:
            events = events[::2] if limit > 1 else []
        self.events = [*events, event]

    @property
    def newest(self) -> Any:
        """The newest event."""
        return self.events[-1]

    @property
    def title(self) -> str:
        """What it is called, by whom, and when."""
        where = f"{self.name} · {self.source}"
        if len(self.events) > 1:
            return f"{where} · steps {self.events[0].step} to {self.newest.step}"
        return f"{where} · step {self.newest.step}"

    def pick(self, count: int) -> list[Any]:
        """Return some of the events, evenly spread, the newest among them."""
        events = self.events
        if len(events) <= count:
            return list(events)
        gaps = count - 1
        return [events[(len(events) - 1) * n // gaps] for n in range(count)]


class Shelf:
    """Holds what was published, in bounded memory for each name.

    Args:
        limits: Kind → how many of one name are kept; other kinds are not.
    """

    def __init__(self, limits: Mapping[str, int] = MAX_KEPT) -> None:
        self._limits = limits
        self._media: dict[tuple[str, str, str], Medium] = {}

    def put(self, event: log_events.Event) -> None:
        """Keep an event of a kind that has a place here."""
        for kind, limit in self._limits.items():
            if isinstance(event, _KINDS[kind]):
                published: Any = event
                context = getattr(event, "context", {})
                name = series_name(published.name, context)
                key = kind, published.source_name, name
                self._media.setdefault(key, Medium(*key, [])).add(event, limit)

    def items(self) -> list[Medium]:
        """Return copies of what is there, in the order of first publication."""
        return [
            dataclasses.replace(medium, events=list(medium.events))
            for medium in self._media.values()
        ]


def content_of(event: Any) -> Any:
    """Return what an image or a figure shows: a file, or pixels."""
    return event.image if isinstance(event, log_events.ImageEvent) else event.figure


def as_file(content: Any) -> MediaFile:
    """Return a file, made of pixels where it is none."""
    return content if isinstance(content, MediaFile) else MediaFile("png", png(content))


def data_uri(file: MediaFile) -> str:
    """Return an address that holds an image itself."""
    kind = _MIME_TYPES.get(file.format, file.format)
    return f"data:image/{kind};base64,{base64.b64encode(file.data).decode('ascii')}"


def table_cells(
    event: log_events.TableEvent, max_rows: int, max_columns: int
) -> tuple[list[str], list[list[str]]]:
    """Return header and rows as text, cut to what can be read in a picture."""
    header = [str(name) for name in event.columns[:max_columns]]
    rows = [[_say(cell) for cell in row[:max_columns]] for row in event.rows[:max_rows]]
    if len(event.columns) > max_columns:
        header.append(f"+{len(event.columns) - max_columns}")
        for row in rows:
            row.append("…")
    if len(event.rows) > max_rows:
        more = f"… {len(event.rows) - max_rows} more"
        rows.append([more, *[""] * (len(header) - 1)])
    return header, rows


def _say(cell: object) -> str:
    if cell is None:
        return ""
    return f"{cell:.5g}" if isinstance(cell, float) else str(cell)
