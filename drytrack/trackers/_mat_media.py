"""Histograms, images, tables and figures as panels of a matplotlib figure."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from matplotlib import image as mpl_image
from matplotlib import ticker
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.transforms import Bbox

from drytrack.core._media import MediaFile
from drytrack.trackers._mat_panels import PanelFigure, drawable
from drytrack.trackers._plot_media import MAX_LINES, Medium, content_of, table_cells
from drytrack.trackers._plot_style import grid_shape, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_PER_SHEET = 25
MAX_ROWS, MAX_COLUMNS = 8, 6
"""Rows and columns of a table that can be read in a panel."""

_TITLE, _SMALL = 9.0, 7.0
_ROW_HEIGHT = 0.1
"""Of a table, as a part of its panel, where there are few rows."""


def draw_sheets(
    media: list[Medium], theme: str, size: tuple[float, float] | None
) -> list[PanelFigure]:
    """Return figures with one panel for each medium."""
    sheets = []
    for begin in range(0, len(media), MAX_PER_SHEET):
        shown = media[begin : begin + MAX_PER_SHEET]
        sheet = PanelFigure(theme, size)
        sheet.arrange(len(shown))
        for axes, medium in zip(sheet.panels, shown, strict=True):
            _draw(axes, medium, sheet)
        sheets.append(sheet)
    return sheets


def _draw(axes: Axes, medium: Medium, sheet: PanelFigure) -> None:
    _, columns = grid_shape(len(sheet.panels))
    width = sheet.columns_of_text(_TITLE, panels=columns)
    title = drawable(shorten(medium.title, width))
    axes.set_title(title, fontsize=_TITLE, parse_math=False)
    if medium.kind == "histogram":
        _draw_histograms(axes, medium, sheet)
        return
    axes.grid(visible=False)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    if medium.kind == "table":
        _draw_table(axes, medium, sheet)
    else:
        _draw_picture(axes, medium, sheet, width)


def _draw_histograms(axes: Axes, medium: Medium, sheet: PanelFigure) -> None:
    """Draw the newest one bold, and a few older ones paler; one alone is filled."""
    ramp = LinearSegmentedColormap.from_list("age", list(sheet.look.ramp))
    events = medium.pick(MAX_LINES)
    for number, event in enumerate(events):
        newest = event is events[-1]
        axes.stairs(
            list(event.counts),
            list(event.bin_edges),
            color=ramp((number + 1) / len(events)),
            fill=newest and len(events) == 1,
            linewidth=1.8 if newest else 1.0,
            label=f"step {event.step}",
        )
    axes.xaxis.set_major_locator(ticker.MaxNLocator(nbins=5))
    axes.yaxis.set_major_locator(ticker.MaxNLocator(nbins=4))
    axes.set_ylabel("count", fontsize=_SMALL)


def _draw_picture(axes: Axes, medium: Medium, sheet: PanelFigure, columns: int) -> None:
    event = medium.newest
    content = content_of(event)
    pixels = _decode(content)
    if pixels is None:
        note = f"a {content.format} figure,\nwhich matplotlib cannot draw"
        _say(axes, note, sheet)
    else:
        gray: Any = {"cmap": "gray", "vmin": 0, "vmax": 255} if pixels.ndim == 2 else {}
        axes.imshow(pixels, interpolation="antialiased", **gray)
    if event.caption:
        caption = drawable(shorten(event.caption, columns))
        axes.set_xlabel(caption, fontsize=_SMALL, parse_math=False)


def _decode(content: Any) -> Any:
    """Return the pixels of an image; None where they are no pixels."""
    if not isinstance(content, MediaFile):
        return content
    if content.format in ("svg", "plotly"):
        return None
    return mpl_image.imread(io.BytesIO(content.data), format=content.format)


def _draw_table(axes: Axes, medium: Medium, sheet: PanelFigure) -> None:
    header, rows = table_cells(medium.newest, MAX_ROWS, MAX_COLUMNS)
    if not header:
        _say(axes, "a table without columns", sheet)
        return
    _, across = grid_shape(len(sheet.panels))
    room = sheet.columns_of_text(_SMALL, panels=across) // len(header)
    cells = [[drawable(shorten(text, max(room, 4))) for text in row] for row in rows]
    names = [drawable(shorten(name, max(room, 4))) for name in header]
    height = min((len(cells) + 1) * _ROW_HEIGHT, 1.0)
    table = axes.table(
        cellText=cells or [[""] * len(names)],
        colLabels=names,
        cellLoc="left",
        colLoc="left",
        bbox=Bbox.from_bounds(0.0, 1.0 - height, 1.0, height),
    )
    table.auto_set_font_size(False)
    for (row, _), cell in table.get_celld().items():
        cell.set(facecolor=sheet.look.paper, edgecolor=sheet.look.grid)
        text = cell.get_text()
        text.set(fontsize=_SMALL, color=sheet.look.ink, parse_math=False, usetex=False)
        if row == 0:
            text.set_fontweight("bold")


def _say(axes: Axes, text: str, sheet: PanelFigure) -> None:
    axes.text(
        0.5,
        0.5,
        text,
        transform=axes.transAxes,
        ha="center",
        va="center",
        fontsize=_SMALL + 1,
        color=sheet.look.faint,
    )
