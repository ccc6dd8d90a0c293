"""The way of one event type through the bus: the hot path of every event."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drytrack.core._bus import Bus
    from drytrack.core._guest import Guest, Handle
    from drytrack.core.log_events import Event

SAMPLED = 64
"""One delivery in so many is timed, and stands for all since the last; a power of 2."""

_MASK = SAMPLED - 1
_TIMED = 8  # the first one early, but not the very first, which is slow


class Route:
    """The handlers for one event type, and how often they were called."""

    __slots__ = ("bus", "count", "folded", "record", "record_ns", "table", "timed")

    def __init__(self, bus: Bus) -> None:
        """Start without handlers."""
        self.bus = bus
        # Replaced as a whole: a delivery under way keeps the one it began with.
        self.table: tuple[tuple[Handle, ...], tuple[Guest, ...]] = ((), ())
        self.record: Handle | None = None
        self.record_ns = 0
        self.count = 0
        self.timed = 0
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
            if not bus.acquire(False):  # another thread has just come before
                bus.publish_while_busy(self, event)
                return
            bus.busy = True
            count = self.count = self.count + 1
            if (count & _MASK) != _TIMED:
                if self.record is not None:
                    self.record(event)
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
        """Record the event, call every handler, and note how long each took."""
        weight, self.timed = self.count - self.timed, self.count
        if self.record is not None:
            began = time.perf_counter_ns()
            self.record(event)
            self.record_ns += (time.perf_counter_ns() - began) * weight
        self.serve(event, weight)

    def serve(self, event: Event, weight: int) -> None:
        """Call every handler, and note how long each took, times a weight."""
        clock = time.perf_counter_ns
        for handler, guest in zip(*self.table, strict=True):
            began = clock()
            try:
                handler(event)
            except Exception as error:  # noqa: BLE001  # isolation
                self.bus.fail(guest, event, error)
            guest.inline_ns += (clock() - began) * weight

    def fold(self) -> None:
        """Add what was counted since the last time to the guests."""
        new, self.folded = self.count - self.folded, self.count
        for guest in self.table[1]:
            guest.calls += new
