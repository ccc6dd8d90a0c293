"""What the journal of a run comes to: parameters, checkpoints, summaries of series.

The journal is read once. What was found is kept beside it in ``digest.json``,
a cache that may be deleted, and later only what was added is read. Where the
attempt rule drops points (a run resumed before its last step, a model loaded
from an earlier epoch, a step written twice) the journal is read once more.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from drytrack._summaries import (
    Checkpoint,
    SeriesKey,
    SeriesSummary,
    flatten,
)
from drytrack.core import journal, log_events
from drytrack.core._atomic import replace_file
from drytrack.core._history import Attempt, AttemptCounter, series_name
from drytrack.core._record import tag_non_finite
from drytrack.core.journal import JournalReader, Position

FILE = "digest.json"
FORMAT = 1

WORTH_KEEPING = 1_000
"""Events that must have been read before it pays to keep what they come to."""


@dataclasses.dataclass
class AxisState:
    """How far the attempts of one model have come on one axis.

    Attributes:
        firsts: Attempt → its first step.
        newest: The newest attempt.
        top: The highest step so far.
    """

    firsts: dict[Attempt, int] = dataclasses.field(default_factory=dict)
    newest: Attempt = (0, 0)
    top: int = -1

    def limits(self) -> dict[Attempt, float]:
        """Return, for each attempt, the first step that no longer counts."""
        limits = {}
        limit = float("inf")
        for attempt in sorted(self.firsts, reverse=True):
            limits[attempt] = limit
            limit = min(limit, self.firsts[attempt])
        return limits

    def limit_of(self, attempt: Attempt) -> float:
        """Return the same for an attempt that may have no points of its own."""
        later = (first for at, first in self.firsts.items() if at > attempt)
        return min(later, default=float("inf"))


class Digest:
    """What has been read of one journal so far.

    Attributes:
        values: Final values, as set by the user.
        saved: Every saved model, in order, with the attempt that saved it.
        series: The summaries, in the order of the first points.
        axes: (model, axis) → how far its attempts have come.
        unordered: Series with a step that does not lie behind the one before.
        exact: Whether the summaries follow the attempt rule as they are.
        position: How far the journal has been read.
    """

    def __init__(self) -> None:
        """Start at the beginning."""
        self.values: dict[str, Any] = {}
        self.saved: list[tuple[Checkpoint, Attempt]] = []
        self.series: dict[SeriesKey, SeriesSummary] = {}
        self.axes: dict[tuple[str, str], AxisState] = {}
        self.unordered: set[SeriesKey] = set()
        self.exact = True
        self.position = Position()
        self._config: dict[str, Any] = {}
        self._chosen: dict[str, Any] = {}
        self._rewound = False
        self._attempts = AttemptCounter()
        self._last: dict[SeriesKey, tuple[Attempt, int]] = {}

    def see(self, event: log_events.Event) -> None:
        """Take in the next event."""
        self._attempts.see(event)
        for key, step, value in points_of(event):
            self._add(event, key, step, value)
        match event:
            case log_events.StartExperimentEvent():
                self._config = flatten(event.config)
            case log_events.ParamsEvent():
                self._chosen.update(flatten(event.params))
            case log_events.SummaryEvent():
                self.values.update(flatten(event.summary))
            case log_events.StopExperimentEvent():
                self.values.update(flatten(event.summary))
            case log_events.SaveModelEvent():
                model, epoch = event.model_name, event.epoch
                found = Checkpoint(model, event.definition, str(event.location), epoch)
                self.saved.append((found, self._attempts.of(event, model)))
            case log_events.LoadModelEvent():
                self._rewound = True

    @property
    def params(self) -> dict[str, Any]:
        """Configuration and parameters, flattened; the newest count."""
        return {**self._config, **self._chosen}

    def find_checkpoint(self, model: str, epoch: int) -> Checkpoint | None:
        """Return the newest checkpoint of an epoch that still counts."""
        state = self.axes.get((model, "epoch"), AxisState())
        for found, attempt in reversed(self.saved):
            is_meant = (found.model, found.epoch) == (model, epoch)
            if is_meant and epoch < state.limit_of(attempt):
                return found
        return None

    def _add(
        self, event: log_events.Event, key: SeriesKey, step: int, value: float
    ) -> None:
        attempt = self._attempts.of(event, key.model)
        state = self.axes.get((key.model, key.axis))
        if state is None:
            state = self.axes[key.model, key.axis] = AxisState()
        if attempt != state.newest:
            if attempt < state.newest or step <= state.top:
                self.exact = False
            state.newest = max(attempt, state.newest)
        elif step < state.firsts[attempt] and len(state.firsts) > 1:
            self.exact = False
        state.firsts[attempt] = min(step, state.firsts.get(attempt, step))
        state.top = max(step, state.top)
        if (last := self._last.get(key)) is not None and last >= (attempt, step):
            self.exact = False
            self.unordered.add(key)
        self._last[key] = attempt, step
        summary = self.series.get(key)
        if summary is None:
            summary = self.series[key] = SeriesSummary(key)
        summary.add(step, value)

    def settle(self, reader: JournalReader) -> None:
        """Summarise anew what the attempt rule has left, where it took something."""
        if self.exact:
            return
        self.series = {key: SeriesSummary(key) for key in self.series}
        for key, step, value in read_points(reader, self):
            self.series[key].add(step, value)
        self.exact = True

    @property
    def can_go_on(self) -> bool:
        """Whether what is added to the journal can be read by itself."""
        return not self._rewound

    def to_json(self) -> dict[str, Any]:
        """Return everything, as `from_json` takes it."""
        return {
            "config": self._config,
            "chosen": self._chosen,
            "values": self.values,
            "saved": [[*found, *attempt] for found, attempt in self.saved],
            "series": [summary.to_list() for summary in self.series.values()],
            "axes": [
                [*key, [[*at, step] for at, step in state.firsts.items()], state.top]
                for key, state in self.axes.items()
            ],
            "last": [[*key, *at, step] for key, (at, step) in self._last.items()],
            "unordered": [list(key) for key in self.unordered],
            "rewound": self._rewound,
            "position": list(self.position),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Digest:
        """Return a digest from what `to_json` has made."""
        digest = cls()
        digest._config = data["config"]
        digest._chosen = data["chosen"]
        digest.values = data["values"]
        for *found, start, rewind in data["saved"]:
            digest.saved.append((Checkpoint(*found), (start, rewind)))
        for item in data["series"]:
            summary = SeriesSummary.from_list(item)
            digest.series[summary.key] = summary
        for model, axis, firsts, top in data["axes"]:
            known = {(start, rewind): step for start, rewind, step in firsts}
            digest.axes[model, axis] = AxisState(known, max(known), top)
        for *key, start, rewind, step in data["last"]:
            digest._last[SeriesKey(*key)] = (start, rewind), step
        digest.unordered = {SeriesKey(*key) for key in data["unordered"]}
        digest._rewound = data["rewound"]
        digest.position = Position(*data["position"])
        return digest


def digest(folder: pathlib.Path) -> Digest:
    """Return what the journal of a run comes to, as of now.

    Args:
        folder: The run's folder.

    Raises:
        JournalError: If there is no journal, or a newer version wrote it.
    """
    state = _state_of(folder)
    known, kept_state = _read_kept(folder)
    if known is not None and kept_state == state:
        return known
    if known is not None and not _continues(kept_state, state, known):
        known = None
    found, n_new = _read_on(folder, known)
    if found is None:  # what was added is not understood without the rest
        found, n_new = _read_on(folder, None)
        assert found is not None  # only what goes on may fail to
    if n_new >= WORTH_KEEPING:
        _keep(folder, state, found)
    return found


def read_points(
    reader: JournalReader,
    known: Digest,
    wanted: Callable[[SeriesKey], bool] = lambda _: True,
) -> Iterator[tuple[SeriesKey, int, float]]:
    """Read points by the attempt rule; the steps of each series ascend.

    Args:
        reader: Reads the journal.
        known: The digest of the same journal; what was added since is left out.
        wanted: Which series.

    Yields:
        Series, step and value. Series take turns as they do in the journal.
    """
    attempts = AttemptCounter()
    limits = {key: state.limits() for key, state in known.axes.items()}
    selected: dict[SeriesKey, bool] = {}
    held: dict[SeriesKey, dict[int, float]] = {}
    last = known.position.seq
    for event in reader.read():
        if event._stamp[0] > last:
            break
        attempts.see(event)
        for key, step, value in points_of(event):
            take = selected.get(key)
            if take is None:
                take = selected[key] = wanted(key)
            if not take:
                continue
            attempt = attempts.of(event, key.model)
            if step >= limits[key.model, key.axis][attempt]:
                continue
            if key in known.unordered:
                held.setdefault(key, {})[step] = value
            else:
                yield key, step, value
    for key, points in held.items():
        for step in sorted(points):
            yield key, step, points[step]


def points_of(event: log_events.Event) -> Iterator[tuple[SeriesKey, int, float]]:
    """Return the points that an event holds."""
    if isinstance(event, log_events.StepMetricEvent):
        model, source, axis = event.model_name, event.source_name, event.axis
        for name, value in event.metrics.items():
            metric = series_name(name, event.context)
            yield SeriesKey(model, source, axis, metric), event.step, value
    elif isinstance(event, log_events.MetricEvent):
        model, source = event.model_name, event.source_name
        for name, value in event.metrics.items():
            yield SeriesKey(model, source, "epoch", name), event.epoch, value


def _read_on(folder: pathlib.Path, known: Digest | None) -> tuple[Digest | None, int]:
    """Read what a digest does not know; None if it cannot be read by itself."""
    found = known or Digest()
    reader = JournalReader(folder)
    count = 0
    for event in reader.read(found.position):
        if known is not None and isinstance(event, log_events.LoadModelEvent):
            return None, 0
        found.see(event)
        count += 1
    if known is not None and not found.exact:
        # A step written twice may drop points that have been counted.
        return None, 0
    if count:
        found.position = reader.position
    found.settle(JournalReader(folder))
    return found, count


def _state_of(folder: pathlib.Path) -> list[Any] | None:
    """Return what tells whether a journal has changed."""
    for name in (journal.FILE, journal.COMPACT_FILE):
        with contextlib.suppress(OSError):  # it has the other name, or none yet
            found = (folder / name).stat()
            return [name, found.st_size, found.st_mtime_ns]
    return None


def _continues(before: Any, now: list[Any] | None, known: Digest) -> bool:
    """Return whether a journal is the one of before, and has grown."""
    return (
        known.can_go_on
        and now is not None
        and before[0] == now[0] == journal.FILE
        and before[1] <= now[1]
    )


def _read_kept(folder: pathlib.Path) -> tuple[Digest | None, Any]:
    try:
        text = (folder / FILE).read_bytes()
        data = json.loads(text, object_hook=_untag)
        if data["format"] != FORMAT:
            return None, None
        return Digest.from_json(data["digest"]), data["state"]
    except (OSError, ValueError, KeyError, TypeError):
        return None, None


def _keep(folder: pathlib.Path, state: list[Any] | None, found: Digest) -> None:
    data = {"format": FORMAT, "state": state, "digest": found.to_json()}
    text = json.dumps(tag_non_finite(data))
    with contextlib.suppress(OSError):  # somebody else's run, a full disk
        replace_file(folder / FILE, text.encode("utf-8", "replace"))


def _untag(data: dict[str, Any]) -> Any:
    if data.keys() == {"$float"}:
        return float(data["$float"])
    return data
