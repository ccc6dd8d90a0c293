"""The newest events of a run, for workers that keep up."""

from __future__ import annotations

from drytrack.core.log_events import Event


class Ring:
    """A fixed number of events, the newest in place of the oldest.

    One thread at a time writes, under the lock of the bus; any number read, without.

    Attributes:
        size: How many events it holds; a power of two.
        last: Sequence number of the newest.
        tidy_mask: Of the sequence numbers at which to look for what can be dropped.
    """

    def __init__(self, last: int, *, size: int) -> None:
        """Start empty.

        Args:
            last: Sequence number of the event before the first.
            size: How many events to hold; a power of two.
        """
        self.size = size
        self.last = last
        self.tidy_mask = size // min(size, 64) - 1
        self._mask = size - 1
        self._dropped = last
        self._slots: list[Event | None] = [None] * size

    def put(self, seq: int, event: Event | None) -> None:
        """Add the event of the next sequence number.

        Args:
            seq: Its sequence number.
            event: The event; None where it is to be read elsewhere, so that memory
                stays bounded.
        """
        self._slots[seq & self._mask] = event
        self.last = seq

    def drop(self, upto: int) -> None:
        """Let go of events up to a sequence number, which nobody wants; some at once.

        A long run would keep as many as there is room for, and publish the next
        ones into memory that is in no cache. To free a whole burst takes
        milliseconds, which no single event is to pay.
        """
        slots, mask = self._slots, self._mask
        begin = max(self._dropped, self.last - self.size)
        end = min(upto, begin + 4 * (self.tidy_mask + 1))
        for seq in range(begin + 1, end + 1):
            slots[seq & mask] = None
        self._dropped = max(begin, end)

    def get(self, after: int, limit: int) -> list[Event] | None:
        """Return the events behind a sequence number.

        Args:
            after: The last sequence number that the caller has.
            limit: How many to return at most.

        Returns:
            The events, none if there are no newer ones; None if the next one
            is not here (overwritten, or too large), and must be read elsewhere.
        """
        last = self.last
        if last - after >= self.size:
            return None
        upto = min(last, after + limit)
        slots, mask = self._slots, self._mask
        found = [slots[seq & mask] for seq in range(after + 1, upto + 1)]
        # The writer may have lapped us while we copied, or be about to.
        if self.last - after >= self.size:
            return None
        events: list[Event] = []
        for seq, event in enumerate(found, after + 1):
            # An interrupt between number and slot leaves an older event there.
            if event is None or event._stamp[0] != seq:
                break
            events.append(event)
        return events if events or not found else None
