"""Reading a CSV file that something else has written: a row for each epoch or step."""

from __future__ import annotations

import contextlib
import csv
import datetime
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from drytrack._import_model import Attempt, ForeignRun, Timed, metric_event
from drytrack.core import log_events
from drytrack.core.exceptions import ConfigurationError, EventValueError

EPOCH = "epoch"
STEPS = (EPOCH, "step", "global_step")
_UNREADABLE = (OSError, UnicodeDecodeError, csv.Error)
TIMES = ("timestamp", "wall_time", "_timestamp", "wall time")


class Columns(NamedTuple):
    """Which columns say what the others do not.

    Attributes:
        step: Of epochs or steps; None where the rows are counted.
        by_epoch: Whether it holds epochs.
        time: Of times; None where all rows have the time of the file.
    """

    step: int | None
    by_epoch: bool
    time: int | None


def find_run(
    path: pathlib.Path,
    *,
    experiment: str,
    run_id: str,
    step_column: str | None = None,
    by_epoch: bool | None = None,
    time_column: str | None = None,
    model: str = "model",
    source: str = "import",
    params: Mapping[str, Any] | None = None,
) -> ForeignRun:
    """Return the run of a file.

    Args:
        path: A CSV file with a header, in UTF-8.
        experiment: Name of the experiment.
        run_id: Id of the run.
        step_column: The column of epochs or steps; by default one of that name,
            or else the rows are counted as steps, from 1.
        by_epoch: Whether the column holds epochs; by default if it is called so.
        time_column: The column of times, in seconds since the epoch or as ISO
            8601 has them; by default ``timestamp``, or else the file's own.
        model: Name of the model.
        source: Who measured.
        params: The run's configuration.

    Raises:
        ConfigurationError: If the file cannot be read, or has no header, no rows,
            no such column; when its rows are read, if a step is no whole number.
    """
    path = path.absolute()
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            header = next(rows, [])
            has_rows = next(rows, None) is not None
        modified = path.stat().st_mtime
    except _UNREADABLE as err:
        raise ConfigurationError(f"{path} cannot be read: {err}.") from err
    if not header or not has_rows:
        raise ConfigurationError(f"{path} has no rows. Give it a header and rows.")
    place, by_epoch = _find_steps(path, header, step_column, by_epoch=by_epoch)
    columns = Columns(place, by_epoch, _find_times(path, header, time_column))
    found = ForeignRun(
        "csv",
        place=str(path),
        key=f"{path.as_posix()}:{run_id}",
        experiment=experiment,
        run_id=run_id,
        attempts=[],
        config=dict(params or {}),
    )
    events = _read_events(found, path, columns, modified, model, source)
    found.attempts = [Attempt(_explain(path, events))]
    return found


def _explain(path: pathlib.Path, events: Iterator[Timed]) -> Iterator[Timed]:
    try:
        yield from events
    except _UNREADABLE as err:
        raise ConfigurationError(f"{path} cannot be read: {err}.") from err


def _read_events(
    found: ForeignRun,
    path: pathlib.Path,
    columns: Columns,
    time_s: float,
    model: str,
    source: str,
) -> Iterator[Timed]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file)
        header = next(rows)
        for number, row in enumerate(rows, 1):
            step = _read_step(path, number + 1, row, columns.step, number)
            time_s = _read_time(row, columns.time, time_s)
            metrics = {}
            for at, (name, text) in enumerate(zip(header, row, strict=False)):
                name = name.strip()
                if at in columns[::2] or not text.strip() or not name:
                    continue
                try:
                    metrics[name] = float(text)
                except ValueError:
                    found.leave_out("cells without a number")
            if not metrics:
                continue
            if not columns.by_epoch:
                event = metric_event(found, source, step, metrics, model_name=model)
                if event is not None:
                    yield time_s, event
                continue
            try:
                of_epoch = log_events.MetricEvent.unpublished(
                    model, source, step, metrics
                )
            except EventValueError as err:
                msg = f"{path}, line {number + 1}: {err}"
                raise ConfigurationError(msg) from err
            yield time_s, of_epoch


def _find_steps(
    path: pathlib.Path, header: list[str], column: str | None, *, by_epoch: bool | None
) -> tuple[int | None, bool]:
    lowered = [name.strip().lower() for name in header]
    if column is not None:
        place = _place_of(path, header, column)
        return place, lowered[place] == EPOCH if by_epoch is None else by_epoch
    for name in STEPS:
        if name in lowered:
            return lowered.index(name), name == EPOCH
    return None, False


def _find_times(
    path: pathlib.Path, header: list[str], column: str | None
) -> int | None:
    if column is not None:
        return _place_of(path, header, column)
    lowered = [name.strip().lower() for name in header]
    return next((lowered.index(name) for name in TIMES if name in lowered), None)


def _place_of(path: pathlib.Path, header: list[str], column: str) -> int:
    if column not in header:
        msg = f"{path} has no column {column!r}. It has: {', '.join(header)}."
        raise ConfigurationError(msg)
    return header.index(column)


def _read_step(
    path: pathlib.Path, line: int, row: list[str], place: int | None, number: int
) -> int:
    if place is None:
        return number
    text = row[place] if place < len(row) else ""
    try:
        value = float(text)
        step = int(value)
    except (ValueError, OverflowError):
        value, step = -1.0, 0
    if step != value:
        msg = f"{path}, line {line}: {text!r} is no whole number of an epoch or step."
        raise ConfigurationError(msg)
    return step


def _read_time(row: list[str], place: int | None, before: float) -> float:
    """Return the time of a row; of one without any, that of the row before."""
    text = row[place].strip() if place is not None and place < len(row) else ""
    for read in (float, _read_iso):
        with contextlib.suppress(ValueError, OverflowError):  # it is written otherwise
            value = read(text)
            return value if math.isfinite(value) else before
    return before


def _read_iso(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()
