"""What a report shows of a run beside its metrics, read event by event."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from drytrack._digest import read_points
from drytrack.core import log_events
from drytrack.core._history import Attempt, AttemptCounter, Axis, Series
from drytrack.core.journal import JournalReader
from drytrack.trackers._plot_media import Shelf

if TYPE_CHECKING:
    import pathlib

    from drytrack._store_journal import JournalRun
    from drytrack._summaries import SeriesKey
    from drytrack.store import StoredRun

MAX_KEPT = {"histogram": 64, "image": 8, "figure": 1, "table": 1, "text": 1}
"""Kind → how many of one name are kept, spread over the steps."""


class Contents:
    """Points, models, learning rates, media and artifacts of a run.

    Attributes:
        series: The points of each series, by the attempt rule.
        models: Name → architecture.
        media: What was published beside metrics.
        artifacts: The files, the newest of each name.
        schedulers: (model, source) → the name of its scheduler.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.series: dict[SeriesKey, Series] = {}
        self.models: dict[str, str] = {}
        self.media = Shelf(MAX_KEPT)
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
                self.media.put(event)

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
        groups: Mapping[Any, Any] = {"": given}  # one number, or none
        if isinstance(given, Mapping):
            groups = given
        elif isinstance(given, (list, tuple)):
            groups = dict(enumerate(given))
        axis = self._rates.setdefault(event.model_name, Axis())
        for group, rate in groups.items():
            if rate is not None:
                key = event.source_name, str(group)
                axis.add(key, attempt, event.epoch, float(rate))


def read_run(run: StoredRun) -> Contents:
    """Read everything that a report shows of a run, from its journal or a database.

    Raises:
        JournalError: If a newer version wrote the journal.
    """
    from drytrack._store_journal import JournalRun

    contents = Contents()
    contents.series = {summary.key: Series([], []) for summary in run.summaries()}
    if isinstance(run, JournalRun):
        _read_journal(run, contents)
        return contents
    from drytrack._report_sql import read_events

    for event, attempt in read_events(run):
        contents.see(event, attempt)
    if contents.series:
        for key, steps, values in run.read_points(list(contents.series)):
            contents.series[key].steps.extend(steps)
            contents.series[key].values.extend(values)
    return contents


def _read_journal(run: JournalRun, contents: Contents) -> None:
    """Read points and all else in one go: parsing lines is what takes long."""
    reader = _Witness(run.path, contents)
    if not reader.exists:  # it was never started
        return
    found = contents.series
    for key, step, value in read_points(reader, run.digest(), found.__contains__):
        found[key].steps.append(step)
        found[key].values.append(value)


class _Witness(JournalReader):
    """Shows a run's contents each event that somebody else reads."""

    def __init__(self, folder: pathlib.Path, contents: Contents) -> None:
        super().__init__(folder)
        self._contents = contents

    def read(self, *args: Any, **options: Any) -> Iterator[log_events.Event]:
        attempts = AttemptCounter()
        for event in super().read(*args, **options):
            attempts.see(event)
            if event.__class__ is not log_events.StepMetricEvent:
                model = getattr(event, "model_name", "")
                self._contents.see(event, attempts.of(event, model))
            yield event
