"""One call that returns a started run, for scripts that want nothing more.

::

    run = drytrack.setup_tracker("digits", backends="wandb,csv", config={"lr": 0.1})
    run.log({"loss": 0.42})
    run.finish()
"""

from __future__ import annotations

import os
import pathlib
import re
import sys
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from drytrack._starting import start_backends
from drytrack.backends import (
    did_you_mean,
    find_backend,
    make_backend,
    options_of,
)
from drytrack.core import _current
from drytrack.core._rank import find_rank
from drytrack.core._warn import warn
from drytrack.core.exceptions import (
    ConfigurationError,
    MissingDependencyError,
    RunExistsError,
    RunHeldError,
    RunWarning,
    UnknownBackendError,
)
from drytrack.core.experiment import Experiment
from drytrack.core.run import Run
from drytrack.core.track import Tracker
from drytrack.delivery import Required

__all__ = ["create_multi_tracker", "create_tracker", "setup_tracker"]

PROJECT_VARIABLE = "DRYTRACK_PROJECT"
BACKENDS_VARIABLE = "DRYTRACK_BACKENDS"
DEFAULT_BACKENDS = "csv"

Backends = str | Tracker | Sequence[str | Tracker]
Path = str | os.PathLike[str]

_PATH_ALIASES = ("dir", "log_dir", "logdir", "outdir", "save_dir")
"""What the folder to write to is called elsewhere."""

_last: weakref.ref[Run[Any]] | None = None


def setup_tracker(
    project_name: str | None = None,
    experiment_name: str | None = None,
    backends: Backends | None = None,
    config: Any = None,
    outdir: Path | None = None,
    rank: int | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    resume: bool | Literal["auto"] = False,
    tags: Sequence[str] = (),
    description: str | None = None,
    on_backend_error: Literal["raise", "warn"] = "raise",
    **flat: Any,
) -> Run[Any]:
    """Start a run that the named backends watch.

    Default trackers take no part: the backends that are named are all. A run of an
    earlier call that goes on is finished first, with a warning.

    Args:
        project_name: Name of the experiment, by default ``DRYTRACK_PROJECT``, else
            the script's name.
        experiment_name: Id of the run, by default the time. Where it exists, the
            new one is called ``<name>_2``, unless ``resume`` is set.
        backends: Names separated by commas, or a sequence of names and trackers;
            by default ``DRYTRACK_BACKENDS``, else ``"csv"``. ``"none"`` gives a run
            that tracks nothing and writes nothing.
        config: Any object.
        outdir: Folder to write to, by default ``DRYTRACK_DIR``, else the working
            directory.
        rank: Number of this process; by default found out. Only rank 0 tracks.
        options: Backend → arguments of its tracker.
        resume: As in `Experiment.create_run`.
        tags: Labels.
        description: What the run is about.
        on_backend_error: ``"raise"``, or ``"warn"`` to go on without a backend that
            cannot start.
        **flat: Arguments for the one backend that takes them; where several do,
            ``<backend>_<argument>``.

    Returns:
        The started run, which is a context manager as well.

    Raises:
        UnknownBackendError: If there is no such backend, or none takes an option.
        MissingDependencyError: If a backend's package is not installed.
        RequiredTrackerError: If a backend cannot start.
        ConfigurationError: If an argument is none of those above.
    """
    if on_backend_error not in ("raise", "warn"):
        msg = f"on_backend_error is {on_backend_error!r}. Pass 'raise' or 'warn'."
        raise ConfigurationError(msg)
    chosen = _parse(backends)
    is_tracking = bool(chosen)
    options = dict(options or {})
    if on_backend_error == "warn":
        for name in _leave_out_what_cannot_be_imported(chosen):
            options.pop(name, None)
    arguments = _assign(chosen, options, flat)
    is_main = find_rank(rank).is_main
    trackers = {}
    for name, tracker in chosen.items():
        if tracker is None:
            tracker = _make(name, arguments[name], is_main, on_backend_error)
        if tracker is not None:
            lenient = on_backend_error == "warn"
            trackers[name] = tracker if lenient else Required(tracker)
    experiment: Experiment[Any] = Experiment(
        config,
        name=project_name or os.environ.get(PROJECT_VARIABLE) or _script_name(),
        par_dir=outdir,
        tags=tags,
        description=description,
    )
    experiment.trackers.remove_all()
    experiment.trackers.subscribe(**trackers)
    _finish_last()
    run = _create(experiment, experiment_name, resume, is_tracking, rank)
    return _start(run)


def create_tracker(
    project_name: str | None = None,
    experiment_name: str | None = None,
    backend: str | Tracker = DEFAULT_BACKENDS,
    **others: Any,
) -> Run[Any]:
    """Start a run that one backend watches; see `setup_tracker`.

    Args:
        project_name: Name of the experiment.
        experiment_name: Id of the run.
        backend: Name of the backend.
        **others: As in `setup_tracker`.
    """
    return setup_tracker(project_name, experiment_name, [backend], **others)


def create_multi_tracker(
    project_name: str | None = None,
    experiment_name: str | None = None,
    trackers: Backends = (),
    **others: Any,
) -> Run[Any]:
    """Start a run that several backends watch; see `setup_tracker`.

    Args:
        project_name: Name of the experiment.
        experiment_name: Id of the run.
        trackers: Names of the backends.
        **others: As in `setup_tracker`.

    Raises:
        ConfigurationError: If no backend is named.
    """
    if not isinstance(trackers, (str, Tracker)) and not trackers:
        msg = "create_multi_tracker was given no trackers. Pass trackers=['csv', …]."
        raise ConfigurationError(msg)
    return setup_tracker(project_name, experiment_name, trackers, **others)


def _start(run: Run[Any]) -> Run[Any]:
    """Start a run that its user may still put into a ``with`` statement."""
    global _last  # one imperative run at a time
    start_backends(run)
    run._started_ahead = True
    _last = weakref.ref(run)
    return run


def _finish_last() -> None:
    last = _last() if _last is not None else None
    if last is not None and last.status == "running" and last in _current.active_runs():
        msg = (
            f"Run {last.id!r} of experiment {last.experiment.name!r} was still running "
            f"and is finished now. Call run.finish() before the next one."
        )
        warn(msg, RunWarning)
        last.finish()


def _create(
    experiment: Experiment[Any],
    run_id: str | None,
    resume: bool | Literal["auto"],
    record: bool,
    rank: int | None,
) -> Run[Any]:
    number = 1
    while True:
        numbered = run_id if number == 1 else f"{run_id}_{number}"
        try:
            return experiment.create_run(
                numbered, resume=resume, record=record, rank=rank
            )
        except (RunExistsError, RunHeldError):
            if resume or run_id is None:
                raise
            number += 1


def _parse(backends: Backends | None) -> dict[str, Tracker | None]:
    """Return the chosen backends by name; trackers that exist already with them."""
    if backends is None:
        backends = os.environ.get(BACKENDS_VARIABLE) or DEFAULT_BACKENDS
    parts: Iterable[str | Tracker]
    if isinstance(backends, (str, Tracker)):
        parts = backends.split(",") if isinstance(backends, str) else [backends]
    else:
        parts = backends
    chosen: dict[str, Tracker | None] = {}
    for part in parts:
        if not isinstance(part, (str, Tracker)):
            msg = (
                f"backends holds a {type(part).__name__}: {part!r}. Pass names, or "
                f"instances of tracker classes."
            )
            raise ConfigurationError(msg)
        name = part.strip() if isinstance(part, str) else str(part.name)
        if not name:
            continue
        if name in chosen:
            msg = f"Backend {name!r} is named twice. Name it once."
            raise ConfigurationError(msg)
        chosen[name] = None if isinstance(part, str) else part
    if "none" in chosen:
        if len(chosen) > 1:
            msg = (
                f"backends are {', '.join(chosen)}: 'none' stands alone. Leave it out."
            )
            raise ConfigurationError(msg)
        return {}
    return chosen


def _leave_out_what_cannot_be_imported(chosen: dict[str, Tracker | None]) -> list[str]:
    """Remove backends of other packages whose own needs are missing; return them."""
    left_out = []
    for name, tracker in chosen.items():
        if tracker is None:
            try:
                find_backend(name)
            except MissingDependencyError as err:
                _warn_of_left_out(name, err)
                left_out.append(name)
    for name in left_out:
        del chosen[name]
    return left_out


def _warn_of_left_out(name: str, error: MissingDependencyError) -> None:
    warn(f"Backend {name!r} is left out. {error}", RunWarning)


def _assign(
    chosen: Mapping[str, Tracker | None],
    options: Mapping[str, Mapping[str, Any]],
    flat: Mapping[str, Any],
) -> dict[str, dict[str, Any]]:
    """Give each option to the backend that it is for."""
    for name in options:
        if name not in chosen:
            msg = (
                f"options are given for {name!r}, which is none of the backends: "
                f"{', '.join(chosen) or 'none'}.{did_you_mean(name, chosen)} Add it to "
                f"the backends, or leave its options out."
            )
            raise UnknownBackendError(msg)
    assigned = {name: dict(options.get(name, {})) for name in chosen}
    takers = {  # a wrong name is told here, before anything is made
        name: options_of(find_backend(name))
        for name, tracker in chosen.items()
        if tracker is None
    }
    for option, value in flat.items():
        if not chosen:
            continue  # "none" tracks nothing, whatever it is told
        name, argument = _find_taker(option, takers)
        assigned[name][argument] = value
    return assigned


def _find_taker(
    option: str, takers: Mapping[str, tuple[list[str], bool]]
) -> tuple[str, str]:
    """Return the backend that takes a flat option, and what it calls it."""
    for name, (named, takes_any) in takers.items():
        argument = option.removeprefix(f"{name}_")
        if argument != option:
            if argument in _PATH_ALIASES and argument not in named:
                argument = "par_dir"
            if argument in named or takes_any:
                return name, argument
    found = [name for name, (named, _) in takers.items() if option in named]
    argument = option
    if not found and option in _PATH_ALIASES:
        found = [name for name, (named, _) in takers.items() if "par_dir" in named]
        argument = "par_dir"
    if not found:
        found = [name for name, (_, takes_any) in takers.items() if takes_any]
        argument = option
    if len(found) == 1:
        return found[0], argument
    if found:
        msg = (
            f"option {option!r} is taken by {' and '.join(found)}. Say which: "
            f"options={{{found[0]!r}: {{{option!r}: …}}}}."
        )
        raise UnknownBackendError(msg)
    known = [word for named, _ in takers.values() for word in named]
    msg = (
        f"No backend takes the option {option!r}.{did_you_mean(option, known)} "
        + " ".join(
            f"{name} takes {', '.join(named) or 'none'}."
            for name, (named, _) in takers.items()
        )
    )
    raise UnknownBackendError(msg)


def _make(
    name: str, arguments: Mapping[str, Any], is_main: bool, on_error: str
) -> Tracker | None:
    """Make a tracker; none on a rank where it would have nothing to do."""
    if not is_main and not find_backend(name).every_rank:
        return None
    try:
        return make_backend(name, arguments)
    except MissingDependencyError as err:
        if on_error == "raise":
            raise
        _warn_of_left_out(name, err)
        return None


def _script_name() -> str:
    """Return a name for the experiment of the script that runs."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    file = getattr(main, "__file__", None)
    if spec is not None and spec.name != "__main__":
        name = spec.name.removesuffix(".__main__")
    elif file:
        name = pathlib.Path(file).stem
    else:
        name = "notebook" if "IPython" in sys.modules else "interactive"
    return re.sub(r"[^\w.+-]+", "-", name).strip(".- ") or "script"
