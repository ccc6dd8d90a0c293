"""The bus of one run: who is called for an event, in which order, how safely.

For each event type that somebody handles there is one `Route`, built when
the type is first published and again when the trackers change. Its
`Route.deliver` is the hot path.
"""

from __future__ import annotations

import collections
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from drytrack.core._warn import warn
from drytrack.core.exceptions import (
    BusBusyError,
    RequiredTrackerError,
    TrackerExceptionWarning,
)
from drytrack.core.log_events import (
    ActorRegistrationEvent,
    Event,
    IterateBatchEvent,
    ModelRegistrationEvent,
    StartExperimentEvent,
)
from drytrack.core.track import Tracker

if TYPE_CHECKING:
    from drytrack.core._current import Deliver
    from drytrack.core.run import Run

MAX_FAILURES = 3
"""Failures in a row after which a tracker is suspended."""

BUSY_TIMEOUT_S = 60.0
"""How long an event of another thread waits for a handler to finish."""

SAMPLED = 16
"""One delivery in so many is timed; a power of two."""

_UNTIMED = SAMPLED - 1

Handle = Callable[[Any], None]

_logger = logging.getLogger("drytrack")


class Guest:
    """One tracker in one run.

    Attributes:
        name: Its name in the run.
        tracker: The tracker, or its copy for this run.
        failures: Failures in a row.
        failed: Failures in all.
        suspended_at: How many events had been published when it was
            suspended; None while it takes part.
        missed: Events that went by while it was suspended.
        calls: Handlers called.
        time_ns: Time that they took, extrapolated from the sampled ones.
    """

    def __init__(self, name: str, tracker: Tracker) -> None:
        """Take part from now on."""
        self.name = name
        self.tracker = tracker
        self.failures = 0
        self.failed = 0
        self.suspended_at: int | None = None
        self.missed = 0
        self.calls = 0
        self.time_ns = 0

    def handler(self, event_type: type[Event]) -> Handle | None:
        """Return what to call for events of a type; None for nothing."""
        if issubclass(type(self.tracker), Tracker):
            return self.tracker._handler(event_type)
        return lambda event: self.tracker.notify(event)  # a mock


class Route:
    """The handlers for one event type, and how often they were called."""

    __slots__ = ("bus", "count", "folded", "record", "table")

    def __init__(self, bus: Bus) -> None:
        """Start without handlers."""
        self.bus = bus
        # Replaced as a whole: a delivery under way keeps the one it began with.
        self.table: tuple[tuple[Handle, ...], tuple[Guest, ...]] = ((), ())
        self.record: Handle | None = None
        self.count = 0
        self.folded = 0

    def deliver(self, event: Event) -> None:
        """Record the event and call every handler; return when all are through.

        The lock makes one order of all events of a run, whatever thread they
        come from. ``busy`` says that a handler is at work: an event published
        then waits in the queue if that handler published it, or for the lock.
        """
        bus = self.bus
        if bus.busy:
            bus.publish_while_busy(self, event)
            return
        # `with lock` costs twice as much as the pair of calls. The pair is safe
        # from a signal whose handler raises in between only inside the `try`.
        try:
            bus.acquire()
            bus.busy = True
            if self.record is not None:
                self.record(event)
            count = self.count = self.count + 1
            if count & _UNTIMED:
                handlers, guests = self.table
                for handler in handlers:
                    try:
                        handler(event)
                    except Exception as error:  # noqa: BLE001  # isolation
                        bus.fail(guests[handlers.index(handler)], event, error)
            else:
                self.serve_timed(event)
            if bus.unsettled:
                bus.drain()
            bus.busy = False
            bus.release()
        except BaseException:
            bus.abandon()
            raise
        if bus.unsettled:
            bus.report()

    def serve_timed(self, event: Event) -> None:
        """Call every handler and note how long each took."""
        clock = time.perf_counter_ns
        for handler, guest in zip(*self.table, strict=True):
            began = clock()
            try:
                handler(event)
            except Exception as error:  # noqa: BLE001  # isolation
                self.bus.fail(guest, event, error)
            guest.time_ns += (clock() - began) * SAMPLED

    def fold(self) -> None:
        """Add what was counted since the last time to the guests."""
        new, self.folded = self.count - self.folded, self.count
        for guest in self.table[1]:
            guest.calls += new


class Bus:
    """Delivers the events of one run to its trackers.

    Attributes:
        run: The run.
        lock: Held while an event is recorded and delivered.
        busy: Whether a handler is at work, in whatever thread.
        unsettled: Whether events wait in the queue, or problems for a report.
        guests: The trackers, by name.
        history: The start event and the registrations, for late subscribers.
    """

    __slots__ = (
        "_by_type",
        "_states",
        "acquire",
        "busy",
        "guests",
        "history",
        "lock",
        "problems",
        "queue",
        "release",
        "run",
        "unsettled",
    )

    def __init__(self, run: Run[Any]) -> None:
        """Start without trackers."""
        self.run = run
        self.lock = threading.RLock()
        self.acquire = self.lock.acquire
        self.release = self.lock.release
        self.busy = False
        self.unsettled = False
        self.queue: collections.deque[tuple[Route, Event]] = collections.deque()
        self.problems: collections.deque[tuple[str, BaseException]] = (
            collections.deque()
        )
        self.guests: dict[str, Guest] = {}
        self.history: list[Event] = []
        self._by_type: dict[type[Event], Route] = {}
        self._states: dict[str, dict[str, Any]] = {}

    # -- who is called ---------------------------------------------------------

    def resolve(self, event_type: type[Event]) -> Deliver | None:
        """Build the route of an event type, and remember it in the run's routes."""
        with self.lock:
            handlers, guests = [], []
            for guest in self.guests.values():
                if guest.suspended_at is not None:
                    continue
                handler = guest.handler(event_type)
                if handler is not None:
                    handlers.append(self._on_probation(guest, handler))
                    guests.append(guest)
            record = self._recorder(event_type)
            deliver: Deliver | None = None
            if handlers or record is not None:
                route = self._by_type.setdefault(event_type, Route(self))
                route.record = record
                route.table = (tuple(handlers), tuple(guests))
                deliver = route.deliver
            elif event_type in self._by_type:
                self._by_type[event_type].table = ((), ())
            self.run.routes[event_type] = deliver
            return deliver

    def _recorder(self, event_type: type[Event]) -> Handle | None:
        """Return what keeps events of a type, before any handler sees them."""
        return self.history.append if issubclass(event_type, _REMEMBERED) else None

    def _on_probation(
        self, guest: Guest, handler: Handle
    ) -> Handle:
        """Forgive earlier failures on success; costs those who failed alone."""
        if not guest.failures:
            return handler

        def watched(event: Event) -> None:
            handler(event)
            guest.failures = 0
            self.rebuild()

        return watched

    def rebuild(self) -> None:
        """Forget the routes; each is built again when next needed."""
        for route in self._by_type.values():
            route.fold()
        self.run.routes.clear()
        for event_type in list(self._by_type):
            self.resolve(event_type)

    def trackers(self) -> dict[str, Tracker]:
        """Return the trackers of this run by name."""
        return {name: guest.tracker for name, guest in self.guests.items()}

    def add(self, name: str, tracker: Tracker) -> None:
        """Let a tracker take part; in mid-run it is told what it missed."""
        with self.lock:
            is_tracker = issubclass(type(tracker), Tracker)
            guest = Guest(name, tracker._for_run() if is_tracker else tracker)
            self.guests[name] = guest
            if self.history:
                for event in list(self.history):
                    self._welcome(guest, event)
            self.rebuild()
        self.report()

    def remove(self, name: str) -> None:
        """Let a tracker leave, cleaned up."""
        with self.lock:
            guest = self.guests.pop(name, None)
            self.rebuild()
            if guest is not None:
                self._dismiss(guest)
        self.report()

    def resume(self, name: str) -> None:
        """Let a suspended tracker go on."""
        with self.lock:
            guest = self.guests.get(name)
            if guest is not None and guest.suspended_at is not None:
                guest.missed += self.published() - guest.suspended_at
                guest.suspended_at = None
                guest.failures = 0
                self.rebuild()

    # -- how it is called ------------------------------------------------------

    def publish(self, event: Event) -> None:
        """Deliver an event that was built silently."""
        deliver = self.run.routes[type(event)]
        if deliver is not None:
            deliver(event)

    def publish_while_busy(self, route: Route, event: Event) -> None:
        """Queue an event that a handler published, or wait for that handler.

        Raises:
            BusBusyError: If the handler has not finished after 60 s; it may
                be waiting for this very thread.
        """
        if threading.current_thread() is threading.main_thread():
            # A signal's exception between acquire() and try would leave the lock
            # held for ever, and only the main thread gets signals.
            with self.lock:
                self._queue_or_deliver(route, event)
            self.report()
            return
        if not self.lock.acquire(timeout=BUSY_TIMEOUT_S):
            msg = (
                f"{type(event).__name__} waited {BUSY_TIMEOUT_S:g} s for a handler "
                f"that another thread is in. A handler must not wait for a thread "
                f"that publishes; let it return first."
            )
            raise BusBusyError(msg)
        try:
            self._queue_or_deliver(route, event)
        finally:
            self.lock.release()
        self.report()

    def _queue_or_deliver(self, route: Route, event: Event) -> None:
        if self.busy:  # under the lock: by a handler further up this stack
            if route.record is not None:
                route.record(event)
            self.queue.append((route, event))
            self.unsettled = True
        else:
            route.deliver(event)

    def drain(self) -> None:
        """Deliver what handlers published, in order."""
        while self.queue:
            route, event = self.queue.popleft()
            route.count += 1
            route.serve_timed(event)

    def abandon(self) -> None:
        """Let the bus go after an exception that no handler may keep.

        Whoever is here was in `Route.deliver`, but perhaps not yet, or no
        longer, in possession of the lock.
        """
        if self.lock._is_owned():  # type: ignore[attr-defined]  # threading.Condition uses it
            self.busy = False
            self.release()

    def push(
        self, event: IterateBatchEvent, metrics: Mapping[str, float], n_processes: int
    ) -> None:
        """Call the callbacks that trackers pushed to a batch event."""
        with self.lock:
            for callback in list(event.push_updates):
                try:
                    callback(metrics, n_processes)
                except Exception as error:  # noqa: BLE001  # isolation
                    event.push_updates.remove(callback)
                    name = getattr(callback, "__qualname__", repr(callback))
                    what = (
                        f"Callback {name} failed on a batch of {event.source_name!r}: "
                        f"{_say(error)}. It is not called again in this pass."
                    )
                    self._note(what, error)
        self.report()

    def fail(self, guest: Guest, event: Event, error: Exception) -> None:
        """Count a handler's failure; the third in a row suspends its tracker."""
        guest.failures += 1
        guest.failed += 1
        at_start = isinstance(event, StartExperimentEvent)
        if at_start or guest.failures >= MAX_FAILURES:
            guest.suspended_at = self.published()
            outcome = (
                f"It is suspended; experiment.trackers.resume({guest.name!r}) lets it "
                f"go on."
            )
        else:
            outcome = (
                f"The run goes on; after {MAX_FAILURES} failures in a row the "
                f"tracker is suspended."
            )
        where = type(event).__name__
        for field in ("epoch", "step"):
            if (number := getattr(event, field, None)) is not None:
                where += f" ({field} {number})"
        what = f"Tracker {guest.name!r} failed on {where}: {_say(error)}. {outcome}"
        self._note(what, error)
        self.rebuild()

    def _note(self, what: str, error: BaseException) -> None:
        self.problems.append((what, error))
        self.unsettled = True

    def report(self) -> None:
        """Warn of what failed, now that everyone has been served."""
        if self.busy:
            return  # called by a handler: whoever called that reports
        self.unsettled = bool(self.queue)
        first: Warning | None = None
        while self.problems:
            what, error = self.problems.popleft()
            trace = (type(error), error, error.__traceback__)
            _logger.debug("%s", what, exc_info=trace)
            try:
                warn(what, TrackerExceptionWarning)
            except Warning as raised:  # warnings are errors: tell all, raise one
                raised.__cause__ = error
                first = first or raised
        if first is not None:
            raise first

    def published(self) -> int:
        """Return how many events somebody has been called for."""
        return sum(route.count for route in self._by_type.values())

    # -- life cycle --------------------------------------------------------------

    def start(self, event: StartExperimentEvent, states: Mapping[str, Any]) -> None:
        """Let every tracker enter the run, then tell them of its start.

        Args:
            event: The start event.
            states: What each tracker kept in the run's record.

        Raises:
            RequiredTrackerError: If a required tracker failed.
        """
        with self.lock:
            self._states = {name: dict(state) for name, state in states.items()}
            self.history.append(event)
            for guest in list(self.guests.values()):
                self._welcome(guest, event)
            self.rebuild()
        for guest in self.guests.values():
            required = getattr(guest.tracker, "required", False) is True
            if required and guest.suspended_at is not None:
                what, cause = next(
                    (what, error)
                    for what, error in self.problems
                    if what.startswith(f"Tracker {guest.name!r} ")
                )
                msg = f"The run needs its tracker {guest.name!r}. {what}"
                raise RequiredTrackerError(msg) from cause
        self.report()

    def _welcome(self, guest: Guest, event: Event) -> None:
        """Tell one tracker of the start, or of a registration that it missed."""
        if guest.suspended_at is not None:
            return
        busy, self.busy = self.busy, True
        try:
            if isinstance(event, StartExperimentEvent) and issubclass(
                type(guest.tracker), Tracker
            ):
                state = self._states.setdefault(guest.name, {})
                guest.tracker._open(event, state, driver=self)
            handler = guest.handler(type(event))
            if handler is not None:
                handler(event)
                guest.calls += 1
        except Exception as error:  # noqa: BLE001  # isolation
            self.fail(guest, event, error)
        finally:
            self.busy = busy
            if not busy:
                self.drain()

    def stop(self, event: Event) -> None:
        """Tell every tracker of the end, let them leave, and say who failed."""
        try:
            self.publish(event)
        finally:
            with self.lock:
                for guest in reversed(list(self.guests.values())):
                    self._dismiss(guest)
                for route in self._by_type.values():
                    route.fold()
            self.report()

    def _dismiss(self, guest: Guest) -> None:
        tracker = guest.tracker
        is_tracker = issubclass(type(tracker), Tracker)
        for leave in (tracker.clean_up, tracker._close if is_tracker else None):
            try:
                if leave is not None:
                    leave()
            except Exception as error:  # noqa: BLE001  # isolation
                what = f"Tracker {guest.name!r} failed to clean up: {_say(error)}."
                self._note(what, error)

    def states(self) -> dict[str, dict[str, Any]]:
        """Return what each tracker keeps in the run's record."""
        return {name: dict(state) for name, state in self._states.items()}


_REMEMBERED = (ModelRegistrationEvent, ActorRegistrationEvent)


def _say(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
