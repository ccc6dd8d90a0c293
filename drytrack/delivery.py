"""Wrappers that say how a tracker takes part in a run.

Each is a tracker itself, goes by the name of the one that it wraps, and is
transparent to ``get_current``. They can be nested:
``Required(Background(tracker))``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Self

from drytrack.core.log_events import (
    Event,
    FigureEvent,
    HistogramEvent,
    ImageEvent,
    StartExperimentEvent,
    StepMetricEvent,
    TableEvent,
    TextEvent,
)
from drytrack.core.track import Tracker

__all__ = ["Background", "Inline", "Required", "Sampled"]


class _Wrapper(Tracker):
    """Passes everything on to another tracker."""

    def __init__(self, tracker: Tracker) -> None:
        """Wrap a tracker.

        Args:
            tracker: Any tracker, wrapped or not.

        Raises:
            TypeError: If it is none.
        """
        if not isinstance(tracker, Tracker):
            msg = (
                f"{type(self).__name__} wraps a tracker, got "
                f"{type(tracker).__name__}. Pass an instance of a tracker class."
            )
            raise TypeError(msg)
        self.tracker = tracker
        # What the class says of every tracker, the instance says of the wrapped one.
        self.name = tracker.name
        self.background = tracker.background
        self.every_rank = tracker.every_rank
        self.required = getattr(tracker, "required", False)

    @property
    def innermost(self) -> Tracker:
        """The wrapped tracker."""
        return self.tracker.innermost

    def notify(self, event: Event) -> None:
        """Pass an event on, as when driven by hand."""
        self.tracker.notify(event)

    def last_seq(self) -> int | None:
        """Ask the wrapped tracker."""
        return self.tracker.last_seq()

    def flush(self) -> None:
        """Flush the wrapped tracker."""
        self.tracker.flush()

    def clean_up(self) -> None:
        """Clean the wrapped tracker up."""
        self.tracker.clean_up()

    def _find_handler(self, event_type: type[Event]) -> Callable[[Any], None] | None:
        return self.tracker._find_handler(event_type)

    def _copy_for_run(self) -> Self:
        inner = self.tracker._copy_for_run()
        if inner is self.tracker:
            return self
        own = copy.copy(self)
        own.tracker = inner
        return own

    def _enter_run(
        self, start: StartExperimentEvent, state: dict[str, Any], driver: object
    ) -> None:
        self.tracker._enter_run(start, state, driver)

    def _leave_run(self) -> None:
        self.tracker._leave_run()


class Background(_Wrapper):
    """A tracker that a worker thread feeds, in order.

    The training thread does not wait for it, however slow it is: what it has
    not received yet is in memory or, further back, in the run's journal.
    """

    def __init__(self, tracker: Tracker) -> None:
        """Wrap a tracker.

        Args:
            tracker: Any tracker; its handlers are called by one other thread.
        """
        super().__init__(tracker)
        self.background = True


class Inline(_Wrapper):
    """A tracker that handles an event before the event's constructor returns."""

    def __init__(self, tracker: Tracker) -> None:
        """Wrap a tracker.

        Args:
            tracker: Any tracker; the training thread waits for its handlers.
        """
        super().__init__(tracker)
        self.background = False


class Required(_Wrapper):
    """A tracker that the run cannot do without.

    If it fails when the run starts, the run does not start.
    """

    def __init__(self, tracker: Tracker) -> None:
        """Wrap a tracker.

        Args:
            tracker: Any tracker; one in the background is started by the caller.
        """
        super().__init__(tracker)
        self.required = True


class Sampled(_Wrapper):
    """A tracker that gets every n-th of the events that come with steps.

    Those are step metrics, histograms, images, figures, tables and texts. They
    are counted for each source, name and axis; the first one is passed on.
    Epochs, parameters and the life cycle all pass.
    """

    def __init__(self, tracker: Tracker, *, every: int) -> None:
        """Wrap a tracker.

        Args:
            tracker: Any tracker.
            every: How many events make one; at least 1.

        Raises:
            ValueError: If ``every`` is below 1.
        """
        super().__init__(tracker)
        if every < 1:
            msg = f"every is {every!r}. Pass an integer of at least 1."
            raise ValueError(msg)
        self.every = every
        self._counts: dict[tuple[type, str, str], int] = {}

    def notify(self, event: Event) -> None:
        """Pass an event on if it is one of the n-th."""
        if isinstance(event, StartExperimentEvent):
            self._counts = {}
        if not isinstance(event, _SAMPLED) or self._is_due(event):
            self.tracker.notify(event)

    def _enter_run(
        self, start: StartExperimentEvent, state: dict[str, Any], driver: object
    ) -> None:
        self._counts = {}
        super()._enter_run(start, state, driver)

    def _find_handler(self, event_type: type[Event]) -> Callable[[Any], None] | None:
        handler = super()._find_handler(event_type)
        if handler is None or not issubclass(event_type, _SAMPLED):
            return handler

        def handle_sample(event: Event) -> None:
            if self._is_due(event):
                handler(event)

        return handle_sample

    def _is_due(self, event: Any) -> bool:
        detail = event.axis if isinstance(event, StepMetricEvent) else event.name
        key = (type(event), event.source_name, detail)
        count = self._counts.get(key, 0)
        self._counts[key] = count + 1
        return count % self.every == 0


_SAMPLED = (
    FigureEvent,
    HistogramEvent,
    ImageEvent,
    StepMetricEvent,
    TableEvent,
    TextEvent,
)
