"""Making a recorded run of what another tool has written: record, journal, times.

A run is written beside the others and moved among them when it is whole. Its
UUID comes from what the other tool calls it, and its journal from nothing but
what the tool has kept, so that a repeated import finds out that nothing is new.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import json
import pathlib
import re
import shutil
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from drytrack import _edits
from drytrack.core import _codec, _record, log_events
from drytrack.core._atomic import replace_file
from drytrack.core._names import MAX_FOLDER_BYTES, check_folder_name, check_name
from drytrack.core.exceptions import (
    EventValueError,
    InvalidNameError,
    RecordError,
    RunExistsError,
    StorageError,
)
from drytrack.core.journal import BLOBS, FILE
from drytrack.core.log_events import (
    Event,
    MetricEvent,
    StartExperimentEvent,
    StepMetricEvent,
    StopExperimentEvent,
)
from drytrack.core.run import new_record
from drytrack.store import TRASH

Timed = tuple[float, Event]
"""When something happened, in seconds since the epoch, and what."""


@dataclasses.dataclass
class Attempt:
    """One execution of a run.

    Attributes:
        events: What happened, in order; read once.
        started: When it started; by default with the first event.
        ended: When it ended; by default with the last event.
        status: How it ended; asked for when the events have been read.
        summary: Final values; asked for likewise.
        environment: What ``record.json`` keeps of host and command.
    """

    events: Iterable[Timed]
    started: float | None = None
    ended: float | None = None
    status: str = "completed"
    summary: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    environment: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class ForeignRun:
    """A run as another tool has kept it.

    Attributes:
        tool: The tool.
        place: Where the tool has kept it.
        key: What tells the run from all others of the tool.
        experiment: Name of the experiment, as the tool has it.
        run_id: Id of the run, as the tool has it.
        attempts: Its executions, oldest first.
        name: What it is called, if not by its id.
        notes: Text about it.
        tags: Labels.
        config: Its parameters.
        parent: Id and key of the run that it is a part of.
        left_out: What cannot be kept, by kind; counted while events are read.
    """

    tool: Literal["csv", "mlflow", "tensorboard", "wandb"]
    place: str
    key: str
    experiment: str
    run_id: str
    attempts: Sequence[Attempt]
    name: str | None = None
    notes: str = ""
    tags: Sequence[str] = ()
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    parent: tuple[str, str] | None = None
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)

    def leave_out(self, kind: str) -> None:
        """Count something that cannot be kept."""
        self.left_out[kind] = self.left_out.get(kind, 0) + 1


class Imported(NamedTuple):
    """What an import has made.

    Attributes:
        run: Experiment and id of the run.
        outcome: ``made``; ``unchanged`` where it was imported before and nothing
            is new; ``renewed`` where something is.
        metrics: The metrics, in the order of their first points.
        events: How many events the journal holds.
        points: How many values.
        left_out: What cannot be kept, by kind, and how much of it.
    """

    run: str
    outcome: Literal["made", "unchanged", "renewed"]
    metrics: list[str]
    events: int
    points: int
    left_out: dict[str, int]


def record_run(
    found: ForeignRun,
    par_dir: pathlib.Path,
    *,
    experiment: str | None = None,
    tags: Sequence[str] = (),
) -> Imported:
    """Record a run of another tool.

    Args:
        found: The run.
        par_dir: Where to record it.
        experiment: Name of the experiment, by default the tool's.
        tags: Labels besides the tool's.

    Raises:
        RunExistsError: If there is another run of that name.
        RunHeldError: If it was imported before, and is held by a process.
        StorageError: If it cannot be written.
        InvalidNameError: If a name cannot be kept.
    """
    name = check_folder_name(
        experiment or to_folder_name(found.experiment), "experiment name"
    )
    run_id = check_folder_name(to_folder_name(found.run_id), "run id")
    folder = _record.run_folder(par_dir, name, run_id)
    unique = str(make_uuid(found.tool, found.key))
    previous = _find_previous(folder, unique)
    labels = [check_name(tag, "tag") for tag in (*found.tags, *tags)]
    # Where doctor clears away what was cut off.
    beside = par_dir / _record.FOLDER / f"{TRASH}{uuid.uuid4().hex}"
    try:
        (beside / "attempts").mkdir(parents=True)
        start = {
            "exp_name": name, "run_id": run_id, "par_dir": par_dir, "tags": labels,
        }  # fmt: skip
        written = _Journal(beside, found, start)
        same = previous is not None and (
            previous.data["imported"]["sha256"] == written.sha256
        )
        if not same:
            data = _make_record(found, written, unique, start, previous)
            text = json.dumps(
                _record.tag_non_finite(data), indent=1, ensure_ascii=False
            )
            (beside / _record.RECORD).write_bytes(text.encode("utf-8", "replace"))
            ignore = par_dir / _record.FOLDER / ".gitignore"
            if not ignore.exists():
                replace_file(ignore, b"*\n")
            folder.parent.mkdir(exist_ok=True)
            if previous is not None:
                _edits.delete(folder)
            beside.rename(folder)
    except StorageError:
        raise
    except OSError as err:
        raise _record.storage_error(folder, err) from err
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        with contextlib.suppress(OSError):  # unless there is something in it
            beside.parent.rmdir()
    return Imported(
        f"{name}/{run_id}",
        "unchanged" if same else "renewed" if previous is not None else "made",
        list(written.metrics),
        written.seq,
        written.points,
        found.left_out,
    )


def make_uuid(tool: str, key: str) -> uuid.UUID:
    """Return the UUID of another tool's run, the same each time."""
    return uuid.uuid5(uuid.NAMESPACE_URL, f"drytrack:{tool}:{key}")


def to_folder_name(text: str) -> str:
    """Return a name that can be a folder's, as near to the text as may be."""
    try:
        return check_folder_name(text, "name")
    except InvalidNameError:
        plain = re.sub(r'[\x00-\x1f\x7f-\x9f/\\:*?"<>|]+', "-", text).strip(" .-")
        cut = plain.encode()[: MAX_FOLDER_BYTES - 20].decode(errors="ignore").rstrip()
        # A word that Windows keeps for itself is none with something behind it.
        return cut if cut and _fits(cut) else f"{cut}_"


def _fits(text: str) -> bool:
    try:
        check_folder_name(text, "name")
    except InvalidNameError:
        return False
    return True


def _find_previous(folder: pathlib.Path, unique: str) -> _record.RunRecord | None:
    """Return the record of an earlier import; refuse a run of another origin."""
    if not folder.exists():
        return None
    try:
        record = _record.read_record(folder)
    except RecordError:
        record = None
    if record is None or record.uuid != unique or "imported" not in record.data:
        msg = (
            f"Run {folder.name!r} of experiment {folder.parent.name!r} exists in "
            f"{folder.parent}, and was not imported from here. Name another "
            f"experiment: --experiment NAME."
        )
        raise RunExistsError(msg)
    if record.attempt > len(record.data["imported"]["attempts"]):
        msg = (
            f"Run {folder.name!r} of experiment {folder.parent.name!r} has gone on "
            f"since it was imported. Name another experiment: --experiment NAME."
        )
        raise RunExistsError(msg)
    return record


class _Journal:
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
        for time_s, event in _chain(first, events):
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


def _chain(first: Timed | None, rest: Iterator[Timed]) -> Iterator[Timed]:
    if first is not None:
        yield first
        yield from rest


def _make_record(
    found: ForeignRun,
    written: _Journal,
    unique: str,
    start: Mapping[str, Any],
    previous: _record.RunRecord | None,
) -> dict[str, Any]:
    """Return the record; what people have changed since an earlier import stays."""
    kept = previous.data if previous is not None else {}
    tags = dict.fromkeys((*kept.get("tags", ()), *start["tags"]))
    record = new_record(
        start["exp_name"],
        start["run_id"],
        uuid=unique,
        created=written.created,
        name=kept.get("name") or found.name,
        notes=kept.get("notes") or found.notes,
        tags=list(tags),
        description=None,
        attempts=written.attempts,
        status=written.attempts[-1]["status"],
        summary=written.summary,
        journal={
            "bytes": written.size,
            "seq": written.seq,
            "steps": written.steps,
            "incomplete_from": None,
            "missing": [],
        },
        imported={
            "tool": found.tool,
            "from": found.place,
            "key": found.key,
            "sha256": written.sha256,
            "attempts": [entry["attempt"] for entry in written.attempts],
        },
    )
    if found.parent is not None:
        run_id, key = found.parent
        record["parent"] = {"id": run_id, "uuid": str(make_uuid(found.tool, key))}
    return record


def metric_event(
    found: ForeignRun, source: str, step: int, metrics: Mapping[str, float], **more: Any
) -> Event | None:
    """Return step metrics, without those whose names cannot be kept."""
    try:
        return StepMetricEvent.unpublished(source, step, metrics, **more)
    except EventValueError:
        kept = {}
        for name, value in metrics.items():
            try:
                StepMetricEvent.unpublished(source, step, {name: value}, **more)
            except EventValueError:
                found.leave_out("metrics that cannot be kept")
            else:
                kept[name] = value
        if not kept:
            return None
        return StepMetricEvent.unpublished(source, step, kept, **more)


def histogram_event(
    source: str,
    name: str,
    step: int,
    bins: Iterable[tuple[float, float, float]],
) -> Event | None:
    """Return a histogram of bins (left, right, count); None where there is none.

    A bin without a width is counted with its neighbour.
    """
    edges: list[float] = []
    counts: list[float] = []
    carried = 0.0
    for left, right, count in bins:
        if not edges:
            edges.append(left)
        if right > edges[-1]:
            edges.append(right)
            counts.append(count + carried)
            carried = 0.0
        elif counts:
            counts[-1] += count
        else:
            carried += count
    if not counts:
        if not carried:
            return None
        # All values are the same one.
        width = max(abs(edges[0]), 1.0) * 1e-6
        edges, counts = [edges[0] - width, edges[0] + width], [carried]
    return log_events.HistogramEvent.unpublished(source, name, step, counts, edges)
