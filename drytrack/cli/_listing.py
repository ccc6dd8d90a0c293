"""``drytrack runs`` and ``drytrack show``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from drytrack import _report_facts
from drytrack._conditions import name_statistic, parse_condition
from drytrack.cli import _output
from drytrack.cli._curves import print_series
from drytrack.cli._options import RUN, Settings, common, find_local, find_run

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from drytrack.store import StoredRun

DROPPABLE = ("started", "took", "tags")
"""Columns that a narrow screen does without."""


@click.command()
@click.argument("experiment", required=False)
@click.option("--tag", multiple=True, help="With this tag; repeat for several.")
@click.option("--status", multiple=True, help="With this status, or one of several.")
@click.option("--param", multiple=True, metavar="COND", help="Such as 'lr<=0.01'.")
@click.option("--metric", multiple=True, metavar="COND", help="Such as 'loss.min<0.2'.")
@click.option("--show", "shown", multiple=True, help="A metric: loss, loss.min.")
@click.option("-n", "limit", type=click.IntRange(min=0), help="The newest N alone.")
@common
def runs(
    settings: Settings,
    experiment: str | None,
    tag: tuple[str, ...],
    status: tuple[str, ...],
    param: tuple[str, ...],
    metric: tuple[str, ...],
    shown: tuple[str, ...],
    limit: int | None,
) -> None:
    """List runs, oldest first, of all experiments or of one."""
    found = settings.store.runs(
        experiment,
        tag=tag,
        status=status,
        params=dict(map(parse_condition, param)),
        metrics=dict(map(parse_condition, metric)),
    )
    if limit is not None:
        found = found[len(found) - limit :] if limit < len(found) else found
    if settings.as_json:
        _output.print_json(
            [{**describe(run), "metrics": _pick(run, shown)} for run in found]
        )
        return
    if not found:
        click.echo(f"No runs in {settings.store.url}.{settings.hint}", err=True)
        return
    console = _output.make_console()
    for name in dict.fromkeys(run.experiment for run in found):
        of_it = [run for run in found if run.experiment == name]
        console.print(_output.fit(console, _make_list(name, of_it, shown), DROPPABLE))


def _make_list(
    experiment: str, found: list[StoredRun], shown: tuple[str, ...]
) -> Table:
    table = _output.make_table(
        "run",
        "status",
        *DROPPABLE,
        *shown,
        title=experiment,
        right=("took", *shown),
        fold=("tags",),
    )
    for run in found:
        picked = _pick(run, shown)
        label = run.id if run.name == run.id else f"{run.id} ({run.name})"
        _output.add_row(
            table,
            label,
            _output.status_cell(run.status),
            _output.moment(run.started or run.created),
            _output.duration(_report_facts.took(run)),
            ", ".join(run.tags),
            *(_output.number(picked[name]) for name in shown),
        )
    return table


@click.command()
@click.argument("run", type=RUN)
@common
def show(settings: Settings, run: str) -> None:
    """Show one run: state, surroundings, parameters, metrics."""
    found = find_run(settings, run)
    if settings.as_json:
        _output.print_json(
            {
                **describe(found),
                "folder": str(path) if (path := find_local(found)) else None,
                "params": found.params(),
                "values": found.values(),
                "metrics": list(found.summary()),
                "checkpoints": [saved._asdict() for saved in found.checkpoints()],
                "record": found.record,
            }
        )
        return
    console = _output.make_console()
    _print_state(console, found)
    _print_pairs(console, "parameters", found.params())
    _print_pairs(console, "final values", found.values())
    print_series(console, found.summaries(), {})
    if saved := found.checkpoints():
        last = saved[-1]
        more = f" and {len(saved) - 1} before it" if len(saved) > 1 else ""
        console.print(f"checkpoint: {last.location}, epoch {last.epoch}{more}")


def describe(run: StoredRun) -> dict[str, Any]:
    """Return what is told of a run in a list."""
    return {
        "experiment": run.experiment,
        "id": run.id,
        "uuid": run.uuid,
        "name": run.name,
        "status": run.status,
        "attempt": run.attempt,
        "created": run.created,
        "started": run.started,
        "ended": run.ended,
        "tags": run.tags,
        "notes": run.notes,
        "error": run.error,
    }


def _pick(run: StoredRun, names: tuple[str, ...]) -> dict[str, float | None]:
    """Return a statistic of each metric that is named."""
    if not names:
        return {}
    summaries = run.summaries()
    known = {summary.key.metric for summary in summaries}
    picked: dict[str, float | None] = {}
    for name in names:
        metric, statistic = name_statistic(name, known.__contains__)
        # Values of epochs first: those of steps are the noisy ones.
        found = sorted(
            (summary for summary in summaries if summary.key.metric == metric),
            key=lambda summary: summary.key.axis != "epoch",
        )
        picked[name] = getattr(found[0], statistic) if found else None
    return picked


def _print_state(console: Console, run: StoredRun) -> None:
    from rich.text import Text

    facts: dict[str, Any] = dict(_report_facts.describe(run))
    title = Text(f"{facts.pop('experiment')}/{facts.pop('run')}", style="bold")
    if name := facts.pop("name", ""):
        title.append(f"  {name}")
    console.print(title)
    facts["status"] = _output.status_cell(run.status)
    if folder := find_local(run):
        facts["folder"] = folder
    if run.error is not None:
        facts["error"] = f"{run.error.get('type')}: {run.error.get('message')}"
    table = _output.make_table("", "value", fold=("value",))
    table.show_header = False
    table.box = None
    for name, value in facts.items():
        _output.add_row(table, name, value)
    console.print(table)
    console.print()


def _print_pairs(console: Console, title: str, pairs: dict[str, Any]) -> None:
    if not pairs:
        return
    table = _output.make_table("name", "value", title=title, fold=("name", "value"))
    table.show_header = False
    for name, value in pairs.items():
        _output.add_row(table, name, value)
    console.print(table)
