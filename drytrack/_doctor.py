"""Checking the record and the journal of a run against each other, and repairing."""

from __future__ import annotations

import json
import pathlib
import re
import uuid
from typing import Any, NamedTuple

from drytrack import _digest
from drytrack.core import _record
from drytrack.core._atomic import replace_file
from drytrack.core.exceptions import JournalError, RecordError
from drytrack.core.journal import JournalReader
from drytrack.core.log_events import (
    Event,
    MetricEvent,
    StartExperimentEvent,
    StepMetricEvent,
    StopExperimentEvent,
)

DAMAGED = "record.json.damaged"
MAX_TOLD = 20
"""Damaged lines of one journal that are told one by one."""

_UUID = re.compile(rb'"uuid":\s*"([0-9a-f]{8}-[0-9a-f-]{27})"')


class Problem(NamedTuple):
    """Something wrong with a run.

    Attributes:
        part: ``record``, ``journal`` or ``store``.
        text: What it is.
        repairable: Whether `repair` sets it right.
    """

    part: str
    text: str
    repairable: bool


class Story(NamedTuple):
    """What a journal tells of its run.

    Attributes:
        starts: The start events.
        stops: Attempt → its stop event, where it has one.
        last: The last event.
        steps: Source → its last step.
        missing: Sequence numbers that are missing: first, last.
        n_points: How many values of metrics there are.
        reader: Who has read it.
    """

    starts: list[StartExperimentEvent]
    stops: dict[int, StopExperimentEvent]
    last: Event | None
    steps: dict[str, int]
    missing: list[tuple[int, int]]
    n_points: int
    reader: JournalReader


def check(folder: pathlib.Path) -> list[Problem]:
    """Look for what is wrong with a run.

    Args:
        folder: The run's folder.
    """
    problems: list[Problem] = []
    story = None
    try:
        story = read_story(folder)
    except JournalError as err:
        if JournalReader(folder).exists or _has_started(folder):
            problems.append(Problem("journal", str(err), repairable=False))
    try:
        record = _record.read_record(folder)
    except RecordError as err:
        told = story is not None and bool(story.starts)
        problems.insert(0, Problem("record", str(err), repairable=told))
        record = None
    if story is not None:
        problems += _check_journal(folder, story)
    if record is not None:
        problems += _check_record(folder, record, story)
    return problems


def repair(folder: pathlib.Path, known_uuid: str | None = None) -> None:
    """Set right what `check` calls repairable; the damaged record is kept beside.

    Args:
        folder: The run's folder.
        known_uuid: The run's UUID as others know it, if the record is lost.

    Raises:
        RunHeldError: If a living process holds the run.
        JournalError: If the journal cannot be read.
        OSError: If the record cannot be written.
    """
    story = read_story(folder)
    try:
        record = _record.read_record(folder)
    except RecordError:
        rebuilt = rebuild(folder, story, known_uuid)
    else:
        rebuilt = dict(record.data)
    rebuilt |= _outcome(folder, story, rebuilt["attempts"])
    _record.check_free(_record.RunRecord(folder, rebuilt, rebuilt["status"]))
    text = json.dumps(_record.tag_non_finite(rebuilt), indent=1, ensure_ascii=False)
    path = folder / _record.RECORD
    if "rebuilt" in rebuilt and path.exists():
        replace_file(folder / DAMAGED, path.read_bytes())
    replace_file(path, text.encode("utf-8", "replace"))
    (folder / _digest.FILE).unlink(missing_ok=True)


def read_story(folder: pathlib.Path) -> Story:
    """Read a journal for what it tells of its run.

    Raises:
        JournalError: If there is none, or a newer version wrote it.
    """
    reader = JournalReader(folder)
    story = Story([], {}, None, {}, [], 0, reader)
    seq = n_points = 0
    last: Event | None = None
    for event in reader.read():
        assert event.stamp is not None  # as all that are read have
        if event.stamp.seq > seq + 1:
            story.missing.append((seq + 1, event.stamp.seq - 1))
        seq = max(seq, event.stamp.seq)
        match event:
            case StartExperimentEvent():
                story.starts.append(event)
            case StopExperimentEvent():
                story.stops[event.stamp.attempt] = event
            case StepMetricEvent():
                story.steps[event.source_name] = event.step
                n_points += len(event.metrics)
            case MetricEvent():
                n_points += len(event.metrics)
        last = event
    return story._replace(last=last, n_points=n_points)


def rebuild(
    folder: pathlib.Path, story: Story, known_uuid: str | None = None
) -> dict[str, Any]:
    """Return the record that a journal tells of.

    The UUID is taken from what is left of the old record, or from who else knows
    it; trackers that know the run by it would else take it for another one.
    """
    first, newest = story.starts[0], story.starts[-1]
    assert first.stamp is not None  # as all that are read have
    try:
        kept = _UUID.search((folder / _record.RECORD).read_bytes())
    except OSError:
        kept = None
    created = first.run_ts
    return {
        "schema": _record.SCHEMA,
        "uuid": kept[1].decode() if kept else known_uuid or str(uuid.uuid4()),
        "id": folder.name,
        "experiment": folder.parent.name,
        "created": created.timestamp()
        if hasattr(created, "timestamp")
        else first.stamp.time,
        "attempts": [],
        "trackers": {},
        "tags": list(newest.tags),
        "description": newest.description,
        "rebuilt": True,
    }


def _outcome(
    folder: pathlib.Path, story: Story, known: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return the entries of a record that the journal knows better."""
    attempts = []
    by_number = {entry.get("attempt"): entry for entry in known}
    for start in story.starts:
        assert start.stamp is not None  # as all that are read have
        entry = dict(by_number.get(start.attempt, {"environment": {}}))
        entry.setdefault("attempt", start.attempt)
        entry.setdefault("started", start.stamp.time)
        stop = story.stops.get(start.attempt)
        if stop is not None:
            assert stop.stamp is not None  # as all that are read have
            entry.setdefault("ended", stop.stamp.time)
            entry.update(status=stop.status, error=stop.error)
        attempts.append(entry)
    # A start that came before its record and its journal: it holds the run.
    newest = _record.newest_attempt(attempts)
    attempts += [
        {"attempt": number, "environment": {}}
        for number in range(newest + 1, _record.last_attempt(folder) + 1)
    ]
    stop = story.stops.get(_record.newest_attempt(attempts))
    last = story.last.stamp if story.last is not None else None
    reader = story.reader
    return {
        # Without a stop its process is gone, which reads as crashed.
        "status": stop.status if stop is not None else "running",
        "error": dict(stop.error) if stop is not None and stop.error else None,
        "attempts": attempts,
        "summary": dict(stop.summary) if stop is not None else {},
        "journal": {
            "bytes": reader.position.offset,
            "seq": last.seq if last is not None else 0,
            "steps": story.steps,
            "incomplete_from": story.missing[0][0] if story.missing else None,
            "missing": [list(pair) for pair in story.missing],
        },
    }


def _check_journal(folder: pathlib.Path, story: Story) -> list[Problem]:
    problems = []
    reader = story.reader
    for damage in reader.damage[:MAX_TOLD]:
        text = f"the line at byte {damage.offset} cannot be read: {damage.reason}"
        problems.append(Problem("journal", text, repairable=False))
    if reader.damaged > MAX_TOLD:
        text = f"{reader.damaged - MAX_TOLD} more lines cannot be read"
        problems.append(Problem("journal", text, repairable=False))
    for first, last in story.missing:
        text = f"events {first} to {last} are missing"
        problems.append(Problem("journal", text, repairable=False))
    names = {(start.exp_name, start.run_id) for start in story.starts}
    if names - {(folder.parent.name, folder.name)}:
        listed = ", ".join("/".join(name) for name in sorted(names))
        text = f"it is of {listed}, its folder is {folder.parent.name}/{folder.name}"
        problems.append(Problem("journal", text, repairable=False))
    if story.starts and len(story.starts) != len({s.attempt for s in story.starts}):
        problems.append(Problem("journal", "an attempt starts twice", repairable=False))
    return problems


def _check_record(
    folder: pathlib.Path, record: _record.RunRecord, story: Story | None
) -> list[Problem]:
    problems = []
    if (record.experiment, record.id) != (folder.parent.name, folder.name):
        text = (
            f"it is of {record.experiment}/{record.id}, its folder is "
            f"{folder.parent.name}/{folder.name}"
        )
        problems.append(Problem("record", text, repairable=False))
    if story is None or record.status in ("running", "stalled", "created"):
        return problems
    known = record.data.get("journal", {}).get("seq")
    last = story.last.stamp.seq if story.last and story.last.stamp else 0
    ended = record.data["status"] in _record.ENDED
    if isinstance(known, int) and known > last:
        text = f"it knows {known} events, the journal ends with event {last}"
        problems.append(Problem("journal", text, repairable=False))
    newest = max((start.attempt for start in story.starts), default=0)
    if newest > record.attempt:
        text = f"it ends with attempt {record.attempt}, the journal with {newest}"
        problems.append(Problem("record", text, repairable=True))
    stop = story.stops.get(record.attempt)
    if stop is not None and stop.status != record.data["status"]:
        told = record.status
        text = f"it says {told}, the journal ends with {stop.status}"
        problems.append(Problem("record", text, repairable=True))
    if stop is None and ended and not story.missing and known == last:
        text = f"it says {record.status}, the journal has no end"
        problems.append(Problem("record", text, repairable=False))
    return problems


def _has_started(folder: pathlib.Path) -> bool:
    return _record.last_attempt(folder) > 0
