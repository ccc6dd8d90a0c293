"""``drytrack compare``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from drytrack._report_facts import name_runs
from drytrack.cli import _output
from drytrack.cli._curves import read_shapes
from drytrack.cli._options import RUN, Settings, common, find_run

if TYPE_CHECKING:
    from rich.console import Console

    from drytrack.store import SeriesKey, SeriesSummary, StoredRun

FIRST = ("epoch", "step")
"""Axes that are compared if none is named, the first that there is; else all."""

NAMES, MIN_CELL = 20, 10
"""Columns of the screen for names, and those that a run needs at least."""

_ABSENT = object()


@click.command()
@click.argument("names", nargs=-1, required=True, type=RUN, metavar="RUN RUN...")
@click.option("--all", "everything", is_flag=True, help="Parameters that agree, too.")
@click.option(
    "--axis", help="epoch, step or another axis; by default the first of them."
)
@click.option("--metric", multiple=True, help="This metric; repeat for several.")
@common
def compare(
    settings: Settings,
    names: tuple[str, ...],
    everything: bool,
    axis: str | None,
    metric: tuple[str, ...],
) -> None:
    """Compare runs: parameters that differ, metrics side by side."""
    found = [find_run(settings, name) for name in names]
    if len({run.uuid for run in found}) < 2:
        raise click.UsageError("Name at least two different runs.")
    labels = _label(found)
    params = compare_params(found, everything=everything)
    columns = [
        {
            each.key: each
            for each in run.summaries()
            if axis in (None, each.key.axis)
            and (not metric or each.key.metric in metric)
        }
        for run in found
    ]
    keys = list(dict.fromkeys(key for column in columns for key in column))
    if axis is None:
        given = {key.axis for key in keys}
        first = next((name for name in FIRST if name in given), None)
        keys = [key for key in keys if first in (None, key.axis)]
    if settings.as_json:
        _output.print_json(
            {
                "runs": [f"{run.experiment}/{run.id}" for run in found],
                "params": {
                    name: [None if v is _ABSENT else v for v in values]
                    for name, values in params.items()
                },
                "metrics": [
                    {
                        **key._asdict(),
                        "last": [_get(column, key, "last") for column in columns],
                        "min": [_get(column, key, "min") for column in columns],
                        "max": [_get(column, key, "max") for column in columns],
                        "best": [_get(column, key, "best") for column in columns],
                    }
                    for key in keys
                ],
            }
        )
        return
    console = _output.make_console()
    heading = "parameters" if everything else "parameters that differ"
    if not params:
        console.print("The parameters are the same.")
    # As many runs side by side as the screen has room for.
    n_beside = max(1, (console.width - NAMES) // (MIN_CELL + _output.GAP))
    for start in range(0, len(found), n_beside):
        part = slice(start, start + n_beside)
        if params:
            table = _output.make_table(
                "", *labels[part], title=heading, fold=("", *labels)
            )
            for name, values in params.items():
                cells = ["-" if value is _ABSENT else value for value in values[part]]
                _output.add_row(table, name, *cells)
            console.print(table)
        for of_axis in dict.fromkeys(key.axis for key in keys):
            chosen = [key for key in keys if key.axis == of_axis]
            _print_metrics(console, found[part], labels[part], columns[part], chosen)


def _print_metrics(
    console: Console,
    found: list[StoredRun],
    labels: list[str],
    columns: list[dict[SeriesKey, SeriesSummary]],
    keys: list[SeriesKey],
) -> None:
    title = f"metrics by {keys[0].axis}: last, best"
    table = _output.make_table("", *labels, title=title, fold=("", *labels))
    width = max(8, min(20, console.width // (len(found) + 1) - 4))
    shapes = [
        read_shapes(run, [column[key] for key in keys if key in column], width)
        for run, column in zip(found, columns, strict=True)
    ]
    for key in keys:
        values = []
        for column, shape in zip(columns, shapes, strict=True):
            each = column.get(key)
            if each is None:
                values.append("-")
                continue
            curve = _output.sparkline(shape[key], console.encoding)
            best = f", {_output.at(each.best, each.best_at)}" if each.better else ""
            values.append(f"{_output.number(each.last)}{best}\n{curve}")
        of = "/".join(filter(None, (key.model, key.source)))
        _output.add_row(table, f"{key.metric}\n{of}", *values)
    console.print(table)


def compare_params(found: list[StoredRun], *, everything: bool) -> dict[str, list[Any]]:
    """Return parameter → its value in each run, where they differ, or all."""
    chosen = [run.params() for run in found]
    names = list(dict.fromkeys(name for params in chosen for name in params))
    compared = {
        name: [params.get(name, _ABSENT) for params in chosen] for name in names
    }
    if everything:
        return compared
    return {
        name: values
        for name, values in compared.items()
        if any(not _same(value, values[0]) for value in values[1:])
    }


def _same(left: Any, right: Any) -> bool:
    return type(left) is type(right) and (
        left == right or (left != left and right != right)  # NaN
    )


def _label(found: list[StoredRun]) -> list[str]:
    """Name the runs as shortly as tells them apart."""
    names = [run.name for run in found]
    return names if len(set(names)) == len(names) else name_runs(found)


def _get(column: dict[Any, Any], key: Any, name: str) -> Any:
    return getattr(column[key], name) if key in column else None
