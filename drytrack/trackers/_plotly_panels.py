"""Panels of curves, and of what else was published, as plotly figures."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from drytrack.core._media import MediaFile
from drytrack.trackers._plot_media import (
    MAX_LINES,
    Medium,
    as_file,
    content_of,
    data_uri,
    table_cells,
)
from drytrack.trackers._plot_style import (
    MARK_NAMES,
    N_DASHES,
    Look,
    grid_shape,
    shorten,
)

if TYPE_CHECKING:
    from drytrack.trackers._plot_data import Curve, Panel
    from drytrack.trackers._plot_points import Floats

MAX_ROWS, MAX_COLUMNS = 500, 50
"""Rows and columns of a table in a page."""

_DASHES = ("solid", "dash", "dot", "dashdot")
_SYMBOLS = {"nan": "x", "inf": "triangle-up", "-inf": "triangle-down", "<= 0": "y-down"}
_PANEL_HEIGHT = 250
_HEAD, _FOOT = 90, 90
_SINGLE_HEIGHT = 460
_CHARACTERS = 110
"""Of a title over the whole width."""


def escape(name: str) -> str:
    """Return a name as plotly shows it: it reads tags and entities in any text."""
    return html.escape(name, quote=False)


def draw_panel(panel: Panel, figure: Any, look: Look) -> Any:
    """Add a panel to a figure, which is made with the first one."""
    if figure is None:
        figure = _make_figure(panel, look)
    _, columns = grid_shape(len(panel.metrics))
    row, column = (place + 1 for place in divmod(panel.number, columns))
    for curve in panel.curves:
        for trace in _make_traces(panel, curve, look):
            _add_once(figure, trace, row, column)
        for marks in curve.marks:
            _add_once(figure, _make_key(marks.kind, look), row, column)
    name = f"{panel.metric} [{panel.unit}]" if panel.unit else panel.metric
    title = figure.layout.annotations[panel.number]
    title.text = escape(shorten(name, _CHARACTERS // columns))
    low, high = panel.x_range
    # Between epochs there is nothing; beyond some, ticks are integers anyway.
    figure.update_xaxes(dtick=1 if high - low < 8 else None, row=row, col=column)
    if panel.number + columns >= len(panel.metrics):
        figure.update_xaxes(title_text=escape(panel.axis), row=row, col=column)
    if panel.log:
        figure.update_yaxes(type="log", dtick=None, row=row, col=column)
    return figure


def _add_once(figure: Any, trace: Any, row: int, column: int) -> None:
    """Add a trace; the legend shows each curve, and each kind of mark, once."""
    part, group = trace.meta["part"], trace.legendgroup
    shown = any(old.showlegend and old.legendgroup == group for old in figure.data)
    if part == "key" and shown:
        return
    trace.showlegend = part in ("line", "key") and not shown
    figure.add_trace(trace, row=row, col=column)


def _make_key(kind: str, look: Look) -> Any:
    """Return a trace without points that explains a kind of mark."""
    trace = go.Scatter(
        x=[None],
        y=[None],
        mode="markers",
        name=escape(MARK_NAMES[kind]),
        legendgroup=kind,
        legendrank=2000,  # behind the curves
        meta={"part": "key", "metric": "", "curve": -1},
    )
    trace.marker = _marker(kind, look.faint)
    return trace


def _marker(kind: str, color: str) -> dict[str, Any]:
    # "y-down" is made of strokes alone.
    line = {"width": 2 if kind == "<= 0" else 0, "color": color}
    return {"symbol": _SYMBOLS[kind], "size": 9, "color": color, "line": line}


def _make_figure(panel: Panel, look: Look) -> Any:
    rows, columns = grid_shape(len(panel.metrics))
    single = len(panel.metrics) == 1
    height = _SINGLE_HEIGHT if single else rows * _PANEL_HEIGHT + _HEAD + _FOOT
    figure = make_subplots(
        rows=rows,
        cols=columns,
        # Each is named when it is drawn; an empty title would make none.
        subplot_titles=["…"] * len(panel.metrics),
        horizontal_spacing=0.2 / columns,
        vertical_spacing=0.25 / rows,
    )
    figure.update_annotations(font={"size": 14, "color": look.ink})
    _dress(figure, look, escape(shorten(panel.title, _CHARACTERS)))
    figure.update_layout(
        height=height,
        hovermode="x",
        uirevision="keep",  # what a reader has zoomed or hidden stays so
        legend={
            "orientation": "h",
            "yref": "container",
            "y": 0.01,
            "yanchor": "bottom",
            "x": 0.5,
            "xanchor": "center",
        },
    )
    return figure


def _dress(figure: Any, look: Look, title: str) -> None:
    """Give a figure its colors; templates of the user's change nothing."""
    figure.update_layout(
        template="none",
        title={"text": title, "x": 0.5, "font": {"size": 17}},
        paper_bgcolor=look.paper,
        plot_bgcolor=look.paper,
        font={"color": look.ink, "family": "sans-serif"},
        margin={"l": 60, "r": 30, "t": _HEAD, "b": _FOOT},
        hoverlabel={"bgcolor": look.paper, "font": {"color": look.ink}},
    )
    axis = {
        "gridcolor": look.grid,
        "linecolor": look.faint,
        "showline": True,
        "zeroline": False,
        "nticks": 6,
    }
    figure.update_xaxes(tickformat="~s", title={"standoff": 6}, **axis)
    figure.update_yaxes(**axis)


def _make_traces(panel: Panel, curve: Curve, look: Look) -> list[Any]:
    """Return the traces of a curve; ``meta`` says which part each one is."""
    round_, number = divmod(curve.color, len(look.palette))
    color, dash = look.palette[number], _DASHES[round_ % N_DASHES]
    name = escape(shorten(curve.label, _CHARACTERS // 2))
    group = str(curve.color)
    shared = {"name": name, "legendgroup": group}
    traces = []

    def add(part: str, x: Any, y: Any, **options: Any) -> None:
        meta = {"part": part, "metric": panel.metric, "curve": curve.color}
        traces.append(go.Scatter(x=x, y=y, meta=meta, **shared, **options))

    if curve.low is not None and curve.high is not None:
        x, y = _outline(curve, curve.low, curve.high)
        line = {"width": 0, "color": color}
        add("band", x, y, mode="lines", fill="toself", line=line, hoverinfo="skip")
        traces[-1].fillcolor = _translucent(color, 0.2)
    if curve.raw is not None:
        line = {"color": color, "width": 1}
        add("raw", *curve.raw, mode="lines", line=line, opacity=0.35, hoverinfo="skip")
    line = {"color": color, "dash": dash, "width": 2}
    if len(curve.dots):
        sizes = np.zeros(len(curve.steps), np.int64)
        sizes[curve.dots] = 6
        dots = {"size": sizes, "color": color, "line": {"width": 0}}
        look_of_it = {"mode": "lines+markers", "marker": dots}
    else:
        look_of_it = {"mode": "lines"}
    add("line", curve.steps, curve.values, line=line, **look_of_it)
    for marks in curve.marks:
        height = panel.mark_height(marks.kind, curve.color)
        add(
            marks.kind,
            marks.steps,
            np.full(len(marks.steps), height),
            mode="markers",
            marker=_marker(marks.kind, color),
            hovertemplate=f"{escape(MARK_NAMES[marks.kind])}<extra>{name}</extra>",
        )
    return traces


def _outline(curve: Curve, low: Floats, high: Floats) -> tuple[Any, Any]:
    """Return the band as one polygon for each piece between gaps."""
    finite = np.isfinite(curve.values)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], finite, [False]])))
    x, y = [], []
    for begin, end in edges.reshape(-1, 2):
        steps = curve.steps[begin:end]
        x += [steps, steps[::-1], [np.nan]]
        y += [low[begin:end], high[begin:end][::-1], [np.nan]]
    empty = np.empty(0)
    return np.concatenate([empty, *x[:-1]]), np.concatenate([empty, *y[:-1]])


def _translucent(color: str, share: float) -> str:
    red, green, blue = (int(color[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},{share})"


def sync(shown: Any, drawn: Any) -> None:
    """Make a figure that is shown the same as one drawn anew, in place."""

    def parts(figure: Any) -> list[Any]:
        return [trace.meta for trace in figure.data]

    with shown.batch_update():
        if parts(shown) == parts(drawn):
            for old, new in zip(shown.data, drawn.data, strict=True):
                old.update(x=new.x, y=new.y, mode=new.mode)
                if new.marker.size is not None:
                    old.marker.size = new.marker.size
        else:
            shown.data = ()
            shown.add_traces(drawn.data)
            shown.layout = drawn.layout


def draw_medium(medium: Medium, look: Look) -> Any:
    """Return a figure of a histogram, an image, a figure or a table."""
    title = escape(shorten(medium.title, _CHARACTERS))
    event = medium.newest
    if medium.kind == "figure" and _is_plotly(event.figure):
        import plotly.io as pio

        figure = pio.from_json(event.figure.data.decode(), skip_invalid=True)
        if figure.layout.title.text is None:
            figure.update_layout(title={"text": title})
        return figure
    figure = go.Figure()
    _dress(figure, look, title)
    figure.update_layout(height=_SINGLE_HEIGHT)
    if medium.kind == "histogram":
        _add_histograms(figure, medium, look)
    elif medium.kind == "table":
        _add_table(figure, event, look)
    else:
        _add_picture(figure, medium)
    return figure


def _is_plotly(content: object) -> bool:
    return isinstance(content, MediaFile) and content.format == "plotly"


def _add_histograms(figure: Any, medium: Medium, look: Look) -> None:
    """Add the newest one filled, and a few older ones as paler lines."""
    events = medium.pick(MAX_LINES)
    for number, event in enumerate(events):
        newest = event is events[-1]
        color = _blend(*look.ramp, (number + 1) / len(events))
        figure.add_scatter(
            x=list(event.bin_edges),
            y=[*event.counts, event.counts[-1]],
            mode="lines",
            line={"shape": "hv", "color": color, "width": 2.5 if newest else 1.2},
            fill="tozeroy" if newest else None,
            fillcolor=_translucent(color, 0.25) if newest else None,
            name=f"step {event.step}",
        )
    figure.update_xaxes(tickformat=None)
    figure.update_yaxes(title_text="count", rangemode="tozero")


def _blend(old: str, new: str, share: float) -> str:
    pairs = [(int(old[at : at + 2], 16), int(new[at : at + 2], 16)) for at in (1, 3, 5)]
    channels = [round(a * (1 - share) + b * share) for a, b in pairs]
    return "#" + "".join(f"{channel:02x}" for channel in channels)


def _add_table(figure: Any, event: Any, look: Look) -> None:
    header, rows = table_cells(event, MAX_ROWS, MAX_COLUMNS)
    columns = [[escape(row[n]) for row in rows] for n in range(len(header))]
    shared = {"align": "left", "line": {"color": look.grid}}
    names = [f"<b>{escape(name)}</b>" for name in header]
    figure.add_table(
        header={"values": names, "fill": {"color": look.grid}, **shared},
        cells={"values": columns, "fill": {"color": look.paper}, **shared},
    )


def _add_picture(figure: Any, medium: Medium) -> None:
    """Add an image to the layout, where any format works that browsers show."""
    event = medium.newest
    figure.add_layout_image(
        source=data_uri(as_file(content_of(event))),
        xref="paper",
        yref="paper",
        x=0.5,
        y=1,
        sizex=1,
        sizey=1,
        xanchor="center",
        sizing="contain",
        layer="above",
    )
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    if event.caption:
        caption = escape(shorten(event.caption, _CHARACTERS))
        where = {"xref": "paper", "yref": "paper", "x": 0.5, "y": -0.05}
        figure.add_annotation(text=caption, showarrow=False, yanchor="top", **where)


# By default a button of the figure uploads it to a server of plotly's maker.
_CONFIG = {
    "responsive": True,
    "displaylogo": False,
    "modeBarButtonsToRemove": ["sendChartToCloud", "sendDataToCloud"],
}

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>body {{ margin: 1rem; background: {paper}; color: {ink}; }}</style>
</head>
<body>
{figures}
</body>
</html>
"""


def make_page(figures: list[Any], title: str, look: Look) -> str:
    """Return an HTML page that needs nothing else, the plotly library in it."""
    parts = [
        figure.to_html(
            full_html=False,
            include_plotlyjs=number == 0,
            div_id=f"plot-{number + 1}",
            config=_CONFIG,
        )
        for number, figure in enumerate(figures)
    ]
    return _PAGE.format(
        title=html.escape(title),
        paper=look.paper,
        ink=look.ink,
        figures="\n".join(parts),
    )
