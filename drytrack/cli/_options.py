"""What all verbs share: ``--dir``, ``--json``, how a RUN is named, how errors end."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import sys
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

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

if TYPE_CHECKING:
    from drytrack.store import Store, StoredRun

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
        where: The folder or the database whose runs are meant; None for the
            working directory.
        as_json: Whether to print JSON.
    """

    where: str | None
    as_json: bool

    @functools.cached_property
    def store(self) -> Store:
        """The runs of the folder or the database."""
        return store.open_store(self.where)

    @property
    def names_database(self) -> bool:
        """Whether a database is meant, be it damaged or gone."""
        return self.where is not None and store.names_database(self.where)

    @property
    def hint(self) -> str:
        """Where runs are, as a sentence; empty unless in a folder below alone."""
        if not isinstance(self.store, JournalStore):
            return ""
        folder = self.store.par_dir
        below = sorted(folder.glob(f"*/{_record.FOLDER}"))
        if not below or (folder / _record.FOLDER).exists():
            return ""
        return f" There are some below: --dir {below[0].parent}."

    @property
    def par_dir(self) -> pathlib.Path:
        """The folder of the experiments.

        Raises:
            UsageError: If a database is meant.
        """
        if isinstance(self.store, JournalStore):
            return self.store.par_dir
        msg = (
            f"This needs journals, which are in the folder of the experiments, not in "
            f"{self.store.url}. Name the folder: --dir FOLDER."
        )
        raise click.UsageError(msg)


def common(verb: F) -> Callable[..., None]:
    """Give a verb ``--dir`` and ``--json``, passed as `Settings`, and its errors."""

    @functools.wraps(verb)
    def run(*, par_dir: str | None, as_json: bool, **options: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("always", DrytrackWarning)
            warnings.showwarning = _print_warning
            try:
                verb(Settings(par_dir, as_json), **options)
            except KeyboardInterrupt:
                sys.exit(INTERRUPTED)
            except (*WRONG_ARGUMENTS, FileNotFoundError) as err:
                raise click.UsageError(str(err)) from err
            except _failures() as err:
                # What SQLAlchemy adds is the statement, and where to read more.
                cause = getattr(err, "orig", None) or err
                fail(" ".join(str(cause).split()))

    with_json = click.option(
        "--json", "as_json", is_flag=True, help="Print JSON instead of a table."
    )(run)
    return click.option(
        "--dir",
        "par_dir",
        envvar=store.DIR_VARIABLE,
        metavar="PLACE",
        help="Folder of the experiments, SQLite file, or address of a database; "
        "by default DRYTRACK_DIR, else here.",
    )(with_json)


def _failures(*more: type[Exception]) -> tuple[type[Exception], ...]:
    """Return what may go wrong, with a database too, if one is used."""
    module = sys.modules.get("sqlalchemy.exc")
    return DrytrackError, *more, *((module.SQLAlchemyError,) if module else ())


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
            settings = Settings(ctx.params.get("par_dir"), as_json=False)
            names = [name for name, _ in _list_names(settings)]
        except _failures(OSError):
            return []
        found = ["last"]
        for experiment, run_id in names:
            found += [run_id, f"{experiment}/{run_id}"]
        return [CompletionItem(name) for name in found if name.startswith(incomplete)]


RUN = RunName()


def find_run(settings: Settings, name: str) -> StoredRun:
    """Return the run that a RUN argument names.

    Raises:
        UsageError: If there is none, or more than one.
        RecordError: If its record cannot be read.
    """
    if not isinstance(settings.store, JournalStore):
        if name == "last":
            return _find_last(settings)
        run: StoredRun = _choose(settings, name, _list_names(settings))
        return run
    record = _record.read_record(find_folder(settings, name))
    par_dir = record.path.parent.parent.parent
    return JournalStore(par_dir).open_run(record)


def find_folder(settings: Settings, name: str) -> pathlib.Path:
    """Return the folder of the run that a RUN argument names.

    Raises:
        UsageError: If there is none, or more than one, or it is elsewhere.
    """
    path = pathlib.Path(name)
    if is_run_folder(path):
        return path.absolute()
    if not isinstance(settings.store, JournalStore):
        return find_path(settings, find_run(settings, name))
    if name == "last":
        return find_path(settings, _find_last(settings))
    folder: pathlib.Path = _choose(settings, name, _list_names(settings))
    return folder


def find_path(settings: Settings, run: StoredRun) -> pathlib.Path:
    """Return the folder of a run that may be known from a database.

    Raises:
        UsageError: If it is elsewhere, or gone.
    """
    path = find_local(run)
    if path is None:
        msg = (
            f"This needs the journal of run {run.id!r} of experiment "
            f"{run.experiment!r}, which is not on this machine; {settings.store.url} "
            f"holds what came of it."
        )
        raise click.UsageError(msg)
    return path


def find_local(run: StoredRun) -> pathlib.Path | None:
    """Return the folder of a run; None where it is not on this machine."""
    path: pathlib.Path | None = getattr(run, "path", None)
    return path


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
        if is_run_folder(folder) and not folder.name.startswith(" ")  # half-made
    ]


def _list_names(settings: Settings) -> list[tuple[tuple[str, str], Any]]:
    """Return experiment and id of all runs, each with its folder, or the run."""
    if isinstance(settings.store, JournalStore):
        folders = list_folders(settings.par_dir)
        return [((folder.parent.name, folder.name), folder) for folder in folders]
    return [((run.experiment, run.id), run) for run in settings.store.runs()]


def _choose(
    settings: Settings, name: str, named: list[tuple[tuple[str, str], Any]]
) -> Any:
    """Return the one run that a name means.

    Raises:
        UsageError: If there is none, or more than one.
    """
    found = _match(settings, name, named)
    if len(found) == 1:
        return found[0][1]
    if found:
        labels = [f"{experiment}/{run_id}" for (experiment, run_id), _ in found[:5]]
        if len(set(labels)) < len(labels):  # of two machines, in one database
            labels = [getattr(run, "uuid", run) for _, run in found[:5]]
        more = ", …" if len(found) > 5 else ""
        msg = (
            f"{name!r} may be any of {len(found)} runs: "
            f"{', '.join(map(str, labels))}{more}. Say more of it."
        )
        raise click.UsageError(msg)
    msg = (
        f"There is no run {name!r} in {settings.store.url}. List its runs with "
        f"`drytrack runs`, or name another place with --dir.{settings.hint}"
    )
    raise click.UsageError(msg)


def _match(
    settings: Settings, name: str, named: list[tuple[tuple[str, str], Any]]
) -> list[tuple[tuple[str, str], Any]]:
    """Return the runs that a name may mean, those that it says in full first."""
    experiment, slash, run_id = name.rpartition("/")
    if slash:
        named = [entry for entry in named if entry[0][0] == experiment]
    exact = [entry for entry in named if entry[0][1] == run_id]
    if exact:
        return exact
    begun = [entry for entry in named if run_id and entry[0][1].startswith(run_id)]
    if begun or slash or not name:
        return begun
    return [
        ((run.experiment, run.id), run.path if isinstance(run, JournalRun) else run)
        for run in settings.store.runs()
        if run.uuid.startswith(name.lower())
    ]


def _find_last(settings: Settings) -> StoredRun:
    found = settings.store.runs()
    if not found:
        msg = (
            f"There are no runs in {settings.store.url}. Name the folder of the "
            f"experiments, or the database, with --dir, or set {store.DIR_VARIABLE}."
        )
        raise click.UsageError(msg)

    def began(run: StoredRun) -> float:
        attempts = run.record.get("attempts")
        return float(attempts[-1]["started"]) if attempts else run.created

    return max(found, key=began)


def _print_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    click.echo(f"Warning: {message}", err=True)
