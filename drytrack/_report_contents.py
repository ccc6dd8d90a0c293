"""What a report shows of a run beside its metrics, read event by event."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from drytrack.core import log_events
from drytrack.core._history import Attempt, AttemptCounter, Axis, Series, series_name

if TYPE_CHECKING:
    from drytrack.store import StoredRun

MAX_KEPT = {"histogram": 64, "image": 8, "figure": 1, "table": 1, "text": 1}
"""Kind → how many of one name are kept, spread over the steps."""

_KINDS: dict[str, type[Any]] = {
    "histogram": log_events.HistogramEvent,
    "image": log_events.ImageEvent,
    "figure": log_events.FigureEvent,
    "table": log_events.TableEvent,
    "text": log_events.TextEvent,
}


@dataclasses.dataclass(slots=True)
class Medium:
    """What was published under one name.

    Attributes:
        kind: ``histogram``, ``image``, ``figure``, ``table`` or ``text``.
        source: Who published it.
        name: What it is called, with its context where it has one.
        events: Some of the events, the newest among them; their steps ascend.
    """

    kind: str
    source: str
    name: str
    events: list[Any] = dataclasses.field(default_factory=list)

    def add(self, event: Any) -> None:
        """Keep an event; one whose step comes again replaces what is from there on."""
        events = [kept for kept in self.events if kept.step < event.step]
        limit = MAX_KEPT[self.kind]
        if len(events) >= limit:
            events = events[::2] if limit > 1 else []
        self.events = [*events, event]


class Contents:
    """Models, learning rates, media and artifacts of a run.

    Attributes:
        models: Name → architecture.
        media: What was published, in the order of the first of each name.
        artifacts: The files, the newest of each name.
        schedulers: (model, source) → the name of its scheduler.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.models: dict[str, str] = {}
        self.media: dict[tuple[str, str, str], Medium] = {}
        self.artifacts: dict[str, log_events.ArtifactEvent] = {}
        self.schedulers: dict[tuple[str, str], str] = {}
        self._rates: dict[str, Axis] = {}

    def see(self, event: log_events.Event, attempt: Attempt) -> None:
        """Take in the next event."""
        match event:
            case log_events.ModelRegistrationEvent():
                self.models[event.model_name] = event.architecture_repr
            case log_events.LearningRateEvent():
                self._add_rates(event, attempt)
            case log_events.ArtifactEvent():
                self.artifacts[event.name] = event
            case _:
                self._add_medium(event)

    def learning_rates(self) -> Iterator[tuple[str, str, str, Series]]:
        """Yield model, source, parameter group ("" for one) and rates by epoch."""
        for model, axis in self._rates.items():
            for key in axis.keys():  # noqa: SIM118  # no mapping
                assert isinstance(key, tuple)  # as added below
                source, group = key
                yield model, source, group, axis.resolve(key)

    def _add_rates(self, event: log_events.LearningRateEvent, attempt: Attempt) -> None:
        given = event.base_lr
        if event.scheduler_name:
            place = event.model_name, event.source_name
            self.schedulers[place] = event.scheduler_name
        groups: Mapping[Any, float | None]
        if isinstance(given, Mapping):
            groups = given
        elif isinstance(given, (list, tuple)):
            groups = dict(enumerate(given))
        else:
            groups = {"": given}  # type: ignore[dict-item]  # one number, or none
        axis = self._rates.setdefault(event.model_name, Axis())
        for group, rate in groups.items():
            if rate is not None:
                key = event.source_name, str(group)
                axis.add(key, attempt, event.epoch, float(rate))

    def _add_medium(self, event: log_events.Event) -> None:
        for kind, cls in _KINDS.items():
            if isinstance(event, cls):
                name = series_name(event.name, getattr(event, "context", {}))
                key = kind, event.source_name, name
                self.media.setdefault(key, Medium(*key)).add(event)


def read_contents(run: StoredRun) -> Contents:
    """Read what a run has beside its metrics, from its journal or a database.

    Raises:
        JournalError: If a newer version wrote the journal.
    """
    from drytrack._store_journal import JournalRun
    from drytrack.core.journal import JournalReader

    contents = Contents()
    if not isinstance(run, JournalRun):
        from drytrack._report_sql import read_events

        for event, attempt in read_events(run):
            contents.see(event, attempt)
        return contents
    reader = JournalReader(run.path)
    attempts = AttemptCounter()
    for event in reader.read() if reader.exists else ():
        attempts.see(event)
        contents.see(event, attempts.of(event, getattr(event, "model_name", "")))
    return contents
