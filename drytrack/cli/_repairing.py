"""``drytrack doctor``."""

from __future__ import annotations

import pathlib
import shutil
import sys
from typing import Any

import click

from drytrack import _doctor
from drytrack.cli import _output
from drytrack.cli._options import (
    FAILED,
    RUN,
    Settings,
    common,
    find_folder,
    list_folders,
)
from drytrack.core import _record
from drytrack.core.exceptions import DrytrackError
from drytrack.store import TRASH


@click.command()
@click.argument("runs", nargs=-1, type=RUN, metavar="[RUN]...")
@click.option("--repair", is_flag=True, help="Set right what can be.")
@common
def doctor(settings: Settings, runs: tuple[str, ...], repair: bool) -> None:
    """Check records and journals against each other; by default of all runs.

    Exits with 1 if something is wrong and was not set right.
    """
    folders = [find_folder(settings, name) for name in runs]
    folders = folders or list_folders(settings.par_dir)
    results: list[dict[str, Any]] = []
    left = 0
    for folder in folders:
        problems = _doctor.check(folder)
        failure = None
        if repair and any(problem.repairable for problem in problems):
            try:
                _doctor.repair(folder)
            except (DrytrackError, OSError) as err:
                failure = str(err)
        remaining = _doctor.check(folder) if repair else problems
        left += len(remaining)
        results.append(
            {
                "run": f"{folder.parent.name}/{folder.name}",
                "folder": str(folder),
                "problems": [
                    {**problem._asdict(), "repaired": problem not in remaining}
                    for problem in problems
                ],
                "error": failure,
            }
        )
    trash = [] if runs else _find_trash(settings.par_dir)
    if repair:
        for folder in trash:
            shutil.rmtree(folder, ignore_errors=True)
    if settings.as_json:
        _output.print_json(results)
    else:
        _print(results, repair=repair)
        if trash and not repair:
            click.echo(f"{len(trash)} deleted runs still take room.")
    sys.exit(FAILED if left else 0)


def _find_trash(par_dir: pathlib.Path) -> list[pathlib.Path]:
    """Return what a deletion that was cut off has left."""
    return list((par_dir / _record.FOLDER).glob(f"{TRASH}*"))


def _print(results: list[dict[str, Any]], *, repair: bool) -> None:
    offered = False
    for result in results:
        for problem in result["problems"]:
            state = " (repaired)" if problem["repaired"] else ""
            offered |= problem["repairable"] and not repair
            click.echo(f"{result['run']}: {problem['part']}: {problem['text']}{state}")
        if result["error"]:
            click.echo(f"{result['run']}: not repaired: {result['error']}", err=True)
    bad = sum(bool(result["problems"]) for result in results)
    click.echo(f"{len(results)} runs checked, {bad} with problems.")
    if offered:
        click.echo("Set right what can be: drytrack doctor --repair")
