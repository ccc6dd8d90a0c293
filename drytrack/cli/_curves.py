"""``drytrack metrics``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from drytrack.cli import _output
from drytrack.cli._options import RUN, Settings, common, fail, find_run

if TYPE_CHECKING:
    from rich.console import Console

    from drytrack.store import SeriesKey, SeriesSummary, StoredRun

    Curves = dict[SeriesKey, tuple[list[int], list[float]]]
    Shapes = dict[SeriesKey, list[float]]

DROPPABLE = ("mean", "first", "n", "curve", "max", "min")
"""Columns that a narrow screen does without."""

MAX_NAMES = 20
"""Metrics that a message lists."""

MAX_POINTS = 200
"""Rows of points that a screen is asked to show."""


STATISTICS = (
    *("count", "first", "first_at", "last", "last_at"),
    *("min", "min_at", "max", "max_at", "mean"),
    *("better", "best", "best_at"),
)
"""What JSON tells of a series."""


@click.command()
@click.argument("run", type=RUN)
@click.argument("names", nargs=-1)
@click.option("--axis", help="epoch, step or another axis; by default all.")
@click.option("--model", help="Of this model alone.")
@click.option("--source", help="Of this source alone.")
@click.option("--points", is_flag=True, help="Show the points themselves.")
@click.option(
    "-n",
    "limit",
    type=click.IntRange(min=1),
    default=MAX_POINTS,
    show_default=True,
    help="The last N points of each series; JSON has all.",
)
@common
def metrics(
    settings: Settings,
    run: str,
    names: tuple[str, ...],
    axis: str | None,
    model: str | None,
    source: str | None,
    points: bool,
    limit: int,
) -> None:
    """Show the metrics of a run: summaries and small curves."""
    found = find_run(settings, run)
    keys = set(found.series_keys(*names, model=model, source=source, axis=axis))
    if names and not keys:
        fail(f"Run {found.id!r} has no such metric. It has: {list_metrics([found])}.")
    chosen = [each for each in found.summaries() if each.key in keys]
    if settings.as_json:
        curves = read_curves(found, chosen) if points else {}
        _output.print_json([_as_json(each, curves) for each in chosen])
        return
    console = _output.make_console()
    if points:
        _print_points(console, chosen, read_curves(found, chosen), limit)
        return
    width = 10 if console.width < _output.NARROW else 24
    print_series(console, chosen, read_shapes(found, chosen, width))


def _print_points(
    console: Console, chosen: list[SeriesSummary], curves: Curves, limit: int
) -> None:
    for each in chosen:
        table = _output.make_table(
            each.key.axis,
            each.key.metric,
            title="/".join(filter(None, each.key)),
            right=(each.key.axis, each.key.metric),
        )
        steps, values = curves[each.key]
        for step, value in list(zip(steps, values, strict=True))[-limit:]:
            _output.add_row(table, step, repr(value))
        console.print(table)


def print_series(console: Console, chosen: list[SeriesSummary], shapes: Shapes) -> None:
    """Print a table for the series of each model, source and axis."""
    extra = ["first", "mean"]
    drawn = ["curve"] if shapes else []
    for of in dict.fromkeys(each.key[:3] for each in chosen):
        columns = ("metric", "n", *extra, "last", "min", "max", *drawn)
        table = _output.make_table(
            *columns,
            title=f"{'/'.join(filter(None, of[:2]))} by {of[2]}",
            right=("n", "first", "mean", "last"),
            fold=("metric",),
        )
        for each in chosen:
            if each.key[:3] != of:
                continue
            cells = [each.key.metric + _mark(each), each.count]
            cells += [_output.number(getattr(each, name)) for name in extra]
            cells += [
                _output.number(each.last),
                _output.at(each.min, each.min_at),
                _output.at(each.max, each.max_at),
            ]
            if shapes:
                cells.append(_output.sparkline(shapes[each.key], console.encoding))
            _output.add_row(table, *cells)
        console.print(_output.fit(console, table, DROPPABLE))


def list_metrics(runs: Sequence[StoredRun]) -> str:
    """Return the names of the metrics of some runs, as a part of a sentence."""
    known = sorted({key.metric for run in runs for key in run.series_keys()})
    more = ["…"] if len(known) > MAX_NAMES else []
    return ", ".join([*known[:MAX_NAMES], *more]) or "none"


def read_curves(run: StoredRun, chosen: list[SeriesSummary]) -> Curves:
    """Return the steps and values of some series, read together."""
    curves: Curves = {each.key: ([], []) for each in chosen}
    if chosen:
        for key, steps, values in run.read_points([each.key for each in chosen]):
            curves[key][0].extend(steps)
            curves[key][1].extend(values)
    return curves


def read_shapes(run: StoredRun, chosen: list[SeriesSummary], width: int) -> Shapes:
    """Return what curves of some series look like; memory does not grow with them.

    Args:
        run: The run.
        chosen: Which series.
        width: Values for each, at the most; of more points, means are taken.
    """
    counts = {each.key: each.count for each in chosen}
    sums = {key: [0.0] * min(width, n) for key, n in counts.items()}
    finite = {key: [0] * min(width, n) for key, n in counts.items()}
    seen = dict.fromkeys(counts, 0)
    for key, _, values in run.read_points(list(counts)) if counts else ():
        total, n_finite, n = sums[key], finite[key], counts[key]
        for at, value in enumerate(values, seen[key]):
            # A run that goes on may have more points than were counted.
            place = min(at * len(total) // n, len(total) - 1)
            if math.isfinite(value):
                n_finite[place] += 1
                total[place] += (value - total[place]) / n_finite[place]
        seen[key] += len(values)
    return {
        key: [
            mean if n else math.nan
            for mean, n in zip(sums[key], finite[key], strict=True)
        ]
        for key in counts
    }


def _as_json(each: SeriesSummary, curves: Curves) -> dict[str, Any]:
    told = {
        **each.key._asdict(),
        **{name: getattr(each, name) for name in STATISTICS},
        "checkpoint": each.checkpoint._asdict() if each.checkpoint else None,
    }
    if curves:
        told["steps"], told["values"] = curves[each.key]
    return told


def _mark(each: SeriesSummary) -> str:
    return {"lower": " ↓", "higher": " ↑", None: ""}[each.better]
