"""Which attempt of a run an event belongs to, as a database tells it.

A point has no column for its attempt: the sequence numbers at which attempts
begin say it for all of them.
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from drytrack.core._history import Attempt
from drytrack.core.log_events import LoadModelEvent
from drytrack.trackers import _sql_schema as schema
from drytrack.trackers._sql_rows import Row

if TYPE_CHECKING:
    import sqlalchemy as sa

    from drytrack.trackers._sql_points import Break


class Progress:
    """Starts and rewinds of a run, and how far its models have come.

    Attributes:
        start: Number of the start that is on.
        at: The newest sequence number that was passed; what is not behind it
            needs a `move`.
    """

    def __init__(self) -> None:
        """Start before the first event."""
        self.start = 0
        self.at = 0
        self._epochs: dict[str, int] = {}
        self._counts: dict[str, int] = {}
        self._starts: dict[int, int] = {}
        self._rewinds: dict[int, tuple[int, str]] = {}

    def load(
        self, connection: sa.Connection, run_id: int, text: str | None, seq: int
    ) -> None:
        """Read what the database has of a run; called once.

        Args:
            connection: The database.
            run_id: The run.
            text: What `dump` had returned.
            seq: The newest sequence number in the database.
        """
        table = schema.attempts
        query = table.select().where(table.c.run_id == run_id)
        for row in connection.execute(query):
            self._starts[row.number] = row.first_seq
        table = schema.rewinds
        query = table.select().where(table.c.run_id == run_id)
        for row in connection.execute(query):
            self._rewinds[row.seq] = row.attempt, row.model
        if text:
            kept = json.loads(text)
            self.start, self._epochs = kept["start"], kept["epochs"]
            self.at = seq
            self._count()

    def dump(self) -> str:
        """Return what the tables do not say, as text."""
        return json.dumps({"start": self.start, "epochs": self._epochs})

    def knows(self, number: int) -> bool:
        """Return whether the database has something of a start."""
        return number in self._starts

    def note_start(self, number: int, first_seq: int) -> None:
        """Take note of a start event."""
        self._starts[number] = first_seq

    def move(self, seq: int, start: int) -> list[Row]:
        """Go to an event of another start, or back; return what is to be kept."""
        # A start forgets, as in `drytrack.core._history.AttemptCounter`.
        self.start, self.at = start, seq
        self._epochs = {}
        self._count()
        if start in self._starts:
            return []
        self._starts[start] = seq  # the start event itself was not seen
        return [Row(schema.attempts, ("number", "first_seq"), (start, seq))]

    def see_epoch(self, model: str, epoch: int) -> None:
        """Take note of how far a model has come."""
        if epoch > self._epochs.get(model, 0):
            self._epochs[model] = epoch

    def is_rewind(self, seq: int, event: LoadModelEvent) -> bool:
        """Return whether an event begins an attempt of its model."""
        if seq in self._rewinds:
            return True
        reached = self._epochs.get(event.model_name, 0)
        return event.epoch is not None and event.epoch < reached

    def rewind(self, seq: int, event: LoadModelEvent) -> Row:
        """Begin an attempt; return its row."""
        assert event.epoch is not None  # it is a rewind
        model = event.model_name
        self._rewinds[seq] = self.start, model
        self._epochs[model] = event.epoch
        self.at = seq
        self._count()
        columns = ("seq", "attempt", "model", "epoch")
        return Row(schema.rewinds, columns, (seq, self.start, model, event.epoch))

    def attempt(self, model: str) -> Attempt:
        """Return the attempt that is on for a model, or for none ("")."""
        return self.start, self._counts.get(model, 0)

    def breaks(self, model: str) -> list[Break]:
        """Return where each attempt of a model begins."""
        rewinds = [(seq, start, name) for seq, (start, name) in self._rewinds.items()]
        return find_breaks(self._starts.items(), rewinds, model)

    def _count(self) -> None:
        self._counts = {}
        for seq, (start, model) in self._rewinds.items():
            if start == self.start and seq <= self.at:
                self._counts[model] = self._counts.get(model, 0) + 1
        if self._counts:
            self._counts[""] = sum(self._counts.values())


def find_breaks(
    starts: Iterable[tuple[int, int]],
    rewinds: Iterable[tuple[int, int, str]],
    model: str,
) -> list[Break]:
    """Return where each attempt of a model begins, by sequence number.

    Args:
        starts: Number and first sequence number of each start.
        rewinds: Sequence number, start and model of each rewind.
        model: The model; "" for what belongs to none.
    """
    breaks = [(first_seq, (number, 0)) for number, first_seq in starts]
    counts: dict[int, int] = {}
    for seq, start, name in sorted(rewinds):
        if not model or name == model:
            counts[start] = counts.get(start, 0) + 1
            breaks.append((seq, (start, counts[start])))
    return sorted(breaks)


def attempt_at(breaks: list[Break], seq: int) -> Attempt:
    """Return the attempt that an event belongs to."""
    index = bisect.bisect_right(breaks, seq, key=lambda item: item[0])
    return breaks[max(0, index - 1)][1] if breaks else (1, 0)
