"""One tracker's place in one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from drytrack.core.log_events import Event, StartExperimentEvent
from drytrack.core.track import Tracker

if TYPE_CHECKING:
    from drytrack.core._bus import Bus
    from drytrack.core._run_logging import RunLogging
    from drytrack.core._worker import Worker

Handle = Callable[[Any], None]
"""Something to call with an event."""


class Guest:
    """One tracker in one run.

    A mock that stands for a tracker is called through its ``notify``, and
    spared everything else.

    Attributes:
        name: Its name in the run.
        tracker: The tracker, or its copy for this run.
        background: Whether a worker feeds it.
        required: Whether the run cannot start without it.
        worker: Who feeds it, in the background or while it catches up.
        failures: Failures in a row.
        failed: Failures in all.
        failed_for_good: Events that it never took, and was not suspended for.
        streak_seq: Sequence number of the first of the failures in a row.
        suspended_at: The newest sequence number when it was suspended; None
            while it takes part.
        calls: Handlers called.
        inline_ns: Time that they took of the publishing thread, extrapolated.
        worker_ns: Time that they took of the worker.
    """

    def __init__(self, name: str, tracker: Tracker) -> None:
        """Take part from now on."""
        self._real = issubclass(type(tracker), Tracker)
        self.name = name
        self.tracker = tracker._copy_for_run() if self._real else tracker
        self.background = self._real and tracker.background
        self.required = self._real and getattr(tracker, "required", False)
        self.worker: Worker | None = None
        self.failures = 0
        self.failed = 0
        self.failed_for_good = 0
        self.streak_seq = 0
        self.suspended_at: int | None = None
        self.calls = 0
        self.inline_ns = 0
        self.worker_ns = 0

    def handler(self, event_type: type[Event]) -> Handle | None:
        """Return what to call for events of a type; None for nothing."""
        if self._real:
            return self.tracker._find_handler(event_type)
        return lambda event: self.tracker.notify(event)

    def open(
        self, start: StartExperimentEvent, state: dict[str, Any], driver: object
    ) -> None:
        """Give the tracker what it needs of the run."""
        if self._real:
            self.tracker._enter_run(start, state, driver)

    def last_seq(self) -> int | None:
        """Return the newest sequence number that the tracker has kept."""
        return self.tracker.last_seq() if self._real else None

    def wait_until_open(self, run: RunLogging, timeout_s: float) -> bool:
        """Wait for a backend that is being opened, while its run goes on.

        Args:
            run: The run.
            timeout_s: Seconds to wait at the most.

        Returns:
            Whether there is nothing to wait for any more.
        """
        deadline = time.monotonic() + timeout_s
        tracker = self.tracker.innermost
        while run.status == "running" and getattr(tracker, "is_open", True) is False:
            if self.suspended_at is not None or time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True

    def flush(self, bus: Bus) -> None:
        """Flush an inline tracker."""
        try:
            self.tracker.flush()
        except Exception as error:  # noqa: BLE001  # isolation
            bus.note(f"Tracker {self.name!r} failed to flush", error)

    def ways_out(self) -> Iterator[Callable[[], None]]:
        """Yield what to call, in this order, when the tracker leaves."""
        yield self.tracker.flush
        yield self.tracker.clean_up
        if self._real:
            yield self.tracker._leave_run
