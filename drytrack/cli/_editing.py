"""``drytrack tag``, ``note``, ``rename``, ``goal`` and ``delete``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, cast

import click

from drytrack._report_facts import LIVE
from drytrack._store_journal import JournalRun, JournalStore
from drytrack.cli import _output
from drytrack.cli._listing import describe
from drytrack.cli._options import RUN, Settings, common, find_local, find_run
from drytrack.core._record import check_free, read_record
from drytrack.core.exceptions import RunHeldError

if TYPE_CHECKING:
    from drytrack._summaries import Better
    from drytrack.store import StoredRun

DIRECTIONS = ["lower", "higher", "none"]


@click.command()
@click.argument("run", type=RUN)
@click.argument("tags", nargs=-1)
@click.option("--remove", multiple=True, metavar="TAG", help="Remove this tag.")
@common
def tag(
    settings: Settings, run: str, tags: tuple[str, ...], remove: tuple[str, ...]
) -> None:
    """Add tags to a run, or remove some; without any, show them."""
    found = find_run(settings, run)
    if tags or remove:
        known, _ = _read_labels(found)
        kept = [each for each in known if each not in remove]
        found.edit(tags=[*kept, *tags])
    _say(settings, found, ", ".join(found.tags))


@click.command()
@click.argument("run", type=RUN)
@click.argument("text", required=False)
@click.option("--append", is_flag=True, help="Add a line to the notes.")
@common
def note(settings: Settings, run: str, text: str | None, append: bool) -> None:
    """Set the notes of a run, or show them; "-" reads the input."""
    found = find_run(settings, run)
    if text is not None:
        text = sys.stdin.read().rstrip("\n") if text == "-" else text
        _, notes = _read_labels(found)
        if append and notes:
            text = f"{notes}\n{text}"
        found.edit(notes=text)
    _say(settings, found, found.notes)


@click.command()
@click.argument("run", type=RUN)
@click.argument("name")
@common
def rename(settings: Settings, run: str, name: str) -> None:
    """Change what a run is called; its id stays ("" undoes it)."""
    found = find_run(settings, run)
    found.edit(name=name)
    _say(settings, found, found.name)


@click.command()
@click.argument("experiment")
@click.argument("metric", required=False)
@click.argument("better", type=click.Choice(DIRECTIONS), required=False)
@common
def goal(
    settings: Settings, experiment: str, metric: str | None, better: str | None
) -> None:
    """Declare which values of a metric are better, or show it."""
    store = settings.store
    if isinstance(store, JournalStore):
        known = store.experiments()
    else:
        known = [run.experiment for run in store.runs()]
    if experiment not in known:
        raise click.UsageError(f"There is no experiment {experiment!r}.")
    if metric is not None:
        if better is None:
            raise click.UsageError("Say which is better: lower, higher or none.")
        chosen = None if better == "none" else cast("Better", better)
        store.set_goal(experiment, metric, chosen)
    goals = store.goals(experiment)
    if settings.as_json:
        _output.print_json(goals)
        return
    for name, direction in goals.items():
        click.echo(f"{name}: {direction} is better")


@click.command()
@click.argument("runs", nargs=-1, required=True, type=RUN, metavar="RUN...")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@common
def delete(settings: Settings, runs: tuple[str, ...], yes: bool) -> None:
    """Delete the record, journal and blobs of runs that have ended.

    What trackers wrote elsewhere, such as CSV files, stays. Of a database, only
    its rows are deleted.
    """
    found = list(
        {run.uuid: run for run in (find_run(settings, r) for r in runs)}.values()
    )
    for run in found:  # all of them before the first is gone
        _refuse_held(run)
    names = [f"{run.experiment}/{run.id}" for run in found]
    where = "" if isinstance(settings.store, JournalStore) else " from the database"
    if not yes:
        question = f"Delete {', '.join(names)}{where} for good?"
        click.confirm(question, abort=True, err=True)
    for run in found:
        run.delete()
    if settings.as_json:
        _output.print_json({"deleted": names})
    else:
        click.echo(f"Deleted {', '.join(names)}{where}.")


def _read_labels(run: StoredRun) -> tuple[list[str], str]:
    """Return tags and notes, as the record has them where it is on this machine.

    A database may have them from before they were changed in the record.
    """
    path = find_local(run)
    if path is None:
        return run.tags, run.notes
    record = read_record(path)
    return record.tags, str(record.data.get("notes") or "")


def _refuse_held(run: StoredRun) -> None:
    """Refuse a run that goes on."""
    if isinstance(run, JournalRun):
        check_free(read_record(run.path))
    elif run.status in LIVE:
        msg = (
            f"Run {run.id!r} of experiment {run.experiment!r} is {run.status}. Wait "
            f"until it ends, or stop it."
        )
        raise RunHeldError(msg)


def _say(settings: Settings, run: StoredRun, text: str) -> None:
    if settings.as_json:
        _output.print_json(describe(run))
    elif text:
        click.echo(text)
