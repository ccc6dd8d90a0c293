"""``drytrack doctor``."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

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
from drytrack.core.exceptions import DrytrackError, RecordError
from drytrack.store import TRASH

if TYPE_CHECKING:
    from drytrack._doctor import Problem
    from drytrack._doctor_store import StoreDoctor

DATABASE = "drytrack.db"
"""Where `SQLConnection` keeps the runs of a folder by default."""

TRACKER = "sqlalchemy"


@click.command()
@click.argument("runs", nargs=-1, type=RUN, metavar="[RUN]...")
@click.option(
    "--store",
    "place",
    metavar="URL",
    help="A database that must have the runs, too; by default drytrack.db in the "
    "folder, of the runs that were written there.",
)
@click.option("--repair", is_flag=True, help="Set right what can be.")
@common
def doctor(
    settings: Settings, runs: tuple[str, ...], place: str | None, repair: bool
) -> None:
    """Check records, journals and databases against each other.

    By default of all runs. What is wrong with a record or with the database is
    made anew from the journal. Exits with 1 if something is wrong and was not
    set right.
    """
    with _open_store(settings, place) as store:
        results = []
        if store is not None and store.problem is not None:
            # Which runs it had, only the folder tells.
            can = repair and not settings.names_database
            results.append(_treat_store(store, store.problem, repair=can))
        if runs:
            folders = [find_folder(settings, name) for name in runs]
        elif settings.names_database:
            folders = store.folders if store is not None else []
        else:
            folders = list_folders(settings.par_dir)
        patients = [
            _Patient(folder, store, must=place is not None) for folder in folders
        ]
        results += [patient.treat(repair=repair) for patient in patients]
        elsewhere = 0
        if store is not None and settings.names_database:
            elsewhere = store.count_missing()
    trash = []
    if not runs and not settings.names_database:
        trash = _find_trash(settings.par_dir)
    if repair:
        for folder in trash:
            shutil.rmtree(folder, ignore_errors=True)
    if settings.as_json:
        _output.print_json(results)
    else:
        _print(results, len(folders), repair=repair)
        if trash and not repair:
            click.echo(f"{len(trash)} deleted runs still take room.")
        if elsewhere:
            click.echo(f"{elsewhere} runs are elsewhere, and were not checked.")
    left = [p for found in results for p in found["problems"] if not p["repaired"]]
    sys.exit(FAILED if left else 0)


@contextlib.contextmanager
def _open_store(settings: Settings, place: str | None) -> Iterator[StoreDoctor | None]:
    """Yield who checks the database, if there is one to be checked."""
    if place is None and settings.names_database:
        place = settings.where
    elif place is None:
        found = settings.par_dir / DATABASE
        place = str(found) if found.is_file() else None
    if place is None:
        yield None
        return
    from drytrack._doctor_store import StoreDoctor

    store = StoreDoctor(place)
    try:
        yield store
    finally:
        store.close()


def _treat_store(
    store: StoreDoctor, problem: Problem, *, repair: bool
) -> dict[str, Any]:
    """Report a damaged database; move it away, so that it is made anew."""
    repaired = repair and problem.repairable
    aside = store.set_aside() if repaired else None
    if repaired:
        store.start_anew()
    return {
        "run": None,
        "folder": store.url,
        "problems": [{**problem._asdict(), "repaired": repaired}],
        "error": None,
        "aside": None if aside is None else str(aside),
    }


class _Patient:
    """A run that is checked, and repaired."""

    def __init__(
        self, folder: pathlib.Path, store: StoreDoctor | None, *, must: bool
    ) -> None:
        """Take a run.

        Args:
            folder: Its folder.
            store: Who checks the database.
            must: Whether the database must have the run; else only if it was
                written there.
        """
        self._folder = folder
        self._store = store
        self._must = must

    def treat(self, *, repair: bool) -> dict[str, Any]:
        """Check the run, repair it, and check it again."""
        problems = remaining = self._check()
        failure = None
        if repair and any(problem.repairable for problem in problems):
            try:
                self._repair(problems)
            except (DrytrackError, OSError) as err:
                failure = str(err)
            remaining = self._check()
        return {
            "run": f"{self._folder.parent.name}/{self._folder.name}",
            "folder": str(self._folder),
            "problems": [
                {**problem._asdict(), "repaired": repair and problem not in remaining}
                for problem in problems
            ],
            "error": failure,
        }

    def _check(self) -> list[Problem]:
        problems = _doctor.check(self._folder)
        if not self._is_stored():
            return problems
        assert self._store is not None  # where it is stored
        return problems + self._store.check(self._folder)

    def _repair(self, problems: list[Problem]) -> None:
        parts = {problem.part for problem in problems if problem.repairable}
        if parts - {"store"}:
            known = self._store.find_uuid(self._folder) if self._store else None
            _doctor.repair(self._folder, known)
        # A record that was lost has kept the database from being checked.
        if self._is_stored():
            assert self._store is not None  # where it is stored
            if any(found.repairable for found in self._store.check(self._folder)):
                self._store.rebuild(self._folder)

    def _is_stored(self) -> bool:
        if self._store is None or not self._store.is_open:
            return False
        try:
            record = _record.read_record(self._folder)
        except RecordError:
            return False
        written = TRACKER in record.data.get("trackers", {})
        return self._must or written or self._store.knows(record.uuid)


def _find_trash(par_dir: pathlib.Path) -> list[pathlib.Path]:
    """Return what a deletion that was cut off has left."""
    return list((par_dir / _record.FOLDER).glob(f"{TRASH}*"))


def _print(results: list[dict[str, Any]], count: int, *, repair: bool) -> None:
    offered = False
    for result in results:
        name = result["run"] or result["folder"]
        for problem in result["problems"]:
            state = " (repaired)" if problem["repaired"] else ""
            offered |= problem["repairable"] and not repair
            click.echo(f"{name}: {problem['part']}: {problem['text']}{state}")
        if result.get("aside"):
            click.echo(f"{name}: what there was is kept as {result['aside']}.")
        if result["error"]:
            click.echo(f"{name}: not repaired: {result['error']}", err=True)
    bad = sum(bool(result["problems"]) for result in results if result["run"])
    click.echo(f"{count} runs checked, {bad} with problems.")
    if offered:
        click.echo(
            "Set right what can be: drytrack doctor --dir FOLDER [--store URL] --repair"
        )
