"""Curves on a terminal, in dots of braille, eight in each character."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from drytrack._frames import load
from drytrack._wording import number
from drytrack.cli import _output
from drytrack.trackers._plot_style import MARK_NAMES, say_step

if TYPE_CHECKING:
    from rich.console import Console

    from drytrack.trackers._plot_data import Curve, Panel

HEIGHT = 12
MAX_WIDTH = 110
MARGIN = 10
"""Columns for the numbers of the y-axis."""

TICK_ROWS = 4
"""Rows from one number to the next."""

COLORS = (32, 166, 36, 175, 178, 81)
"""Of 256, those nearest to the palette of the plots that fits dark and light."""

N_LETTERS = 6
"""How often its letter stands on a curve."""

LETTERS = "abcdefghijklmnopqrstuvwxyz"
"""Stand on curves that no color tells apart."""


def print_panels(panels: Sequence[Panel]) -> None:
    """Print curves, each metric below the other, as wide as the terminal is."""
    console = _output.make_console()
    if not _output.is_utf(console.encoding):
        _print_small(console, panels)
        return
    for panel in panels:
        _print_panel(console, panel)


def _print_small(console: Console, panels: Sequence[Panel]) -> None:
    """Print a line for each curve, where there are no dots of braille."""
    table = _output.make_table("metric", "curve", "values")
    width = max(console.width // 3, 10)
    encoding = console.encoding
    for panel in panels:
        for curve in panel.curves:
            places = np.linspace(0, len(curve.values) - 1, width).astype(np.intp)
            values = curve.values[places].tolist()
            names = [
                name.encode(encoding, "replace").decode(encoding)
                for name in (panel.metric, curve.label)
            ]
            _output.add_row(table, *names, _output.sparkline(values, encoding))
    console.print(table)


def _print_panel(console: Console, panel: Panel) -> None:
    from rich.text import Text

    colored = console.color_system is not None
    told = len(panel.curves) > 1 and not colored
    console.print(Text(_title(panel), style="bold"))
    for label, row in _draw(panel, min(console.width, MAX_WIDTH), told=told):
        # The rows have codes of their own for colors.
        line = Text.from_ansi(row) if colored else Text(row)
        console.print(Text(label, style="dim") + line, no_wrap=True, crop=True)
    for curve in panel.curves:
        style = f"color({_color(curve)})"
        sample = _letter(curve) if told else "⠒⠒"
        console.print(Text.assemble((sample, style), " ", curve.label, _marks(curve)))
    console.print()


def _draw(panel: Panel, columns: int, *, told: bool) -> Iterator[tuple[str, str]]:
    """Yield what stands left of the axis, and the row behind it."""
    plotille = load("plotille", "cli", "A plot on the terminal")
    width = max(columns - MARGIN - 2, 10)
    low, high = panel.y_range
    if panel.log:
        low, high = math.log10(low), math.log10(high)
    first, last = _x_range(panel)
    canvas = plotille.Canvas(width, HEIGHT, first, low, last, high, mode="byte")
    for curve in panel.curves:
        color = None if told else _color(curve)
        for steps, values in _pieces(curve, log=panel.log):
            points = list(zip(steps, values, strict=True))
            for before, after in itertools.pairwise(points):
                canvas.line(*before, *after, color=color)
            canvas.point(*points[0], color=color)
    if told:
        for curve in panel.curves:
            for step, value in _letter_places(curve, log=panel.log):
                canvas.point(step, value, marker=_letter(curve))
    for number_, row in enumerate(canvas.plot().splitlines()):
        label = ""
        if number_ % TICK_ROWS == TICK_ROWS // 2:
            value = high - (number_ + 0.5) / HEIGHT * (high - low)
            label = number(10**value if panel.log else value)
        yield f"{label:>{MARGIN}}{'┤' if label else '│'}", row
    yield f"{'':>{MARGIN}}╰", "─" * width
    ends = say_step(first), say_step(last)
    yield f"{'':>{MARGIN}} ", ends[0] + ends[1].rjust(width - len(ends[0]))


def _color(curve: Curve) -> int:
    return COLORS[curve.color % len(COLORS)]


def _letter(curve: Curve) -> str:
    return LETTERS[curve.color % len(LETTERS)]


def _title(panel: Panel) -> str:
    name = f"{panel.metric} [{panel.unit}]" if panel.unit else panel.metric
    return f"{name} by {panel.axis}" + (f", {panel.title}" if panel.title else "")


def _marks(curve: Curve) -> str:
    """Return what a curve has that no line can show."""
    said = [
        f"{MARK_NAMES[marks.kind]} from {say_step(float(marks.steps[0]))}"
        for marks in curve.marks
    ]
    return f" ({', '.join(said)})" if said else ""


def _x_range(panel: Panel) -> tuple[float, float]:
    steps = np.concatenate([curve.steps for curve in panel.curves])
    first, last = float(steps.min()), float(steps.max())
    return (first, last) if last > first else (first - 1, last + 1)


def _pieces(curve: Curve, *, log: bool) -> Iterator[tuple[list[float], list[float]]]:
    """Yield the parts of a curve between its gaps."""
    finite = np.isfinite(curve.values)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], finite, [False]])))
    for begin, end in edges.reshape(-1, 2):
        values = curve.values[begin:end]
        shown = np.log10(values) if log else values
        yield curve.steps[begin:end].tolist(), shown.tolist()


def _letter_places(curve: Curve, *, log: bool) -> Iterator[tuple[float, float]]:
    """Yield some points of a curve, others than of the curve before."""
    places = np.flatnonzero(np.isfinite(curve.values))
    gap = max(len(places) // N_LETTERS, 1)
    for place in places[curve.color * gap // 4 % gap :: gap]:
        value = float(curve.values[place])
        yield float(curve.steps[place]), math.log10(value) if log else value
