"""What a run of another tool is made of, before it is recorded."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from drytrack.core.exceptions import EventValueError
from drytrack.core.log_events import Event, HistogramEvent, StepMetricEvent

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
    return HistogramEvent.unpublished(source, name, step, counts, edges)
