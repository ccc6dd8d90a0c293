"""The thread that feeds one tracker: in the background, or catching up.

A worker has a cursor, the sequence number up to which its tracker has
received and flushed everything. Behind it stand the ring, for the newest
events, and the journal, for all others; a slow tracker, one that had failed,
and one that comes back after a crash differ only in where their cursor is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from drytrack.core._bell import Bell
from drytrack.core.exceptions import JournalError
from drytrack.core.journal import JournalReader
from drytrack.core.log_events import (
    Event,
    StartExperimentEvent,
    StopExperimentEvent,
)

if TYPE_CHECKING:
    from drytrack.core._bus import Bus
    from drytrack.core._guest import Guest

POLL_S = 0.05
"""Pause between two looks for new events.

Waking a thread for each event costs the publisher 18 µs; a thread that looks by
itself, 20 times a second, costs it next to nothing.
"""

BURST = 1000
"""Events between two looks for new ones that make a burst.

A worker lets a burst pass while the ring has room: it would share the interpreter lock
with the thread that publishes, and double what that takes.
"""

BATCH = 2048
"""Events between two calls of `Tracker.flush` at the most.

A flush costs a database half a millisecond, whatever it holds.
"""

BREATH_NS = 500_000
"""Nanoseconds of work after which a worker lets go of the interpreter lock.

The training thread gives the lock away when it writes the journal, and would get
it back after 5 ms only, or when the worker has nothing left to do.
"""

HEAD_START = 512
"""Events that a worker goes on ahead of what is overwritten next."""

BATCH_BYTES = 4 * 1024 * 1024
"""Bytes of the journal and its blobs that are read ahead at the most, roughly."""

FLUSH_EVERY_NS = 1_000_000_000
"""Nanoseconds between two calls of `Tracker.flush` at the most, while events come."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 300.0
"""Pauses before a suspended tracker is tried again, doubling in between."""


class Worker:
    """Feeds one tracker from a thread of its own, in order."""

    def __init__(
        self, bus: Bus, guest: Guest, cursor: int, prelude: list[Event]
    ) -> None:
        """Prepare; nothing happens before `start`.

        Args:
            bus: The bus.
            guest: The tracker's place in the run.
            cursor: The last sequence number that the tracker has.
            prelude: Events to deliver first, such as registrations that a late
                subscriber missed.
        """
        assert bus.ring is not None  # made before any worker
        self._ring = bus.ring
        self.bus = bus
        self.guest = guest
        self.cursor = cursor
        self.position = cursor
        self.over = False
        self.dropped = 0
        self._prelude = prelude
        self._skipped = 0
        self._probing = False
        self._opened = False
        self._rejoin = False
        self._pause_s = 0.0
        self._now_ns = self._breath_ns = self._flushed_ns = time.perf_counter_ns()
        self._wake = Bell()
        self._left = Bell()
        self._last_try = False
        self._tried_last = False
        self._abandoned = False
        self._stop_seen = False
        self._reader: JournalReader
        self._from_journal: Iterator[Event] | None = None
        self._handlers: dict[type[Event], Callable[[Any], None] | None] = {}
        self._thread = threading.Thread(
            target=self._work, name=f"drytrack-{guest.name}", daemon=True
        )

    # -- called by the bus -------------------------------------------------------

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def catch_up(self, *, opened: bool) -> None:
        """Start the thread for an inline tracker, until it can go on inline.

        Args:
            opened: Whether its start handler has succeeded.
        """
        self._opened = opened
        self._rejoin = True
        self._probing = True
        self._pause_s = FIRST_PAUSE_S
        self._thread.start()

    def open_now(self) -> bool:
        """Deliver the start event on the caller's thread; return success.

        A tracker that fails is cleaned up; there is nothing left to start.
        """
        if self._open():
            return True
        self.bus.dismiss(self.guest)
        self.over = True
        return False

    def wake(self) -> None:
        """Look for events at once; end the pause of a suspended tracker."""
        if self._pause_s:
            self._pause_s = FIRST_PAUSE_S
        self._wake.ring()

    def hurry(self) -> None:
        """Look for events at once, if the ring is about to be full of them."""
        ring = self._ring
        if not self._pause_s and ring.last - self.position > ring.size // 4 * 3:
            self._wake.ring()

    def finish(self) -> None:
        """Deliver what is left; a tracker that fails again is given up."""
        self._last_try = True
        self._wake.ring()

    def wait(self, timeout_s: float) -> None:
        """Wait until the worker has nothing more to do.

        Args:
            timeout_s: Seconds to wait at the most; at least 0.
        """
        # One whose start was interrupted may never begin.
        if not self.over and self._thread.is_alive():
            self._left.wait(timeout_s)

    def abandon(self) -> None:
        """Deliver nothing more after the handler that is at work."""
        self._abandoned = True
        self._wake.ring()

    @property
    def behind(self) -> int:
        """How many events the tracker has not received and flushed."""
        return max(0, self._ring.last - self.cursor)

    # -- the thread --------------------------------------------------------------

    def _work(self) -> None:
        self.bus.workers.add(threading.get_ident())
        try:
            while not self._abandoned:
                if self._pause_s and not self._sit_out():
                    break
                if not self._opened and not self._open():
                    continue
                batch = self._next_batch()
                if batch:
                    self._deliver(batch)
                elif self._is_through() or (self._rejoin and self._try_to_rejoin()):
                    break
                else:
                    self._wait_for_events()
        except BaseException as error:  # noqa: BLE001  # told, and the run goes on
            self.bus.note(f"The worker of tracker {self.guest.name!r} died", error)
        finally:
            if self.guest.worker is self:
                self.bus.dismiss(self.guest)
            self.bus.workers.discard(threading.get_ident())
            self.over = True
            self._left.ring()

    def _wait_for_events(self) -> None:
        """Wait a moment, or until a burst of events has passed."""
        seen = self._ring.last
        while not self._wake.wait(POLL_S) and self._ring.last - seen >= BURST:
            seen = self._ring.last

    def _is_through(self) -> bool:
        """Return whether nothing more will come; an interrupt may cost the end."""
        at_end = self._last_try and self.position >= self._ring.last
        return self._stop_seen or at_end

    def _sit_out(self) -> bool:
        """Wait before the next try; return whether there is to be one."""
        if self._last_try and self._tried_last:
            return False
        if not self._last_try:
            self._wake.wait(self._pause_s)
        self._tried_last = self._last_try
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        self.guest.failures = 0
        return not self._abandoned

    def _open(self) -> bool:
        """Let the tracker enter the run; return whether it did."""
        start = self.bus.history[0]
        assert isinstance(start, StartExperimentEvent)  # put there first
        try:
            self.bus.open(self.guest)
            self._call(start)
            # What the start has made must not be lost with a first batch.
            self.guest.tracker.flush()
        except Exception as error:  # noqa: BLE001  # isolation
            self._fail(start, error, suspend=True)
            return False
        self._opened = True
        # What the tracker has loaded may have exit handlers that shut it down.
        self.bus.run.end_first_at_exit()
        if self.position == self.bus.start_seq - 1:
            self.cursor = self.position = self.bus.start_seq
        if start.resumed:
            known = self.guest.last_seq()
            if known is not None:
                # A lost machine may leave the tracker with more than the journal.
                self.cursor = self.position = min(known, self.bus.start_seq)
        for event in self._prelude:
            self._try(event)
        self._prelude = []
        return True

    def _next_batch(self) -> list[Event]:
        fresh = self._from_journal is None
        if fresh:
            batch = self._ring.get(self.position, BATCH)
            if batch is not None:
                return batch
            if self.bus.journal is None:
                return self._skip_dropped()
            self._reader = JournalReader(self.bus.journal.folder)
            self._from_journal = self._reader.read(self._reader.find(self.position))
        assert self._from_journal is not None  # opened above, or before
        batch = []
        full = self._reader.bytes_read + BATCH_BYTES
        try:
            for event in self._from_journal:
                batch.append(event)
                if len(batch) >= BATCH or self._reader.bytes_read > full:
                    break
            else:
                self._from_journal = None
        except (JournalError, OSError) as error:
            self._from_journal = None
            self.bus.note(f"The journal cannot be read for {self.guest.name!r}", error)
        if fresh and not batch and self._ring.get(self.position, 1) is None:
            batch = self._read_waiting()
        return batch

    def _read_waiting(self) -> list[Event]:
        """Return what waits for the disk; go on behind what is lost."""
        journal = self.bus.journal
        assert journal is not None  # the caller has read it
        with self.bus.lock:
            lines = journal.waiting(self.position, BATCH)
            lost = journal.lost_upto(self.position + 1)
        self.dropped += max(0, lost - self.position)
        self.position = max(lost, self.position)
        reader = JournalReader(journal.folder)
        found = [event for line in lines if (event := reader.parse(line))]
        return [event for event in found if event._stamp[0] > self.position]

    def _skip_dropped(self) -> list[Event]:
        """Go on with the oldest event that is left, where there is no journal."""
        oldest = self._ring.last - self._ring.size + HEAD_START
        lost = max(1, oldest - self.position)
        self.dropped += lost
        self.position += lost
        self.bus.note_dropped(self.guest.name)
        return []

    def _deliver(self, batch: list[Event]) -> None:
        for event in batch:
            if self._abandoned:
                return
            seq = event._stamp[0]
            if isinstance(event, (StartExperimentEvent, StopExperimentEvent)):
                if seq < self.bus.start_seq or isinstance(event, StartExperimentEvent):
                    self.position = seq
                    continue  # of an earlier attempt, or handled by _open
                self._stop_seen = True
            if not self._try(event):
                return
            self.position = seq
            if self._now_ns - self._breath_ns > BREATH_NS:
                self._take_breath()
                if self._pause_s:  # the flush failed: what follows comes again, too
                    return
        self._flush()

    def _take_breath(self) -> None:
        """Let others have the interpreter lock; flush where that is due."""
        time.sleep(0)
        # Not amid failures: three in a row take us back to the last flush.
        late = self._now_ns - self._flushed_ns > FLUSH_EVERY_NS
        if late and not self.guest.failures:
            self._flush()
        self._breath_ns = time.perf_counter_ns()

    def _try(self, event: Event) -> bool:
        """Deliver one event, twice if need be; return whether to go on."""
        try:
            self._call(event)
        except Exception:  # noqa: BLE001  # the second try tells
            try:
                self._call(event)
            except Exception as error:  # noqa: BLE001  # isolation
                self._skipped += 1
                return not self._fail(event, error)
        self.guest.failures = 0
        if not self._probing:
            return True
        self._probing = False
        self._pause_s = 0.0
        if not self._rejoin:
            self.guest.suspended_at = None
        if self._skipped:
            # It works again: what failed before this event deserves another try.
            self.position = self.cursor
            self._skipped = 0
            self._from_journal = None
            return False
        return True

    def _call(self, event: Event) -> None:
        cls = event.__class__
        try:
            handler = self._handlers[cls]
        except KeyError:
            handler = self._handlers[cls] = self.guest.handler(cls)
        if handler is not None:
            began = time.perf_counter_ns()
            try:
                handler(event)
            finally:
                now = self._now_ns = time.perf_counter_ns()
                self.guest.calls += 1
                self.guest.worker_ns += now - began

    def _flush(self) -> None:
        self._flushed_ns = time.perf_counter_ns()
        try:
            self.guest.tracker.flush()
        except Exception as error:  # noqa: BLE001  # isolation
            self.bus.note(f"Tracker {self.guest.name!r} failed to flush", error)
            self._suspend()
        else:
            self.cursor = self.position
            self.guest.failed_for_good += self._skipped
            self._skipped = 0

    def _fail(self, event: Event, error: Exception, *, suspend: bool = False) -> bool:
        """Count a failure; return whether the tracker is to pause."""
        guest = self.guest
        quiet = guest.suspended_at is not None  # it has been told before
        self.bus.count_failure(guest, event, error, at_start=suspend, quiet=quiet)
        if not (suspend or guest.failures >= self.bus.max_failures):
            return False
        self._suspend()
        return True

    def _suspend(self) -> None:
        """Go back to what is safe, and try again after a pause."""
        if self.guest.suspended_at is None:
            self.guest.suspended_at = self.bus.last_seq
        self._probing = True
        self._pause_s = self._pause_s or FIRST_PAUSE_S
        self.position = self.cursor
        self._skipped = 0  # they come again
        self._stop_seen = False
        self._from_journal = None

    def _try_to_rejoin(self) -> bool:
        """Hand the tracker back to the bus, if nothing is left to catch up."""
        with self.bus.lock:
            if self.bus.stopped or self.position != self.bus.last_seq:
                return False
            self.guest.worker = None
            self.guest.suspended_at = None
            self.guest.failures = 0
            self.bus.rebuild()
            return True


def read_missed(bus: Bus, after: int) -> Iterator[Event]:
    """Read what was published between a sequence number and the start event."""
    assert bus.journal is not None  # the caller has looked
    reader = JournalReader(bus.journal.folder)
    for event in reader.read(reader.find(after)):
        if event._stamp[0] >= bus.start_seq:
            return
        if not isinstance(event, (StartExperimentEvent, StopExperimentEvent)):
            yield event
