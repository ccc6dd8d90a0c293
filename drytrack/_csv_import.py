"""Making a recorded run of a CSV file that something else has written."""

from __future__ import annotations

import csv
import itertools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from drytrack.core import log_events
from drytrack.core.exceptions import ConfigurationError
from drytrack.core.experiment import Experiment


class Imported(NamedTuple):
    """What an import has made.

    Attributes:
        run: Experiment and id of the run.
        metrics: The metrics, in the order of their columns.
        rows: How many rows were read.
        points: How many values were published.
        skipped: Cells that held something else than a number.
    """

    run: str
    metrics: list[str]
    rows: int
    points: int
    skipped: int


def import_csv(  # each is one thing that the file does not say
    path: pathlib.Path,
    *,
    par_dir: pathlib.Path,
    experiment: str,
    run_id: str,
    column: str | None = None,
    by_epoch: bool | None = None,
    model: str = "model",
    source: str = "import",
    params: Mapping[str, Any] | None = None,
    tags: Sequence[str] = (),
) -> Imported:
    """Publish the rows of a file in a new run that nothing but its journal watches.

    Args:
        path: A CSV file with a header, in UTF-8.
        par_dir: Where to record the run.
        experiment: Name of the experiment.
        run_id: Id of the run.
        column: The column of epochs or steps; by default one of that name, or
            else the rows are counted as steps, from 1.
        by_epoch: Whether the column holds epochs; by default if it is called so.
        model: Name of the model.
        source: Who measured.
        params: The run's configuration.
        tags: Labels.

    Raises:
        ConfigurationError: If the file has no header or no such column, or a
            step is no whole number.
        RunExistsError: If there is such a run.
        InvalidNameError: If a name cannot be kept.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        first = next(rows, None)
        if not header or first is None:
            raise ConfigurationError(f"{path} has no rows. Give it a header and rows.")
        place, by_epoch = _find_column(path, header, column, by_epoch=by_epoch)
        # Refused before a run is made of it.
        _read_step(path, 2, first, place, 1)
        tracked = Experiment(
            dict(params or {}), name=experiment, par_dir=par_dir, tags=tags
        )
        tracked.trackers.remove_all()
        points = skipped = n_rows = 0
        found: dict[str, None] = {}
        with tracked.create_run(run_id) as run:
            for n_rows, row in enumerate(itertools.chain([first], rows), 1):
                step = _read_step(path, n_rows + 1, row, place, n_rows)
                metrics = {}
                for name, value in _read_cells(header, row, place):
                    if value is None:
                        skipped += 1
                    else:
                        metrics[name] = value
                if not metrics:
                    continue
                if by_epoch:
                    log_events.MetricEvent(model, source, step, metrics)
                else:
                    log_events.StepMetricEvent(source, step, metrics, model_name=model)
                points += len(metrics)
                found.update(dict.fromkeys(metrics))
    name = f"{tracked.name}/{run.id}"
    return Imported(name, list(found), n_rows, points, skipped)


def _find_column(
    path: pathlib.Path, header: list[str], column: str | None, *, by_epoch: bool | None
) -> tuple[int | None, bool]:
    lowered = [name.strip().lower() for name in header]
    if column is not None:
        if column not in header:
            msg = f"{path} has no column {column!r}. It has: {', '.join(header)}."
            raise ConfigurationError(msg)
        place = header.index(column)
        return place, lowered[place] == "epoch" if by_epoch is None else by_epoch
    for name in ("epoch", "step", "global_step"):
        if name in lowered:
            return lowered.index(name), name == "epoch"
    return None, False


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


def _read_cells(
    header: list[str], row: list[str], place: int | None
) -> Iterator[tuple[str, float | None]]:
    """Return the metrics of a row; None for what is no number, nothing for nothing."""
    for at, (name, text) in enumerate(zip(header, row, strict=False)):
        if at == place or not text.strip() or not name.strip():
            continue
        try:
            yield name.strip(), float(text)
        except ValueError:
            yield name.strip(), None
