"""What all verbs share: ``--dir``, ``--json``, how a RUN is named, how errors end."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import sys
import warnings
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import click
from click.shell_completion import CompletionItem

from drytrack import store
from drytrack._store_journal import JournalRun, JournalStore
from drytrack.core import _record
from drytrack.core.exceptions import (
    ConfigurationError,
    DrytrackError,
    DrytrackWarning,
    EventValueError,
    MissingDependencyError,
    RunNotFoundError,
)
from drytrack.core.journal import COMPACT_FILE
from drytrack.core.journal import FILE as JOURNAL_FILE

F = TypeVar("F", bound=Callable[..., Any])

FAILED, USAGE, INTERRUPTED = 1, 2, 130
"""Exit codes; 0 means that everything was done."""

WRONG_ARGUMENTS = (
    RunNotFoundError,
    ConfigurationError,
    EventValueError,
    MissingDependencyError,
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the common options say.

    Attributes:
        par_dir: The folder whose runs are meant.
        as_json: Whether to print JSON.
    """

    par_dir: pathlib.Path
    as_json: bool

    @property
    def store(self) -> JournalStore:
        """The runs of the folder."""
        return JournalStore(self.par_dir)


def common(verb: F) -> Callable[..., None]:
    """Give a verb ``--dir`` and ``--json``, passed as `Settings`, and its errors."""

    @functools.wraps(verb)
    def run(*, par_dir: str | None, as_json: bool, **options: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("always", DrytrackWarning)
            warnings.showwarning = _print_warning
            try:
                settings = Settings(store.find_dir(par_dir), as_json)
                verb(settings, **options)
            except KeyboardInterrupt:
                sys.exit(INTERRUPTED)
            except WRONG_ARGUMENTS as err:
                raise click.UsageError(str(err)) from err
            except DrytrackError as err:
                fail(str(err))

    with_json = click.option(
        "--json", "as_json", is_flag=True, help="Print JSON instead of a table."
    )(run)
    return click.option(
        "--dir",
        "par_dir",
        envvar=store.DIR_VARIABLE,
        metavar="FOLDER",
        help="Folder of the experiments; by default DRYTRACK_DIR, else here.",
    )(with_json)


def fail(message: str) -> NoReturn:
    """Print an error and exit with code 1."""
    click.echo(f"Error: {message}", err=True)
    sys.exit(FAILED)


class RunName(click.ParamType[str]):
    """An argument that names a run; shells complete it."""

    name = "run"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the runs whose id, or experiment and id, begins so."""
        try:
            par_dir = store.find_dir(ctx.params.get("par_dir"))
        except DrytrackError:
            return []
        found = ["last"]
        for folder in list_folders(par_dir):
            found += [folder.name, f"{folder.parent.name}/{folder.name}"]
        return [CompletionItem(name) for name in found if name.startswith(incomplete)]


RUN = RunName()


def find_run(settings: Settings, name: str) -> JournalRun:
    """Return the run that a RUN argument names.

    Raises:
        UsageError: If there is none, or more than one.
        RecordError: If its record cannot be read.
    """
    record = _record.read_record(find_folder(settings, name))
    par_dir = record.path.parent.parent.parent
    return JournalStore(par_dir).open_run(record)


def find_folder(settings: Settings, name: str) -> pathlib.Path:
    """Return the folder of the run that a RUN argument names.

    Raises:
        UsageError: If there is none, or more than one.
    """
    path = pathlib.Path(name)
    if is_run_folder(path):
        return path.absolute()
    if name == "last":
        return _find_last(settings)
    found = _match(settings.par_dir, name)
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(f"{f.parent.name}/{f.name}" for f in found[:5])
        more = ", …" if len(found) > 5 else ""
        msg = (
            f"{name!r} may be any of {len(found)} runs: {listed}{more}. Say more of it."
        )
        raise click.UsageError(msg)
    msg = (
        f"There is no run {name!r} in {settings.par_dir}. List its runs with "
        f"`drytrack runs`, or name their folder with --dir."
    )
    raise click.UsageError(msg)


def is_run_folder(path: pathlib.Path) -> bool:
    """Return whether a folder is a run's."""
    files = (_record.RECORD, JOURNAL_FILE, COMPACT_FILE)
    return any((path / name).is_file() for name in files)


def list_folders(par_dir: pathlib.Path) -> list[pathlib.Path]:
    """Return the folders of all runs, whether their records can be read or not."""
    base = par_dir / _record.FOLDER
    return [
        folder
        for experiment in store.list_experiments(par_dir)
        for folder in sorted((base / experiment).iterdir())
        if is_run_folder(folder)
    ]


def _match(par_dir: pathlib.Path, name: str) -> list[pathlib.Path]:
    """Return the runs that a name may mean, those that it says in full first."""
    folders = list_folders(par_dir)
    experiment, slash, run_id = name.rpartition("/")
    if slash:
        folders = [folder for folder in folders if folder.parent.name == experiment]
    exact = [folder for folder in folders if folder.name == run_id]
    if exact:
        return exact
    begun = [folder for folder in folders if run_id and folder.name.startswith(run_id)]
    if begun or slash or not name:
        return begun
    return [r.path for r in store.runs(par_dir) if r.uuid.startswith(name.lower())]


def _find_last(settings: Settings) -> pathlib.Path:
    found = settings.store.runs()
    if not found:
        msg = (
            f"There are no runs in {settings.par_dir}. Name the folder of the "
            f"experiments with --dir, or set {store.DIR_VARIABLE}."
        )
        raise click.UsageError(msg)

    def began(run: store.StoredRun) -> float:
        attempts = run.record["attempts"]
        return float(attempts[-1]["started"]) if attempts else run.created

    newest = max(found, key=began)
    assert isinstance(newest, JournalRun)  # from a JournalStore
    return newest.path


def _print_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    click.echo(f"Warning: {message}", err=True)
