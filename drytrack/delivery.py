"""Wrappers that say how a tracker takes part in a run.

Each is a tracker itself, goes by the name of the one that it wraps, and is
transparent to ``get_current``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from typing_extensions import Self

from drytrack.core.log_events import Event, StartExperimentEvent
from drytrack.core.track import Tracker

__all__ = ["Required"]


class _Wrapper(Tracker):
    """Passes everything on to another tracker."""

    def __init__(self, tracker: Tracker) -> None:
        """Wrap a tracker.

        Args:
            tracker: Any tracker, wrapped or not.
        """
        if not isinstance(tracker, Tracker):
            msg = (
                f"{type(self).__name__} wraps a tracker, got "
                f"{type(tracker).__name__}. Pass an instance of a tracker class."
            )
            raise TypeError(msg)
        self.tracker = tracker
        self.name = tracker.name  # type: ignore[misc]  # the wrapped one's

    @property
    def innermost(self) -> Tracker:
        """The wrapped tracker."""
        return self.tracker.innermost

    def notify(self, event: Event) -> None:  # type: ignore[override]  # no handlers of its own
        """Pass an event on, as when driven by hand."""
        self.tracker.notify(event)

    def flush(self) -> None:
        """Flush the wrapped tracker."""
        self.tracker.flush()

    def clean_up(self) -> None:
        """Clean the wrapped tracker up."""
        self.tracker.clean_up()

    def _handler(self, event_type: type[Event]) -> Callable[[Any], None] | None:
        return self.tracker._handler(event_type)

    def _for_run(self) -> Self:
        inner = self.tracker._for_run()
        if inner is self.tracker:
            return self
        own = copy.copy(self)
        own.tracker = inner
        return own

    def _open(
        self, start: StartExperimentEvent, state: dict[str, Any], driver: object
    ) -> None:
        self.tracker._open(start, state, driver)

    def _close(self) -> None:
        self.tracker._close()


class Required(_Wrapper):
    """A tracker that the run cannot do without: if it fails at the start, so does the run."""

    required = True
