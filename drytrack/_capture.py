"""A tracker that keeps every event, and a block in which it watches."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from drytrack.core import _current, _defaults
from drytrack.core.exceptions import TrackerNotFoundError
from drytrack.core.experiment import Experiment
from drytrack.core.log_events import Event
from drytrack.core.track import Tracker


class Recorder(Tracker):
    """Keeps every event that it is sent, in the order of delivery.

    Attributes:
        events: The events of all runs that it has watched, overlapping ones
            included.
    """

    notify = Tracker.notify.extend()

    def __init__(self) -> None:
        """Start without events."""
        super().__init__()
        # Made here and not at the start of a run: the copies that watch
        # overlapping runs add to one list.
        self.events: list[Event] = []

    @notify.register
    def _keep(self, event: Event) -> None:
        self.events.append(event)


@contextlib.contextmanager
def capture_events(experiment: Experiment[Any] | None = None) -> Iterator[list[Event]]:
    """Record the events that are published while the block runs.

    Args:
        experiment: Whose runs to record, active and later ones; by default
            those of the current run's experiment, if there is one, and of
            every experiment that is made inside the block.

    Yields:
        A list that grows with the events, in the order of delivery. An active
        run's start and registrations come first.
    """
    recorder = Recorder()
    name = f"capture_events_{id(recorder):x}"
    defaults = None
    if experiment is None:
        defaults = _defaults.default_trackers()
        defaults[name] = recorder
        run = _current.context_run()
        experiment = run.experiment if run is not None else None
    try:
        if experiment is not None:
            experiment.trackers.subscribe(**{name: recorder})
        yield recorder.events
    finally:
        if defaults is not None:
            defaults.pop(name, None)
        if experiment is not None:
            with contextlib.suppress(TrackerNotFoundError):  # the test removed all
                experiment.trackers.remove(name)
