"""Feeding the journal of a run to trackers, as if the run went on now."""

from __future__ import annotations

import functools
import pathlib
import sys
import types
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from drytrack.core._guest import Guest, Handle
from drytrack.core._record import RunRecord, read_record
from drytrack.core._warn import warn
from drytrack.core.exceptions import (
    JournalError,
    RecordError,
    RecordWarning,
    TrackerExceptionWarning,
)
from drytrack.core.journal import JournalReader, Position
from drytrack.core.log_events import (
    Event,
    StartExperimentEvent,
    StopExperimentEvent,
)
from drytrack.core.run import Run
from drytrack.core.track import Tracker

if TYPE_CHECKING:
    import os

__all__ = ["Replayed", "replay"]

FLUSH_EVERY = 512
"""Events between two calls of `Tracker.flush`, as in the background."""


class Replayed(NamedTuple):
    """What a replay has done.

    Attributes:
        events: How many events were read.
        failed: How often a tracker's handler raised, by the tracker's name.
        damaged: How many lines of the journal could not be read.
    """

    events: int
    failed: dict[str, int]
    damaged: int


def replay(
    run: Run[Any] | RunRecord | str | os.PathLike[str],
    trackers: Tracker | Iterable[Tracker],
    from_seq: int = 1,
    *,
    on_event: Callable[[Event], None] | None = None,
) -> Replayed:
    """Feed the journal of a run to trackers.

    They cannot tell it from a live run: they get every event in its order, with
    its original `Event.stamp`, and stop at the end. A tracker that keeps what it
    was given by run and sequence number takes nothing twice.

    Args:
        run: A run, its record, or its folder; it may still be going on.
        trackers: Trackers that watch no run.
        from_seq: The first sequence number to feed, behind the start event,
            which is always fed.
        on_event: Called after each event, for a progress bar.

    Returns:
        What was read and what failed.

    Raises:
        JournalError: If there is no journal, or a newer version wrote it.
    """
    folder = find_folder(run)
    fed = [trackers] if isinstance(trackers, Tracker) else list(trackers)
    reader = JournalReader(folder)
    states = _read_states(folder)
    guests = [Guest(str(tracker.name), tracker) for tracker in fed]
    start: StartExperimentEvent | None = None
    last: Event | None = None
    count = 0
    handlers: dict[type[Event], list[tuple[Guest, Handle]]] = {}
    try:
        for event in _with_start(reader, from_seq):
            if isinstance(event, StartExperimentEvent):
                start = event
                for guest in guests:
                    guest.open(event, states.setdefault(guest.name, {}), reader)
            kind = type(event)
            if kind not in handlers:
                handlers[kind] = _find_handlers(guests, kind)
            for guest, handler in handlers[kind]:
                try:
                    handler(event)
                except Exception as err:  # noqa: BLE001  # isolation, as in a live run
                    _note_failure(guest, kind.__name__, err)
            last = event
            count += 1
            if count % FLUSH_EVERY == 0:
                _each(guests, "flush")
            if on_event is not None:
                on_event(event)
        if start is not None and not isinstance(last, StopExperimentEvent):
            stop = _make_stop(folder, start)
            for guest, handler in _find_handlers(guests, StopExperimentEvent):
                _attempt(guest, type(stop).__name__, functools.partial(handler, stop))
    finally:
        for guest in guests:
            for leave in guest.ways_out():
                _attempt(guest, "the end", leave)
    if reader.damaged:
        first = reader.damage[0]
        msg = (
            f"{reader.damaged} lines of the journal in {folder} could not be read; the "
            f"first at byte {first.offset}: {first.reason}."
        )
        warn(msg, RecordWarning)
    return Replayed(count, {g.name: g.failed for g in guests}, reader.damaged)


def find_folder(run: Run[Any] | RunRecord | str | os.PathLike[str]) -> pathlib.Path:
    """Return the folder of a run.

    Raises:
        JournalError: If the run is not recorded.
    """
    if isinstance(run, (Run, RunRecord)):
        if run.path is None:
            msg = f"Run {run.id!r} keeps no record, so there is nothing to replay."
            raise JournalError(msg)
        return run.path
    return pathlib.Path(run)


def _with_start(reader: JournalReader, from_seq: int) -> Iterable[Event]:
    """Read from a sequence number, with the start event before it."""
    if from_seq > 1:
        for event in reader.read():
            if isinstance(event, StartExperimentEvent):
                yield event
                break
        yield from reader.read(reader.find(from_seq - 1))
    else:
        yield from reader.read(Position())


def _find_handlers(
    guests: list[Guest], kind: type[Event]
) -> list[tuple[Guest, Handle]]:
    found = [(guest, guest.handler(kind)) for guest in guests]
    return [(guest, handler) for guest, handler in found if handler is not None]


def _attempt(guest: Guest, what: str, action: Callable[[], None]) -> None:
    try:
        action()
    except Exception as err:  # noqa: BLE001  # isolation, as in a live run
        _note_failure(guest, what, err)


def _note_failure(guest: Guest, what: str, err: Exception) -> None:
    guest.failed += 1
    if guest.failed == 1:
        msg = (
            f"Tracker {guest.name!r} failed on {what} during the replay: {err!r}. "
            f"Further failures are counted."
        )
        warn(msg, TrackerExceptionWarning)


def _each(guests: list[Guest], method: str) -> None:
    for guest in guests:
        _attempt(guest, method, getattr(guest.tracker, method))


def _read_states(folder: pathlib.Path) -> dict[str, dict[str, Any]]:
    try:
        kept = read_record(folder).data.get("trackers", {})
    except RecordError:
        return {}
    return {name: dict(entry.get("state", {})) for name, entry in kept.items()}


def _make_stop(
    folder: pathlib.Path, start: StartExperimentEvent
) -> StopExperimentEvent:
    """Make the end of a run that had none: it was killed, or it goes on."""
    status = "interrupted"
    try:
        record = read_record(folder)
        status = record.status
    except RecordError:
        pass
    return StopExperimentEvent.unpublished(start.exp_name, start.run_id, status)


class _CallableModule(types.ModuleType):
    """What makes ``drytrack.replay(…)`` work.

    The import system puts a module where its package has the function of that
    name, whenever it is imported: so the module is called like the function.
    """

    __call__ = staticmethod(replay)


sys.modules[__name__].__class__ = _CallableModule
