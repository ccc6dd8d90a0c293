"""One execution of an experiment."""

from __future__ import annotations

import atexit
import functools
import logging
import os
import pathlib
import sys
import threading
import time
import uuid
import weakref
from collections.abc import Callable
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    ParamSpec,
    Protocol,
    Self,
    TypeVar,
)

from drytrack.core import _current, _record
from drytrack.core._bus import Bus
from drytrack.core._checkpoint import RunState
from drytrack.core._costs import Cost, list_costs, say_costs
from drytrack.core._environment import quick_environment
from drytrack.core._keeper import Keeper, progress
from drytrack.core._outcome import (
    Status,
    describe_error,
    exit_timeout_s,
    read_outcome,
)
from drytrack.core._registration import Registry
from drytrack.core._run_logging import RunLogging
from drytrack.core._signals import EXIT_CODE, TermHandler
from drytrack.core._warn import warn
from drytrack.core.exceptions import (
    NestedRunError,
    RecordWarning,
    RunStateError,
    RunWarning,
)
from drytrack.core.log_events import (
    StartExperimentEvent,
    StopExperimentEvent,
)

if TYPE_CHECKING:
    from types import TracebackType

    from drytrack.core.experiment import Experiment

__all__ = ["Run", "Status"]

C = TypeVar("C")
M = TypeVar("M")
P = ParamSpec("P")
R = TypeVar("R")

_logger = logging.getLogger("drytrack")


class Loop(Protocol):
    """What a run closes before it stops."""

    def close(self, reason: str) -> None:
        """End the loop as an early end, for the reason given."""


class Run(RunLogging, RunState, Generic[C]):
    """One execution of an experiment; made by `Experiment.create_run`.

    A context manager; or, in a notebook, `start` in one cell and `stop` in a
    later one. All methods may be called from any thread.

    Attributes:
        experiment: The experiment.
        id: Id of the run, unique in its experiment.
        uuid: Id of the run, unique in the world.
        attempt: Number of the attempt, from 1; every resume adds one.
        resumed: Whether an earlier attempt exists.
        path: The run's folder; None where nothing is recorded.
        parent: The run that this one is a part of, or None.
        rank: Number of this process among those that run the same code.
        is_main: Whether this is the rank that tracks.
    """

    def __init__(  # made in one place
        self,
        experiment: Experiment[C],
        run_id: str,
        *,
        config: C,
        path: pathlib.Path | None,
        record: dict[str, Any],
        attempt: int,
        parent: Run[Any] | None,
        rank: int,
        durability: str,
    ) -> None:
        """Take what `Experiment.create_run` has prepared and checked."""
        self.experiment = experiment
        self.id = run_id
        self.uuid: str = record["uuid"]
        self.config = config
        self.path = path
        self.attempt = attempt
        self.resumed = attempt > 1
        self.parent = parent
        self.rank = rank
        self.is_main = rank == 0
        self.durability = durability
        self.bus = Bus(self)
        self.routes = _current.Routes(self)
        self.registry = Registry(f"{experiment.name}/{run_id}")
        self._status: Status = "created"
        self._summary: dict[str, Any] = dict(record.get("summary", {}))
        self._record_data = record
        self._record: _record.RecordWriter | None = None
        self._keeper: Keeper | None = None
        self._loops: list[weakref.ref[Loop]] = []
        self.last_steps: dict[str, int] = {}
        self._signals = TermHandler(self._on_term)
        self._marked = False
        self._wanted: Status = "completed"  # by whatever handler stops it
        self._began = time.time()
        self._pid = os.getpid()
        self._stopping = threading.RLock()
        self._leaving = False
        self._init_logging()
        if path is not None:
            self._record = _record.RecordWriter(path, record, self._tell)

    def __repr__(self) -> str:
        """Name the run and its state."""
        return (
            f"<Run {self.experiment.name}/{self.id}, attempt {self.attempt}, "
            f"{self._status}>"
        )

    @property
    def status(self) -> Status:
        """``created``, ``running``, ``completed``, ``failed`` or ``interrupted``."""
        return self._status

    @property
    def name(self) -> str:
        """The run's id; runs are called by it."""
        return self.id

    # -- life cycle --------------------------------------------------------------

    def start(self) -> Self:
        """Start the run and make it the current one.

        One that is running is finished first, with a warning, and goes on as its
        next attempt.

        Returns:
            The run itself.

        Raises:
            RunStateError: If it has ended.
            NestedRunError: If the context is in another run that was not named
                as parent.
            RunHeldError: If another process resumed the run in the meantime.
            StorageError: If its record cannot be written.
            RequiredTrackerError: If a required tracker failed.
        """
        if self._status == "running":
            self._begin_again()
        self._check_can_start()
        if self._record is not None:
            assert self.path is not None  # goes with the record
            _record.claim(self.path, self.attempt, self.id)
        self._began = time.time()
        if self._record is not None:
            self._open_record(self._record)
        self._status = "running"
        dispatcher = self.experiment.trackers
        for name, tracker in dispatcher.named_trackers.items():
            if self.is_main or getattr(tracker.innermost, "every_rank", False) is True:
                self.bus.add(name, tracker)
        dispatcher._buses.append(self.bus)
        _current.add_active(self)
        self._signals.install()
        try:
            self.bus.start(self._start_event(), self._record_data.get("trackers", {}))
        except BaseException as err:
            self._end(*read_outcome(err))
            raise
        if self._record is not None and self._status == "running":
            self._keeper = Keeper(self._record, self.bus, self.last_steps)
        if not self.is_main:
            _say_rank_once(self.rank)
        return self

    def stop(self, status: Status | None = None) -> None:
        """Stop the run; all trackers are told, flushed and cleaned up.

        Where a tracker's handler calls it on the publishing thread, the run stops
        when all trackers have had that event; where one does in the background, with
        the next event.

        Args:
            status: ``completed``, ``failed`` or ``interrupted``; by default
                completed, or interrupted where SIGTERM had asked for it.

        Raises:
            RunStateError: If it was never started.
        """
        if self._status == "created":
            msg = f"Run {self.id!r} was not started. Call run.start() first."
            raise RunStateError(msg)
        if self._status != "running":
            msg = f"Run {self.id!r} has ended ({self._status}); stop() does nothing."
            warn(msg, RunWarning)
            return
        if status not in (None, *_record.ENDED):
            msg = f"status is {status!r}. Pass one of {', '.join(_record.ENDED)}."
            raise RunStateError(msg)
        if self.bus.is_serving():
            self._wanted = status or "completed"
            self.bus.defer(functools.partial(self._end, self._wanted, None))
            return
        self._end(status or "completed", None)

    def __enter__(self) -> Self:
        """Start the run, unless whoever made it has done so just now."""
        if self._started_ahead and self._status == "running":
            self._started_ahead = False
            return self
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the run, with the status that the exception calls for."""
        if os.getpid() == self._pid and self._status == "running":
            self._end(*read_outcome(error))

    def flush(self, timeout_s: float = 60.0) -> bool:
        """Wait until every tracker has received and flushed what is published.

        Args:
            timeout_s: Seconds to wait at the most.

        Returns:
            Whether all did. What is left is in the journal.
        """
        return self.bus.flush(timeout_s)

    def check_in(self, within_s: float) -> None:
        """Promise to be heard of again, so that nobody takes the run for stalled.

        A running process checks in by itself, every 10 s. Call this before
        something that keeps the whole process from it, such as a suspend.

        Args:
            within_s: Seconds until the next check-in at the latest.
        """
        if self._keeper is not None:
            self._keeper.promise(within_s)

    def costs(self) -> list[Cost]:
        """Return what the journal and each tracker have cost so far.

        Times on the training thread are extrapolated from one event in 64.
        """
        return list_costs(self.bus, self._began)

    def bind(self, function: Callable[P, R]) -> Callable[P, R]:
        """Return the function with this run as its current one.

        For threads and executors, where several runs are active.

        Args:
            function: What to call.
        """

        @functools.wraps(function)
        def bound(*args: P.args, **kwargs: P.kwargs) -> R:
            before = _current.get_routes()
            _current.set_routes(self.routes)
            try:
                return function(*args, **kwargs)
            finally:
                _current.set_routes(before)

        return bound

    # -- models and actors -------------------------------------------------------

    def register_model(self, model: M, name: str | None = None) -> M:
        """Make a model known to the run.

        Args:
            model: Any object; its ``repr`` is recorded as its architecture.
            name: Its name, by default its class name.

        Returns:
            The model itself.

        Raises:
            RegistrationError: If the model is registered already, here or in
                another active run, or another one has the name.
            RunStateError: If the run is not running.
        """
        self._require_running("register a model")
        others = [run.registry for run in _current.active_runs() if run is not self]
        self.bind(self.registry.add_model)(model, name, others)
        return model

    def unregister_model(self, model: object) -> None:
        """Forget a model and its actors.

        Args:
            model: The model, or its name.

        Raises:
            RegistrationError: If it is not registered.
        """
        self.registry.remove_model(model)

    def register_actor(
        self,
        actor: object,
        model: object,
        name: str | None = None,
        *,
        metadata: Any = None,
    ) -> str:
        """Make an object that works on a model known as a source of events.

        Args:
            actor: Any object, such as a trainer.
            model: A registered model, or its name.
            name: The actor's name, by default its ``name`` or its class name.
            metadata: What to record of it, by default its public attributes.

        Returns:
            The actor's name.

        Raises:
            RegistrationError: If the model is not registered, or the actor or
                its name is registered for it already.
            RunStateError: If the run is not running.
        """
        self._require_running("register an actor")
        return self.bind(self.registry.add_actor)(actor, model, name, metadata)

    def unregister_actor(self, actor: object) -> None:
        """Forget an actor.

        Args:
            actor: The actor.

        Raises:
            RegistrationError: If it is not registered.
        """
        self.registry.remove_actor(actor)

    def open_loop(self, loop: Loop) -> None:
        """Note a loop that must be closed before the run stops.

        It is held weakly: a loop that was left and forgotten closes itself.
        """
        self._loops.append(weakref.ref(loop))

    def close_loop(self, loop: Loop) -> bool:
        """Forget a loop that closes itself; return whether it was open."""
        found = any(ref() is loop for ref in self._loops)
        self._loops = [ref for ref in self._loops if ref() not in (None, loop)]
        return found

    def next_step(self, source_name: str) -> int:
        """Return the last step of a source, from which automatic steps go on."""
        return self.last_steps.get(source_name, 0)

    def end_first_at_exit(self) -> None:
        """Let runs that the script leaves open end before other exit handlers.

        Exit handlers run in reverse order, so this must be said after whoever else
        has registered one: a backend's client, which would be shut down before.
        """
        atexit.unregister(_stop_at_exit)
        atexit.register(_stop_at_exit)

    def interrupt_later(self, error: BaseException) -> None:
        """Raise an exception at the next publish, or at stop.

        An exception inside a generator that is being collected is swallowed by
        Python; a KeyboardInterrupt must not be.
        """
        self.routes.pending = error
        self.routes.clear()

    # -- inside ------------------------------------------------------------------

    def _begin_again(self) -> None:
        """Finish the run, and become its next attempt."""
        msg = (
            f"Run {self.id!r} was running, and is finished now; it goes on as attempt "
            f"{self.attempt + 1}. Call run.finish() first, or start it once."
        )
        warn(msg, RunWarning)
        self.finish()
        again = self.experiment.create_run(
            self.id, resume=True, record=self.path is not None, rank=self.rank
        )
        Run.__init__(
            self,
            self.experiment,
            self.id,
            config=self.config,
            path=self.path,
            record=again._record_data,
            attempt=again.attempt,
            parent=self.parent,
            rank=self.rank,
            durability=self.durability,
        )

    def _check_can_start(self) -> None:
        if self._status != "created":
            msg = (
                f"Run {self.id!r} has ended ({self._status}). Go on with it: "
                f"experiment.create_run({self.id!r}, resume=True)."
            )
            raise RunStateError(msg)
        if self.parent is not None:
            if self.parent.status != "running":
                msg = (
                    f"The parent run {self.parent.id!r} is {self.parent.status}, not "
                    f"running. Start it first."
                )
                raise RunStateError(msg)
            return
        outer = _current.context_run()
        if outer is not None:
            msg = (
                f"Run {self.id!r} cannot start inside run {outer.id!r} of experiment "
                f"{outer.experiment.name!r}. Stop that one first, or make this one a "
                f"part of it: create_run(parent=run)."
            )
            raise NestedRunError(msg)

    def _require_running(self, what: str) -> None:
        if self._status != "running":
            when = "has not started" if self._status == "created" else "has ended"
            msg = (
                f"Run {self.id!r} {when}, so it cannot {what}. Do it inside "
                f"`with experiment.create_run() as run:`."
            )
            raise RunStateError(msg)

    def _open_record(self, record: _record.RecordWriter) -> None:
        # Loads the JSON encoder, which an unrecorded run never needs.
        from drytrack.core.journal import JournalWriter

        known = record.data.get("journal", {})
        kept = record.data.get("trackers", {}).values()
        given = [known.get("seq", 0), *(entry.get("cursor", 0) for entry in kept)]
        try:
            journal = JournalWriter(
                record.folder,
                self.attempt,
                sync=self.durability == "machine",
                scan_from=int(known.get("bytes", 0)),
                at_least=max(map(int, given)),
                tell=self._tell,
            )
        except OSError as err:
            raise _record.storage_error(record.folder, err) from err
        self.bus.journal = journal
        self.last_steps = {**known.get("steps", {}), **journal.steps}
        entry = {
            "attempt": self.attempt,
            "started": self._began,
            "environment": quick_environment(),
        }
        record.write(
            must=True,
            status="running",
            error=None,
            attempts=[*record.data["attempts"], entry],
            next_check_in=self._began + _record.PROMISE_S,
        )

    def _start_event(self) -> StartExperimentEvent:
        experiment = self.experiment
        par_dir = experiment.par_dir
        return StartExperimentEvent.unpublished(
            config=self.config,
            exp_name=experiment.name,
            run_ts=_local_time(self._record_data["created"]),
            run_id=self.id,
            resumed=self.resumed,
            par_dir=par_dir if self.is_main else par_dir / f"rank_{self.rank}",
            tags=experiment.tags,
            description=experiment.description,
            attempt=self.attempt,
        )

    def _tell(self, what: str) -> None:
        """Warn, when all trackers are served, that the record is incomplete."""
        self.bus.tell(what, RecordWarning)

    def _on_term(self) -> bool:
        """Note SIGTERM; return whether to leave at once."""
        self._marked = True
        if self._leaving:  # let it come to its end
            self.routes.pending = SystemExit(EXIT_CODE)
            return False
        return True

    def _end(self, status: Status, error: BaseException | None) -> None:
        if os.getpid() != self._pid:
            return  # a forked child: the run is its parent's
        described = describe_error(error)
        with self._stopping:
            # Leaving: a tracker, or the handler of a signal, stops it once more.
            if self._status != "running" or self._leaving:
                return
            if status == "completed":
                status = "interrupted" if self._marked else self._wanted
            reason = described["type"] if described else f"the run was {status}"
            self._leaving = True
            try:
                self.bind(self._close_loops)(reason)
                self._end_logging()
            finally:
                try:
                    self._leave(status, described)
                except Warning as late:
                    # Warnings are errors: what ended the run goes before them.
                    if error is None:
                        raise
                    _logger.warning("%s", late)
                finally:
                    self._leaving = False
        say_costs(self.costs())
        pending, self.routes.pending = self.routes.pending, None
        if pending is not None and error is None:
            raise pending

    def _close_loops(self, reason: str) -> None:
        while self._loops:
            loop = self._loops[-1]()
            if loop is None:
                self._loops.pop()
                continue
            try:
                loop.close(reason)
            except Exception:  # the run must end all the same
                _logger.exception("A loop failed to close")
            self.close_loop(loop)

    def _leave(self, status: Status, error: dict[str, str] | None) -> None:
        stop = StopExperimentEvent.unpublished(
            self.experiment.name, self.id, status, self._summary, error
        )
        try:
            self.bus.stop(stop, exit_timeout_s(status))
        finally:
            try:
                self._close(status, error)
            except (KeyboardInterrupt, SystemExit):
                # An impatient second one must not leave a run that looks crashed.
                self._close(status, error)
                raise

    def _close(self, status: Status, error: dict[str, str] | None) -> None:
        """Close the record and let go of the run; may be called again."""
        self._status = status
        self._close_record(status, error)
        self._signals.restore()
        self.routes.run = None
        self.routes.clear()
        if self.bus in self.experiment.trackers._buses:
            self.experiment.trackers._buses.remove(self.bus)
        _current.remove_active(self)
        self.experiment._note_end(self)

    def _close_record(self, status: str, error: dict[str, str] | None) -> None:
        if self._record is None:
            return
        late = self._keeper.stop() if self._keeper is not None else {}
        if self.bus.journal is not None:
            self.bus.journal.close()
        attempts = self._record.data["attempts"]
        last = {**attempts[-1], "ended": time.time(), "status": status, "error": error}
        last["environment"] = {**last["environment"], **late}
        last["costs"] = [cost._asdict() for cost in self.costs()]
        self._record.write(
            status=status,
            error=error,
            attempts=[*attempts[:-1], last],
            summary=dict(self._summary),
            **progress(self.bus, self.last_steps),
        )


def new_record(experiment: str, run_id: str, **entries: Any) -> dict[str, Any]:
    """Return the record of a run that has not started."""
    return {
        "schema": _record.SCHEMA,
        "uuid": str(uuid.uuid4()),
        "id": run_id,
        "experiment": experiment,
        "status": "created",
        "created": time.time(),
        "attempts": [],
        "error": None,
        "trackers": {},
        **entries,
    }


def _local_time(timestamp: float) -> Any:
    import datetime

    return datetime.datetime.fromtimestamp(timestamp)  # for people


_rank_said = False


def _say_rank_once(rank: int) -> None:
    global _rank_said  # once for each process
    if not _rank_said:
        _rank_said = True
        _logger.info(
            "Rank %d does not track; rank 0 does. To override: DRYTRACK_RANK=0, or "
            "create_run(rank=0).",
            rank,
        )


def _stop_at_exit() -> None:
    """Stop what a notebook or a script has left running."""
    for run in reversed(_current.active_runs()):
        error = getattr(sys, "last_value", None)
        run._end(*read_outcome(error))


atexit.register(_stop_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_current.forget_in_child)
