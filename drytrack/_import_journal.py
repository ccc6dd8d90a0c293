"""Writing the journal of a run that happened elsewhere, with its own times."""

from __future__ import annotations

import datetime
import hashlib
import itertools
import pathlib
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from drytrack.core import _codec
from drytrack.core.journal import BLOBS, FILE
from drytrack.core.log_events import (
    Event,
    MetricEvent,
    StartExperimentEvent,
    StepMetricEvent,
    StopExperimentEvent,
)

if TYPE_CHECKING:
    from drytrack._import_model import Attempt, ForeignRun


class ForeignJournal:
    """The journal of an imported run, written when this is made.

    Attributes:
        seq: Its last sequence number.
        points: How many values it holds.
        metrics: Their names, in order.
        steps: The last step of each source.
        attempts: What ``record.json`` says of the attempts.
        summary: Final values of the last attempt.
        created: When the run started.
        size: Bytes.
        sha256: Digest of its content, in hexadecimal.
    """

    def __init__(
        self, folder: pathlib.Path, found: ForeignRun, start: Mapping[str, Any]
    ) -> None:
        self.seq = self.points = self.size = 0
        self.metrics: dict[str, None] = {}
        self.steps: dict[str, int] = {}
        self.attempts: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.created: float | None = None
        self._folder = folder
        self._found = found
        self._start = start
        self._digest = hashlib.sha256()
        with (folder / FILE).open("wb") as self._file:
            for number, attempt in enumerate(found.attempts, 1):
                self._add_attempt(number, attempt)
        self.sha256 = self._digest.hexdigest()

    def _add_attempt(self, number: int, attempt: Attempt) -> None:
        events = iter(attempt.events)
        first = next(events, None)
        started = attempt.started
        if started is None:
            started = first[0] if first is not None else self.created or 0.0
        if self.created is None:
            self.created = started
        when = datetime.datetime.fromtimestamp(self.created)  # local, for people
        self._add(
            number,
            started,
            StartExperimentEvent.unpublished(
                dict(self._found.config),
                run_ts=when,
                resumed=number > 1,
                attempt=number,
                **self._start,
            ),
        )
        last = started
        head = [] if first is None else [first]
        for time_s, event in itertools.chain(head, events):
            self._add(number, time_s, event)
            last = max(last, time_s)
        ended = last if attempt.ended is None else attempt.ended
        self.summary = dict(attempt.summary)
        stop = StopExperimentEvent.unpublished(
            self._start["exp_name"],
            self._start["run_id"],
            attempt.status,
            self.summary,
        )
        self._add(number, ended, stop)
        self.attempts.append(
            {
                "attempt": number,
                "started": started,
                "ended": ended,
                "status": attempt.status,
                "error": None,
                "environment": dict(attempt.environment),
            }
        )

    def _add(self, attempt: int, time_s: float, event: Event) -> None:
        self.seq += 1
        line = event._as_line(self.seq, attempt, round(time_s * 1e6))
        text = _codec.encode_event(line, event, self._put_blob)[:-1]
        text += b',"crc":%d}\n' % zlib.crc32(text)
        self._file.write(text)
        self._digest.update(text)
        self.size += len(text)
        if isinstance(event, StepMetricEvent | MetricEvent):
            self.points += len(event.metrics)
            self.metrics.update(dict.fromkeys(event.metrics))
            if isinstance(event, StepMetricEvent):
                self.steps[event.source_name] = event.step

    def _put_blob(self, data: bytes) -> str:
        name = _codec.blob_name(data)
        path = self._folder / BLOBS / name
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
        return name
