"""``drytrack replay`` and ``drytrack compact``."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from drytrack.cli import _output
from drytrack.cli._options import FAILED, RUN, Settings, common, find_folder
from drytrack.cli._targets import make_tracker
from drytrack.core import journal
from drytrack.core._record import read_record
from drytrack.core.exceptions import RecordError
from drytrack.replay import replay as feed

if TYPE_CHECKING:
    import pathlib

    from drytrack.core.log_events import Event

REFRESH_EVERY = 256
"""Events between two looks of the progress bar."""


@click.command()
@click.argument("run", type=RUN)
@click.option(
    "--to",
    "targets",
    multiple=True,
    required=True,
    metavar="TRACKER",
    help="csv, csv:FOLDER, sqlalchemy:URL, package.module.Class; repeat for several.",
)
@click.option(
    "--from-seq",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="The first sequence number to feed.",
)
@common
def replay(
    settings: Settings, run: str, targets: tuple[str, ...], from_seq: int
) -> None:
    """Feed the journal of a run to trackers, as if it went on now.

    What a tracker of drytrack has already is not added twice. Exits with 1 if a
    tracker failed.
    """
    folder = find_folder(settings, run)
    trackers = [make_tracker(target) for target in targets]
    with _progress(folder, from_seq, shown=not settings.as_json) as on_event:
        done = feed(folder, trackers, from_seq, on_event=on_event)
    if settings.as_json:
        _output.print_json(done._asdict())
    else:
        click.echo(f"Replayed {done.events} events to {', '.join(done.failed)}.")
        for name, count in done.failed.items():
            if count:
                click.echo(f"Error: tracker {name!r} failed {count} times.", err=True)
    if any(done.failed.values()):
        sys.exit(FAILED)


@click.command()
@click.argument("runs", nargs=-1, required=True, type=RUN, metavar="RUN...")
@common
def compact(settings: Settings, runs: tuple[str, ...]) -> None:
    """Compress journals of runs that have ended; they stay readable."""
    folders = [find_folder(settings, name) for name in runs]
    results = []
    for folder in folders:
        before, after = journal.compact(folder)
        results.append({"folder": str(folder), "before": before, "after": after})
        if not settings.as_json:
            share = after / before if before else 1.0
            click.echo(f"{folder.name}: {before} bytes, now {after} ({share:.0%})")
    if settings.as_json:
        _output.print_json(results)


@contextlib.contextmanager
def _progress(
    folder: pathlib.Path, from_seq: int, *, shown: bool
) -> Iterator[Callable[[Event], None] | None]:
    """Show a bar on a terminal; yield what moves it."""
    console = _output.make_console(err=True)
    if not shown or not console.is_terminal:
        yield None
        return
    from rich import progress

    total = _count_events(folder)
    bar = progress.Progress(
        progress.TextColumn("replay"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    with bar:
        task = bar.add_task("replay", total=total and max(0, total - from_seq + 1))
        seen = 0

        def advance(_: Event) -> None:
            nonlocal seen
            seen += 1
            if seen % REFRESH_EVERY == 0:
                bar.update(task, completed=seen)

        yield advance
        bar.update(task, completed=seen)


def _count_events(folder: pathlib.Path) -> int | None:
    try:
        known = read_record(folder).data.get("journal", {})
        return int(known["seq"])
    except (RecordError, KeyError, TypeError, ValueError):
        return None
