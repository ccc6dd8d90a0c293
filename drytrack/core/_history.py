"""What readers show of a run that was resumed or rewound: the attempt rule.

Each (re)start of a run, and each loading of a model from an earlier epoch,
begins an attempt. On each axis, the older attempts count up to the newest
one's first step, and the newest from there. Within an attempt the newest value
of a step counts. Nothing is ever deleted.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping
from typing import NamedTuple

from drytrack.core.log_events import (
    EndEpochEvent,
    Event,
    LoadModelEvent,
    MetricEvent,
    StartEpochEvent,
    StartExperimentEvent,
)

Attempt = tuple[int, int]
"""Number of the start, and of the rewind since it."""

_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]")


class Series(NamedTuple):
    """The values of one metric, in the order of their steps.

    Attributes:
        steps: Epochs or steps, ascending, shape (n,).
        values: One value for each, shape (n,).
    """

    steps: list[int]
    values: list[float]


def series_name(metric: str, context: Mapping[str, object]) -> str:
    """Return what a metric is called beside the same one in other contexts.

    Like every name it is one line: what a label holds of control characters
    is shown escaped.
    """
    if not context:
        return metric
    labels = ", ".join(f"{key}={context[key]}" for key in sorted(context))
    if not labels.isprintable():
        labels = _BREAKS.sub(_escape, labels)
    return f"{metric} [{labels}]"


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


class AttemptCounter:
    """Tells, from the events of a run in their order, which attempt they are of.

    An event from a journal says itself which start it followed, so what a
    tracker gets late, after a later start, still counts to the earlier one.
    """

    def __init__(
        self, start: int = 1, rewinds: Mapping[tuple[int, str], int] | None = None
    ) -> None:
        """Start before the first attempt, or where a reader had stopped.

        Args:
            start: Number of the start.
            rewinds: (start, model) → how often it has been rewound since.
        """
        self._start = start
        self._rewinds = dict(rewinds or {})
        self._epochs: dict[tuple[int, str], int] = {}

    def see(self, event: Event) -> None:
        """Take note of an event; all but a few types mean nothing here."""
        if isinstance(event, (MetricEvent, StartEpochEvent, EndEpochEvent)):
            key, epoch = (self.start_of(event), event.model_name), event.epoch
            if epoch > self._epochs.get(key, 0):
                self._epochs[key] = epoch
        elif isinstance(event, LoadModelEvent):
            key, loaded = (self.start_of(event), event.model_name), event.epoch
            if loaded is not None and loaded < self._epochs.get(key, 0):
                self._rewinds[key] = self._rewinds.get(key, 0) + 1
                self._epochs[key] = loaded
        elif isinstance(event, StartExperimentEvent):
            # A start forgets, so that a reader of the whole history and one
            # that came with the newest process count alike.
            self._start = event.attempt

    def start_of(self, event: Event) -> int:
        """Return the number of the start that an event followed."""
        stamp = getattr(event, "_stamp", None)
        recorded = stamp is not None and stamp[0] > 0
        return stamp[1] if stamp is not None and recorded else self._start

    def of(self, event: Event, model_name: str) -> Attempt:
        """Return the attempt of an event for a model, or for none ("")."""
        start = self.start_of(event)
        rewinds = self._rewinds
        if not rewinds:
            return start, 0
        if model_name:
            return start, rewinds.get((start, model_name), 0)
        return start, sum(n for (at, _), n in rewinds.items() if at == start)


class Axis:
    """The points of all series that share an axis: one model's epochs, say."""

    def __init__(self) -> None:
        """Start empty."""
        self._series: dict[Hashable, dict[Attempt, dict[int, float]]] = {}
        self._first: dict[Attempt, int] = {}

    def add(self, key: Hashable, attempt: Attempt, step: int, value: float) -> None:
        """Add a point, in the order of publication.

        Args:
            key: Which series.
            attempt: Which attempt published it.
            step: Its step or epoch.
            value: Its value.
        """
        self._series.setdefault(key, {}).setdefault(attempt, {})[step] = value
        self._first[attempt] = min(step, self._first.get(attempt, step))

    def keys(self) -> Iterable[Hashable]:
        """Return the series, in the order of their first points."""
        return self._series.keys()

    def resolve(self, key: Hashable, max_step: int = -1) -> Series:
        """Return one series by the attempt rule.

        Args:
            key: Which series.
            max_step: The last step to return; negative for all.
        """
        points: dict[int, float] = {}
        limits = self._limits()
        for attempt, values in self._series.get(key, {}).items():
            limit = limits[attempt]
            points.update((s, value) for s, value in values.items() if s < limit)
        steps = sorted(step for step in points if max_step < 0 or step <= max_step)
        return Series(steps, [points[step] for step in steps])

    def _limits(self) -> dict[Attempt, float]:
        """Return, for each attempt, the first step that no longer counts."""
        limits = {}
        limit = float("inf")
        for attempt in sorted(self._first, reverse=True):
            limits[attempt] = limit
            limit = min(limit, self._first[attempt])
        return limits
