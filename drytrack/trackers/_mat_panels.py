"""Panels of curves as matplotlib artists, without pyplot and without rcParams.

The settings that users change for their own plots are global, and drawing goes
on in another thread, so whatever matters here is said to each artist. Names are
shown as they are: no mathtext, which its parser shares between threads.
"""

from __future__ import annotations

import io
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import font_manager, ticker
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from drytrack.trackers._plot_style import (
    MARK_NAMES,
    N_DASHES,
    Look,
    find_look,
    grid_shape,
    say_step,
    shorten,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from drytrack.trackers._plot_data import Curve, Panel
    from drytrack.trackers._plot_points import Floats

DPI = 100
NOTEBOOK_DPI = 144

_DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)))
_MARKERS = {"nan": "x", "inf": "^", "-inf": "v", "<= 0": "1"}
_PANEL_INCHES = {1: (6.4, 4.0), 2: (4.4, 3.1), 3: (3.7, 2.7)}
_SMALL_PANEL = (3.1, 2.3)
_TITLE, _TEXT, _SMALL = 10.0, 8.5, 7.5
_STEPS = (1, 2, 2.5, 5, 10)
"""Between ticks: matplotlib's own would allow 0.3 and 0.06."""
_CHARACTER = 0.6
"""Width of a character as a part of its height, on average and then some."""

MAX_LEGEND = 24
"""Names in a legend at the most; more of them leave no room for curves."""

# Text is measured and drawn with fonts that all figures share.
drawing = threading.RLock()


class PanelFigure(Figure):
    """A figure with a grid of panels, and a canvas of its own.

    Attributes:
        look: Its colors.
        metrics: The metrics that have a panel.
        panels: The panels, in the order of the metrics.
        books: For each panel its artists, by what they show.
    """

    def __init__(self, theme: str, size: tuple[float, float] | None = None) -> None:
        """Make a figure without panels.

        Args:
            theme: ``"light"`` or ``"dark"``.
            size: Width and height in inches; by default as its panels need.
        """
        self.look = find_look(theme)
        super().__init__(dpi=DPI, layout="constrained", facecolor=self.look.paper)
        FigureCanvasAgg(self)
        self.set_layout_engine("constrained", w_pad=0.06, h_pad=0.06)
        self.size = size
        self.metrics: tuple[str, ...] = ()
        self.panels: list[Axes] = []
        self.books: list[dict[Any, Any]] = []

    def arrange(self, count: int) -> None:
        """Begin anew with a number of empty panels."""
        self.clear()
        rows, columns = grid_shape(count)
        width, height = _PANEL_INCHES.get(columns, _SMALL_PANEL)
        default = columns * width, rows * height + 0.5
        self.set_size_inches(self.size or default)
        self.panels = [
            self.add_subplot(rows, columns, number + 1) for number in range(count)
        ]
        self.books = [{} for _ in range(count)]
        for axes in self.panels:
            _dress(axes, self.look)

    def columns_of_text(self, points: float, *, panels: float = 0.0) -> int:
        """Return how many characters fit on a panel, or on the whole figure."""
        share = 0.92 / panels if panels else 0.92
        return max(int(self.get_figwidth() * share * 72 / (points * _CHARACTER)), 8)

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """Show the figure where a notebook displays it, in its size and sharp."""
        width, height = figure_pixels(self, DPI)
        data = render(self, "png", dpi=NOTEBOOK_DPI)
        return data, {"width": width, "height": height}


def render(figure: Figure, file_format: str, *, dpi: float = DPI) -> bytes:
    """Return a figure as the bytes of a PNG, SVG or PDF file."""
    buffer = io.BytesIO()
    with drawing:
        figure.savefig(
            buffer,
            format=file_format,
            dpi=dpi,
            facecolor=figure.get_facecolor(),
            transparent=False,
            # The same content is the same file.
            metadata={"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(
                file_format
            ),
        )
    return buffer.getvalue()


def draw_panel(panel: Panel, figure: PanelFigure) -> None:
    """Draw one panel of a figure, or bring it up to date."""
    if figure.metrics != panel.metrics:
        figure.arrange(len(panel.metrics))
        figure.metrics = panel.metrics
    axes, book = figure.panels[panel.number], figure.books[panel.number]
    _, columns = grid_shape(len(panel.metrics))
    name = f"{panel.metric} [{panel.unit}]" if panel.unit else panel.metric
    width = figure.columns_of_text(_TITLE, panels=columns)
    title = drawable(shorten(name, width))
    axes.set_title(title, fontsize=_TITLE, parse_math=False)
    if panel.number + columns >= len(panel.metrics):
        axes.set_xlabel(drawable(shorten(panel.axis, width)), parse_math=False)
    _set_scales(axes, panel)
    artists = _Artists(axes, book, figure.look)
    for curve in panel.curves:
        artists.draw_curve(panel, curve)
    artists.remove_others()
    axes.set_xlim(panel.x_range)
    axes.set_ylim(panel.y_range)
    if panel.number == len(panel.metrics) - 1:
        _finish(figure, panel)


def _dress(axes: Axes, look: Look) -> None:
    """Give an empty panel its colors and sizes."""
    axes.set_facecolor(look.paper)
    axes.grid(visible=True, color=look.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(look.faint)
        spine.set_linewidth(0.8)
    axes.tick_params(
        which="both", colors=look.faint, labelcolor=look.ink, labelsize=_SMALL
    )
    axes.title.set(color=look.ink, usetex=False)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(fontsize=_TEXT, color=look.ink, usetex=False)


def _set_scales(axes: Axes, panel: Panel) -> None:
    scale = "log" if panel.log else "linear"
    if axes.get_yscale() != scale:
        axes.set_yscale(scale)
    if panel.log:
        axes.yaxis.set_major_formatter(ticker.FuncFormatter(_say_power))
        low, high = np.log10(panel.y_range)
        if high - low < 1.5:  # hardly a power of ten in sight
            axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        else:
            axes.yaxis.set_major_locator(ticker.LogLocator(numticks=6))
        axes.yaxis.set_minor_formatter(ticker.NullFormatter())
    else:
        plain = ticker.ScalarFormatter(useOffset=False, useMathText=False)
        plain.set_powerlimits((-3, 5))
        axes.yaxis.set_major_formatter(plain)
        axes.yaxis.set_major_locator(ticker.MaxNLocator(nbins=5, steps=_STEPS))
    axes.xaxis.set_major_locator(
        ticker.MaxNLocator(nbins=5, steps=_STEPS, integer=True, min_n_ticks=1)
    )
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(_say_step))
    axes.yaxis.get_offset_text().set(fontsize=_SMALL, color=axes.title.get_color())


def _say_step(value: float, _place: int | None = None) -> str:
    return say_step(value)


def _say_power(value: float, _place: int | None = None) -> str:
    return f"{value:g}"


class _Artists:
    """The artists of one panel: those that stay are moved, others come and go."""

    def __init__(self, axes: Axes, book: dict[Any, Any], look: Look) -> None:
        self._axes = axes
        self._book = book
        self._look = look
        self._used: set[Any] = set()

    def draw_curve(self, panel: Panel, curve: Curve) -> None:
        color, dashes = line_style(curve, self._look)
        key = curve.color
        if curve.raw is not None:
            raw = self._line(("raw", key), *curve.raw)
            raw.set(color=color, alpha=0.3, linewidth=0.9, zorder=2)
        if curve.low is not None and curve.high is not None:
            self._band(("band", key), curve, curve.low, curve.high, color)
        line = self._line(("line", key), curve.steps, curve.values)
        line.set(color=color, linestyle=dashes, linewidth=1.6, zorder=3)
        line.set(marker="o", markersize=3.5, markevery=curve.dots.tolist())
        line.set_label(drawable(curve.label))
        for marks in curve.marks:
            height = panel.mark_height(marks.kind, key)
            heights = np.full(len(marks.steps), height)
            dots = self._line((marks.kind, key), marks.steps, heights)
            dots.set(linestyle="none", marker=_MARKERS[marks.kind], color=color)
            dots.set(markersize=5.5, zorder=4, clip_on=False)

    def remove_others(self) -> None:
        """Remove what the panel no longer shows."""
        for key in set(self._book) - self._used:
            self._book.pop(key).remove()

    def _line(self, key: Any, steps: Any, values: Any) -> Line2D:
        self._used.add(key)
        line = self._book.get(key)
        if line is None:
            # Not by axes.plot, which would follow the units of earlier data.
            line = self._book[key] = Line2D([], [], solid_joinstyle="round")
            self._axes.add_line(line)
        line.set_data(steps, values)
        return line

    def _band(
        self, key: Any, curve: Curve, low: Floats, high: Floats, color: str
    ) -> None:
        former = self._book.pop(key, None)
        if former is not None:
            former.remove()
        self._used.add(key)
        self._book[key] = self._axes.fill_between(
            curve.steps,
            low,
            high,
            where=np.isfinite(curve.values),
            color=color,
            alpha=0.2,
            linewidth=0,
            zorder=1,
        )


def line_style(curve: Curve, look: Look) -> tuple[str, Any]:
    """Return color and dashes of a curve."""
    round_, number = divmod(curve.color, len(look.palette))
    return look.palette[number], _DASHES[round_ % N_DASHES]


def _finish(figure: PanelFigure, panel: Panel) -> None:
    """Draw what the panels share: title and legend, outside of them."""
    title = shorten(panel.title, figure.columns_of_text(_TITLE + 1))
    figure.suptitle(
        drawable(title),
        fontsize=_TITLE + 1,
        fontweight="bold",
        color=figure.look.ink,
        parse_math=False,
        usetex=False,
    )
    for former in list(figure.legends):
        former.remove()
    lines: dict[int, Line2D] = {}
    kinds: set[str] = set()
    for book in figure.books:
        for (kind, number), artist in book.items():
            if kind == "line":
                lines[number] = artist
            elif kind in MARK_NAMES:
                kinds.add(kind)
    shown = [lines[number] for number in sorted(lines)][:MAX_LEGEND]
    marks = [kind for kind in MARK_NAMES if kind in kinds]
    handles = [_line_handle(line) for line in shown]
    handles += [_mark_handle(kind, figure.look) for kind in marks]
    names = [str(line.get_label()) for line in shown]
    names += [MARK_NAMES[kind] for kind in marks]
    if len(lines) > MAX_LEGEND:
        handles.append(Line2D([], [], linestyle="none"))
        names.append(f"and {len(lines) - MAX_LEGEND} more")
    room = figure.columns_of_text(_TEXT)
    names = [shorten(name, max(room // 2, 12)) for name in names]
    longest = max(map(len, names)) + 6  # and its piece of line
    legend = figure.legend(
        handles,
        # A label that begins with "_" would be left out: see below.
        [str(number) for number in range(len(handles))],
        loc="outside lower center",
        ncols=max(min(len(handles), room // longest), 1),
        fontsize=_TEXT,
        frameon=False,
        labelcolor=figure.look.ink,
        handlelength=1.8,
        columnspacing=1.4,
    )
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set(text=name, parse_math=False, usetex=False)


def _line_handle(line: Line2D) -> Line2D:
    """Return a piece of a curve, without the dots that only some points have."""
    return Line2D(
        [], [], color=line.get_color(), linestyle=line.get_linestyle(), linewidth=1.6
    )


def _mark_handle(kind: str, look: Look) -> Line2D:
    return Line2D(
        [], [], linestyle="none", marker=_MARKERS[kind], color=look.faint, markersize=6
    )


def drawable(text: str) -> str:
    """Return a text with a box for each character that the font does not have.

    Matplotlib draws that box as well, and warns each time it does; where users
    have turned warnings into errors, one name would then cost them the plot.
    """
    if text.isascii():
        return text
    known = _known_characters()
    return "".join(c if ord(c) in known else "\N{WHITE SQUARE}" for c in text)


def _known_characters() -> Any:
    path = font_manager.findfont(font_manager.FontProperties())
    return font_manager.get_font(path).get_charmap()


def figure_pixels(figure: Figure, dpi: float) -> tuple[int, int]:
    """Return width and height of a figure in pixels."""
    width, height = figure.get_size_inches()
    return round(width * dpi), round(height * dpi)
