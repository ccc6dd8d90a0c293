"""The way of one event type through the bus: the hot path of every event."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drytrack.core._bus import Bus
    from drytrack.core._guest import Guest, Handle
    from drytrack.core.log_events import Event

SAMPLED = 64
"""One delivery in so many is timed, and stands for the others; a power of two."""

_MASK = SAMPLED - 1
_TIMED = 8  # the first one early, but not the very first, which is slow


class Route:
    """The handlers for one event type, and how often they were called."""

    __slots__ = (
        "bus",
        "count",
        "folded",
        "record",
        "record_ns",
        "samples",
        "spent_ns",
        "table",
    )

    def __init__(self, bus: Bus) -> None:
        """Start without handlers."""
        self.bus = bus
        # Replaced as a whole: a delivery under way keeps the one it began with.
        self.table: tuple[tuple[Handle, ...], tuple[Guest, ...]] = ((), ())
        self.record: Handle | None = None
        self.record_ns = 0
        self.spent_ns: list[int] = []
        self.samples = 0
        self.count = 0
        self.folded = 0

    def lead_to(self, handlers: list[Handle], guests: list[Guest]) -> None:
        """Replace the handlers; what was counted for the old ones is folded."""
        self.table = (tuple(handlers), tuple(guests))
        self.spent_ns = [0] * len(handlers)

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
        clock = time.perf_counter_ns
        self.samples += 1
        began = clock()
        if self.record is not None:
            self.record(event)
        self.record_ns += clock() - began
        spent_ns = self.spent_ns
        for place, (handler, guest) in enumerate(zip(*self.table, strict=True)):
            began = clock()
            try:
                handler(event)
            except Exception as error:  # noqa: BLE001  # isolation
                self.bus.fail(guest, event, error)
            spent_ns[place] += clock() - began

    def serve(self, event: Event) -> None:
        """Call every handler for an event that is recorded already."""
        self.count += 1
        for handler, guest in zip(*self.table, strict=True):
            try:
                handler(event)
            except Exception as error:  # noqa: BLE001  # isolation
                self.bus.fail(guest, event, error)

    def fold(self) -> None:
        """Add what was counted since the last time to the guests."""
        new, self.folded = self.count - self.folded, self.count
        samples = self.samples or 1
        for guest, spent_ns in zip(self.table[1], self.spent_ns, strict=True):
            guest.calls += new
            guest.inline_ns += spent_ns * new // samples
        self.bus.record_ns += self.record_ns * new // samples
        self.bus.recorded += new if self.record is not None else 0
        self.spent_ns = [0] * len(self.spent_ns)
        self.record_ns = self.samples = 0
