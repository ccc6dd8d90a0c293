"""What `Run.log` makes of a value: a metric, or the event that fits its type."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from drytrack.core import _distribution, _door
from drytrack.core._history import series_name
from drytrack.core._media import MediaFile
from drytrack.core._names import shorten
from drytrack.core.exceptions import EventValueError
from drytrack.core.log_events import (
    Event,
    FigureEvent,
    HistogramEvent,
    ImageEvent,
    TableEvent,
    TextEvent,
)

SOURCE = "run"
"""The ``source_name`` of what is logged on the run itself."""

Labels = Mapping[str, Any]


class Bundle:
    """What one call logs at one step.

    Attributes:
        metrics: Name → value.
        events: Everything else, as unpublished events.
    """

    def __init__(self, step: int, axis: str, labels: Labels) -> None:
        """Start empty.

        Args:
            step: The step.
            axis: What it counts.
            labels: The context.
        """
        self.step = step
        self.axis = axis
        self.labels = labels
        self.metrics: dict[str, float] = {}
        self.events: list[Event] = []

    def add(
        self, values: object, on_error: Callable[[EventValueError], None] | None
    ) -> None:
        """Add what a user has passed.

        Args:
            values: A mapping, possibly nested.
            on_error: Called with each value's error; None raises it.

        Raises:
            EventValueError: If a value or a name is refused; nothing is added.
        """
        metrics: dict[str, float] = {}
        events: list[Event] = []
        for name, value in flatten(values).items():
            try:
                event = make_event(name, value, self.step, self.labels)
                if event is None:
                    metrics.update(_door.metrics({name: value}, "values"))
                else:
                    events.append(event)
            except EventValueError as err:
                if on_error is None:
                    raise
                on_error(err)
        self.metrics.update(metrics)
        self.events += events


def flatten(values: object) -> dict[str, Any]:
    """Return a nested mapping as one level, the levels' names joined by ``/``.

    Raises:
        EventValueError: If it is no mapping, a key is neither text nor an
            integer, or two paths come to the same name.
    """
    if not isinstance(values, Mapping):
        msg = (
            f"values must map names to values, got {type(values).__name__}. Pass a "
            f"dictionary such as {{'loss': 0.1}}."
        )
        raise EventValueError(msg)
    flat: dict[str, Any] = {}

    def walk(prefix: str, mapping: Mapping[Any, Any], depth: int) -> None:
        if depth > 50:  # nobody nests so deep but by a cycle
            msg = f"{prefix!r} is nested more than 50 levels deep. Is it in itself?"
            raise EventValueError(msg)
        for key, value in mapping.items():
            if isinstance(key, bool) or not isinstance(key, (str, int)):
                msg = (
                    f"a name in values must be text, got {type(key).__name__} "
                    f"{shorten(key)}. Pass str(…) of it, or join its parts with '/'."
                )
                raise EventValueError(msg)
            name = f"{prefix}/{key}" if prefix else str(key)
            if isinstance(value, Mapping):
                walk(name, value, depth + 1)
            elif name in flat:
                msg = f"values hold {name!r} twice, nested and flat. Rename one."
                raise EventValueError(msg)
            else:
                flat[name] = value

    walk("", values, 0)
    return flat


def make_event(name: str, value: Any, step: int, labels: Labels) -> Event | None:
    """Return the event for a value; None for a metric, or what ought to be one."""
    if type(value) in (float, int, bool):
        return None
    if isinstance(value, str):
        return TextEvent.unpublished(SOURCE, media_name(name, labels), step, value)
    if is_figure(value):
        return FigureEvent.unpublished(SOURCE, media_name(name, labels), step, value)
    caption = getattr(value, "_caption", None)  # of W&B's Image
    if _is_of(value, "wandb", "Image") and value.image is not None:
        value = value.image
    if is_image(value):
        named = media_name(name, labels)
        return ImageEvent.unpublished(SOURCE, named, step, value, caption)
    if is_table(value):
        return make_table(name, value, None, step, labels)
    if _is_of(value, "wandb", "Histogram"):
        counts, edges = list(value.histogram), list(value.bins)
        return HistogramEvent.unpublished(SOURCE, name, step, counts, edges, labels)
    if _size(value) > 1:
        return make_histogram(name, value, step, labels)
    return None


def make_histogram(
    name: str,
    values: Any,
    step: int,
    labels: Labels,
    n_bins: int = _distribution.BINS,
    tell: Callable[[str], None] | None = None,
) -> HistogramEvent | None:
    """Return the histogram of values; None where none of them is finite."""
    found = _distribution.count(values, f"histogram {name!r}", n_bins)
    if (found is None or found.n_left_out) and tell is not None:
        which = "no finite value" if found is None else f"{found.n_left_out} values"
        what = "and is left out" if found is None else "that are NaN or infinite"
        tell(f"histogram {name!r} has {which} {what}. Look for where they come from.")
    if found is None:
        return None
    return HistogramEvent.unpublished(
        SOURCE, name, step, found.counts, found.bin_edges, labels
    )


def make_table(
    name: str, table: Any, rows: Iterable[Any] | None, step: int, labels: Labels
) -> TableEvent:
    """Return the event of a table.

    Args:
        name: Its name.
        table: The names of the columns; or, without ``rows``, a data frame, a
            list of mappings, or a mapping of columns.
        rows: The rows.
        step: The step.
        labels: The context.

    Raises:
        EventValueError: If it is none of these, or does not fit together.
    """
    columns: Sequence[str]
    if rows is not None:
        columns = table
    elif hasattr(table, "columns") and hasattr(table, "itertuples"):  # pandas
        columns = [str(column) for column in table.columns]
        rows = table.itertuples(index=False, name=None)
    elif hasattr(table, "columns") and hasattr(table, "rows"):  # polars
        columns, rows = list(table.columns), table.rows()
    elif hasattr(table, "columns") and hasattr(table, "data"):  # W&B's Table
        columns, rows = [str(column) for column in table.columns], table.data
    elif isinstance(table, Mapping):
        columns = [str(column) for column in table]
        lengths = {key: len(column) for key, column in table.items()}
        if len(set(lengths.values())) > 1:
            msg = (
                f"table {name!r} has columns of different lengths: {lengths}. Fill the "
                f"short ones with None."
            )
            raise EventValueError(msg)
        rows = zip(*table.values(), strict=True)
    elif _is_records(table):
        columns = list(dict.fromkeys(str(key) for row in table for key in row))
        rows = [[row.get(column) for column in columns] for row in table]
    else:
        msg = (
            f"table {name!r} must be a data frame, a list of dictionaries, or columns "
            f"and rows, got {type(table).__name__}. Pass columns=[…], rows=[[…], …]."
        )
        raise EventValueError(msg)
    return TableEvent.unpublished(SOURCE, media_name(name, labels), step, columns, rows)


def media_name(name: str, labels: Labels) -> str:
    """Return the name of what has no context of its own, with the labels in it."""
    return series_name(name, labels)


def is_figure(value: object) -> bool:
    """Return whether a value is a figure, or axes, of matplotlib or plotly."""
    return (
        hasattr(value, "savefig")
        or hasattr(value, "to_plotly_json")
        or (hasattr(value, "get_figure") and hasattr(value, "plot"))
    )


def is_image(value: object) -> bool:
    """Return whether a value can only be meant as an image.

    Of arrays these are the ones with three or four channels, or one where the
    shape says so, and gray ones of bytes; others are taken for weights.
    """
    if isinstance(value, (MediaFile, pathlib.PurePath)):
        return True
    if _is_of(value, "PIL", "") and hasattr(value, "save"):
        return True
    shape = getattr(value, "shape", None)
    if (
        shape is None or not hasattr(value, "dtype") or _size(value) < 2
    ):  # a pixel is a number
        return False
    if len(shape) == 2:  # height and width
        return "uint8" in str(getattr(value, "dtype", ""))
    return len(shape) == 3 and (
        shape[2] in (1, 3, 4) or shape[0] in (1, 3, 4)
    )  # and channels


def is_table(value: object) -> bool:
    """Return whether a value is a data frame, W&B's table, or a list of records."""
    if _is_of(value, "wandb", "Table"):
        return True
    frame = hasattr(value, "columns") and hasattr(value, "shape")
    return frame or _is_records(value)


def _is_records(value: object) -> bool:
    return (
        isinstance(value, (list, tuple))
        and bool(value)
        and all(isinstance(row, Mapping) for row in value)
    )


def _is_of(value: object, package: str, class_name: str) -> bool:
    for cls in type(value).__mro__:
        if cls.__module__.partition(".")[0] == package:
            return not class_name or type(value).__name__ == class_name
    return False


def _size(value: object) -> int:
    """Return the number of elements of an array of numbers; 0 for none."""
    shape = getattr(value, "shape", None)
    if not isinstance(shape, (tuple, list)) and type(shape).__name__ != "Size":
        return 0
    size = 1
    for length in shape or ():
        size *= int(length)
    return size
