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

from drytrack.core._guest import Guest, Handle
from drytrack.core._problems import Problem, say, warn_of
from drytrack.core._ring import Ring
from drytrack.core._route import Route
from drytrack.core.exceptions import (
    BusBusyError,
    DeliveryWarning,
    DrytrackWarning,
    RequiredTrackerError,
    TrackerExceptionWarning,
)
from drytrack.core.log_events import (
    ActorRegistrationEvent,
    EndEpochEvent,
    Event,
    IterateBatchEvent,
    ModelRegistrationEvent,
    SaveModelEvent,
    StartExperimentEvent,
    SummaryEvent,
)
from drytrack.core.track import Tracker

if TYPE_CHECKING:
    from drytrack.core._current import Deliver
    from drytrack.core._worker import Worker
    from drytrack.core.journal import JournalWriter
    from drytrack.core.run import Run

MAX_FAILURES = 3
"""Failures in a row after which a tracker is suspended."""

BUSY_TIMEOUT_S = 60.0
"""How long an event of another thread waits for a handler to finish."""

RING_SIZE = 32_768
"""Events in memory for the background trackers at the most; a power of two."""

MAX_IN_RING = 1024
"""Bytes of its line above which an event is read from the journal instead."""

FULL_RING_WAIT_S = 1.0
"""How long, in all, publishers wait for slow trackers where no journal helps."""

CATCH_UP_INLINE = 10_000
"""Missed events that a resumed inline tracker gets before the run goes on."""

UNRECORDED = -(2**62)
"""Sequence numbers count from here where there is no journal to be a place in."""

_REMEMBERED = (ModelRegistrationEvent, ActorRegistrationEvent)
_SYNCED = (EndEpochEvent, SaveModelEvent)

_logger = logging.getLogger("drytrack")


class Bus:
    """Delivers the events of one run to its trackers.

    Attributes:
        run: The run.
        lock: Held while an event is recorded and delivered.
        busy: Whether a handler is at work, in whatever thread.
        unsettled: Whether events wait in the queue, or anything for a report.
        guests: The trackers, by name.
        history: The start event and the registrations, for late subscribers.
        journal: Where events are recorded; None where they are not.
        ring: The newest events, once somebody in the background wants them.
        recorded: Events recorded, as of the last `fold`.
        record_ns: The time that this took, extrapolated.
        start_seq: Sequence number of this attempt's start event.
        stopped: Whether the stop event has been published.
        workers: Numbers of the threads that feed background trackers.
    """

    __slots__ = (
        "__weakref__",
        "_by_type",
        "_kept",
        "_seq",
        "_states",
        "_wait_left_s",
        "_warned_dropped",
        "acquire",
        "busy",
        "deferred",
        "guests",
        "history",
        "journal",
        "leaving",
        "lock",
        "max_failures",
        "problems",
        "queue",
        "record_ns",
        "recorded",
        "release",
        "ring",
        "run",
        "start_seq",
        "stopped",
        "unsettled",
        "workers",
    )

    def __init__(self, run: Run[Any], journal: JournalWriter | None = None) -> None:
        """Start without trackers."""
        self.run = run
        self.journal = journal
        self.lock = threading.RLock()
        self.acquire = self.lock.acquire
        self.release = self.lock.release
        self.busy = False
        self.unsettled = False
        self.recorded = 0
        self.record_ns = 0
        self.queue: collections.deque[tuple[Route, Event]] = collections.deque()
        self.problems: collections.deque[Problem] = collections.deque()
        self.deferred: collections.deque[Callable[[], None]] = collections.deque()
        self.guests: dict[str, Guest] = {}
        self.leaving: collections.deque[Guest] = collections.deque()
        self.workers: set[int] = set()
        self.history: list[Event] = []
        self.max_failures = MAX_FAILURES
        self.start_seq = 0
        self.stopped = False
        self.ring: Ring | None = None
        self._seq = UNRECORDED
        self._by_type: dict[type[Event], Route] = {}
        self._kept: Mapping[str, Any] = {}
        self._states: dict[str, dict[str, Any]] = {}
        self._wait_left_s = FULL_RING_WAIT_S
        self._warned_dropped = False

    @property
    def last_seq(self) -> int:
        """Sequence number of the newest event."""
        return self.journal.seq if self.journal is not None else self._seq

    # -- who is called ---------------------------------------------------------

    def resolve(self, event_type: type[Event]) -> Deliver | None:
        """Build the route of an event type, and remember it in the run's routes."""
        self._wait_for_turn(event_type)
        with self.lock:
            handlers, guests = [], []
            for guest in self.guests.values():
                if guest.suspended_at is not None or guest.worker is not None:
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
                route.lead_to(handlers, guests)
                deliver = route.deliver
            elif event_type in self._by_type:
                self._by_type[event_type].lead_to([], [])
            self.run.routes[event_type] = deliver
            return deliver

    def _recorder(self, event_type: type[Event]) -> Handle | None:
        """Return what keeps events of a type, before any handler sees them."""
        steps: list[Handle] = []
        if self.journal is not None:
            steps.append(self.journal.append)
            if issubclass(event_type, _SYNCED):
                steps.append(self._sync)
        elif self.ring is not None:
            steps.append(self._number)
        if self.ring is not None:
            steps.append(self._put_in_ring)
        if issubclass(event_type, _REMEMBERED):
            steps.append(self.history.append)
        if issubclass(event_type, SummaryEvent):
            steps.append(self.run.note_summary)
        if len(steps) <= 1:
            return steps[0] if steps else None
        first, second, *others = steps

        def record(event: Event) -> None:
            first(event)
            second(event)
            for step in others:
                step(event)

        return record

    def _sync(self, event: Event) -> None:
        assert self.journal is not None  # see _recorder
        self.journal.sync()

    def _number(self, event: Event) -> None:
        """Stamp an event that no journal has stamped."""
        self._seq += 1
        object.__setattr__(event, "_stamp", (self._seq, self.run.attempt, time.time()))

    def _put_in_ring(self, event: Event) -> None:
        ring = self.ring
        assert ring is not None  # see _recorder
        seq = event._stamp[0]
        if self.journal is None:
            if not seq & 63:
                self._wait_for_room(ring, seq)
            ring.put(seq, event)
        else:  # the large ones stay there
            ring.put(seq, event if self.journal.line_bytes <= MAX_IN_RING else None)
        if not seq & ring.tidy_mask:
            self._tidy(ring)

    def _tidy(self, ring: Ring) -> None:
        """Wake workers that are far behind; let go of what all have had."""
        workers = [guest.worker for guest in self.guests.values() if guest.worker]
        for worker in workers:
            worker.hurry()
        ring.drop(min((worker.cursor for worker in workers), default=ring.last))

    def _wait_for_room(self, ring: Ring, seq: int) -> None:
        """Give slow trackers a little time, where what they miss is lost."""
        workers = [guest.worker for guest in self.guests.values() if guest.worker]
        while self._wait_left_s > 0 and any(
            seq - worker.position > ring.size - 2 * 64 for worker in workers
        ):
            time.sleep(0.01)
            self._wait_left_s -= 0.01

    def _on_probation(self, guest: Guest, handler: Handle) -> Handle:
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
        with self.lock:
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
            guest = self.guests[name] = Guest(name, tracker)
            if self.history and not self.stopped:
                missed = list(self.history[1:])
                if guest.background:
                    self._start_worker(guest, self.last_seq, missed)
                else:
                    self._welcome(guest, self.history[0])
                    for event in missed:
                        self._welcome(guest, event)
            self.rebuild()
        self.report()

    def remove(self, name: str) -> None:
        """Let a tracker leave, cleaned up; what is on its way to it is dropped."""
        with self.lock:
            guest = self.guests.pop(name, None)
            self.rebuild()
            if guest is not None and guest.worker is None:
                self.leaving.append(guest)
                if self.busy:  # by a handler: it leaves after the event under way
                    self.unsettled = True
                else:
                    self.let_leave()
        if guest is not None and guest.worker is not None:
            guest.worker.abandon()
        self.report()

    def let_leave(self) -> None:
        """Clean up the trackers that were removed."""
        while self.leaving:
            self.dismiss(self.leaving.popleft())

    def resume(self, name: str) -> None:
        """Let a suspended tracker go on at once, with what it had missed."""
        guest = self.guests.get(name)
        worker = guest.worker if guest is not None else None
        if worker is not None:
            worker.wake()

    def _start_worker(self, guest: Guest, cursor: int, prelude: list[Event]) -> None:
        guest.worker = self._make_worker(guest, cursor, prelude)
        if guest.required and not guest.worker.open_now():
            return
        guest.worker.start()

    def _make_worker(self, guest: Guest, cursor: int, prelude: list[Event]) -> Worker:
        # Loads the JSON encoder, which a run without record or worker never needs.
        from drytrack.core._worker import Worker

        if self.ring is None:
            self._make_ring(self.last_seq)
        return Worker(self, guest, cursor, prelude)

    def _make_ring(self, last: int) -> Ring:
        self.ring = Ring(last, size=RING_SIZE)
        self.rebuild()
        return self.ring

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
        self._wait_for_turn(type(event))
        with self.lock:
            self._queue_or_deliver(route, event)
        self.report()

    def _wait_for_turn(self, event_type: type[Event]) -> None:
        """Wait, but not for ever, for the handler that another thread is in."""
        if self._holds_lock():
            return
        try:
            # Inside the `try`: a signal's exception after it must not keep the lock.
            if not self.acquire(timeout=BUSY_TIMEOUT_S):
                msg = (
                    f"{event_type.__name__} waited {BUSY_TIMEOUT_S:g} s for a handler "
                    f"that another thread is in. A handler must not wait for a thread "
                    f"that publishes; let it return first."
                )
                raise BusBusyError(msg)  # noqa: TRY301  # the lock is looked at below
            self.release()
        except BaseException:
            if self._holds_lock():
                self.release()
            raise

    def _queue_or_deliver(self, route: Route, event: Event) -> None:
        if self.busy:  # under the lock: by a handler further up this stack
            if route.record is not None:
                route.record(event)
            self.queue.append((route, event))
            self.unsettled = True
            return
        # Not by `Route.deliver`, which would let go of a lock that is the caller's.
        self.busy = True
        try:
            route.count += 1
            route.serve_timed(event)
            self.drain()
        finally:
            self.busy = False

    def drain(self) -> None:
        """Deliver what handlers published, in order."""
        while self.queue:
            route, event = self.queue.popleft()
            route.serve(event)
        self.let_leave()

    def abandon(self) -> None:
        """Let the bus go after an exception that no handler may keep.

        Whoever is here was in `Route.deliver`, but perhaps not yet, or no
        longer, in possession of the lock.
        """
        if self._holds_lock():
            self.busy = False
            self.release()

    def _holds_lock(self) -> bool:
        owned: bool = self.lock._is_owned()  # type: ignore[attr-defined]  # as Condition
        return owned

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
                    self.note(
                        f"Callback {name} failed on a batch of {event.source_name!r} "
                        f"and is not called again in this pass",
                        error,
                    )
        self.report()

    def fail(self, guest: Guest, event: Event, error: Exception) -> None:
        """Count a handler's failure; the third in a row suspends its tracker."""
        at_start = isinstance(event, StartExperimentEvent)
        stamp = event.stamp
        if not guest.failures and stamp is not None:
            guest.streak_seq = stamp.seq
        guest.failed_for_good += 1
        self.count_failure(guest, event, error, at_start=at_start)
        if guest.suspended_at is not None and guest.worker is None:
            cursor = self.last_seq
            if self.journal is not None:  # it will get what it failed on
                cursor = guest.streak_seq - 1
                guest.failed_for_good -= guest.failures
            guest.worker = self._make_worker(guest, cursor, [])
            guest.worker.catch_up(opened=not at_start)
        self.rebuild()

    def count_failure(
        self,
        guest: Guest,
        event: Event,
        error: Exception,
        *,
        at_start: bool = False,
        quiet: bool = False,
    ) -> None:
        """Count a failure, suspend where it is the third, and note what to say."""
        guest.failures += 1
        guest.failed += 1
        if at_start or guest.failures >= MAX_FAILURES:
            if guest.suspended_at is None:
                guest.suspended_at = self.last_seq
            outcome = (
                "It is suspended, and tried again with growing pauses; "
                f"experiment.trackers.resume({guest.name!r}) tries at once"
            )
        else:
            outcome = (
                f"The run goes on; after {MAX_FAILURES} failures in a row the "
                f"tracker is suspended"
            )
        if quiet:
            _logger.debug("tracker %r failed again: %r", guest.name, error)
            return
        where = type(event).__name__
        for field in ("epoch", "step"):
            if (number := getattr(event, field, None)) is not None:
                where += f" ({field} {number})"
        what = f"Tracker {guest.name!r} failed on {where}: {say(error)}. {outcome}"
        self.tell(f"{what}.", TrackerExceptionWarning, error)

    def note(self, what: str, error: BaseException) -> None:
        """Note that a tracker has raised, outside of its handlers."""
        self.tell(f"{what}: {say(error)}.", TrackerExceptionWarning, error)

    def note_dropped(self, name: str) -> None:
        """Note, once, that a slow tracker loses events for want of a journal."""
        if not self._warned_dropped:
            self._warned_dropped = True
            msg = (
                f"Tracker {name!r} is too slow for this run, and without a record what "
                f"it misses is dropped. Let the run keep a record: create_run(record="
                f"True)."
            )
            self.tell(msg, DeliveryWarning)

    def tell(
        self,
        what: str,
        category: type[DrytrackWarning],
        error: BaseException | None = None,
    ) -> None:
        """Note a warning, to be raised when everyone has been served."""
        self.problems.append((what, category, error))
        self.unsettled = True

    def is_serving(self) -> bool:
        """Return whether a tracker's handler is at work further up this stack."""
        return threading.get_ident() in self.workers or (
            self.busy and self._holds_lock()
        )

    def defer(self, call: Callable[[], None]) -> None:
        """Keep a call of a handler's until everyone has been served.

        That of a background tracker is kept until the next event is published.
        """
        self.deferred.append(call)
        self.unsettled = True

    def report(self) -> None:
        """Do what was deferred and warn of what failed; everyone has been served."""
        if self.busy:
            return  # called by a handler: whoever called that reports
        self.unsettled = bool(self.queue)
        while self.deferred and not self.is_serving():
            self.deferred.popleft()()
        warn_of(self.problems)

    # -- life cycle --------------------------------------------------------------

    def start(self, event: StartExperimentEvent, kept: Mapping[str, Any]) -> None:
        """Let every tracker enter the run, then tell them of its start.

        Args:
            event: The start event.
            kept: What the run's record says of each tracker.

        Raises:
            RequiredTrackerError: If a required tracker failed.
        """
        with self.lock:
            self._kept = kept
            self._states = {
                name: dict(entry.get("state", {})) for name, entry in kept.items()
            }
            self.history.append(event)
            if self.journal is not None:
                self.journal.append(event)
                self.journal.sync()
            else:
                self._number(event)
            self.start_seq = self.last_seq
            if any(guest.background for guest in self.guests.values()):
                ring = self._make_ring(self.start_seq - 1)
                ring.put(self.start_seq, event)
            self.busy = True  # what they publish waits until all have started
            try:
                for guest in list(self.guests.values()):
                    if guest.background:
                        cursor = self.start_seq - 1
                        if event.resumed and self.journal is not None:
                            cursor = int(kept.get(guest.name, {}).get("cursor", 0))
                        self._start_worker(guest, cursor, [])
                    else:
                        self._welcome(guest, event)
                        self._catch_up(guest, event)
            finally:
                self.busy = False
            self.rebuild()
            self.drain()
        for guest in self.guests.values():
            if guest.required and guest.suspended_at is not None:
                what, cause = next(
                    (what, error)
                    for what, _, error in self.problems
                    if what.startswith(f"Tracker {guest.name!r} ")
                )
                self.problems = collections.deque(
                    problem for problem in self.problems if problem[0] != what
                )  # told by the error
                msg = f"The run needs its tracker {guest.name!r}. {what}"
                raise RequiredTrackerError(msg) from cause
        self.report()

    def _catch_up(self, guest: Guest, start: StartExperimentEvent) -> None:
        """Give an inline tracker of a resumed run what it had missed."""
        if not start.resumed or self.journal is None or guest.suspended_at is not None:
            return
        known = guest.last_seq()
        if known is None:
            # A tracker that cannot tell has had everything, unless it was suspended.
            entry = self._kept.get(guest.name, {})
            known = int(entry["cursor"]) if entry.get("behind") else self.start_seq
        if known >= self.start_seq - 1:
            return
        if self.start_seq - known > CATCH_UP_INLINE:
            guest.suspended_at = known
            guest.worker = self._make_worker(guest, known, [])
            guest.worker.catch_up(opened=True)
            guest.worker.wake()
            return
        from drytrack.core._worker import read_missed

        for event in read_missed(self, known):
            self._welcome(guest, event)

    def _welcome(self, guest: Guest, event: Event) -> None:
        """Tell one tracker of the start, or of something that it missed."""
        if guest.suspended_at is not None:
            return
        busy, self.busy = self.busy, True
        try:
            if isinstance(event, StartExperimentEvent):
                self.open(guest)
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

    def open(self, guest: Guest) -> None:
        """Give a tracker what it needs of the run."""
        start = self.history[0]
        assert isinstance(start, StartExperimentEvent)  # put there first
        guest.open(start, self._states.setdefault(guest.name, {}), self)

    def flush(self, timeout_s: float) -> bool:
        """Wait until every tracker has received and flushed what is published.

        Args:
            timeout_s: Seconds to wait at the most.

        Returns:
            Whether all did.
        """
        deadline = time.monotonic() + timeout_s
        with self.lock:
            # An interrupt may have cost the newest number its event.
            target = self.last_seq if self.ring is None else self.ring.last
            for guest in self.guests.values():
                if guest.worker is None:
                    guest.flush(self)
            workers = [guest.worker for guest in self.guests.values() if guest.worker]
        for worker in workers:
            worker.wake()
        while any(worker.cursor < target and not worker.over for worker in workers):
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.002)
        return all(worker.cursor >= target for worker in workers)

    def stop(self, event: Event, timeout_s: float) -> None:
        """Tell every tracker of the end, let them leave, and say who failed.

        Args:
            event: The stop event.
            timeout_s: Seconds that the background trackers have, all together.
        """
        try:
            try:
                self.publish(event)
            except BaseException as error:
                # An interrupt that came before anyone has heard of the end.
                if event.stamp is None and not isinstance(error, Exception):
                    self.publish(event)
                raise
            with self.lock:
                self.stopped = True
            if self.journal is not None:
                self.journal.sync()
        finally:
            workers = [guest.worker for guest in self.guests.values() if guest.worker]
            for worker in workers:
                worker.finish()
            with self.lock:
                for guest in reversed(list(self.guests.values())):
                    if guest.worker is None:
                        self.dismiss(guest)
            deadline = time.monotonic() + timeout_s
            for worker in workers:
                worker.wait(max(0.0, deadline - time.monotonic()))
                worker.abandon()
            with self.lock:
                for route in self._by_type.values():
                    route.fold()
                self._note_missed()
            self.report()

    def _note_missed(self) -> None:
        for guest in self.guests.values():
            if guest.required and guest.suspended_at == self.start_seq:
                continue  # it has kept the run from starting, by an error
            worker = guest.worker
            missed = guest.failed_for_good
            if worker is not None:
                missed += worker.dropped + worker.behind
            if not missed:
                continue
            remedy = "Nothing has kept them."
            if self.journal is not None:
                whole = self.journal.incomplete_from is None
                remedy = (
                    f"The journal has {'them' if whole else 'those it could write'}: "
                    f"drytrack replay {self.journal.folder} --to {guest.name}."
                )
            msg = f"Tracker {guest.name!r} has missed {missed} events. {remedy}"
            self.tell(msg, DeliveryWarning)

    def dismiss(self, guest: Guest) -> None:
        """Let a tracker release what it holds."""
        for leave in guest.ways_out():
            try:
                leave()
            except Exception as error:  # noqa: BLE001  # isolation
                self.note(f"Tracker {guest.name!r} failed to clean up", error)

    def kept(self) -> dict[str, dict[str, Any]]:
        """Return what the run's record says of each tracker, also of absent ones."""
        entries = {name: dict(entry) for name, entry in list(self._kept.items())}
        for name, state in list(self._states.items()):
            entries.setdefault(name, {})["state"] = dict(state)
        for name, guest in list(self.guests.items()):
            worker = guest.worker
            entry = entries.setdefault(name, {"state": {}})
            entry["cursor"] = self.last_seq if worker is None else worker.cursor
            entry["behind"] = worker is not None and not guest.background
        return entries

    def fold(self) -> None:
        """Bring the counts of all trackers up to date."""
        with self.lock:
            for route in self._by_type.values():
                route.fold()
