"""The current run of a thread, an asyncio task, or the whole process.

The registry of active runs is the truth. A context variable only says which
of them a context means; it is set and never reset by token, which raises in
another context. What it holds is the run's routes: a mapping from event type
to the function that delivers it. The routes of an ended run are empty, and
an empty mapping looks further, so a stale context costs nothing to detect.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from drytrack.core._warn import warn
from drytrack.core.exceptions import AccessOutsideScopeError, RunWarning

if TYPE_CHECKING:
    from drytrack.core.log_events import Event
    from drytrack.core.run import Run

Deliver = Callable[[Any], None]


class Routes(dict[type, "Deliver | None"]):
    """Event type → delivery, filled on first use; None where nobody listens.

    Attributes:
        run: The run that the routes lead to; None once it has ended.
        pending: An exception to raise at the next publication.
    """

    __slots__ = ("pending", "run")

    def __init__(self, run: Run[Any] | None) -> None:
        """Start empty."""
        super().__init__()
        self.run = run
        self.pending: BaseException | None = None

    def __missing__(self, event_type: type[Event]) -> Deliver | None:
        """Resolve a type that is published for the first time."""
        if self.pending is not None:
            pending, self.pending = self.pending, None
            raise pending
        run = self.run
        if run is not None:
            return run.bus.resolve(event_type)
        if _inherited and not _active:
            _warn_in_child()
            return None
        return only_run(f"{event_type.__name__} was created").routes[event_type]


_NO_RUN = Routes(None)

_routes: contextvars.ContextVar[Routes] = contextvars.ContextVar(
    "drytrack_current_run", default=_NO_RUN
)

get_routes = _routes.get
"""The routes of the context's run; the hot path of every event."""

set_routes = _routes.set

_active: dict[int, Run[Any]] = {}


# In a forked child: the runs of its parent, which it must leave alone.
_inherited: list[Run[Any]] = []
_warned_of_fork = False


def forget_in_child() -> None:
    """Make every inherited run inert; touches no lock, no thread and no file."""
    global _warned_of_fork  # one warning for each process
    _warned_of_fork = False
    _inherited.extend(_active.values())
    _active.clear()
    for run in _inherited:
        run.routes.run = None
        run.routes.clear()


def _warn_in_child() -> None:
    global _warned_of_fork  # one warning for each process
    if not _warned_of_fork:
        _warned_of_fork = True
        names = ", ".join(run.id for run in _inherited)
        msg = (
            f"This process was forked inside run {names}, which belongs to its parent: "
            f"events published here are dropped. Publish in the parent, or start a run "
            f"of its own here."
        )
        warn(msg, RunWarning)


def add_active(run: Run[Any]) -> None:
    """Make a run the current one of this context, and known to the process."""
    _active[id(run)] = run
    set_routes(run.routes)


def remove_active(run: Run[Any]) -> None:
    """Forget a run, and go back to its parent where this context was in it."""
    _active.pop(id(run), None)
    if get_routes().run in (run, None):
        parent = run.parent
        alive = parent is not None and id(parent) in _active
        set_routes(parent.routes if alive and parent is not None else _NO_RUN)


def active_runs() -> list[Run[Any]]:
    """Return the active runs of this process, in the order of their start."""
    return list(_active.values())


def context_run() -> Run[Any] | None:
    """Return the run that this context names, if it is still active."""
    return get_routes().run


def current_run() -> Run[Any]:
    """Return the context's run, or else the only active one of the process.

    Raises:
        AccessOutsideScopeError: If there is none, or several and the context
            names none of them.
    """
    return context_run() or only_run("The current run was asked for")


def only_run(what: str) -> Run[Any]:
    """Return the only active run of the process.

    Raises:
        AccessOutsideScopeError: If there is none, or more than one.
    """
    runs = active_runs()
    if len(runs) == 1:
        return runs[0]
    if runs:
        found = ", ".join(f"{run.experiment.name}/{run.id}" for run in runs)
        msg = (
            f"{what} in a thread or task that belongs to none of the {len(runs)} "
            f"active runs ({found}). Start it with run.bind(function)."
        )
    else:
        msg = (
            f"{what} outside a run. Do it inside `with experiment.create_run():`, "
            f"or after run.start(); Event.unpublished(…) builds an event silently."
        )
    raise AccessOutsideScopeError(msg)
