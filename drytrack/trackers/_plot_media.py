"""What was published beside metrics and can be drawn: the newest of each name."""

from __future__ import annotations

import dataclasses
from typing import Any

from drytrack.core import log_events
from drytrack.core._history import series_name

MAX_HISTOGRAMS = 32
"""Histograms of one name that are kept; beyond it every second one goes."""

MAX_LINES = 6
"""Histograms of one name that are drawn, from the first to the newest."""


@dataclasses.dataclass(slots=True)
class Medium:
    """What was published under one name.

    Attributes:
        kind: ``"histogram"``, ``"image"``, ``"figure"`` or ``"table"``.
        source: Who published it.
        name: What it is called.
        events: The newest event; of histograms some from the beginning on.
    """

    kind: str
    source: str
    name: str
    events: list[Any]

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
    """Holds what was published, in bounded memory for each name."""

    def __init__(self) -> None:
        """Start empty."""
        self._media: dict[tuple[str, str, str], Medium] = {}

    def put(self, event: log_events.Event) -> None:
        """Keep a histogram, an image, a figure or a table."""
        if isinstance(event, log_events.HistogramEvent):
            name = series_name(event.name, event.context)
            medium = self._find("histogram", event.source_name, name)
            # A step that comes again, or goes back, replaces what was there.
            events = [kept for kept in medium.events if kept.step < event.step]
            if len(events) >= MAX_HISTOGRAMS:
                events = events[::2]
            medium.events = [*events, event]
            return
        for kind, cls in (
            ("image", log_events.ImageEvent),
            ("figure", log_events.FigureEvent),
            ("table", log_events.TableEvent),
        ):
            if isinstance(event, cls):
                medium = self._find(kind, event.source_name, event.name)
                medium.events = [event]

    def items(self) -> list[Medium]:
        """Return copies of what is there, in the order of first publication."""
        return [
            dataclasses.replace(medium, events=list(medium.events))
            for medium in self._media.values()
        ]

    def _find(self, kind: str, source: str, name: str) -> Medium:
        key = kind, source, name
        return self._media.setdefault(key, Medium(kind, source, name, []))


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
